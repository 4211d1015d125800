package availability

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/feed/feedtest"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// free returns the number of free seats of the small library, and the time of the answer.
func free(t *testing.T, m *Model) (int, time.Time) {
	t.Helper()
	p, err := m.Seats(t.Context(), Query{})
	if err != nil {
		t.Error(err) // not Fatal: readers run on their own goroutines
		return -1, time.Time{}
	}
	return p.Available, p.AsOf
}

// taking has one event for each seat of the branch "day": a reservation that began 10 minutes
// before monday, and so takes the seat at that time.
var taking = []library.Event{
	reservation(1, 1, 1, -10, 600), reservation(2, 1, 2, -10, 600), reservation(3, 1, 3, -10, 600),
}

// pass advances the clock of synctest, and waits until all goroutines are blocked.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var errUnreachable = library.ErrUnavailable.WithCause(errors.New("connection refused"))

// These constants equal the constants of package feed.
const (
	secondRead = time.Second
	lastRetry  = 250 * time.Millisecond
)

// stuck blocks as long as a read of a Postgres that does not answer: until the timeout of 2 s.
func stuck(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	<-ctx.Done()
}

func TestAnswersFromMemoryWhilePostgresIsUnreachable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		var received []int
		m := startModel(t, r, feed.Options{MaxStaleness: 10 * time.Second},
			feed.Subscriber{OnEvents: func(d feed.Delta) { received = append(received, len(d.Events)) }})
		watch, err := m.Watch(t.Context(), Query{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// Each read now takes as long as its timeout.
		r.Set(func(r *feedtest.Source) { r.Err, r.Before = errUnreachable, stuck })
		began, lastGood := time.Now(), time.Now()
		if got, asOf := free(t, m); got != 4 || !asOf.Equal(monday) || time.Since(began) != 2*time.Second+secondRead {
			t.Errorf("the first read of the outage got %d as of %v after %v", got, asOf, time.Since(began))
		}
		for range 7 {
			pass(time.Second)
			began := time.Now()
			if got, asOf := free(t, m); got != 4 || !asOf.Equal(monday) || time.Since(began) != 0 {
				t.Errorf("a later read of the outage got %d as of %v after %v", got, asOf, time.Since(began))
			}
		}
		if s := m.Stats(); s.Reachable || s.Age != time.Since(lastGood) {
			t.Errorf("stats during the outage: %+v", s)
		}
		pass(10*time.Second - time.Since(lastGood))
		free(t, m)
		pass(1)
		if _, err := m.Seats(t.Context(), Query{}); !errors.Is(err, library.ErrUnavailable) {
			t.Errorf("a read after MaxStaleness: %v, want ErrUnavailable", err)
		}
		if _, err := m.Watch(t.Context(), Query{}); !errors.Is(err, library.ErrUnavailable) {
			t.Errorf("a new watch after MaxStaleness: %v, want ErrUnavailable", err)
		}
		if _, err := watch.Next(t.Context()); !errors.Is(err, library.ErrUnavailable) {
			t.Errorf("an open watch after MaxStaleness: %v, want ErrUnavailable", err)
		}

		// Postgres answers again, after a crash. It has a booking that a read of the changes would
		// not return: after a crash, Postgres may use the transaction ids of lost transactions
		// again, and the old snapshot counts these ids as seen.
		r.Set(func(r *feedtest.Source) {
			r.Err, r.Before = nil, nil
			r.World.Now = minute(1)
			r.World.Taken = []library.TakenWindow{
				{ReservationID: 1, Version: 1, SeatID: 1, StartTime: monday, EndTime: minute(60)},
			}
		})
		pass(2*time.Second + lastRetry)
		if got, asOf := free(t, m); got != 3 || !asOf.Equal(minute(1)) {
			t.Errorf("after the outage, a read got %d as of %v", got, asOf)
		}
		if len(received) != 2 || received[1] != 0 || r.Loads.Load() != 2 {
			t.Errorf("after %d loads, OnEvents received %v events", r.Loads.Load(), received)
		}
		if s := m.Stats(); !s.Reachable || s.Watches != 0 {
			t.Errorf("stats after the outage: %+v", s)
		}
	})
}

// TestRestoredDatabaseIsReloaded returns changes like those after a restore. The model must load
// the state again, and not apply the changes.
func TestRestoredDatabaseIsReloaded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what    string
		changes store.Changes
	}{
		{"its snapshot is older", store.Changes{Snapshot: store.Snapshot{Xmax: 99}, Now: minute(1)}},
		{"its clock went back", store.Changes{Snapshot: store.Snapshot{Xmax: 101}, Now: monday.Add(-1)}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				taken := []library.TakenWindow{
					{ReservationID: 1, Version: 5, SeatID: 1, StartTime: monday, EndTime: minute(60)},
				}
				r := feedtest.NewSource(store.World{
					Now: monday, Snapshot: store.Snapshot{Xmax: 100}, Catalog: smallLibrary("UTC"), Taken: taken,
				})
				m := startModel(t, r, feed.Options{})
				watch, err := m.Watch(t.Context(), Query{})
				if err != nil {
					t.Fatal(err)
				}
				defer watch.Close()
				if _, err := watch.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
				restored := []library.TakenWindow{
					{ReservationID: 2, Version: 1, SeatID: 2, StartTime: monday.Add(-time.Hour), EndTime: minute(60)},
				}
				r.Set(func(r *feedtest.Source) {
					c.changes.Events = []library.Event{taking[2]} // from before the restore
					r.Pending = append(r.Pending, c.changes)
					r.World.Taken, r.World.Snapshot = restored, c.changes.Snapshot
					r.Loading = func() { time.Sleep(time.Second) }
				})
				began := time.Now()
				p, err := m.Seats(t.Context(), Query{AvailableOnly: true})
				if err != nil || len(p.Seats) != 3 || p.Seats[0].ID != 1 || p.Seats[1].ID != 3 || time.Since(began) != time.Second {
					t.Errorf("available seats %+v, %v after %v, want seats 1, 3 and 4 after 1 s", p, err, time.Since(began))
				}
				u, err := watch.Next(t.Context())
				if err != nil || u.Snapshot || len(u.Seats) != 2 || !u.Seats[0].Available || u.Seats[1].Available {
					t.Errorf("the watch got %+v, %v", u, err)
				}
			})
		})
	}
}

// TestRefreshAppliesCatalogChanges makes three changes between two refreshes. It deletes seats 3
// and 4, adds seat 9 with a booking, and adds seat 10 in a branch that does not exist. The next
// read must return seats 1, 2 and 9, with seat 9 taken.
func TestRefreshAppliesCatalogChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := feedtest.NewSource(store.World{Now: monday, Catalog: smallLibrary("UTC")})
		m := startModel(t, r, feed.Options{})
		r.Set(func(r *feedtest.Source) {
			r.Catalog.Seats = append(r.Catalog.Seats[:2:2], library.Seat{ID: 9, BranchID: 2}, library.Seat{ID: 10, BranchID: 99})
			e := reservation(1, 1, 9, 0, 60)
			r.Pending = append(r.Pending, store.Changes{Now: monday, CatalogChanged: true, Events: []library.Event{e}})
		})
		p, err := m.Seats(t.Context(), Query{})
		if err != nil || p.Total != 3 || p.Available != 2 || p.Seats[2].ID != 9 || p.Seats[2].Branch != "night" {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
