package store

import (
	"context"
	"time"
)

// What the worker does, for tests a step at a time: one look for at most limit rows, and one transaction for all of them.

func (s *Store) lookAndRun(ctx context.Context, step Step, limit int) (n int, more bool, err error) {
	found, err := s.Look(ctx, step, Look{Most: limit})
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
	return s.lookAndRun(ctx, stepNamed("no_show"), limit)
}

func (s *Store) CompleteEnded(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.lookAndRun(ctx, stepNamed("complete"), limit)
}

func (s *Store) ExpireOffers(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.lookAndRun(ctx, stepNamed("offer_expired"), limit)
}

func (s *Store) ExpireWaiting(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.lookAndRun(ctx, stepNamed("waiting_expired"), limit)
}

func (s *Store) RemindOfCheckIn(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.lookAndRun(ctx, stepNamed("remind"), limit)
}

func (s *Store) OfferFreeSeats(ctx context.Context, limit int) (n int, more bool, err error) {
	return s.lookAndRun(ctx, OfferStep, limit)
}

// NextDue returns how long it is until something comes due: 0 or less when something is due now, and false when nothing will be for as
// long as within.
func (s *Store) NextDue(ctx context.Context, within time.Duration) (next time.Duration, ok bool, err error) {
	return s.NextDueAfter(ctx, within, time.Time{})
}

// NextDueAfter is NextDue for looks that pass what is due up to a time.
func (s *Store) NextDueAfter(ctx context.Context, within time.Duration, after time.Time) (next time.Duration, ok bool, err error) {
	for _, step := range DueSteps {
		found, err := s.Look(ctx, step, Look{Most: 100, Within: within, After: after})
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
