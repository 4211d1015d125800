package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// steady is a constant load: each user books a seat of their own and cancels the booking, again and
// again. Only gRPC retries a call, by the retry policy in README.md. So a call that fails here
// would also fail for a real user.
type steady struct {
	name  string    // of the branch
	start time.Time // of the window that all users book
	began time.Time
	stop  context.CancelFunc
	all   sync.WaitGroup
	parts []steadyPart
}

type steadyPart struct {
	mu    sync.Mutex
	calls []call
	acked map[int64]bool // by reservation: whether its cancel was acknowledged too
}

// call is one call of a user, with all its tries.
type call struct {
	user     int
	at, took time.Duration
	err      error
}

// loadOptions are the options of a steady load and its system.
type loadOptions struct {
	users        int
	rest         time.Duration // pause of a user between two calls
	tries        int           // most tries of a call over gRPC; 0: as in README.md
	http         bool          // the users call over HTTP, with one try
	slowPostgres bool          // the system has the toxic slowPostgres
	binary       string        // of the replicas; empty: that of the trials
}

// startSteady starts the users.
func startSteady(ctx context.Context, s *system, name string, options loadOptions) (*steady, error) {
	users := options.users
	seats, err := s.addBranch(ctx, name, users)
	if err != nil {
		return nil, err
	}
	l := &steady{
		name: name, start: time.Now().Add(48 * time.Hour).Truncate(time.Hour), began: time.Now(),
		parts: make([]steadyPart, users),
	}
	var conns []grpc.ClientConnInterface
	if n := min(users, 8); options.http {
		conns = s.connectHTTP(n)
	} else if conns, err = s.connect(n, options.tries); err != nil {
		return nil, err
	}
	members := make([]*e2e.Client, users)
	for i := range members {
		if members[i], err = signUp(ctx, conns[i%len(conns):], fmt.Sprintf("%s-%d", name, i)); err != nil {
			return nil, err
		}
	}
	ctx, l.stop = context.WithCancel(ctx)
	for i, u := range members {
		l.all.Go(func() { l.runUser(ctx, u, &l.parts[i], seats[i], options.rest) })
	}
	return l, nil
}

// callTime bounds a call with all its tries.
const callTime = 10 * time.Second

func (l *steady) runUser(ctx context.Context, u *e2e.Client, p *steadyPart, seat int64, rest time.Duration) {
	p.acked = map[int64]bool{}
	for n := 0; ; n++ {
		var id int64
		booked := p.retry(ctx, l.began, func(ctx context.Context) error {
			resp, err := u.Reservations.CreateReservation(ctx, &dlsmsv1.CreateReservationRequest{
				SeatId: seat, StartTime: timestamppb.New(l.start), EndTime: timestamppb.New(l.start.Add(time.Hour)),
				RequestId: fmt.Sprintf("s-%d", n),
			})
			id = resp.GetReservation().GetId()
			return err
		})
		if !booked {
			return
		}
		p.ack(id, false)
		sleep(ctx, rest)
		if !p.retry(ctx, l.began, func(ctx context.Context) error {
			_, err := u.Reservations.CancelReservation(ctx, &dlsmsv1.CancelReservationRequest{ReservationId: id})
			return err
		}) {
			return
		}
		p.ack(id, true)
		sleep(ctx, rest)
	}
}

// retry repeats a call until it succeeds or ctx ends, and reports whether it succeeded. Each call
// is idempotent, so it is safe to repeat. Each repetition is recorded as a call.
func (p *steadyPart) retry(ctx context.Context, began time.Time, f func(context.Context) error) bool {
	for ctx.Err() == nil {
		if p.do(context.WithoutCancel(ctx), began, f) {
			return true
		}
		sleep(ctx, retryAfter)
	}
	return false
}

func (p *steadyPart) do(ctx context.Context, began time.Time, f func(context.Context) error) bool {
	ctx, end := context.WithTimeout(ctx, callTime)
	defer end()
	c := call{at: time.Since(began)}
	c.err = f(ctx)
	c.took = time.Since(began) - c.at
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, c)
	return c.err == nil
}

func (p *steadyPart) ack(id int64, cancelled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked[id] = cancelled
}

func (l *steady) end() {
	l.stop()
	l.all.Wait()
}

func (l *steady) since() time.Duration { return time.Since(l.began) }

// between returns the calls that returned in an interval, in the order of their returns.
func (l *steady) between(from, until time.Duration) []call {
	var all []call
	for i := range l.parts {
		p := &l.parts[i]
		p.mu.Lock()
		for _, c := range slices.Backward(p.calls) {
			if c.at+c.took < from {
				break
			}
			if c.at+c.took < until {
				c.user = i
				all = append(all, c)
			}
		}
		p.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b call) int { return int(a.at + a.took - b.at - b.took) })
	return all
}

// succeeded counts the calls that succeeded.
func succeeded(calls []call) (n int) {
	for _, c := range calls {
		if c.err == nil {
			n++
		}
	}
	return n
}

// rate returns the successful calls a second in an interval.
func (l *steady) rate(from, until time.Duration) float64 {
	return float64(succeeded(l.between(from, until))) / (until - from).Seconds()
}

// quantile returns a quantile of the durations of calls, 0 if there are none.
func quantile(calls []call, part float64) time.Duration {
	if len(calls) == 0 {
		return 0
	}
	took := make([]time.Duration, len(calls))
	for i, c := range calls {
		took[i] = c.took
	}
	slices.Sort(took)
	return took[min(len(took)-1, int(part*float64(len(took))))]
}

// slowdown returns the P99 of calls relative to the P99 of the usual calls, as a number and as
// text.
func slowdown(calls, usual []call) (ratio float64, summary string) {
	slow, quick := quantile(calls, 0.99), quantile(usual, 0.99)
	ratio = slow.Seconds() / quick.Seconds()
	return ratio, fmt.Sprintf("%.2f (%s against %s)", ratio,
		slow.Round(100*time.Microsecond), quick.Round(100*time.Microsecond))
}

// longestGap returns the longest time in an interval in which a user had no successful call.
func longestGap(calls []call, users int, from, until time.Duration) (gap time.Duration) {
	last := slices.Repeat([]time.Duration{from}, users)
	for _, c := range calls {
		if c.err == nil {
			gap = max(gap, c.at+c.took-last[c.user])
			last[c.user] = c.at + c.took
		}
	}
	for _, l := range last {
		gap = max(gap, until-l)
	}
	return gap
}

// missing returns the number of acknowledged reservations, and the ids of those that the database
// has lost. A reservation is lost if the database does not have it, or does not have its
// acknowledged cancel.
func (l *steady) missing(ctx context.Context, s *system) (acked int, missing []int64, err error) {
	w, err := s.readState(ctx)
	if err != nil {
		return 0, nil, err
	}
	for i := range l.parts {
		for id, cancelled := range l.parts[i].acked {
			acked++
			if !w.happened[transition{id, "RESERVED"}] || cancelled && !w.happened[transition{id, "CANCELLED"}] {
				missing = append(missing, id)
			}
		}
	}
	return acked, missing, nil
}
