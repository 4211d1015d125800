package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/store/storetest"
)

// A restore loses the writes that were acknowledged after the dump. So a run with a restore has two
// histories: one before the restore and one after it. Each history is checked like the history of
// any other run. With one history, the checks would have to accept lost writes.

// lostUsers is the number of users who register after the dump. The restored database does not have
// them.
const lostUsers = 4

// restoration is a run in which the database is restored from a dump.
type restoration struct {
	plan   *plan
	system *system
	load   *load
	logf   func(string, ...any)

	// before and after are the results of the two histories. Violations of the restore itself are
	// in after.
	before, after *result

	dump          string        // file
	dumped        time.Duration // start of the dump, in the first history
	lostClients   []*e2e.Client
	ids           map[opKind]map[int64]bool // reservations and entries that were acknowledged before the restore
	users         map[int64]bool            // all users who registered before the restore
	restored      map[int64]bool            // events in the restored database
	notifications []int                     // number of notifications of each client before the restore
	refused       atomic.Int64              // refused calls of lost users after the restore
}

// restore runs the clients for a third of the plan's duration, and dumps the database in the middle
// of this time. Then it restores the dump, and runs the clients again for the same time.
func (p *plan) restore(ctx context.Context, logf func(string, ...any)) (_ *restoration, err error) {
	r := &restoration{
		plan: p, logf: logf, users: map[int64]bool{}, restored: map[int64]bool{},
		ids: map[opKind]map[int64]bool{book: {}, join: {}},
	}
	r.before, r.after = newResult(ctx, p), newResult(ctx, p)
	dir, err := os.MkdirTemp("", "dlsms-dump-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r.dump = filepath.Join(dir, "dlsms.dump")
	if r.system, err = startSystem(ctx, stack.Config{Binary: p.binary}, p.speed(), false); err != nil {
		return nil, err
	}
	defer func() {
		if stopped := r.system.stop(); stopped != nil && err == nil {
			r.after.found.add(checkLog, "the system did not stop cleanly: %v", stopped)
		}
	}()
	if r.load, err = startLoad(ctx, r.system, p, &r.before.found); err != nil {
		return nil, err
	}
	fast := r.system.clock
	if err := r.runBefore(ctx); err != nil {
		return r, err
	}
	if err := r.restoreDump(ctx); err != nil {
		return r, err
	}
	return r, r.runAfter(ctx, fast)
}

// found returns the violations of both histories and of the restore.
func (r *restoration) found() []violation {
	return append(r.before.found.list(), r.after.found.list()...)
}

// runBefore runs and checks the first history, up to the restore.
func (r *restoration) runBefore(ctx context.Context) error {
	l, part := r.load, r.plan.duration/6
	defer l.streams.end()
	defer l.end()
	r.measureBase(ctx, r.before, l.history)
	sleep(ctx, part)
	r.logf("dump, with clients")
	r.dumped = l.history.since()
	if err := r.pgTool(ctx, "pg_dump", "-Fc", "-f", r.dump, "-d", r.system.Postgres.AdminURL()); err != nil {
		return err
	}
	for i := range lostUsers {
		c, err := signUp(ctx, r.load.clients[0].conns, fmt.Sprintf("late-%d", i))
		if err != nil {
			return err
		}
		r.lostClients = append(r.lostClients, c)
		r.users[c.User.GetId()] = true
	}
	for _, c := range l.clients {
		r.users[c.User.GetId()] = true
	}
	sleep(ctx, part)
	if err := r.end(ctx, r.before, l.history); err != nil {
		return err
	}
	for _, ops := range l.history.all() {
		for _, o := range ops {
			if known := r.ids[o.Kind]; known != nil && o.done() {
				known[o.Reservation] = true
			}
		}
	}
	if err := r.before.catchUp(ctx, r.system, l.streams); err != nil {
		return err
	}
	for _, m := range l.streams.subscriptions {
		r.notifications = append(r.notifications, len(m.got()))
	}
	return nil
}

// measureBase measures the base rate of a history, and writes it into its result.
func (r *restoration) measureBase(ctx context.Context, of *result, h *history) {
	sleep(ctx, warmUp)
	from := h.ops.Load()
	sleep(ctx, baseTime)
	of.baseRate = float64(h.ops.Load()-from) / baseTime.Seconds()
	of.baseUntil, of.baseOperations = h.since(), h.ops.Load()
}

// end stops the clients, and checks the history h like that of any run. It writes the outcome into
// the result of.
func (r *restoration) end(ctx context.Context, of *result, h *history) error {
	of.lasted = h.since()
	r.load.end()
	of.clock, of.planSeats = r.system.clock, r.load.plans
	if err := r.system.setClock(ctx, r.system.clock.At(time.Now()), 1); err != nil {
		return err
	}
	of.count(h)
	return of.verify(ctx, r.system, h, r.plan.speed())
}

// restoreDump stops the replicas, restores the dump and starts the replicas again, in the order of
// docs/operating/backup.md.
func (r *restoration) restoreDump(ctx context.Context) error {
	r.logf("restore")
	for _, replica := range r.system.Replicas {
		if err := replica.Stop(ctx); err != nil {
			return err
		}
	}
	if err := r.pgTool(ctx, "pg_restore", "--clean", "--if-exists", "--single-transaction",
		"-d", r.system.Postgres.AdminURL(), r.dump); err != nil {
		return err
	}
	r.system.db.Reset()
	r.system.operator.db.Reset()
	rows, err := r.system.db.Query(ctx, `SELECT id FROM reservation_events`)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	for _, id := range ids {
		r.restored[id] = true
	}
	if err != nil {
		return err
	}
	if err := r.system.startAll(ctx); err != nil {
		return err
	}
	return r.checkDump(ctx)
}

// checkDump checks that the database has all writes that were acknowledged before the dump, and
// violates no invariant.
func (r *restoration) checkDump(ctx context.Context) error {
	w, err := r.system.readState(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, ops := range r.load.history.all() {
		for _, o := range ops {
			if o.Kind == read || !o.done() || o.Return > r.dumped {
				continue
			}
			n++
			if missing := w.lost(&o); missing != "" {
				r.after.found.add(checkDurability, "before the dump: %s", missing)
			}
		}
	}
	if n == 0 {
		r.after.found.add(checkActivity, "nothing was acknowledged before the dump: the run proves nothing")
	}
	broken, err := storetest.Violations(ctx, r.system.Postgres.AdminURL(), r.plan.speed())
	for _, b := range broken {
		r.after.found.add(checkInvariants, "after the restore: %s", b)
	}
	return err
}

// runAfter runs the second history, with the clients that the restored database has. The parameter
// fast is the clock of the system at the time of the dump.
func (r *restoration) runAfter(ctx context.Context, fast storetest.Clock) error {
	r.system.clock = fast // the restored database has this clock
	l := r.load
	h := newHistory(clients, &r.after.found)
	l.history, r.system.operator.reads = h, nil
	if err := r.liftClosures(ctx); err != nil {
		return err
	}
	if err := r.adoptReservations(ctx, h); err != nil {
		return err
	}
	old := l.streams
	l.streams = openStreamsAfter(ctx, l.clients, old.subscriptions)
	defer l.streams.end()
	living, stop := context.WithCancel(ctx)
	l.stop = stop
	defer l.end()
	l.runClients(living)
	var callers sync.WaitGroup
	calling, ended := context.WithCancel(ctx)
	for _, c := range r.lostClients {
		callers.Go(func() { r.callWithOldToken(calling, c) })
	}
	err := r.register(ctx)
	r.measureBase(ctx, r.after, h)
	sleep(ctx, r.plan.duration/3)
	ended()
	callers.Wait()
	if err != nil {
		return err
	}
	if err := r.end(ctx, r.after, h); err != nil {
		return err
	}
	for _, ops := range h.all() {
		for _, o := range ops {
			if o.Call > 0 && o.done() && r.ids[o.Kind][o.Reservation] {
				r.after.found.add(checkAnswers,
					"%s got the id %d, which was used before the restore", o.Kind, o.Reservation)
			}
		}
	}
	if r.refused.Load() == 0 {
		r.after.found.add(checkActivity,
			"no call with the token of a lost user had an answer: the run proves nothing")
	}
	return r.checkNotifications(ctx)
}

// liftClosures lifts the closures of the restored database after their sweeps, because the model of
// the second history begins without closures.
func (r *restoration) liftClosures(ctx context.Context) error {
	librarian := r.system.librarian
	rows, err := r.system.db.Query(ctx, `
		SELECT c.id, b.code FROM closures c JOIN branches b ON b.library_id = c.library_id AND b.id = c.branch_id
		WHERE c.lifted_at IS NULL`)
	if err != nil {
		return err
	}
	var id int64
	var branch string
	open := map[int64]string{}
	if _, err := pgx.ForEachRow(rows, []any{&id, &branch}, func() error { open[id] = branch; return nil }); err != nil {
		return err
	}
	for id, branch := range open {
		librarian.awaitSweep(ctx, branch, id)
		librarian.lift(ctx, id)
	}
	librarian.ops = nil
	return nil
}

// adoptReservations gives each client its reservations of the restored database, and puts them at
// the start of the history h.
func (r *restoration) adoptReservations(ctx context.Context, h *history) error {
	byUser := map[int64]*client{}
	for _, c := range r.load.clients {
		c.history, c.bookings, c.visit = h, nil, visit{}
		byUser[c.User.GetId()] = c
	}
	rows, err := r.system.db.Query(ctx, `
		SELECT id, seat_id, user_id, lower(during), upper(during) FROM reservations
		WHERE seat_id = ANY($1) AND status = 'CONFIRMED'`, r.load.plans)
	if err != nil {
		return err
	}
	var user int64
	var b booking
	_, err = pgx.ForEachRow(rows, []any{&b.id, &b.seat, &user, &b.start, &b.end}, func() error {
		c := byUser[user]
		b.start, b.end = b.start.UTC(), b.end.UTC()
		c.bookings = append(c.bookings, b)
		h.parts[c.number].ops = append(h.parts[c.number].ops, op{
			Client: c.number, Kind: book, User: user, Seat: b.seat, Start: b.start, End: b.end, Reservation: b.id,
		})
		return nil
	})
	return err
}

// openStreamsAfter opens the subscriptions of the clients after the restore. Each continues after
// the last notification of the client's subscription before the restore (in the parameter before).
func openStreamsAfter(ctx context.Context, clients []*client, before []*subscription) *streams {
	s := &streams{}
	ctx, s.stop = context.WithCancel(ctx)
	for i, c := range clients {
		m := &subscription{client: c, ids: before[i].got()}
		s.subscriptions = append(s.subscriptions, m)
		s.all.Go(func() { m.read(ctx) })
	}
	return s
}

// callWithOldToken makes calls with the token of a lost user until ctx ends. The restored database
// does not have this user, so it must refuse each call. It must not take the token for that of a
// new user with the same id.
func (r *restoration) callWithOldToken(ctx context.Context, user *e2e.Client) {
	conns := slices.Concat(r.load.clients[0].conns, r.load.clients[1].conns) // gRPC and HTTP
	for n := 0; ctx.Err() == nil; n++ {
		tryCtx, end := context.WithTimeout(ctx, tryTimeout)
		api := user.WithConn(conns[n%len(conns)])
		var err error
		if n%2 == 0 {
			_, err = api.Reservations.GetReservations(tryCtx, &dlsmsv1.GetReservationsRequest{})
		} else {
			err = first(api.Notify.Subscribe(tryCtx, &dlsmsv1.SubscribeRequest{}))
		}
		end()
		refusal := e2e.RefusalOf(err)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			r.after.found.add(checkAnswers,
				"the token of lost user %d was accepted", user.User.GetId())
		case strings.HasPrefix(refusal.Reason, "TOKEN_"):
			r.refused.Add(1)
		case !noAnswer(refusal) && refusal.Reason != "OVERLOADED":
			r.after.found.add(checkAnswers,
				"a call with the token of lost user %d: %v", user.User.GetId(), err)
		}
		sleep(ctx, retryAfter)
	}
}

// register registers as many users as the restore lost, and each books a seat. It checks that no
// user gets an id that was used before the restore. Otherwise an old token would give access to a
// new user.
func (r *restoration) register(ctx context.Context) error {
	seats, err := r.system.addBranch(ctx, "restored", lostUsers)
	if err != nil {
		return err
	}
	for i := range lostUsers {
		c, err := signUp(ctx, r.load.clients[0].conns, fmt.Sprintf("new-%d", i))
		if err != nil {
			return err
		}
		if r.users[c.User.GetId()] {
			r.after.found.add(checkAnswers,
				"a user who registered after the restore got the id %d, which was used before it", c.User.GetId())
		}
		start := r.system.clock.At(time.Now()).Add(24 * time.Hour).Truncate(time.Second)
		if _, err := c.Reservations.CreateReservation(ctx, &dlsmsv1.CreateReservationRequest{
			SeatId: seats[i], StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
		}); err != nil {
			return fmt.Errorf("book after the restore: %w", err)
		}
	}
	return nil
}

// checkNotifications checks that each client receives each event after the restore once and in
// order. Each subscription continues after the last notification before the restore, and the
// restored database may not have this notification.
func (r *restoration) checkNotifications(ctx context.Context) error {
	due := time.Now().Add(settleTime)
	for i, m := range r.load.streams.subscriptions {
		for {
			all, want, err := m.compare(ctx, r.system)
			if err != nil {
				return err
			}
			got := all[r.notifications[i]:]
			want = slices.DeleteFunc(want, func(id int64) bool { return r.restored[id] })
			if slices.Equal(got, want) {
				r.after.notifications += int64(len(got))
				break
			}
			if time.Now().After(due) {
				r.after.found.add(checkStreams,
					"after the restore user %d received %d of %d notifications: %v, want %v",
					m.client.User.GetId(), len(got), len(want), got, want)
				break
			}
			sleep(ctx, retryAfter)
		}
	}
	if r.after.notifications == 0 && r.after.found.count() == 0 {
		r.after.found.add(checkActivity, "there was no notification after the restore: the run proves nothing")
	}
	return nil
}

// pgTool runs a client program of Postgres.
func (r *restoration) pgTool(ctx context.Context, name string, args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%s is missing: install the client programs of PostgreSQL", name)
		}
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// restoreTime is the duration of a run with a restore, at full scale.
const restoreTime = time.Minute

// restored is a trial. It makes several runs with a restore, and verifies that they have no
// violation.
func restored(ctx context.Context, l *trialRun) error {
	n := l.times(5)
	var found []violation
	var refused, notifications, acknowledged int64
	for range n {
		p := &plan{binary: l.binary, duration: max(l.scaled(restoreTime), 30*time.Second), seed: l.rng.Uint64()}
		r, err := p.restore(ctx, l.logf)
		if err != nil {
			return err
		}
		found = append(found, r.found()...)
		refused, notifications = refused+r.refused.Load(), notifications+r.after.notifications
		acknowledged += r.before.acknowledged + r.after.acknowledged
	}
	for _, v := range found {
		l.logf("%s", v)
	}
	title := fmt.Sprintf("restored from a dump %d times, %d acknowledged writes, %d notifications after it, "+
		"%d calls of lost users: ", n, acknowledged, notifications, refused)
	l.row(title+"violations", "0", len(found) == 0, "%d", len(found))
	return nil
}

// restoreRun makes a run with a restore and returns its violations. It is for a canary that only
// such a run can find.
func restoreRun(ctx context.Context, p *plan) ([]violation, error) {
	r, err := p.restore(ctx, func(string, ...any) {})
	if err != nil {
		return nil, err
	}
	return r.found(), nil
}
