package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// operator stands for a person who changes the database by SQL while clients use the system. It
// runs bad SQL statements, makes a row that cannot be changed, and edits the catalog.
//
// It changes only two branches of its own, annex and depot. No client uses them, so the checks of
// the other branches need no exceptions. It also has two users: owner books seats in annex, and
// waiter joins their waitlists, so that the system has transitions to make there.
type operator struct {
	system  *system
	history *history
	db      *pgxpool.Pool // with the role of the replicas
	conns   []grpc.ClientConnInterface
	direct  []*e2e.Client // to each replica, without a proxy

	branch, depot int64   // a bad row moves a seat to the depot
	seats         []int64 // of the branch
	owner         *e2e.Client
	waiter        *e2e.Client
	firstDay      time.Time // of the bookings of owner
	serial, hour  int       // count the requests, and the hours that were booked ahead

	mu       sync.Mutex
	outcomes map[string]*outcome // of the bad rows
	reads    []op                // of the edited rows
	edits    int
	editing  register
}

// outcome counts how often the database refused and accepted a bad row.
type outcome struct{ refused, accepted int }

const (
	operatorBranch = "annex"
	operatorDepot  = "depot"
	operatorSeats  = 24
)

// Indexes of operator.seats, by the purpose of the seats.
const (
	dueSeat    = iota // booked from now on, so that transitions become due during the fault
	keptSeat          // booked days ahead
	freeSeat          // never booked
	editedSeat        // this and all later seats: never booked, and edited
)

// poisonSQL adds the table chaos_poison, and a trigger for the reservations of one seat (%d). While
// the table has the seat, the trigger refuses all updates of these reservations. Such a reservation
// stands for any row that makes a transition fail.
const poisonSQL = `
	CREATE TABLE chaos_poison (seat_id bigint PRIMARY KEY);
	CREATE FUNCTION chaos_poison() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM chaos_poison p WHERE p.seat_id = NEW.seat_id) THEN
			RAISE EXCEPTION 'reservation %% is poison', NEW.id;
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER chaos_poison BEFORE UPDATE ON reservations FOR EACH ROW WHEN (NEW.seat_id = %d)
		EXECUTE FUNCTION chaos_poison()`

// slowCommitSQL adds the table chaos_slow_commit, and a trigger for new reservations. While the table
// has a row, the trigger delays the commit by up to 800 ms, after the reservation was decided and
// written. Such a commit stands for a slow disk, and for a standby that confirms each commit.
const slowCommitSQL = `
	CREATE TABLE chaos_slow_commit (slow boolean PRIMARY KEY);
	CREATE FUNCTION chaos_slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM chaos_slow_commit) THEN
			PERFORM pg_sleep(0.8 * random());
		END IF;
		RETURN NULL;
	END $$;
	CREATE CONSTRAINT TRIGGER chaos_slow_commit AFTER INSERT ON reservations DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION chaos_slow_commit()`

// newOperator adds the operator's branches and users.
func (s *system) newOperator(
	ctx context.Context, h *history, conns []grpc.ClientConnInterface,
) (_ *operator, err error) {
	o := &operator{
		system: s, history: h, conns: conns, outcomes: map[string]*outcome{}, editing: newRegister(),
	}
	if o.db, err = pgxpool.New(ctx, s.Postgres.DatabaseURL()); err != nil {
		return nil, err
	}
	if o.seats, err = s.addBranch(ctx, operatorBranch, operatorSeats); err != nil {
		return nil, err
	}
	if _, err = s.addBranch(ctx, operatorDepot, 1); err != nil {
		return nil, err
	}
	if err := s.db.QueryRow(ctx, `
		SELECT max(id) FILTER (WHERE code = $1), max(id) FILTER (WHERE code = $2) FROM branches WHERE library_id = 1`,
		operatorBranch, operatorDepot).Scan(&o.branch, &o.depot); err != nil {
		return nil, err
	}
	for _, branch := range []int64{o.branch, o.depot} {
		if _, err := o.db.Exec(ctx, openAlwaysSQL, branch); err != nil {
			return nil, fmt.Errorf("add hours: %w", err)
		}
	}
	if _, err := o.db.Exec(ctx, fmt.Sprintf(poisonSQL, o.seats[dueSeat])); err != nil {
		return nil, fmt.Errorf("prepare the poison row: %w", err)
	}
	if _, err := o.db.Exec(ctx, slowCommitSQL); err != nil {
		return nil, fmt.Errorf("prepare slow commits: %w", err)
	}
	if o.owner, err = signUp(ctx, conns, "operator-booker"); err != nil {
		return nil, err
	}
	if o.waiter, err = signUp(ctx, conns, "operator-waiter"); err != nil {
		return nil, err
	}
	o.firstDay = s.clock.At(time.Now()).UTC().Truncate(24*time.Hour).AddDate(0, 0, firstDay)
	for i := range s.Replicas {
		conn, err := s.dial(s.ReplicaAddr(i), e2e.RetryOptions()...)
		if err != nil {
			return nil, err
		}
		o.direct = append(o.direct, e2e.Anonymous(conn))
	}
	return o, nil
}

