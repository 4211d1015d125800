package identity

// Streams are the open streams of this replica, which end with their tokens.
type Streams interface {
	// End ends the streams of the callers for whom cause returns an error, with that error.
	End(cause func(Caller) error)
	// Callers returns the callers of the open streams that need a token, by user.
	Callers() map[int64][]Caller
}
