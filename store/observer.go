package store

// Observer is told what the store does, for metrics. What is nil is not called. The functions must be quick and safe for concurrent use.
type Observer struct {
	// Batch is told how many bookings a transaction was for.
	Batch func(bookings int)
	// Split is told of a batch of bookings that Postgres refused, or whose locks took too long, and that is tried again in parts.
	Split func(bookings int)
	// Judged is told how many waitlist entries were read, each of which fitted by itself, to serve the seats of one transaction.
	Judged func(entries int)
}

func (o Observer) batch(n int)  { tell(o.Batch, n) }
func (o Observer) split(n int)  { tell(o.Split, n) }
func (o Observer) judged(n int) { tell(o.Judged, n) }

func tell(f func(int), n int) {
	if f != nil {
		f(n)
	}
}