// openAlwaysSQL gives branch $1 opening hours that cover the whole week. The branch is open at all
// times without them too, but with them the system has to evaluate the hours.
const openAlwaysSQL = `
	INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
	SELECT 1, $1, d, '00:00', '24:00' FROM generate_series(1, 7) d`

// byOperator returns an injector for an action of the operator.
func byOperator(do func(*operator, context.Context, *rand.Rand) (func(context.Context) error, error)) injector {
	return func(ctx context.Context, s *system, rng *rand.Rand) (func(context.Context) error, error) {
		return do(s.operator, ctx, rng)
	}
}

// operatorTime bounds each wait of the operator. In this time a replica may be frozen for
// freezeTime, and then take mostRecovery to recover.
const operatorTime = mostRecovery + freezeTime

// retry calls the function do until it succeeds, Postgres refuses the statement, or operatorTime is
// over. It repeats the call after other errors, because another fault may have stopped Postgres.
func (o *operator) retry(ctx context.Context, do func(context.Context) error) error {
	for until := time.Now().Add(operatorTime); ; sleep(ctx, retryAfter) {
		tryCtx, end := context.WithTimeout(ctx, tryTimeout)
		err := do(tryCtx)
		end()
		if err == nil || refusedBySQL(err) || time.Now().After(until) {
			return err
		}
	}
}

// exec runs a statement with retry.
func (o *operator) exec(ctx context.Context, sql string, args ...any) error {
	return o.retry(ctx, func(ctx context.Context) error {
		_, err := o.db.Exec(ctx, sql, args...)
		return err
	})
}

// refusedBySQL reports whether Postgres refused the statement or its data. It returns false for the
// errors that Postgres returns because it is starting, stopping, full or busy.
func refusedBySQL(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch pg.Code[:2] {
	case "08", "40", "53", "55", "57", "58":
		return false
	}
	return true
}

// call makes a call for a user until it has an answer, and returns the reason of a refusal. An
// answer that is not in the contract is a violation, because a bad row must not cause an internal
// error.
func (o *operator) call(
	ctx context.Context, user *e2e.Client, name string, do func(context.Context, *e2e.Client) error,
) (reason string) {
	until := time.Now().Add(operatorTime)
	for n := 0; ; n++ {
		tryCtx, end := context.WithTimeout(ctx, tryTimeout)
		err := do(tryCtx, user.WithConn(o.conns[n%len(o.conns)]))
		end()
		if err == nil {
			return ""
		}
		refusal := e2e.RefusalOf(err)
		switch {
		case noAnswer(refusal), refusal.Reason == "OVERLOADED":
			if time.Now().After(until) {
				return "no answer"
			}
			sleep(ctx, retryAfter)
		default:
			if refusal.Reason == "" || e2e.CheckRefusal(err, refusal.Reason) != nil {
				o.history.found.add(checkAnswers,
					"%s in the operator's branch had an answer that is not in the contract: %v", name, err)
			}
			return refusal.Reason
		}
	}
}

// nextRequest returns a new request id.
func (o *operator) nextRequest() string {
	o.serial++
	return fmt.Sprintf("o-%d", o.serial)
}

// reserve books a seat for the user owner. If start is zero, the reservation begins now. If waited
// is true, the user waiter joins the waitlist for the seat. reserve returns 0 if the booking was
// refused.
func (o *operator) reserve(ctx context.Context, seat int64, start, end time.Time, waited bool) (reservation int64) {
	req := &dlsmsv1.CreateReservationRequest{SeatId: seat, EndTime: timestamppb.New(end), RequestId: o.nextRequest()}
	if !start.IsZero() {
		req.StartTime = timestamppb.New(start)
	}
	if o.call(ctx, o.owner, "CreateReservation", func(ctx context.Context, c *e2e.Client) error {
		resp, err := c.Reservations.CreateReservation(ctx, req)
		reservation = resp.GetReservation().GetId()
		return err
	}) != "" {
		return 0
	}
	if !waited {
		return reservation
	}
	join := &dlsmsv1.JoinWaitlistRequest{
		SeatId: seat, StartTime: req.GetStartTime(), EndTime: req.GetEndTime(), RequestId: o.nextRequest(),
	}
	if start.IsZero() {
		join.StartTime = timestamppb.New(o.system.clock.At(time.Now()).Add(time.Minute))
		join.EndTime = timestamppb.New(end.Add(20 * time.Minute))
	}
	o.call(ctx, o.waiter, "JoinWaitlist", func(ctx context.Context, c *e2e.Client) error {
		_, err := c.Notify.JoinWaitlist(ctx, join)
		return err
	})
	return reservation
}

