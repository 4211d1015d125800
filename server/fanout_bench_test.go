package server

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// BenchmarkGetSeatsUnderLoad measures GetSeats of all seats of a branch, 100 times a second. At the
// same time, other clients change seats and watch them. Each case takes ten seconds. Clients and
// server share one process. Run it with
//
//	go test ./server -run '^$' -bench GetSeatsUnderLoad -benchtime 1x
func BenchmarkGetSeatsUnderLoad(b *testing.B) {
	for _, c := range []seatLoad{
		{name: "50 seats", seats: 50},
		{name: "50 seats, edits", seats: 50, edits: true},
		{name: "50 seats, bookings", seats: 50, bookings: true},
		{name: "50 seats, bookings, watches of everything", seats: 50, bookings: true, watches: 1000},
		{name: "50 seats, bookings, watches of windows", seats: 50, bookings: true, watches: 1000, windows: true},
		{name: "5000 seats", seats: 5000},
		{name: "5000 seats, edits", seats: 5000, edits: true},
		{name: "5000 seats, bookings", seats: 5000, bookings: true},
	} {
		b.Run(c.name, func(b *testing.B) { c.run(b) })
	}
}

// seatLoad is the load during the reads.
type seatLoad struct {
	name     string
	seats    int
	watches  int
	windows  bool // each watch has a window of its own, and receives every booking
	bookings bool
	edits    bool // a change takes a seat out of service, or returns it to service
}

func (c seatLoad) run(b *testing.B) {
	b.Helper()
	const duration = 10 * time.Second
	db := storetest.NewDB(b)
	seats := db.Seats(b, c.seats)
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 0
	users := db.Users(b, 8)
	writers := db.Open(b, rules)
	s := startOn(b, db, nil, nil)
	begin := time.Now().Add(time.Hour).Truncate(time.Hour)
	messages := c.watch(b, s, begin)
	for b.Loop() {
		var wg sync.WaitGroup
		end := time.Now().Add(duration)
		wg.Go(func() { c.change(b, db, writers, seats, users, begin, end) })
		var latencies []time.Duration
		tick := time.NewTicker(10 * time.Millisecond)
		for time.Now().Before(end) {
			<-tick.C
			called := time.Now()
			_, err := s.seats.GetSeats(b.Context(), &dlsmsv1.GetSeatsRequest{Branch: "branch-0"})
			if err != nil {
				b.Fatal(err)
			}
			latencies = append(latencies, time.Since(called))
		}
		tick.Stop()
		wg.Wait()
		slices.Sort(latencies)
		b.ReportMetric(float64(latencies[len(latencies)/2].Microseconds())/1000, "ms-P50")
		b.ReportMetric(float64(latencies[len(latencies)*99/100].Microseconds())/1000, "ms-P99")
		b.ReportMetric(float64(messages.Load()), "messages")
	}
}

// watch opens the watches and returns the counter of the messages that they receive.
func (c seatLoad) watch(b *testing.B, s *testServer, begin time.Time) *atomic.Int64 {
	b.Helper()
	var messages atomic.Int64
	for i := range c.watches {
		req := &dlsmsv1.WatchSeatsRequest{}
		if c.windows {
			req.StartTime = timestamppb.New(begin.Add(-time.Duration(i+1) * time.Second))
			req.EndTime = timestamppb.New(begin.Add(time.Hour))
		}
		conn := s.seats
		if i%20 == 0 {
			conn = dlsmsv1.NewSeatServiceClient(dial(b, s.addr))
		}
		stream, err := conn.WatchSeats(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for {
				if _, err := stream.Recv(); err != nil {
					return
				}
				messages.Add(1)
			}
		}()
	}
	return &messages
}

// change makes 50 changes a second until end. A booking and its cancellation are one change.
func (c seatLoad) change(
	b *testing.B, db *storetest.DB, writers *store.Store, seats, users []int64, begin, end time.Time,
) {
	b.Helper()
	tick := time.NewTicker(time.Second / 50)
	defer tick.Stop()
	for i := 0; time.Now().Before(end); i++ {
		<-tick.C
		seat, user := seats[i%len(seats)], users[i%8]
		if c.edits {
			db.Exec(b, `UPDATE seats SET out_of_service = NOT out_of_service WHERE id = $1`, seat)
		}
		if !c.bookings {
			continue
		}
		r, err := writers.Reserve(b.Context(), library.Booking{
			UserID: user, SeatID: seat, StartTime: begin, EndTime: begin.Add(time.Hour),
		})
		if err != nil {
			b.Error(err)
			return
		}
		if _, err := writers.Cancel(b.Context(), user, r.ID); err != nil {
			b.Error(err)
			return
		}
	}
}
