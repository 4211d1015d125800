package store

import (
	"context"
	"time"
)

// Each of these methods runs one step of the worker for tests: one FindDue for at most limit rows,
// and one transaction for all seats that it found. n is the number of transitions. more reports
// that more may be due.

func (s *Store) findAndRun(ctx context.Context, step Step, limit int) (n int, more bool, err error) {
	found, err := s.FindDue(ctx, step, DueQuery{Most: limit})
	if err != nil || len(found.Seats) == 0 {
		return 0, false, err
	}
	n, busy, err := s.Run(ctx, step, found.Seats)
	return n, found.More || busy, err
}

func stepNamed(name string) Step {
	for _, step := range DueSteps {
		if step.Name == name {
			return step
		}
	}
	panic("no step " + name)
}

func (s *Store) MarkNoShows(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.findAndRun(ctx, stepNamed("no_show"), limit)
}

func (s *Store) CompleteEnded(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.findAndRun(ctx, stepNamed("complete"), limit)
}

func (s *Store) ExpireOffers(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.findAndRun(ctx, stepNamed("offer_expired"), limit)
}

func (s *Store) ExpireWaiting(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.findAndRun(ctx, stepNamed("waiting_expired"), limit)
}

func (s *Store) RemindOfCheckIn(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.findAndRun(ctx, stepNamed("remind"), limit)
}

func (s *Store) OfferFreeSeats(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.findAndRun(ctx, OfferStep, limit)
}

// NextDue returns the time until something is due, which is 0 or less if something is due now. It
// returns false if nothing is due within the given time.
func (s *Store) NextDue(ctx context.Context, within time.Duration) (next time.Duration, ok bool, err error) {
	return s.NextDueAfter(ctx, within, time.Time{})
}

// NextDueAfter is NextDue with a value for DueQuery.SkipBefore.
func (s *Store) NextDueAfter(
	ctx context.Context, within time.Duration, after time.Time,
) (next time.Duration, ok bool, err error) {
	for _, step := range DueSteps {
		found, err := s.FindDue(ctx, step, DueQuery{Most: 100, Within: within, SkipBefore: after})
		if err != nil {
			return 0, false, err
		}
		d := found.Next
		if len(found.Seats) > 0 {
			d = -found.Late
		}
		if (len(found.Seats) > 0 || d > 0) && (!ok || d < next) {
			next, ok = d, true
		}
	}
	return next, ok, nil
}
