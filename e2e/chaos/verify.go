package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/store/storetest"
)

// settleTime bounds the time from the end of the last fault until everything that is due is done.
const settleTime = 15 * time.Second

// settle waits until no transition is due, and no waitlist entry fits a free seat. It returns how
// long that took. left has the work that remains after settleTime.
func (s *system) settle(ctx context.Context) (took time.Duration, left []string, err error) {
	began := time.Now()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		left, err = storetest.Unfinished(ctx, s.Postgres.AdminURL())
		took = time.Since(began)
		if err != nil || len(left) == 0 || took > settleTime {
			return took, left, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return took, nil, ctx.Err()
		}
	}
}

// transition identifies an event of the change log.
type transition struct {
	reservation int64
	kind        string
}

// dbState has the rows of the database against which the history is checked.
type dbState struct {
	byRequest   map[string]int64    // reservation, by requestKey
	made        map[int64]time.Time // creation of each reservation, by the system's clock
	user        map[int64]int64
	happened    map[transition]bool
	extended    map[string]bool // by extensionKey
	entries     map[int64]entry
	joined      map[string]int64        // entry, by requestKey
	kinds       map[string]int          // number of transitions of each kind
	overlaps    []string                // reservations that ever took a seat while another had it
	userWindows map[int64][]*userWindow // of each user
	closures    map[int64]bool          // whether each closure was lifted
	closed      map[string]int64        // closures by request
	swept       map[int64]int64         // closures whose sweeps ended reservations, by reservation
}

// userWindow is the window of a reservation. Its user had it from acquired until abandoned, by the
// system's clock. abandoned is zero if the user still has it.
type userWindow struct {
	reservation         int64
	start, end          time.Time
	acquired, abandoned time.Time
}

// entry is a waitlist entry.
type entry struct {
	user   int64
	status string
}

func requestKey(user int64, request string) string { return fmt.Sprintf("%d/%s", user, request) }

func extensionKey(reservation int64, end time.Time) string {
	return fmt.Sprintf("%d/%d", reservation, end.UnixMicro())
}

// readState reads the state of the database.
func (s *system) readState(ctx context.Context) (w dbState, err error) {
	w = dbState{
		byRequest: map[string]int64{}, made: map[int64]time.Time{}, user: map[int64]int64{},
		happened: map[transition]bool{}, extended: map[string]bool{}, entries: map[int64]entry{},
		joined: map[string]int64{}, closures: map[int64]bool{}, closed: map[string]int64{}, swept: map[int64]int64{},
		kinds: map[string]int{}, userWindows: map[int64][]*userWindow{},
	}
	rows, err := s.db.Query(ctx, `SELECT id, user_id, COALESCE(request_id, ''), created_at FROM reservations`)
	if err != nil {
		return w, err
	}
	var id, user int64
	var request, kind string
	var start, end, created time.Time
	if _, err = pgx.ForEachRow(rows, []any{&id, &user, &request, &created}, func() error {
		w.user[id], w.made[id] = user, created
		if request != "" {
			w.byRequest[requestKey(user, request)] = id
		}
		return nil
	}); err != nil {
		return w, err
	}
	// A transaction that writes an event holds the lock of the seat. So the ids of a seat's events
	// are in the order of its transitions.
	if rows, err = s.db.Query(ctx, `
		SELECT reservation_id, kind, lower(during), upper(during), seat_id, status IN ('HELD', 'CONFIRMED', 'CHECKED_IN'),
			user_id, status IN ('CONFIRMED', 'CHECKED_IN'), at
		FROM reservation_events ORDER BY id`); err != nil {
		return w, err
	}
	var seat int64
	var takes, busy bool
	var at time.Time
	on := map[int64]seatDay{}
	now := map[int64]*userWindow{} // of each reservation
	if _, err = pgx.ForEachRow(rows, []any{&id, &kind, &start, &end, &seat, &takes, &user, &busy, &at}, func() error {
		if before := now[id]; before != nil {
			before.abandoned = at
			delete(now, id)
		}
		if busy {
			now[id] = &userWindow{reservation: id, start: start, end: end, acquired: at}
			w.userWindows[user] = append(w.userWindows[user], now[id])
		}
		w.happened[transition{id, kind}] = true
		w.kinds[kind]++
		if kind == "EXTENDED" {
			w.extended[extensionKey(id, end)] = true
		}
		on[seat] = on[seat].without(id)
		if !takes {
			return nil
		}
		if !on[seat].free(start.UnixMicro(), end.UnixMicro(), id) {
			w.overlaps = append(w.overlaps,
				fmt.Sprintf("seat %d was taken when reservation %d was %s", seat, id, kind))
		}
		on[seat] = on[seat].with(takenWindow{reservation: id, start: start.UnixMicro(), end: end.UnixMicro()})
		return nil
	}); err != nil {
		return w, err
	}
	rows, err = s.db.Query(ctx, `SELECT id, user_id, status, COALESCE(request_id, '') FROM waitlist_entries`)
	if err != nil {
		return w, err
	}
	if _, err = pgx.ForEachRow(rows, []any{&id, &user, &kind, &request}, func() error {
		w.entries[id] = entry{user, kind}
		w.joined[requestKey(user, request)] = id
		return nil
	}); err != nil {
		return w, err
	}
	if rows, err = s.db.Query(ctx, `
		SELECT id, COALESCE(user_id, 0), COALESCE(request_id, ''), lifted_at IS NOT NULL FROM closures`); err != nil {
		return w, err
	}
	var lifted bool
	if _, err = pgx.ForEachRow(rows, []any{&id, &user, &request, &lifted}, func() error {
		w.closures[id] = lifted
		w.closed[requestKey(user, request)] = id
		return nil
	}); err != nil {
		return w, err
	}
	var closure int64
	rows, err = s.db.Query(ctx, `
		SELECT e.reservation_id, w.closure_id FROM reservation_events e
		JOIN sweeps w ON w.library_id = e.library_id AND w.id = e.sweep_id WHERE w.closure_id IS NOT NULL`)
	if err != nil {
		return w, err
	}
	_, err = pgx.ForEachRow(rows, []any{&id, &closure}, func() error { w.swept[id] = closure; return nil })
	return w, err
}

