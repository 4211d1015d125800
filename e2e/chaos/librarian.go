package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// librarian changes the library by calls of AdminService and DeskService while clients use it:
//
//   - In the plans branch, it closes seats, waits for the sweep, and lifts the closure. The model of
//     checkLinear knows these closures.
//   - In the visits branch, it changes the policy, forgives strikes, changes seats and imports them
//     from a file. There the worker changes reservations too, so only the invariants of the database
//     are checked.
type librarian struct {
	*e2e.Client

	load   *load
	conns  []grpc.ClientConnInterface
	rng    *rand.Rand
	serial int
	ops    []op // closeSeat, sweepSeat and liftSeat
	// refused says that the last call of create has changed nothing.
	refused bool

	mu     sync.Mutex
	closed []closedSeats // all closures that were sent, the newest last
	counts staffCounts
}

// staffCounts counts the acknowledged changes of the librarian.
type staffCounts struct{ closures, lifted, policies, forgiven, seats, imports int }

// closedSeats is a closure that the librarian may have made.
type closedSeats struct {
	seats      []int64
	start, end time.Time
}

// newLibrarian registers the librarian.
func (l *load) newLibrarian(ctx context.Context, seed uint64, conns []grpc.ClientConnInterface) (*librarian, error) {
	const id = "chaos-librarian"
	if _, err := signUp(ctx, conns, id); err != nil {
		return nil, err
	}
	if _, err := l.system.db.Exec(ctx, `UPDATE users SET role = 'ADMIN' WHERE student_id = $1`, id); err != nil {
		return nil, err
	}
	api, err := e2e.Anonymous(conns[0]).Login(ctx, id, password) // the role is in the token
	if err != nil {
		return nil, err
	}
	return &librarian{Client: api, load: l, conns: conns, rng: rand.New(rand.NewPCG(seed, clients+1))}, nil
}

// work makes random changes until ctx ends. It lifts its last closure.
func (b *librarian) work(ctx context.Context) {
	calls := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		switch n := b.rng.IntN(10); {
		case n < 4:
			b.closeAndLift(ctx)
		case n < 6:
			b.closeVisits(ctx)
		case n < 7:
			b.setPolicy(calls)
		case n < 8:
			b.forgive(calls)
		case n < 9:
			b.changeSeats(calls)
		default:
			b.importSeats(calls)
		}
		sleep(ctx, time.Duration(b.rng.Int64N(int64(300*time.Millisecond))))
	}
}

// call makes a call until it has an answer. A call without an answer is tried again until
// operatorTime is over. refusal is empty if the system has made the change.
func (b *librarian) call(
	ctx context.Context, name string, do func(context.Context, *e2e.Client) error,
) (refusal e2e.Refusal, answered bool) {
	until := time.Now().Add(operatorTime)
	for n := 0; ; n++ {
		tryCtx, end := context.WithTimeout(ctx, tryTimeout)
		err := do(tryCtx, b.WithConn(b.conns[n%len(b.conns)]))
		end()
		if err == nil {
			return e2e.Refusal{}, true
		}
		refusal = e2e.RefusalOf(err)
		switch {
		case noAnswer(refusal), refusal.Reason == "OVERLOADED":
			if time.Now().After(until) {
				return refusal, false
			}
			sleep(ctx, retryAfter)
		default:
			if refusal.Reason == "" || e2e.CheckRefusal(err, refusal.Reason) != nil {
				b.load.history.found.add(checkAnswers, "%s had an answer that is not in the contract: %v", name, err)
			}
			return refusal, true
		}
	}
}

// must reports a violation if a call was refused that the system has no reason to refuse.
func (b *librarian) must(name string, r e2e.Refusal, answered bool) bool {
	if answered && r.Reason != "" {
		b.load.history.found.add(checkAnswers, "%s of the librarian was refused: %s: %s", name, r.Reason, r.Message)
	}
	return answered && r.Reason == ""
}

