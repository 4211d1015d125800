package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// staleness is what the checks of one contender found.
type staleness struct {
	contender *contender
	// busy has reads that follow a change at once, while others change other seats.
	busy staleCount
	// burst has bookings of a branch at the same moment, and no change afterwards.
	burst staleCount
	// begun is how long a list showed a seat as available after its reservation had begun. limited
	// means that the check ended before the list was right.
	begun   time.Duration
	limited bool
}

type staleCount struct {
	checked, stale int
	greatest       time.Duration
	limited        bool // a check ended before the list was right
}

// staleScale is the size of the checks.
type staleScale struct {
	checks int           // of each contender
	most   time.Duration // bounds the time of these checks
	// bursts is the time in which bursts begin. timeout bounds the wait for the right list after a
	// burst. It should be longer than the 60 s of the cache.
	bursts, timeout time.Duration
}

// staleUsers is the number of users who book in one branch, each a seat of its own.
const staleUsers = 24

// checker is a user who books and cancels one seat again and again, and judges the lists.
type checker struct {
	*freshness

	api    api
	branch string
	seat   int64
	users  users
	index  int
}

// staleChecks checks one contender.
func (b *bench) staleChecks(ctx context.Context, c *contender, scale staleScale) (staleness, error) {
	s := staleness{contender: c}
	checkers, done, err := newCheckers(ctx, c, "stale")
	if err != nil {
		return s, err
	}
	defer done()
	if s.busy, err = b.busyChecks(ctx, checkers, scale); err != nil {
		return s, err
	}
	b.progress("freshness, %s: %d of %d answers were stale, by at most %s", c.name, s.busy.stale, s.busy.checked,
		millis(s.busy.greatest))

	// The two slow checks use branches of their own, so they do not delete each other's lists.
	var slow errgroup.Group
	slow.Go(func() error {
		checkers, done, err := newCheckers(ctx, c, "burst")
		if err != nil {
			return err
		}
		defer done()
		s.burst, err = bursts(ctx, checkers, scale)
		return err
	})
	slow.Go(func() error {
		checkers, done, err := newCheckers(ctx, c, "begun")
		if err != nil {
			return err
		}
		defer done()
		s.begun, s.limited, err = checkers[0].begin(ctx, scale.timeout)
		return err
	})
	if err := slow.Wait(); err != nil {
		return s, err
	}
	b.progress("freshness, %s: after %d bursts, %d lists were stale, for at most %s; after the start of a reservation: %s",
		c.name, s.burst.checked, s.burst.stale, millis(s.burst.greatest), millis(s.begun))
	return s, nil
}

// code returns the name of a contender as it may stand in the code of a branch.
func code(c *contender) string { return strings.ToLower(c.name) }

// newCheckers adds a branch and users who can book its seats.
func newCheckers(ctx context.Context, c *contender, kind string) (checkers []*checker, done func(), err error) {
	branch := kind + "-" + code(c)
	seats, err := c.sys.addBranch(ctx, branch, staleUsers)
	if err != nil {
		return nil, nil, err
	}
	students, err := c.sys.addUsers(ctx, branch+"-", staleUsers)
	if err != nil {
		return nil, nil, err
	}
	a, err := c.dial()
	if err != nil {
		return nil, nil, err
	}
	f := newFreshness(seats)
	for i, seat := range seats {
		checkers = append(checkers, &checker{f, a, branch, seat, students, i})
	}
	// The replicas learn of the branch with the next refresh of the catalog.
	return checkers, a.close, untilListed(ctx, checkers[0])
}

// untilListed waits until the list of a branch has its seats.
func untilListed(ctx context.Context, b *checker) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		seats, err := b.api.available(ctx, b.branch)
		if err == nil && len(seats) == len(b.seats) {
			return nil
		}
		if until(ctx, time.Now().Add(50*time.Millisecond)) != nil {
			return fmt.Errorf("branch %s has %d seats, want %d: %w", b.branch, len(seats), len(b.seats), err)
		}
	}
}