// reserveAhead books one hour days ahead, a different hour each time.
func (o *operator) reserveAhead(ctx context.Context, waited bool) (reservation int64, start, end time.Time) {
	const hours = planDays * 24
	start = o.firstDay.Add(time.Duration(o.hour%hours) * time.Hour)
	o.hour++
	end = start.Add(time.Hour)
	return o.reserve(ctx, o.seats[keptSeat], start, end, waited), start, end
}

// reserveDue books dueSeat from now on, with a waitlist entry, and returns the check-in deadline by
// the system's clock. No user checks in, so the no-show becomes due at the deadline. If the booking
// was refused, the result is zero.
func (o *operator) reserveDue(ctx context.Context) (due time.Time) {
	now := o.system.clock.At(time.Now())
	if o.reserve(ctx, o.seats[dueSeat], time.Time{}, now.Add(30*time.Minute).Truncate(time.Microsecond), true) == 0 {
		return time.Time{}
	}
	return o.system.clock.At(time.Now()).Add(checkInTime)
}

// checkOtherBranches waits until due, when a no-show at dueSeat becomes due and may fail. Then it
// checks that the workers continue with the other branches: it waits for a later no-show there. If
// there is none yet, and one is overdue by more than mostRecovery, that is a violation. Its text
// begins with the parameter because.
func (o *operator) checkOtherBranches(ctx context.Context, due time.Time, because string) error {
	if due.IsZero() {
		return nil
	}
	sleep(ctx, time.Until(o.system.clock.Real(due)))
	began := time.Now()
	var done, overdue bool
	for !done && time.Since(began) < operatorTime {
		err := o.retry(ctx, func(ctx context.Context) error {
			return o.system.db.QueryRow(ctx, `
				SELECT EXISTS (
						SELECT FROM reservation_events e JOIN seats s ON s.library_id = e.library_id AND s.id = e.seat_id
						WHERE s.branch_id <> $1 AND e.kind = 'NO_SHOW' AND e.at > $2
						AND e.id > (SELECT max(id) - 2000 FROM reservation_events)),
					EXISTS (
						SELECT FROM reservations r JOIN seats s ON s.library_id = r.library_id AND s.id = r.seat_id
						WHERE s.branch_id <> $1 AND r.occupies AND r.status = 'CONFIRMED'
						AND r.check_in_deadline < dlsms_now() - $3::interval)`,
				o.branch, due.Add(o.systemTime(time.Second)), o.systemTime(mostRecovery)).Scan(&done, &overdue)
		})
		if err != nil {
			return err
		}
		if !done && overdue {
			o.history.found.add(checkLiveness,
				"%s, and the workers stopped at the other branches: a no-show there is overdue by more than %s",
				because, mostRecovery)
			return nil
		}
		sleep(ctx, retryAfter)
	}
	return nil
}

// systemTime converts a real duration to the system's clock.
func (o *operator) systemTime(d time.Duration) time.Duration {
	return d * time.Duration(o.system.clock.Speed)
}

// poison makes all transitions at one seat fail. The function heal checks that the workers
// continued with the other branches, and ends the fault.
func (o *operator) poison(ctx context.Context, _ *rand.Rand) (heal func(context.Context) error, err error) {
	due := o.reserveDue(ctx)
	seat := o.seats[dueSeat]
	if err := o.exec(ctx, `INSERT INTO chaos_poison VALUES ($1) ON CONFLICT DO NOTHING`, seat); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return errors.Join(
			o.checkOtherBranches(ctx, due, "the rows of one seat cannot be changed"),
			o.exec(ctx, `DELETE FROM chaos_poison WHERE seat_id = $1`, seat))
	}, nil
}

// slowCommits delays the commits of new reservations. The function heal ends the fault.
func (o *operator) slowCommits(ctx context.Context, _ *rand.Rand) (heal func(context.Context) error, err error) {
	if err := o.exec(ctx, `INSERT INTO chaos_slow_commit VALUES (true) ON CONFLICT DO NOTHING`); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return o.exec(ctx, `DELETE FROM chaos_slow_commit`) }, nil
}
