package identity

// Streams are the open streams of this replica that need a token.
type Streams interface {
	// End ends the stream of each caller for which cause returns an error, with that error.
	End(cause func(Caller) error)
	// Callers returns the callers of the open streams, by user id.
	Callers() map[int64][]Caller
}