// closeAndLift closes some seats of the plans branch for some hours of one day or for the whole day,
// waits until the sweep has ended the reservations inside, and lifts the closure.
func (b *librarian) closeAndLift(ctx context.Context) {
	calls := context.WithoutCancel(ctx)
	day := b.load.days[b.rng.IntN(len(b.load.days))]
	from := b.rng.IntN(slots)
	until := min(from+1+b.rng.IntN(3), slots)
	if b.rng.IntN(2) == 0 {
		from, until = 0, slots
	}
	first := b.rng.IntN(len(b.load.plans))
	c := closedSeats{
		seats: b.load.plans[first : first+1+b.rng.IntN(len(b.load.plans)-first)],
		start: day.Add(time.Duration(opens+from) * time.Hour), end: day.Add(time.Duration(opens+until) * time.Hour),
	}
	b.mu.Lock()
	b.closed = append(b.closed, c)
	b.mu.Unlock()
	id, ok := b.closeSeats(calls, c)
	if !ok {
		return
	}
	sleep(ctx, time.Duration(b.rng.Int64N(int64(time.Second))))
	o := op{Kind: liftSeat, Reservation: id, Start: c.start, End: c.end}
	o.Call = b.load.history.since()
	refusal, answered := b.lift(calls, id)
	done := answered && refusal.Reason == ""
	b.record(c, o, done, answered, "")
	if done {
		b.counts.lifted++
	}
}

// closeSeats makes a closure in the plans branch, waits for its sweep, and records both.
func (b *librarian) closeSeats(ctx context.Context, c closedSeats) (id int64, ok bool) {
	b.serial++
	o := op{Kind: closeSeat, Start: c.start, End: c.end, Call: b.load.history.since()}
	req := &dlsmsv1.CreateClosureRequest{
		Branch: plansBranch, SeatIds: c.seats, StartTime: timestamppb.New(c.start), EndTime: timestamppb.New(c.end),
		OnBookings: dlsmsv1.BookingAction_BOOKING_ACTION_CANCEL, RequestId: fmt.Sprintf("l-%d", b.serial),
		Note: map[string]string{"en": "closed by chaos"},
	}
	id, ok = b.create(ctx, req)
	o.Reservation = id
	b.record(c, o, ok, ok || b.refused, req.GetRequestId())
	s := o
	s.Kind = sweepSeat
	if ok {
		b.counts.closures++
		b.awaitSweep(ctx, plansBranch, id)
	}
	b.record(c, s, ok, ok || b.refused, req.GetRequestId())
	return id, ok
}

// create makes a closure. Clients reserve and cancel meanwhile, so the number of reservations inside
// changes, and the call is repeated with the number of the refusal. It sets refused if the system
// has not made the closure for sure.
func (b *librarian) create(ctx context.Context, req *dlsmsv1.CreateClosureRequest) (id int64, ok bool) {
	b.refused = true
	if !b.preview(ctx, req) {
		return 0, false
	}
	for range 50 {
		refusal, answered := b.call(ctx, "CreateClosure", func(ctx context.Context, api *e2e.Client) error {
			resp, err := api.Admin.CreateClosure(ctx, req)
			id = resp.GetClosure().GetId()
			return err
		})
		if refusal.Reason != "CHANGED_SINCE_CHECK" {
			b.refused = answered && refusal.Reason != ""
			return id, b.must("CreateClosure", refusal, answered)
		}
		n, err := strconv.ParseInt(refusal.Metadata["reservations"], 10, 32)
		if err != nil {
			b.load.history.found.add(checkAnswers, "CHANGED_SINCE_CHECK without the number of reservations")
			return 0, false
		}
		req.ExpectedReservations = int32(n)
	}
	return 0, false // the clients were faster each time
}

// preview asks for the impact of a closure. It must change nothing, also not the audit log.
func (b *librarian) preview(ctx context.Context, req *dlsmsv1.CreateClosureRequest) bool {
	shown := proto.CloneOf(req)
	shown.ValidateOnly, shown.RequestId = true, ""
	refusal, answered := b.call(ctx, "CreateClosure, to validate", func(ctx context.Context, api *e2e.Client) error {
		_, err := api.Admin.CreateClosure(ctx, shown)
		return err
	})
	return b.must("CreateClosure, to validate", refusal, answered)
}