// busyChecks has all users book and cancel their seats. Each reads the list after each answer.
func (b *bench) busyChecks(ctx context.Context, checkers []*checker, scale staleScale) (staleCount, error) {
	end := time.Now().Add(scale.most)
	var left atomic.Int64
	left.Store(int64(scale.checks))
	var all errgroup.Group
	for _, who := range checkers {
		all.Go(func() error {
			for left.Add(-2) >= 0 && time.Now().Before(end) {
				reservation, err := who.book(ctx)
				if err != nil {
					return err
				}
				if _, err := who.read(ctx, true); err != nil {
					return err
				}
				if err := who.cancel(ctx, reservation); err != nil {
					return err
				}
				if _, err := who.read(ctx, true); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := all.Wait()
	f := checkers[0].freshness
	return staleCount{checked: f.checked, stale: f.stale, greatest: f.greatest}, err
}

// bursts has all users book at the same moment, as students do when a library opens, and read the
// list at once. After the last answer it reads the list until it is right. So the age of a stale
// list is the time that students see it, not the time to the next booking.
func bursts(ctx context.Context, checkers []*checker, scale staleScale) (staleCount, error) {
	var count staleCount
	for end := time.Now().Add(scale.bursts); time.Now().Before(end); {
		reservations := make([]int64, len(checkers))
		err := each(checkers, func(i int, who *checker) (err error) {
			if reservations[i], err = who.book(ctx); err != nil {
				return err
			}
			_, err = who.read(ctx, false)
			return err
		})
		if err != nil {
			return count, err
		}
		stale, err := checkers[0].read(ctx, true)
		count.checked++
		if stale {
			count.stale++
		}
		for limit := time.Now().Add(scale.timeout); stale && err == nil; {
			if time.Now().After(limit) {
				count.limited = true
				break
			}
			if err = until(ctx, time.Now().Add(20*time.Millisecond)); err == nil {
				stale, err = checkers[0].read(ctx, false)
			}
		}
		if err != nil {
			return count, err
		}
		if err := each(checkers, func(i int, who *checker) error { return who.cancel(ctx, reservations[i]) }); err != nil {
			return count, err
		}
	}
	count.greatest = checkers[0].greatest
	return count, nil
}

func each(checkers []*checker, do func(i int, who *checker) error) error {
	var all errgroup.Group
	for i, who := range checkers {
		all.Go(func() error { return do(i, who) })
	}
	return all.Wait()
}

// book books the seat from now on.
func (b *checker) book(ctx context.Context) (reservation int64, err error) {
	return b.bookFrom(ctx, time.Time{})
}

// bookFrom books the seat from a time on; the zero time means now.
func (b *checker) bookFrom(ctx context.Context, start time.Time) (reservation int64, err error) {
	req := &dlsmsv1.CreateReservationRequest{SeatId: b.seat, EndTime: timestamppb.New(time.Now().Add(time.Hour))}
	if !start.IsZero() {
		req.StartTime = timestamppb.New(start)
	}
	b.change(b.seat)
	reservation, err = b.api.book(ctx, b.users.signed[b.index], req)
	if err != nil {
		return 0, fmt.Errorf("book: %w", err)
	}
	b.acknowledge(b.seat, !start.IsZero(), time.Now())
	return reservation, nil
}

func (b *checker) cancel(ctx context.Context, reservation int64) error {
	b.change(b.seat)
	if err := b.api.cancel(ctx, b.users.signed[b.index], reservation); err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	b.acknowledge(b.seat, true, time.Now())
	return nil
}

// read reads the list and judges it.
func (b *checker) read(ctx context.Context, counted bool) (stale bool, err error) {
	before, sent := b.look(), time.Now()
	seats, err := b.api.available(ctx, b.branch)
	if err != nil {
		return false, fmt.Errorf("read: %w", err)
	}
	return b.judge(before, seats, sent, counted), nil
}

// begin books the seat for a time that comes soon, and returns how long after that time the list
// shows the seat as available.
func (b *checker) begin(ctx context.Context, timeout time.Duration) (late time.Duration, limited bool, err error) {
	start := time.Now().Add(time.Second)
	reservation, err := b.bookFrom(ctx, start)
	if err != nil {
		return 0, false, err
	}
	for {
		sent := time.Now()
		seats, err := b.api.available(ctx, b.branch)
		if err != nil {
			return 0, false, fmt.Errorf("read: %w", err)
		}
		if !seats[b.seat] || sent.Sub(start) > timeout {
			return late, seats[b.seat], b.cancel(ctx, reservation)
		}
		late = max(0, sent.Sub(start))
		if err := until(ctx, time.Now().Add(20*time.Millisecond)); err != nil {
			return 0, false, err
		}
	}
}