// staffSQL finds violations of rules that hold only for the librarian of a run: strikes are counted
// in visitsBranch ($1) only, and a closure is not moved. From the end of its sweep until it is
// lifted, no reservation may be inside a closure, and no offer may be made there.
const staffSQL = `
	WITH states AS (
		SELECT kind, seat_id, reservation_id, during, occupies, at,
			lead(at, 1, 'infinity') OVER later AS until, lead(sweep_id) OVER later AS ended_by
		FROM reservation_events WINDOW later AS (PARTITION BY reservation_id ORDER BY id)
	)
	SELECT format('strike %s of user %s is of branch %s, which has no policy', k.id, k.user_id, b.code)
	FROM strikes k JOIN branches b ON b.library_id = k.library_id AND b.id = k.branch_id WHERE b.code <> $1
	UNION ALL
	SELECT format('reservation %s of seat %s, %s at %s, was inside closure %s, whose sweep was done at %s',
		e.reservation_id, e.seat_id, e.kind, e.at, c.id, w.done_at)
	FROM sweeps w
	JOIN closures c ON c.library_id = w.library_id AND c.id = w.closure_id
	JOIN states e ON e.seat_id = ANY (c.seat_ids) AND e.occupies AND e.during && c.during
	WHERE (c.lifted_at IS NULL OR c.lifted_at > w.done_at) AND CASE
		WHEN e.at <= w.done_at THEN e.until > w.done_at AND e.ended_by IS DISTINCT FROM w.id AND upper(e.during) > w.done_at
		ELSE e.kind = 'OFFERED' AND (c.lifted_at IS NULL OR e.at < c.lifted_at) END`

// checkRules checks the rules that hold only for the branches and the librarian of a run.
func (r *result) checkRules(ctx context.Context, s *system) error {
	for _, rule := range []struct {
		sql  string
		args []any
	}{
		{staffSQL, []any{visitsBranch}},
		{wrongProofSQL, []any{screenBranch, bothBranch}},
		{wrongSumsSQL, []any{operatorBranch, operatorDepot, longestCall}},
	} {
		rows, err := s.db.Query(ctx, rule.sql, rule.args...)
		if err != nil {
			return err
		}
		broken, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, b := range broken {
			r.found.add(checkInvariants, "%s", b)
		}
	}
	return nil
}

