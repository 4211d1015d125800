package store

// Observer has callbacks for metrics. A nil function is not called. The functions must be fast and
// safe for concurrent use.
type Observer struct {
	// Batch gets the number of bookings of a committed batch.
	Batch func(bookings int)
	// Split gets the number of bookings of a batch that is retried in parts, because Postgres
	// refused it or its locks took too long.
	Split func(bookings int)
	// Judged gets the number of waitlist entries that one transaction considered for its offers.
	// Each of them fits by itself: the seat is free for the window of the entry, and the user can
	// claim it. Not all of them get an offer, because their windows may overlap.
	Judged func(entries int)
}

func (o Observer) batch(n int)  { observe(o.Batch, n) }
func (o Observer) split(n int)  { observe(o.Split, n) }
func (o Observer) judged(n int) { observe(o.Judged, n) }

func observe(f func(int), n int) {
	if f != nil {
		f(n)
	}
}
