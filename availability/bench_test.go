package availability

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/feed/feedtest"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// bigLibrary returns a state with 25 seats in each branch, and ten bookings of each seat in the
// coming days.
func bigLibrary(seats int) store.World {
	w := store.World{Now: monday}
	for i := range seats {
		if i%25 == 0 {
			w.Branches = append(w.Branches, library.Branch{
				ID: int64(i/25 + 1), Code: fmt.Sprintf("b%d", i/25), Timezone: "Europe/Berlin",
			})
		}
		w.Seats = append(w.Seats, library.Seat{
			ID: int64(i + 1), BranchID: int64(i/25 + 1), Area: "Hall", Label: fmt.Sprint(i), Amenities: []int16{1},
		})
		for j := range 10 {
			start := minute(j*24*60 + i%600)
			w.Taken = append(w.Taken, library.TakenWindow{
				ReservationID: int64(i*10 + j + 1), Version: 1, SeatID: int64(i + 1),
				StartTime: start, EndTime: start.Add(2 * time.Hour),
			})
		}
	}
	return w
}

func newBigBuilder(seats int) *worldBuilder {
	l := new(worldBuilder)
	l.load(bigLibrary(seats))
	return l
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkLoad loads 50,000 seats and 500,000 reservations without Postgres.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		before := heap()
		l, read := new(worldBuilder), bigLibrary(50_000)
		b.StartTimer()
		l.load(read)
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB") // the rows are garbage now
		runtime.KeepAlive(l)
		b.StartTimer()
	}
}

// BenchmarkLoadFromPostgres loads 50,000 seats and 500,000 reservations from Postgres.
func BenchmarkLoadFromPostgres(b *testing.B) {
	db := storetest.NewDB(b)
	seats := db.Seats(b, 50_000)
	db.Exec(b, `INSERT INTO reservations
		(library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at)
		SELECT 1, s, $1, tstzrange(t, t + interval '2 hours'), 'CONFIRMED', t, t, t
		FROM generate_series($2::bigint, $3) s, generate_series(1, 10) i,
			LATERAL (SELECT now() + i * interval '1 day' AS t) x`,
		db.Users(b, 1)[0], seats[0], seats[len(seats)-1])
	db.Exec(b, `ANALYZE`)
	s := db.Open(b, library.DefaultPolicy())
	for b.Loop() {
		read, err := s.LoadWorld(b.Context())
		if err != nil || len(read.Taken) != 500_000 {
			b.Fatal(len(read.Taken), err)
		}
		new(worldBuilder).load(read)
	}
}

// BenchmarkAnswer measures answers without the refresh before them.
func BenchmarkAnswer(b *testing.B) {
	hours := func(w store.World) store.World {
		for i := range w.Branches {
			w.Branches[i].Hours = nineToFive
		}
		return w
	}
	worlds := map[string]*world{}
	for name, read := range map[string]store.World{
		"demo": bigLibrary(49), "demo with hours": hours(bigLibrary(49)), "big": bigLibrary(50_000),
	} {
		worlds[name] = new(worldBuilder).load(read)
	}
	free := question{availableOnly: true, limit: 1000}
	tomorrow := question{window: window{minute(25 * 60).UnixMicro(), minute(26 * 60).UnixMicro()}, limit: 1000}
	branch := question{filter: filter{branch: "b700"}, limit: 1000}
	for _, c := range []struct {
		name, world string
		q           question
	}{
		{"49 free now", "demo", free},
		{"49 free now, with opening hours", "demo with hours", free},
		{"49 tomorrow", "demo", tomorrow},
		{"49 tomorrow, with opening hours", "demo with hours", tomorrow},
		{"25 in a branch of 50000", "big", branch}, {"50000 free now", "big", free}, {"50000 tomorrow", "big", tomorrow},
	} {
		w := worlds[c.world]
		b.Run(c.name+"/computed", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.compute(c.q)
			}
		})
		if c.q.window != present {
			continue
		}
		b.Run(c.name+"/cached", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					w.page(c.q)
				}
			})
		})
	}
}

// BenchmarkReaders measures whole reads. Each read waits for a refresh that begins after the read.
// The feed reads its changes from a source in memory, not from Postgres.
func BenchmarkReaders(b *testing.B) {
	m := startModel(b, feedtest.NewSource(bigLibrary(49)), feed.Options{})
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("%d at once", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(max(1, n/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := m.Seats(b.Context(), Query{AvailableOnly: true, Limit: 1000}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkReadersOnPostgres measures whole reads with Postgres.
func BenchmarkReadersOnPostgres(b *testing.B) {
	db := storetest.NewDB(b)
	db.Seats(b, 49)
	m := startModel(b, db.Open(b, library.DefaultPolicy()), feed.Options{})
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("%d at once", n), func(b *testing.B) {
			b.SetParallelism(max(1, n/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := m.Seats(b.Context(), Query{AvailableOnly: true, Limit: 1000}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkChange measures a booking and a cancellation in turn: building the next world, and
// publishing to 3,000 watches.
func BenchmarkChange(b *testing.B) {
	stepper := func(l *worldBuilder) func() *world {
		e := reservation(1<<40, 0, 7, -10, 5)
		return func() *world {
			e.Version++
			e.Status = []library.ReservationStatus{library.Cancelled, library.Confirmed}[e.Version%2]
			l.tombstones = l.tombstones[:0]
			return l.apply(store.Changes{Now: monday, Events: []library.Event{e}})
		}
	}
	for _, seats := range []int{49, 50_000} {
		b.Run(fmt.Sprintf("%d seats/next world", seats), func(b *testing.B) {
			step := stepper(newBigBuilder(seats))
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
		for _, kind := range []string{"of the same", "of as many windows"} {
			b.Run(fmt.Sprintf("%d seats/3000 watchers %s", seats, kind), func(b *testing.B) {
				l := newBigBuilder(seats)
				h := newHub()
				h.publish(l.world)
				step := stepper(l)
				var watches []*Watch
				for i := range 3000 {
					about := present
					if kind != "of the same" {
						about = window{minute(-i - 5).UnixMicro(), minute(5).UnixMicro()}
					}
					w := newWatch(h, about, filter{}, watchBuffer)
					if err := h.add(w); err != nil {
						b.Fatal(err)
					}
					w.take()
					watches = append(watches, w)
				}
				b.ReportAllocs()
				for b.Loop() {
					h.publish(step())
					b.StopTimer()
					for _, w := range watches {
						if u, ok := w.take(); !ok || u.Snapshot {
							b.Fatal("a watcher got no update")
						}
					}
					b.StartTimer()
				}
			})
		}
	}
}
