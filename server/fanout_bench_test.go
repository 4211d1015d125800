package server

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// BenchmarkReadsBeside measures GetSeats of 50 seats, 100 a second, beside 50 bookings and cancellations a second and 1,000 watches, each
// for ten seconds, with clients and server in one process:
//
//	go test ./server -run '^$' -bench ReadsBeside -benchtime 1x
func BenchmarkReadsBeside(b *testing.B) {
	const watches, pace, during = 1000, 50, 10 * time.Second
	for _, kind := range []string{"nothing", "watches of everything", "watches of as many windows", "edits of 5000 seats", "5000 seats"} {
		b.Run(kind, func(b *testing.B) {
			n := 50
			if kind == "edits of 5000 seats" || kind == "5000 seats" {
				n = 5000
			}
			db := storetest.NewDB(b)
			seats := db.Seats(b, n)
			rules := store.DefaultRules()
			rules.MaxUpcoming = 0
			users := db.Users(b, 8)
			writers := db.Open(b, rules)
			s := startOn(b, db, nil, nil)
			begin := time.Now().Add(time.Hour).Truncate(time.Hour)
			var streams sync.WaitGroup
			var messages atomic.Int64
			for i := range watches {
				if n == 5000 || kind == "nothing" {
					break
				}
				req := &dlsmsv1.WatchSeatsRequest{}
				if kind == "watches of as many windows" {
					req.StartTime, req.EndTime = timestamppb.New(begin.Add(-time.Duration(i+1)*time.Second)), timestamppb.New(begin.Add(time.Hour))
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
						if kind == "edits of 5000 seats" {
							db.Exec(b, `UPDATE seats SET out_of_service = NOT out_of_service WHERE id = $1`, seats[i%n])
							continue
						} else if n == 5000 {
							continue
						}
						r, err := writers.Reserve(b.Context(), store.Booking{UserID: users[i%8], SeatID: seats[i%n], StartTime: begin, EndTime: begin.Add(time.Hour)})
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
