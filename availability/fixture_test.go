package availability

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/feed/feedtest"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// These fixtures are shared with the tests of the feed.
var (
	monday       = feedtest.Monday
	minute       = feedtest.Minute
	smallLibrary = feedtest.SmallLibrary
	reservation  = feedtest.Reservation
	over         = feedtest.Over
)

// applyCatalog applies c and, if read is not nil, the changes from the present catalog to read.
func (b *worldBuilder) applyCatalog(c store.Changes, read *library.Catalog) *world {
	if read != nil {
		old := library.Catalog{}
		for _, branch := range b.world.branches {
			old.Branches = append(old.Branches, branch.Branch)
		}
		for _, seat := range b.world.seats {
			old.Seats = append(old.Seats, seat.Seat)
		}
		c = feedtest.WithCatalog(c, old, *read)
	}
	return b.apply(c)
}

// history generates events as the store does: reservations that take the same seat never overlap.
type history struct {
	seats []int64
	live  map[int64]library.Event // the last event of each reservation that takes its seat
	last  int64                   // id of the newest reservation
}

// draw generates the next event: a change of a live reservation, or a new reservation that starts
// in the first span minutes of monday. It returns false if the reservation would overlap another
// one.
func (h *history) draw(t *rapid.T, span int) (library.Event, bool) {
	ids := slices.Sorted(maps.Keys(h.live))
	if len(ids) > 0 && rapid.Bool().Draw(t, "goes on") {
		e := h.live[rapid.SampledFrom(ids).Draw(t, "reservation")]
		e.ID, e.Version = e.ID+1, e.Version+1
		switch rapid.IntRange(0, 3).Draw(t, "how") {
		case 0: // does not change the bookings
			e.Kind, e.Status = library.EventCheckedIn, library.CheckedIn
		case 1:
			e.Kind = library.EventExtended
			e.EndTime = e.EndTime.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "minutes")) * time.Minute)
			if h.taken(e) {
				return e, false
			}
		default:
			e.Kind, e.Status = library.EventCancelled, library.Cancelled
			delete(h.live, e.ReservationID)
			return e, true
		}
		h.live[e.ReservationID] = e
		return e, true
	}
	start := rapid.IntRange(0, span).Draw(t, "start")
	seat, length := rapid.SampledFrom(h.seats).Draw(t, "seat"), rapid.IntRange(1, 90).Draw(t, "length")
	e := reservation(h.last+1, 1, seat, start, start+length)
	if h.taken(e) {
		return e, false
	}
	h.last++
	h.live[e.ReservationID] = e
	return e, true
}

func (h *history) taken(e library.Event) bool {
	for id, o := range h.live {
		if id != e.ReservationID && o.SeatID == e.SeatID && o.StartTime.Before(e.EndTime) && e.StartTime.Before(o.EndTime) {
			return true
		}
	}
	return false
}

// bookingsOf returns the bookings of a seat after the events, in the order of time.
func bookingsOf(events []library.Event, seat int64) []booking {
	last := map[int64]library.Event{}
	for _, e := range events {
		if e.Version > last[e.ReservationID].Version {
			last[e.ReservationID] = e
		}
	}
	var out []booking
	for id, e := range last {
		if e.SeatID == seat && e.Status.Occupies() {
			out = append(out, booking{window{e.StartTime.UnixMicro(), e.EndTime.UnixMicro()}, id})
		}
	}
	slices.SortFunc(out, booking.compare)
	return out
}

// startModel returns a model whose feed has loaded the state and follows the source until the test
// ends.
func startModel(t testing.TB, source feed.Source, o feed.Options, subscribers ...feed.Subscriber) *Model {
	t.Helper()
	if o.MaxStaleness == 0 {
		o.MaxStaleness = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	f := feed.New(source, o)
	m := New(f, Options{})
	for _, s := range subscribers {
		f.Subscribe(s)
	}
	run(t, f.Run, m.Run)
	<-m.Ready()
	return m
}

// run runs functions until the test ends.
func run(t testing.TB, functions ...func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, f := range functions {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
}
