package store_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestSweepOf3000ReservationsKeepsBookingsFast closes an area with 3,000 reservations at 1,000 seats,
// while other users book, in the same branch and in another one. The sweep must end within 30 s.
// The times of the bookings before and during the sweep are logged.
func TestSweepOf3000ReservationsKeepsBookingsFast(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 0
	b := setupWith(t, rules)
	const n, bookers = 1000, 8
	closed := b.db.Seats(t, 2*n)
	b.db.Exec(t, `UPDATE seats SET area = 'Attic' WHERE id = ANY ($1)`, closed[n:])
	open := slices.Concat(b.seats, closed[n:])
	users := b.db.Users(t, n)
	b.db.Exec(t, `
		INSERT INTO reservations
			(library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at)
		SELECT 1, s, u, tstzrange(f, f + interval '2 hours'), 'CONFIRMED', f - interval '15 min', f + interval '15 min', $3
		FROM unnest($1::bigint[], $2::bigint[]) x (s, u), generate_series(1, 3) d,
			LATERAL (SELECT $3::timestamptz + d * interval '1 day' AS f) y`, closed[:n], users, noon)
	b.db.WriteHistory(t)
	b.db.Exec(t, `ANALYZE`)
	b.users = b.db.Users(t, bookers)
	s := b.warm(t, 16)

	// load books and cancels until ctx ends, and returns the times of the bookings, sorted.
	load := func(ctx context.Context) (took []time.Duration) {
		var mu sync.Mutex
		var running sync.WaitGroup
		for i := range b.users {
			running.Go(func() {
				for round := 0; ctx.Err() == nil; round++ {
					seat := open[(i+bookers*round)%len(open)]
					begin := time.Now()
					r, err := s.Reserve(t.Context(), library.Booking{
						UserID: b.users[i], SeatID: seat, StartTime: at(60 + 120*(round%3)), EndTime: at(120 + 120*(round%3)),
					})
					d := time.Since(begin)
					if err == nil {
						_, err = s.Cancel(t.Context(), b.users[i], r.ID)
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			})
		}
		running.Wait()
		slices.Sort(took)
		return took
	}
	percentile := func(took []time.Duration, p int) time.Duration { return took[len(took)*p/100] }

	calm, stop := context.WithTimeout(t.Context(), 3*time.Second)
	before := load(calm)
	stop()
	spec := library.ClosureSpec{Branch: "branch-1", Area: "Area", EndTime: at(10 * 24 * 60), Disruption: cancelling(3 * n)}
	begin := time.Now()
	if _, _, err := b.CreateClosure(t.Context(), order("CreateClosure"), spec); err != nil {
		t.Fatal(err)
	}
	created := time.Since(begin)
	sweeping, stop := context.WithCancel(t.Context())
	var swept error
	var took time.Duration
	go func() {
		begin := time.Now()
		swept = sweepAll(t.Context(), b.Store, 50)
		took = time.Since(begin)
		stop()
	}()
	during := load(sweeping)
	if swept != nil {
		t.Fatal(swept)
	}
	t.Logf("closure made in %v, swept in %v; P50 and P99 of %d bookings before %v, %v, of %d during %v, %v", created, took,
		len(before), percentile(before, 50), percentile(before, 99),
		len(during), percentile(during, 50), percentile(during, 99))
	if took > 30*time.Second {
		t.Errorf("the sweep took %v, want at most 30s", took)
	}
	wantEqual(t, "told and with a suggestion", storetest.Value[string](t, b.db, `
		SELECT count(*) || ' ' || count(suggested_seat_id) FROM reservation_events WHERE sweep_id IS NOT NULL AND notifies`),
		"3000 3000")
	storetest.CheckInvariants(t, b.db)
}