// closeVisits closes some seats of the visits branch from now on, and opens them again. Users who
// wait for these seats must get no offer in between.
func (b *librarian) closeVisits(ctx context.Context) {
	calls := context.WithoutCancel(ctx)
	first := b.rng.IntN(len(b.load.visits) - 3)
	b.serial++
	req := &dlsmsv1.CreateClosureRequest{
		Branch: visitsBranch, SeatIds: b.load.visits[first : first+4], RequestId: fmt.Sprintf("l-%d", b.serial),
		OnBookings: dlsmsv1.BookingAction_BOOKING_ACTION_CANCEL,
	}
	id, ok := b.create(calls, req)
	if !ok {
		return
	}
	b.counts.closures++
	b.awaitSweep(calls, visitsBranch, id)
	sleep(ctx, time.Duration(b.rng.Int64N(int64(2*time.Second))))
	if refusal, answered := b.lift(calls, id); answered && refusal.Reason == "" {
		b.counts.lifted++
	}
}

// lift lifts a closure. The answer to a first try may be lost, so CLOSURE_ENDED counts as success.
func (b *librarian) lift(ctx context.Context, id int64) (e2e.Refusal, bool) {
	refusal, answered := b.call(ctx, "UpdateClosure", func(ctx context.Context, api *e2e.Client) error {
		_, err := api.Admin.UpdateClosure(ctx, &dlsmsv1.UpdateClosureRequest{ClosureId: id, Lift: true})
		return err
	})
	if refusal.Reason == "CLOSURE_ENDED" {
		return e2e.Refusal{}, answered
	}
	b.must("UpdateClosure", refusal, answered)
	return refusal, answered
}

// record records an operation for each seat of a closure.
func (b *librarian) record(c closedSeats, o op, done, answered bool, requestID string) {
	o.Client, o.User, o.RequestID = clients+1, b.User.GetId(), requestID
	o.LastCall, o.Return = o.Call, b.load.history.since()
	if !done && answered {
		return
	}
	o.Unknown = !answered
	for _, seat := range c.seats {
		o.Seat = seat
		b.ops = append(b.ops, o)
	}
}

// longestSweep is the longest time from the answer that a closure was made to the end of its sweep.
const longestSweep = 2 * operatorTime

