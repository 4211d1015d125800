package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// order is an order of a command on the host.
func order(action string) library.Order { return library.Order{Actor: library.Host, Action: action} }

// cancelling is a disruption that cancels n reservations.
func cancelling(n int) library.Disruption {
	return library.Disruption{
		OnBookings: library.CancelBookings, Expected: n, Note: library.Texts{"en": "A pipe has burst."},
	}
}

// closeBranch closes the branch of the bundle from one minute after noon to another, and cancels n
// reservations. change may change the closure.
func (b bundle) closeBranch(
	t *testing.T, from, to, n int, change ...func(*library.ClosureSpec),
) library.ClosureState {
	t.Helper()
	spec := library.ClosureSpec{Branch: "branch-0", StartTime: at(from), EndTime: at(to), Disruption: cancelling(n)}
	for _, f := range change {
		f(&spec)
	}
	c, _, err := b.CreateClosure(t.Context(), order("CreateClosure"), spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sweep runs all open sweeps, with two seats in a transaction, and returns the number of
// reservations that they ended.
func (b bundle) sweep(t *testing.T) (ended int) {
	t.Helper()
	for {
		r, err := b.SweepNext(t.Context(), 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.SweepID == 0 {
			return ended
		}
		ended += r.Ended
	}
}

// told returns the notifications of a user, as "kind seat suggested".
func (b bundle) told(t *testing.T, user int) (out []string) {
	t.Helper()
	list, err := b.Notifications(t.Context(), b.users[user], 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		text := string(n.Kind)
		if n.ByLibrary {
			text += " by library: " + n.Note["en"]
		}
		if n.Suggested != nil {
			text += fmt.Sprintf(" seat %d", slices.Index(b.seats, n.Suggested.SeatID))
		}
		out = append(out, text)
	}
	return out
}

func (b bundle) audit(t *testing.T) []string {
	t.Helper()
	return storetest.Rows[string](t, b.db, `
		SELECT action || ' ' || object || CASE WHEN before IS NULL THEN ' new' ELSE '' END FROM audit_log ORDER BY id`)
}

// closedSeats limits a closure to some seats of the bundle.
func (b bundle) closedSeats(seats ...int) func(*library.ClosureSpec) {
	return func(s *library.ClosureSpec) {
		for _, i := range seats {
			s.SeatIDs = append(s.SeatIDs, b.seats[i])
		}
	}
}

// TestSweepEndsReservations closes four of five seats while their reservations have all statuses.
func TestSweepEndsReservations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.users = b.db.Users(t, 9)
	confirmed := b.reserve(t, 0, 0, 60, 120)
	here := b.reserve(t, 1, 1, 0, 120)
	mustDo(t, b.checkIn, b.users[1], here.ID)
	early := b.reserve(t, 2, 2, 10, 120)
	mustDo(t, b.checkIn, b.users[2], early.ID)
	offered := b.offered(t, 3, 3, 60, 120)
	before := b.reserve(t, 4, 0, 0, 30)
	elsewhere := b.reserve(t, 5, 4, 60, 90)
	waiting := b.join(t, 6, 0, 60, 120)

	closure := b.closeBranch(t, 30, 240, 4, b.closedSeats(0, 1, 2, 3))
	wantEqual(t, "progress", closure.Sweep, &library.SweepProgress{Left: 4})
	b.clock(t, 5)
	wantEqual(t, "ended", b.sweep(t), 4)

	status := func(user int, r library.Reservation) string {
		t.Helper()
		r = mustRead(t, b, user, r.ID)
		return fmt.Sprint(r.Status, " ", r.EndTime.Sub(noon).Minutes())
	}
	wantEqual(t, "confirmed", status(0, confirmed), "CANCELLED 120")
	wantEqual(t, "at the seat", status(1, here), "CHECKED_IN 30")
	wantEqual(t, "checked in before the start", status(2, early), "CHECKED_IN 30")
	wantEqual(t, "before the closure", status(4, before), "CONFIRMED 30")
	wantEqual(t, "at another seat", status(5, elsewhere), "CONFIRMED 90")
	e := b.entry(t, 3, offered.ID)
	wantEqual(t, "the entry of the offer", fmt.Sprint(e.Status, e.ReservationID, e.OfferExpiresAt), "WAITING0 <nil>")
	wantEqual(t, "the hold", mustRead(t, b, 3, offered.ReservationID).Status, library.Cancelled)
	wantEqual(t, "a waiting entry", b.entry(t, 6, waiting.ID).Status, library.EntryWaiting)

	note := " by library: A pipe has burst."
	wantEqual(t, "told 0", b.told(t, 0), []string{"CANCELLED" + note}) // seat 4 is taken from 60 to 90
	wantEqual(t, "told 1", b.told(t, 1), []string{"SHORTENED" + note})
	wantEqual(t, "told 2", b.told(t, 2), []string{"SHORTENED" + note})
	wantEqual(t, "told 3", b.told(t, 3), []string{"OFFERED", "DECLINED" + note})
	wantEqual(t, "told 4", b.told(t, 4), []string(nil))
	wantEqual(t, "told 5", b.told(t, 5), []string(nil))

	list, err := b.ListClosures(t.Context(), library.Host, "branch-0", false, 0, 10)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	wantEqual(t, "progress", list[0].Sweep, &library.SweepProgress{Done: true, Ended: 4})
	storetest.CheckInvariants(t, b.db)

	b.clock(t, 30)
	wantDone(t, 2, b.CompleteEnded)
	wantDone(t, 1, b.MarkNoShows)
	wantEqual(t, "at the start of the closure", status(1, here), "COMPLETED 30")
	storetest.CheckInvariants(t, b.db)
}

// TestSweepAfterStart sweeps a closure that has begun: users at their seats leave at once.
func TestSweepAfterStart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	here := b.reserve(t, 0, 0, 0, 120)
	mustDo(t, b.checkIn, b.users[0], here.ID)
	early := b.reserve(t, 1, 1, 10, 120)
	mustDo(t, b.checkIn, b.users[1], early.ID)
	b.closeBranch(t, -60, 240, 2)
	wantEqual(t, "ended", b.sweep(t), 2)
	for user, r := range []library.Reservation{here, early} {
		wantEqual(t, "status", mustRead(t, b, user, r.ID).Status, library.Completed)
		wantEqual(t, "told", b.told(t, user), []string{"COMPLETED by library: A pipe has burst."})
	}
	storetest.CheckInvariants(t, b.db)
}

// TestSweepSuggestsNearestSeat checks which seat is suggested to a user who has lost seat 2.
func TestSweepSuggestsNearestSeat(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare string // $1: ids of the seats
		want    string
	}{
		"the nearest": {`SELECT`, " seat 1"},
		"a seat with all amenities": {`
			UPDATE seats SET amenities = CASE id WHEN $1[5] THEN '{1,2,3}' WHEN $1[2] THEN '{1}' ELSE '{1,2}' END::smallint[]
			WHERE id IN ($1[3], $1[5], $1[2])`, " seat 4"},
		"not a seat out of service": {`UPDATE seats SET out_of_service = true WHERE id = $1[2]`, " seat 3"},
		"the same area comes first": {`UPDATE seats SET area = 'B' WHERE id IN ($1[3], $1[1])`, " seat 0"},
		"not a seat in another closure": {`
			INSERT INTO closures (library_id, branch_id, seat_ids, during, on_bookings)
			SELECT 1, branch_id, ARRAY[$1[2]], tstzrange('2026-01-01', NULL), 'KEEP' FROM seats WHERE id = $1[2]`, " seat 3"},
		"not a taken seat": {`
			INSERT INTO reservations
				(library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline, created_at)
			SELECT 1, $1[2], (SELECT max(id) FROM users), r.during, 'CONFIRMED', r.check_in_opens_at, r.check_in_deadline,
				r.created_at
			FROM reservations r`, " seat 3"},
		"none while the branch is closed": {`
			INSERT INTO branch_hours SELECT 1, branch_id, 7, '1:00', '1:01' FROM seats WHERE id = $1[2]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.reserve(t, 0, 2, 60, 120)
			sql := c.prepare
			for i := range 5 {
				sql = strings.ReplaceAll(sql, fmt.Sprintf("$1[%d]", i+1), fmt.Sprint(b.seats[i]))
			}
			b.db.Exec(t, sql)
			b.db.WriteHistory(t)
			b.closeBranch(t, 0, 240, 1, b.closedSeats(2))
			b.sweep(t)
			wantEqual(t, "told", b.told(t, 0), []string{"CANCELLED by library: A pipe has burst." + c.want})
		})
	}
}

// TestClosureOffersSeatOutsideIt ends a reservation that overlaps a closure. A user who waits for the
// time before the closure gets the seat; a user who waits for a time inside keeps waiting. After the
// closure is lifted, the worker offers the seat to the other user, too.
func TestClosureOffersSeatOutsideIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 0, 240)
	outside, inside := b.join(t, 1, 0, 30, 90), b.join(t, 2, 0, 120, 180)
	c := b.closeBranch(t, 120, 300, 1)
	b.sweep(t)
	wantEqual(t, "outside", b.entry(t, 1, outside.ID).Status, library.EntryOffered)
	wantEqual(t, "inside", b.entry(t, 2, inside.ID).Status, library.EntryWaiting)
	wantDone(t, 0, b.OfferFreeSeats)
	storetest.CheckInvariants(t, b.db)
	_, _, err := b.UpdateClosure(t.Context(), order("UpdateClosure"), library.ClosureChange{ID: c.ID, Lift: true})
	if err != nil {
		t.Fatal(err)
	}
	wantDone(t, 1, b.OfferFreeSeats)
	wantEqual(t, "inside, after the closure", b.entry(t, 2, inside.ID).Status, library.EntryOffered)
	b.reserve(t, 3, 0, 190, 240)
	storetest.CheckInvariants(t, b.db)
}

// TestOfferReturnsAfterClosure ends an offer by a closure, and lifts the closure. The entry gets
// another offer, which its user claims.
func TestOfferReturnsAfterClosure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.offered(t, 0, 0, 60, 120)
	c := b.closeBranch(t, 0, 240, 1)
	wantEqual(t, "ended", b.sweep(t), 1)
	_, _, err := b.UpdateClosure(t.Context(), order("UpdateClosure"), library.ClosureChange{ID: c.ID, Lift: true})
	if err != nil {
		t.Fatal(err)
	}
	wantDone(t, 1, b.OfferFreeSeats)
	if _, _, err := b.ClaimOffer(t.Context(), b.users[0], e.ID); err != nil {
		t.Fatal(err)
	}
	storetest.CheckInvariants(t, b.db)
}

func TestCreateClosureIsSafeToRepeat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `UPDATE users SET role = 'LIBRARIAN' WHERE id = $1`, b.users[4])
	b.reserve(t, 0, 0, 60, 120)
	token := storetest.Value[string](t, b.db, `SELECT student_id FROM users WHERE id = $1`, b.users[4])
	generation := storetest.Value[int64](t, b.db, `SELECT token_generation FROM users WHERE id = $1`, b.users[4])
	o := order("CreateClosure")
	o.Actor = library.Actor{
		Role: library.RoleLibrarian, Token: &library.Identity{ID: b.users[4], StudentID: token, TokenGeneration: generation},
	}
	spec := library.ClosureSpec{Branch: "branch-0", EndTime: at(240), RequestID: "r", Disruption: cancelling(1)}

	o.ValidateOnly = true
	checked, impact, err := b.CreateClosure(t.Context(), o, spec)
	if err != nil || checked.ID != 0 || impact.Reservations != 1 || len(impact.First) != 1 {
		t.Fatal(checked, impact, err)
	}
	o.ValidateOnly = false
	wrong := spec
	for expected, want := range map[int]string{
		0: "the change affects 1 reservation: look at them with validate_only, " +
			"and repeat the call with expected_reservations = 1",
		2: "the change affects 1 reservation, and not 2 as the call expects: look at them with validate_only, " +
			"and repeat the call with expected_reservations = 1",
	} {
		wrong.Expected = expected
		_, _, err = b.CreateClosure(t.Context(), o, wrong)
		wantErr(t, err, library.ErrChangedSinceCheck)
		if refused, ok := errors.AsType[*library.Error](err); ok {
			wantEqual(t, "message", refused.Message, want)
			wantEqual(t, "metadata", refused.Metadata, map[string]string{"reservations": "1"})
		}
	}
	wantEqual(t, "closures", storetest.Value[int](t, b.db, `SELECT count(*) FROM closures`), 0)

	first, _, err := b.CreateClosure(t.Context(), o, spec)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "start", first.StartTime.UTC(), noon)
	again, _, err := b.CreateClosure(t.Context(), o, spec)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "repeated", again, first)
	spec.EndTime = at(250)
	_, _, err = b.CreateClosure(t.Context(), o, spec)
	wantErr(t, err, library.ErrRequestIDReused)
	wantEqual(t, "closures and sweeps", storetest.Value[string](t, b.db,
		`SELECT (SELECT count(*) FROM closures) || ' ' || (SELECT count(*) FROM sweeps)`), "1 1")
	wantEqual(t, "audit log", b.audit(t), []string{fmt.Sprintf("CreateClosure closure/%d new", first.ID)})
}

func TestCreateClosureChecksItsScope(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := b.db.Seats(t, 1)
	b.db.Exec(t, `UPDATE seats SET retired_at = dlsms_now(), out_of_service = true WHERE id = $1`, b.seats[1])
	for name, c := range map[string]struct {
		change func(*library.ClosureSpec)
		want   error
	}{
		"branch":       {func(s *library.ClosureSpec) { s.Branch = "nowhere" }, library.ErrBranchNotFound},
		"area":         {func(s *library.ClosureSpec) { s.Area = "Nowhere" }, library.ErrAreaNotFound},
		"other branch": {func(s *library.ClosureSpec) { s.SeatIDs = other }, library.ErrSeatNotFound},
		"retired":      {func(s *library.ClosureSpec) { s.SeatIDs = b.seats[:2] }, library.ErrSeatNotFound},
		"past":         {func(s *library.ClosureSpec) { s.StartTime, s.EndTime = at(-60), at(-1) }, library.Invalid()},
	} {
		spec := library.ClosureSpec{Branch: "branch-0"}
		c.change(&spec)
		if _, _, err := b.CreateClosure(t.Context(), order("CreateClosure"), spec); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if rows := b.audit(t); len(rows) > 0 {
		t.Errorf("the audit log has %v", rows)
	}
}

func TestUpdateClosure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 60, 120)
	late := b.reserve(t, 1, 1, 600, 660)
	c := b.closeBranch(t, 0, 240, 1)
	update := func(change library.ClosureChange) (library.ClosureState, library.Impact, error) {
		change.ID = c.ID
		return b.UpdateClosure(t.Context(), order("UpdateClosure"), change)
	}
	wantEqual(t, "ended", b.sweep(t), 1)

	if _, _, err := update(library.ClosureChange{EndTime: at(240), Note: c.Note}); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "rows of the audit log after no change", len(b.audit(t)), 1)
	_, _, err := update(library.ClosureChange{EndTime: at(-1)})
	wantErr(t, err, library.Invalid())
	_, _, err = update(library.ClosureChange{EndTime: at(700)})
	wantErr(t, err, library.ErrChangedSinceCheck)
	moved, impact, err := update(library.ClosureChange{EndTime: at(700), Expected: 1})
	if err != nil || impact.Reservations != 1 || moved.EndTime.UTC() != at(700) {
		t.Fatal(moved, impact, err)
	}
	wantEqual(t, "ended after the move", b.sweep(t), 1)
	wantEqual(t, "late", mustRead(t, b, 1, late.ID).Status, library.Cancelled)
	reworded, _, err := update(library.ClosureChange{Note: library.Texts{"de": "Wasser"}, NoEnd: true})
	if err != nil || !reworded.EndTime.IsZero() || len(reworded.Note) != 1 {
		t.Fatal(reworded, err)
	}
	_, err = b.Reserve(t.Context(), library.Booking{
		UserID: b.users[3], SeatID: b.seats[0], StartTime: at(1440), EndTime: at(1500),
	})
	wantErr(t, err, library.ErrSeatClosed)
	for range 2 {
		lifted, _, err := update(library.ClosureChange{Lift: true})
		if err != nil || lifted.LiftedAt == nil || !lifted.Sweep.Done {
			t.Fatal(lifted, err)
		}
	}
	_, _, err = update(library.ClosureChange{NoEnd: true})
	wantErr(t, err, library.ErrClosureEnded)
	b.reserve(t, 3, 0, 60, 120)
	_, _, err = b.UpdateClosure(t.Context(), order("UpdateClosure"), library.ClosureChange{ID: c.ID + 1, Lift: true})
	wantErr(t, err, library.ErrClosureNotFound)
	wantEqual(t, "rows of the audit log", len(b.audit(t)), 4)
	storetest.CheckInvariants(t, b.db)
}

// TestListClosuresPages lists closures of two branches in pages, and in the scope of a librarian.
func TestListClosuresPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Seats(t, 1)
	var ids []int64
	for i := range 5 {
		branch := fmt.Sprintf("branch-%d", i%2)
		c := b.closeBranch(t, 60*i, 60*i+30, 0, func(s *library.ClosureSpec) { s.Branch = branch })
		ids = append(ids, c.ID)
	}
	b.clock(t, 31) // the first has ended
	list := func(branch string, past bool, after int64, limit int) (out []int64) {
		t.Helper()
		page, err := b.ListClosures(t.Context(), library.Host, branch, past, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page {
			out = append(out, c.ID)
		}
		return out
	}
	wantEqual(t, "all", list("", true, 0, 10), []int64{ids[4], ids[3], ids[2], ids[1], ids[0]})
	wantEqual(t, "not ended", list("", false, 0, 10), []int64{ids[4], ids[3], ids[2], ids[1]})
	wantEqual(t, "the second page", list("", true, ids[3], 2), []int64{ids[2], ids[1]})
	wantEqual(t, "a branch", list("branch-1", true, 0, 10), []int64{ids[3], ids[1]})
	_, err := b.ListClosures(t.Context(), library.Host, "nowhere", true, 0, 1)
	wantErr(t, err, library.ErrBranchNotFound)
}

// TestSweepGoesOnAfterFailures poisons a seat. The sweep skips it, ends the other reservations, stays
// open, and comes back to the seat.
func TestSweepGoesOnAfterFailures(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Altered()
	for i := range 5 {
		b.reserve(t, i, i, 60, 120)
	}
	b.closeBranch(t, 0, 240, 5)
	b.db.Exec(t, fmt.Sprintf(`
		CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION 'broken'; END $f$;
		CREATE TRIGGER poison BEFORE UPDATE ON reservations FOR EACH ROW WHEN (OLD.seat_id = %d) EXECUTE FUNCTION poison()`,
		b.seats[1]))
	next := func(most int) (store.Swept, error) { return b.SweepNext(t.Context(), most, nil) }
	r, err := next(2)
	if err == nil || !slices.Equal(r.Seats, b.seats[:2]) {
		t.Fatal(r, err)
	}
	for _, want := range []int{1, 0, 1, 1, 1, 0} {
		r, err := next(1)
		if err != nil {
			if r.Ended != 0 || !slices.Equal(r.Seats, b.seats[1:2]) {
				t.Fatal(r, err)
			}
			err = b.SkipSweepSeat(t.Context(), r.SweepID, r.Seats[0])
		}
		if err != nil || r.Ended != want {
			t.Fatalf("%+v, %v, want %d ended", r, err, want)
		}
	}
	wantEqual(t, "open sweeps", storetest.Value[int](t, b.db, `SELECT count(*) FROM sweeps WHERE done_at IS NULL`), 1)
	if r, err := b.SweepNext(t.Context(), 1, []int64{r.SweepID}); err != nil || r.SweepID != 0 || r.Busy {
		t.Errorf("a sweep that was left out: %+v, %v", r, err)
	}
	b.db.Exec(t, `DROP FUNCTION poison CASCADE`)
	if r, err := next(5); err != nil || !r.Again || r.Ended != 1 {
		t.Errorf("the seat after its repair: %+v, %v", r, err)
	}
	wantEqual(t, "ended later", b.sweep(t), 0)
	wantEqual(t, "sweep", storetest.Value[string](t, b.db,
		`SELECT ended || ' ' || cardinality(skipped) || ' ' || (done_at IS NOT NULL) FROM sweeps`), "5 0 true")
	storetest.CheckInvariants(t, b.db)
}

// TestSweepOfSeatsOutOfService sweeps the reservations of a seat that is out of service, and not
// those of a seat that is in service again.
func TestSweepOfSeatsOutOfService(t *testing.T) {
	t.Parallel()
	b := setup(t)
	lost, kept := b.reserve(t, 0, 0, 60, 120), b.reserve(t, 1, 1, 60, 120)
	here := b.reserve(t, 2, 0, 0, 30)
	mustDo(t, b.checkIn, b.users[2], here.ID)
	b.db.Exec(t, `UPDATE seats SET out_of_service = true WHERE id = $1`, b.seats[0])
	b.db.Exec(t, `INSERT INTO sweeps (library_id, branch_id, cause, seat_ids, during)
		SELECT 1, branch_id, 'SEATS', $2, tstzrange($3, NULL) FROM seats WHERE id = $1`, b.seats[0], b.seats[:2], noon)
	wantEqual(t, "ended", b.sweep(t), 2)
	wantEqual(t, "lost", mustRead(t, b, 0, lost.ID).Status, library.Cancelled)
	wantEqual(t, "kept", mustRead(t, b, 1, kept.ID).Status, library.Confirmed)
	wantEqual(t, "at the seat", mustRead(t, b, 2, here.ID).Status, library.Completed)
	wantEqual(t, "told", b.told(t, 0), []string{"CANCELLED by library:  seat 2"})
	storetest.CheckInvariants(t, b.db)
}

// sweepAll is sweep for goroutines. Like the worker, it makes smaller transactions after a timeout,
// which is likely if the machine is busy.
func sweepAll(ctx context.Context, s *store.Store, most int) error {
	for {
		r, err := s.SweepNext(ctx, most, nil)
		switch {
		case errors.Is(err, library.ErrOverloaded):
			most = (most + 1) / 2
		case err != nil || r.SweepID == 0 && !r.Busy:
			return err
		}
	}
}

// TestRefusalsNameTheClosure compares the errors of Extend, ClaimOffer and Reserve.
func TestRefusalsNameTheClosure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r, e := b.reserve(t, 1, 1, 0, 60), b.offered(t, 0, 0, 60, 120)
	c := b.closeBranch(t, 90, 240, 0, func(s *library.ClosureSpec) { s.OnBookings = library.KeepBookings })
	start, end := at(90), at(240)
	want := library.ErrSeatClosed.With("closure_id", strconv.FormatInt(c.ID, 10)).
		WithTime("closed_from", &start).WithTime("closed_until", &end)
	_, err := b.Extend(t.Context(), b.users[1], r.ID, at(120))
	wantRefusal(t, err, want)
	_, _, err = b.ClaimOffer(t.Context(), b.users[0], e.ID)
	wantRefusal(t, err, want)
	_, err = b.Reserve(t.Context(), library.Booking{
		UserID: b.users[2], SeatID: b.seats[2], StartTime: at(90), EndTime: at(120),
	})
	wantRefusal(t, err, want)
}