// wasBusy reports whether the user of a booking or an extension may have had another reservation
// that overlaps the window. The reservation counts if the user had it at some time between from and
// until, by the system's clock.
func (w dbState) wasBusy(o *op, from, until time.Time) bool {
	return slices.ContainsFunc(w.userWindows[o.User], func(s *userWindow) bool {
		return s.reservation != o.Reservation && s.start.Before(o.End) && o.Start.Before(s.end) &&
			!s.acquired.After(until) && (s.abandoned.IsZero() || !s.abandoned.Before(from))
	})
}

// has reports whether the database has the effect of an operation.
func (w dbState) has(o *op) bool {
	happened := func(kind string) bool { return w.happened[transition{o.Reservation, kind}] }
	switch o.Kind {
	case book:
		return happened("RESERVED") && w.user[o.Reservation] == o.User
	case cancel:
		return happened("CANCELLED")
	case checkIn:
		return happened("CHECKED_IN")
	case checkOut:
		return happened("CHECKED_OUT") || happened("COMPLETED")
	case extend:
		return w.extended[extensionKey(o.Reservation, o.End)]
	case join:
		return w.entries[o.Reservation].user == o.User
	case claim:
		return w.entries[o.Reservation] == entry{o.User, "CLAIMED"}
	case leave:
		return w.entries[o.Reservation] == entry{o.User, "LEFT"}
	case closeSeat, sweepSeat:
		_, ok := w.closures[o.Reservation]
		return ok
	case liftSeat:
		return w.closures[o.Reservation]
	case read:
	}
	return true
}

// requested returns the id of the reservation or entry that a request made, 0 if there is none.
func (w dbState) requested(o *op) int64 {
	switch o.Kind {
	case join:
		return w.joined[requestKey(o.User, o.RequestID)]
	case closeSeat, sweepSeat:
		return w.closed[requestKey(o.User, o.RequestID)]
	case book, cancel, extend, read, checkIn, checkOut, claim, leave, liftSeat:
	}
	return w.byRequest[requestKey(o.User, o.RequestID)]
}

// lost returns "" if the database has the effect of an acknowledged operation. Otherwise it
// describes the operation.
func (w dbState) lost(o *op) string {
	if w.has(o) && (o.RequestID == "" || w.requested(o) == o.Reservation) {
		return ""
	}
	return fmt.Sprintf("%s of reservation %d by user %d was acknowledged at %s, and the database does not have it",
		o.Kind, o.Reservation, o.User, o.Return)
}

// resolve reports whether an operation was done although a try had no answer. The operation may
// have taken effect after the client stopped waiting. If the operation has a request id, resolve
// sets its reservation. If a sweep ended the reservation, a cancel of its user did not.
func (w dbState) resolve(o *op) (was bool) {
	if o.Kind == cancel && w.swept[o.Reservation] != 0 {
		return false
	}
	if o.RequestID != "" {
		o.Reservation = w.requested(o)
	}
	return w.has(o)
}

// denied reports whether the system refused the last try of a booking although an earlier try had
// made the reservation. This is an error: the earlier try made the reservation under the lock of
// the user, and the last try waits for this lock, so it must find the reservation.
func (w dbState) denied(o *op, lastCall time.Time) bool {
	return o.Kind == book && !o.Unknown && o.Reason != "OVERLOADED" && w.made[o.Reservation].Before(lastCall)
}