// awaitSweep waits until a sweep is done. A sweep that is not done within longestSweep is a
// violation.
func (b *librarian) awaitSweep(ctx context.Context, branch string, id int64) {
	until := time.Now().Add(longestSweep)
	for {
		var progress *dlsmsv1.SweepProgress
		refusal, answered := b.call(ctx, "ListClosures", func(ctx context.Context, api *e2e.Client) error {
			resp, err := api.Admin.ListClosures(ctx, &dlsmsv1.ListClosuresRequest{
				Branch: branch, IncludePast: true, PageSize: 5,
			})
			for _, c := range resp.GetClosures() {
				if c.GetId() == id {
					progress = c.GetSweep()
				}
			}
			return err
		})
		b.must("ListClosures", refusal, answered)
		switch {
		case progress.GetDone():
			return
		case time.Now().After(until):
			b.load.history.found.add(checkLiveness, "the sweep of closure %d is not done: %v", id, progress)
			return
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

// mayHaveEnded reports whether a sweep may have ended a reservation.
func (b *librarian) mayHaveEnded(r booking) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.closed {
		for _, seat := range c.seats {
			if seat == r.seat && c.start.Before(r.end) && r.start.Before(c.end) {
				return true
			}
		}
	}
	return false
}

// setPolicy changes the rules of the visits branch. Few strikes suspend a user, so that clients meet
// suspensions, which forgive ends.
func (b *librarian) setPolicy(ctx context.Context) {
	limit, upcoming := 1+b.rng.Int32N(3), 5+b.rng.Int32N(20)
	refusal, answered := b.call(ctx, "SetPolicy", func(ctx context.Context, api *e2e.Client) error {
		_, err := api.Admin.SetPolicy(ctx, &dlsmsv1.SetPolicyRequest{Policy: &dlsmsv1.Policy{
			Branch: visitsBranch,
			Rules:  &dlsmsv1.PolicyRules{StrikeLimit: &limit, MaxUpcoming: &upcoming, SuspensionDays: []int32{1, 2}},
		}})
		return err
	})
	if b.must("SetPolicy", refusal, answered) {
		b.counts.policies++
	}
}

// forgive forgives all strikes of the visits branch.
func (b *librarian) forgive(ctx context.Context) {
	now := b.load.system.clock.At(time.Now())
	refusal, answered := b.call(ctx, "ForgiveStrikes", func(ctx context.Context, api *e2e.Client) error {
		_, err := api.Desk.ForgiveStrikes(ctx, &dlsmsv1.ForgiveStrikesRequest{
			Branch: visitsBranch, Reason: "chaos",
			StartTime: timestamppb.New(now.AddDate(0, 0, -7)), EndTime: timestamppb.New(now.AddDate(0, 0, 1)),
		})
		return err
	})
	if b.must("ForgiveStrikes", refusal, answered) {
		b.counts.forgiven++
	}
}

// changeSeats changes the amenities of the seats of the visits branch.
func (b *librarian) changeSeats(ctx context.Context) {
	req := &dlsmsv1.UpsertSeatsRequest{Branch: visitsBranch}
	for i := range visitSeats {
		amenity := dlsmsv1.Amenity(1 + b.rng.Int32N(5))
		req.Seats = append(req.Seats, &dlsmsv1.SeatSpec{
			Label: fmt.Sprintf("H-%d", i+1), Area: "Hall", Amenities: []dlsmsv1.Amenity{amenity},
		})
	}
	refusal, answered := b.call(ctx, "UpsertSeats", func(ctx context.Context, api *e2e.Client) error {
		_, err := api.Admin.UpsertSeats(ctx, req)
		return err
	})
	if b.must("UpsertSeats", refusal, answered) {
		b.counts.seats++
	}
}

// importSeats imports a file with the seats of the visits branch and two new ones. It retires the new
// seats of the import before. An import that a fault interrupts must change all seats or none.
func (b *librarian) importSeats(ctx context.Context) {
	b.serial++
	amenity := []string{"power_outlet", "monitor", "standing_desk", "window"}[b.rng.IntN(4)]
	file := "branch,area,label,amenities\n"
	for i := range visitSeats {
		file += fmt.Sprintf("%s,Hall,H-%d,%s\n", visitsBranch, i+1, amenity)
	}
	for i := range 2 {
		file += fmt.Sprintf("%s,Hall,N-%d-%d,%s\n", visitsBranch, b.serial, i, amenity)
	}
	req := &dlsmsv1.ImportSeatsRequest{Content: []byte(file), RetireMissing: true}
	imported := b.sendFile(ctx, req)
	if imported {
		b.counts.imports++
	}
	var made, kinds int
	err := b.load.system.db.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE label LIKE 'N-' || $2::int || '-%'), count(DISTINCT amenities)
		FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
		WHERE b.code = $1 AND s.retired_at IS NULL`, visitsBranch, b.serial).Scan(&made, &kinds)
	switch whole := made == 2 && kinds == 1; {
	case err != nil:
		b.load.history.found.add(checkInvariants, "the seats after an import cannot be read: %v", err)
	case !whole && (imported || made > 0):
		b.load.history.found.add(checkInvariants, "an import made %d of 2 seats, and %d kinds of seats", made, kinds)
	}
}

// sendFile makes a dry run of an import and then the import. Reservations may change in between, so
// it tries again with another dry run.
func (b *librarian) sendFile(ctx context.Context, req *dlsmsv1.ImportSeatsRequest) bool {
	for range 50 {
		req.DryRun, req.Fingerprint = true, ""
		refusal, answered := b.call(ctx, "ImportSeats, dry run", func(ctx context.Context, api *e2e.Client) error {
			resp, err := api.Admin.ImportSeats(ctx, req)
			req.Fingerprint = resp.GetFingerprint()
			return err
		})
		if !b.must("ImportSeats, dry run", refusal, answered) {
			return false
		}
		req.DryRun = false
		refusal, answered = b.call(ctx, "ImportSeats", func(ctx context.Context, api *e2e.Client) error {
			_, err := api.Admin.ImportSeats(ctx, req)
			return err
		})
		if refusal.Reason != "CHANGED_SINCE_CHECK" {
			return b.must("ImportSeats", refusal, answered)
		}
	}
	return false // the clients were faster each time
}
