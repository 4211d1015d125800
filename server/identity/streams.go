package identity

// Streams are the open streams of this replica that need a token.
type Streams interface {
	// End calls cause for the caller of each stream. If cause returns an error, End ends the stream
	// with this error.
	End(cause func(Caller) error)
	// Callers returns the callers of the open streams, by user id.
	Callers() map[int64][]Caller
}
