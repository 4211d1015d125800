package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dlsms/dlsms/library"
)

// A booking that is refused leaves no event. So each replica counts the refusals for reports in
// memory, and adds the numbers to the table usage_refusals from time to time. If a replica is killed,
// the refusals of the last refusalInterval are lost.
const (
	refusalInterval = 15 * time.Second
	// maxRefusals bounds the keys in memory. During a rush, many users are refused at many seats. If
	// there are more keys, refusals count without their users, so in the group without a name.
	maxRefusals = 10_000
)

// refusalKey is what a refusal counts for. The area and the group are looked up later.
type refusalKey struct {
	hour         time.Time
	seat, person int64 // person is 0 for refusals beyond maxRefusals
}

// refusals counts the bookings that were refused because the seat was taken. The zero value is ready.
type refusals struct {
	mu    sync.Mutex
	taken map[refusalKey]int
}

// count counts a booking that failed with err. at is the time at which it was decided, by Postgres's
// clock.
func (r *refusals) count(b library.Booking, at time.Time, err error) {
	if at.IsZero() || !errors.Is(err, library.ErrSeatTaken) {
		return
	}
	r.add(refusalKey{at.Truncate(time.Hour), b.SeatID, b.UserID}, 1)
}

func (r *refusals) add(key refusalKey, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken == nil {
		r.taken = map[refusalKey]int{}
	}
	if _, known := r.taken[key]; !known && len(r.taken) >= maxRefusals {
		key.person = 0
	}
	r.taken[key] += n
}

// take returns the numbers since the last call.
func (r *refusals) take() map[refusalKey]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.taken
	r.taken = nil
	return taken
}

const addRefusals = `
	INSERT INTO usage_refusals (library_id, hour, branch_id, area, user_group, taken)
	SELECT $1, r.hour, s.branch_id, s.area, COALESCE(u.user_group, ''), sum(r.taken)::int
	FROM unnest($2::timestamptz[], $3::bigint[], $4::bigint[], $5::bigint[]) r (hour, seat_id, user_id, taken)
	JOIN seats s ON s.library_id = $1 AND s.id = r.seat_id
	LEFT JOIN users u ON u.library_id = $1 AND u.id = r.user_id
	GROUP BY r.hour, s.branch_id, s.area, COALESCE(u.user_group, '')
	ORDER BY 2, 3, 4, 5
	ON CONFLICT (library_id, hour, branch_id, area, user_group) DO UPDATE
		SET taken = usage_refusals.taken + EXCLUDED.taken`

// WriteRefusals adds the refusals that this store has counted to the table usage_refusals. If it
// fails, the next call adds them.
func (s *Store) WriteRefusals(ctx context.Context) error {
	counted := s.refusals.take()
	if len(counted) == 0 {
		return nil
	}
	var hours []time.Time
	var seats, users, taken []int64
	for key, n := range counted {
		hours, seats = append(hours, key.hour), append(seats, key.seat)
		users, taken = append(users, key.person), append(taken, int64(n))
	}
	err := s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		_, err := t.Exec(ctx, addRefusals, s.lib, hours, seats, users, taken)
		return err
	})
	if err != nil {
		for key, n := range counted {
			s.refusals.add(key, n)
		}
	}
	return err
}

// FollowRefusals writes the refusals at intervals, and once more when ctx ends. report is called with
// the result of each write.
func (s *Store) FollowRefusals(ctx context.Context, report func(error)) {
	tick := time.NewTicker(refusalInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		write, cancel := budget(ctx)
		err := s.WriteRefusals(write)
		cancel()
		report(err)
	}
}