// verify checks the history against the database, and the database against the invariants.
func (r *result) verify(ctx context.Context, s *system, h *history, speed int) error {
	settled, left, err := s.settle(ctx)
	if err != nil {
		return err
	}
	r.settled = settled
	for _, l := range left {
		r.found.add(checkLiveness, "not done %s after the last fault: %s", settleTime, l)
	}
	broken, err := storetest.Violations(ctx, s.Postgres.AdminURL(), speed)
	if err != nil {
		return err
	}
	for _, b := range broken {
		r.found.add(checkInvariants, "%s", b)
	}
	if err := r.checkCheckIns(ctx, s, h, s.librarian.load.placeOf); err != nil {
		return err
	}
	if err := r.checkRules(ctx, s); err != nil {
		return err
	}
	if err := r.countSums(ctx, s); err != nil {
		return err
	}
	w, err := s.readState(ctx)
	if err != nil {
		return err
	}
	r.transitions = w.kinds
	for _, o := range w.overlaps {
		r.found.add(checkInvariants, "%s", o)
	}
	plans := map[int64]bool{}
	for _, id := range r.planSeats {
		plans[id] = true
	}
	var model []op
	for _, ops := range append(h.all(), s.operator.reads, s.librarian.ops) {
		for _, o := range ops {
			if o.done() {
				if missing := w.lost(&o); missing != "" {
					r.missing++
					r.found.add(checkDurability, "%s", missing)
				} else if o.Kind != read {
					r.acknowledged++
				}
			}
			switch {
			case o.Reason == "SEAT_TAKEN":
				r.conflicts++
			case o.Reason == "USER_BUSY" && plans[o.Seat]:
				r.busy++
				// A cancel may commit up to statementTime after the time in its event. Until the
				// commit, the cancelled reservation still makes the user busy.
				from := r.clock.At(h.began.Add(o.Call - statementTime))
				if !w.wasBusy(&o, from, r.clock.At(h.began.Add(o.Return+clockMargin))) {
					r.found.add(checkAnswers,
						"%s of seat %d from %s to %s at %s was refused because user %d was busy, but the user was not",
						o.Kind, o.Seat, o.Start, o.End, o.Call, o.User)
				}
			}
			if (o.Unknown || o.Unsure) && !o.done() && o.Kind != read {
				if w.resolve(&o) {
					r.resolvedDone++
					if w.denied(&o, r.clock.At(h.began.Add(o.LastCall-clockMargin))) {
						r.found.add(checkAnswers, "request %s of user %d made reservation %d and was then refused at %s: %s",
							o.RequestID, o.User, o.Reservation, o.LastCall, o.Reason)
					}
					o.Unknown, o.Reason, o.Return = false, "", o.Return+longestCall
					if o.Kind == sweepSeat {
						o.Return += longestSweep
					}
				} else {
					r.resolvedNot++
				}
			}
			outage := o.Kind == read && r.outage(o.Call, o.Return)
			if o.Kind == read && !outage {
				r.judgedReads++
			}
			if o.NotModified {
				// A 304 has no as_of. While a replica cannot reach Postgres, a 304 may be from memory, so
				// its time is unknown. Otherwise it must be as fresh as a 200.
				if outage {
					continue
				}
				r.judged304++
				o.AsOf = o.Call
			}
			if o.Kind == read && o.AsOf < o.Call {
				// A replica that cannot reach Postgres may answer from memory. The as_of of the
				// answer is then the time of the last refresh, and the model checks the read as a
				// read at that time.
				r.oldReads++
				if o.Call-o.AsOf > clockMargin && !outage {
					r.found.add(checkFreshness, "a read at %s was as of %s, while every replica could reach Postgres", o.Call, o.AsOf)
				}
				o.Call = max(0, o.AsOf-clockMargin)
			}
			if plans[o.Seat] {
				model = append(model, o)
			}
		}
	}
	r.checkConflicts()
	r.checkEdits(h, s.operator.reads)
	r.reads += int64(len(s.operator.reads))
	r.badRows, r.edits, r.staff = s.operator.badRowSummary(), s.operator.edits, s.librarian.counts
	r.linear = checkLinear(model, w.swept)
	for _, b := range r.linear.broken {
		r.found.add(checkLinearizability, "%s", b)
	}
	if err := s.breaches(); err != nil {
		r.found.add(checkAnswers, "%v", err)
	}
	if err := s.journal.Err(); err != nil {
		r.found.add(checkLog, "%v", err)
	}
	return nil
}

// longestCall bounds how long after the last try of a client its operation may still take effect.
// The try may wait in a stopped process or a blocked connection.
const longestCall = 20 * time.Second

// statementTime is the statement timeout of the server.
const statementTime = 5 * time.Second

// clockMargin is the error of a conversion between the clock of the database and the clock of this
// process.
const clockMargin = 2 * time.Millisecond
