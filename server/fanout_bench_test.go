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
	"github.com/dlsms/dlsms/store/storetest"
)

// BenchmarkReadsBeside measures GetSeats of all seats of a branch, 100 times a second, beside changes and watches. Each kind takes ten
// seconds. Clients and server share one process:
//
//	go test ./server -run '^$' -bench ReadsBeside -benchtime 1x
func BenchmarkReadsBeside(b *testing.B) {
	const during, pace = 10 * time.Second, 50 // changes a second; a booking and its cancellation count as one
	for _, kind := range []struct {
		name     string
		seats    int
		watches  int
		windows  bool // each watch has its own window, and sees every booking
		bookings bool
		edits    bool // a seat goes out of service, or back
	}{
		{name: "50 seats", seats: 50},
		{name: "50 seats, edits", seats: 50, edits: true},
		{name: "50 seats, bookings", seats: 50, bookings: true},
		{name: "50 seats, bookings, watches of everything", seats: 50, bookings: true, watches: 1000},
		{name: "50 seats, bookings, watches of windows", seats: 50, bookings: true, watches: 1000, windows: true},
		{name: "5000 seats", seats: 5000},
		{name: "5000 seats, edits", seats: 5000, edits: true},
		{name: "5000 seats, bookings", seats: 5000, bookings: true},
	} {
		b.Run(kind.name, func(b *testing.B) {
			db := storetest.NewDB(b)
			seats := db.Seats(b, kind.seats)
			rules := library.DefaultPolicy()
			rules.MaxUpcoming = 0
			users := db.Users(b, 8)
			writers := db.Open(b, rules)
			s := startOn(b, db, nil, nil)
			begin := time.Now().Add(time.Hour).Truncate(time.Hour)
			var streams sync.WaitGroup
			var messages atomic.Int64
			for i := range kind.watches {
				req := &dlsmsv1.WatchSeatsRequest{}
				if kind.windows {
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
				streams.Go(func() {
					for {
						if _, err := stream.Recv(); err != nil {
							return
						}
						messages.Add(1)
					}
				})
			}
			for b.Loop() {
				var wg sync.WaitGroup
				end := time.Now().Add(during)
				wg.Go(func() {
					tick := time.NewTicker(time.Second / pace)
					defer tick.Stop()
					for i := 0; time.Now().Before(end); i++ {
						<-tick.C
						if kind.edits {
							db.Exec(b, `UPDATE seats SET out_of_service = NOT out_of_service WHERE id = $1`, seats[i%len(seats)])
						}
						if !kind.bookings {
							continue
						}
						r, err := writers.Reserve(b.Context(), library.Booking{
							UserID: users[i%8], SeatID: seats[i%len(seats)], StartTime: begin, EndTime: begin.Add(time.Hour),
						})
						if err != nil {
							b.Error(err)
							return
						}
						if _, err := writers.Cancel(b.Context(), users[i%8], r.ID); err != nil {
							b.Error(err)
							return
						}
					}
				})
				var took []time.Duration
				tick := time.NewTicker(10 * time.Millisecond)
				for time.Now().Before(end) {
					<-tick.C
					at := time.Now()
					if _, err := s.seats.GetSeats(b.Context(), &dlsmsv1.GetSeatsRequest{Branch: "branch-0"}); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(at))
				}
				tick.Stop()
				wg.Wait()
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-P50")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-P99")
				b.ReportMetric(float64(messages.Load()), "messages")
			}
		})
	}
}
