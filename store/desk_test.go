package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// byHost returns the order of a command on the host.
func byHost(reason string) library.Order {
	return library.Order{Actor: library.Host, Action: "test", Reason: reason, RequestID: "call-1"}
}

// actor gives a user a role for branches and returns the user as an actor. nil branches are all.
func (b bundle) actor(t *testing.T, user int, role library.Role, branches []int64) library.Actor {
	t.Helper()
	id := b.users[user]
	b.db.Exec(t, `UPDATE users SET role = $2, branches = $3 WHERE id = $1`, id, role, branches)
	return library.Actor{Role: role, Token: &library.Identity{
		ID:              id,
		StudentID:       storetest.Value[string](t, b.db, `SELECT student_id FROM users WHERE id = $1`, id),
		TokenGeneration: storetest.Value[int64](t, b.db, `SELECT token_generation FROM users WHERE id = $1`, id),
	}}
}

// by returns an order of an actor.
func by(a library.Actor, reason string) library.Order {
	return library.Order{Actor: a, Action: "Test", Reason: reason}
}

// home returns the id of the branch of the seats.
func (b bundle) home(t *testing.T) int64 {
	t.Helper()
	return storetest.Value[int64](t, b.db, `SELECT branch_id FROM seats WHERE id = $1`, b.seats[0])
}

// audited returns the rows of the audit log as "role action object reason".
func (b bundle) audited(t *testing.T) []string {
	t.Helper()
	return storetest.Rows[string](t, b.db, `
		SELECT concat_ws(' ', role, action, object, NULLIF(reason, '')) FROM audit_log ORDER BY id`)
}

// deskCalls are the calls of staff about a reservation of user 0 at seat 0.
func deskCalls(b bundle, id int64) map[string]func(context.Context, library.Order) error {
	return map[string]func(context.Context, library.Order) error{
		"BookFor": func(ctx context.Context, o library.Order) error {
			_, err := b.BookFor(ctx, o, library.Booking{
				UserID: b.users[0], SeatID: b.seats[0], StartTime: at(300), EndTime: at(360),
			})
			return err
		},
		"CancelFor": func(ctx context.Context, o library.Order) error {
			_, _, err := b.CancelFor(ctx, o, id)
			return err
		},
		"CheckInFor":  func(ctx context.Context, o library.Order) error { _, err := b.CheckInFor(ctx, o, id); return err },
		"CheckOutFor": func(ctx context.Context, o library.Order) error { _, err := b.CheckOutFor(ctx, o, id); return err },
	}
}

// TestDeskActsInScopeOnly checks that an actor acts only in the branches of the row of the user. An
// empty list of branches must not mean all branches.
func TestDeskActsInScopeOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	home := b.home(t)
	for name, tc := range map[string]struct {
		role     library.Role
		branches []int64
		want     error
	}{
		"all branches":           {library.RoleStaff, nil, nil},
		"the branch":             {library.RoleStaff, []int64{home + 1, home}, nil},
		"another branch":         {library.RoleStaff, []int64{home + 1}, library.ErrBranchRequired},
		"no branch":              {library.RoleLibrarian, []int64{}, library.ErrBranchRequired},
		"an admin of no branch":  {library.RoleAdmin, []int64{}, nil},
		"a student":              {library.RoleStudent, nil, library.ErrRoleRequired},
		"a student with a scope": {library.RoleStudent, []int64{home}, library.ErrRoleRequired},
	} {
		actor := b.actor(t, 4, tc.role, tc.branches)
		r := b.reserve(t, 0, 0, 0, 60)
		before := b.everything(t)
		for call, do := range deskCalls(b, r.ID) {
			if call == "CheckOutFor" {
				continue // the reservation is not checked in
			}
			order := by(actor, "the desk")
			order.ValidateOnly = true
			if err := do(t.Context(), order); !errors.Is(err, tc.want) {
				t.Errorf("%s, %s: %v, want %v", name, call, err, tc.want)
			}
		}
		if _, err := b.Arrivals(t.Context(), actor, "branch-0", time.Time{}, store.ReservationCursor{}, 10); !errors.Is(err,
			tc.want) {
			t.Errorf("%s, Arrivals: %v, want %v", name, err, tc.want)
		}
		if _, _, err := b.ArrivalDay(t.Context(), actor, "branch-0", time.Time{}); !errors.Is(err, tc.want) {
			t.Errorf("%s, ArrivalDay: %v, want %v", name, err, tc.want)
		}
		if _, err := b.ChangedArrivals(t.Context(), actor, "branch-0", []int64{r.ID}); !errors.Is(err, tc.want) {
			t.Errorf("%s, ChangedArrivals: %v, want %v", name, err, tc.want)
		}
		wantEqual(t, name+": rows", b.everything(t), before)
		if _, err := b.Cancel(t.Context(), b.users[0], r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if rows := b.audited(t); len(rows) > 0 {
		t.Errorf("the audit log has %v", rows)
	}
}

// TestActorOfAnOldToken checks that the row of the user decides, not the token.
func TestActorOfAnOldToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 0, 60)
	admin := b.actor(t, 4, library.RoleAdmin, nil)
	stale := admin
	stale.Token = &library.Identity{
		ID: admin.Token.ID, StudentID: admin.Token.StudentID, TokenGeneration: admin.Token.TokenGeneration - 1,
	}
	demoted := admin
	demoted.Role = library.RoleLibrarian
	unknown := admin
	unknown.Token = &library.Identity{ID: 1 << 40, StudentID: "x"}
	for _, tc := range []struct {
		actor library.Actor
		want  error
	}{
		{stale, library.ErrTokenRevoked},
		{demoted, library.ErrTokenRevoked},
		{unknown, library.ErrTokenInvalid},
		{library.Actor{Role: library.RoleKey, KeyID: 1 << 40}, library.ErrTokenRevoked},
	} {
		_, err := b.CheckInFor(t.Context(), by(tc.actor, "x"), r.ID)
		if !errors.Is(err, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.actor, err, tc.want)
		}
	}
}

// TestDeskTellsTheUser makes each transition by staff, and checks its event, its audit row, and that
// the user gets a notification with the reason.
func TestDeskTellsTheUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	staff := b.actor(t, 4, library.RoleStaff, []int64{b.home(t)})
	booked, err := b.BookFor(t.Context(), by(staff, "by phone"), library.Booking{
		UserID: b.users[0], SeatID: b.seats[0], EndTime: at(48 * 60),
	})
	if err != nil || booked.Status != library.Confirmed || booked.UserID != b.users[0] {
		t.Fatalf("%+v, %v", booked, err)
	}
	b.clock(t, 40) // after the check-in deadline
	in, err := b.CheckInFor(t.Context(), by(staff, "was in time"), booked.ID)
	if err != nil || in.Status != library.CheckedIn || !in.CheckedInAt.Equal(at(40)) {
		t.Fatalf("%+v, %v", in, err)
	}
	waiting := b.join(t, 1, 0, 60, 120)
	b.clock(t, 45)
	out, err := b.CheckOutFor(t.Context(), by(staff, "left"), booked.ID)
	if err != nil || out.Status != library.Completed {
		t.Fatalf("%+v, %v", out, err)
	}
	wantEqual(t, "the next user in line", b.entry(t, 1, waiting.ID).Status, library.EntryOffered)
	after := b.everything(t)
	again, err := b.CheckInFor(t.Context(), by(staff, "again"), booked.ID)
	if err != nil || !again.CheckedInAt.Equal(at(40)) || again.Status != library.CheckedIn {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := b.CheckOutFor(t.Context(), by(staff, "again"), booked.ID); err != nil {
		t.Errorf("again: %v", err)
	}
	wantEqual(t, "rows after repeated calls", b.everything(t), after)
	wantEqual(t, "events", storetest.Rows[string](t, b.db, `
		SELECT concat_ws(' ', kind, reason, notifies, by_library) FROM reservation_events WHERE reservation_id = $1
		ORDER BY version`, booked.ID),
		[]string{"RESERVED by phone t t", "CHECKED_IN was in time t t", "CHECKED_OUT left t t"})
	object := fmt.Sprintf("reservation/%d", booked.ID)
	wantEqual(t, "audit log", b.audited(t), []string{
		"STAFF Test " + object + " by phone", "STAFF Test " + object + " was in time", "STAFF Test " + object + " left",
	})
	wantEqual(t, "state in the audit log", storetest.Rows[string](t, b.db, `
		SELECT concat_ws(' ', before->>'status', after->>'status', after->>'user_id') FROM audit_log ORDER BY id`),
		[]string{fmt.Sprint("CONFIRMED ", b.users[0]), fmt.Sprint("CONFIRMED CHECKED_IN ", b.users[0]),
			fmt.Sprint("CHECKED_IN COMPLETED ", b.users[0])})
	storetest.CheckInvariants(t, b.db)
}

// TestDeskValidates checks that a call with ValidateOnly returns the answer of the call and changes
// nothing, also for the users who wait.
func TestDeskValidates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	booked := b.reserve(t, 0, 0, 0, 60)
	b.join(t, 1, 0, 30, 60)
	b.clock(t, 5)
	only := byHost("test")
	only.ValidateOnly = true
	booking := library.Booking{
		UserID: b.users[0], SeatID: b.seats[1], StartTime: at(60), EndTime: at(120), RequestID: "once",
	}
	for _, step := range []struct {
		name string
		call func(context.Context, library.Order) (library.Reservation, error)
		want library.ReservationStatus
	}{
		{"BookFor", func(ctx context.Context, o library.Order) (library.Reservation, error) {
			return b.BookFor(ctx, o, booking)
		}, library.Confirmed},
		{"CancelFor", func(ctx context.Context, o library.Order) (library.Reservation, error) {
			r, _, err := b.CancelFor(ctx, o, booked.ID)
			return r, err
		}, library.Cancelled},
		{"CheckInFor", func(ctx context.Context, o library.Order) (library.Reservation, error) {
			return b.CheckInFor(ctx, o, booked.ID)
		}, library.CheckedIn},
	} {
		before := b.everything(t)
		validated, err := step.call(t.Context(), only)
		if err != nil || validated.Status != step.want {
			t.Errorf("%s: %+v, %v", step.name, validated, err)
		}
		wantEqual(t, "rows after "+step.name, b.everything(t), before)
	}

	_, err := b.CheckOutFor(t.Context(), only, booked.ID)
	wantErr(t, err, library.ErrNotCheckedIn)
	if _, err := b.CheckIn(t.Context(), b.users[0], booked.ID, nil); err != nil {
		t.Fatal(err)
	}
	before := b.everything(t)
	out, err := b.CheckOutFor(t.Context(), only, booked.ID)
	if err != nil || out.Status != library.Completed {
		t.Errorf("CheckOutFor: %+v, %v", out, err)
	}
	wantEqual(t, "rows after CheckOutFor", b.everything(t), before)

	made, err := b.BookFor(t.Context(), byHost("test"), booking)
	if err != nil || made.ID == 0 {
		t.Errorf("BookFor after a call that only validated: %+v, %v", made, err)
	}
}

func TestCheckInForRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	later := b.reserve(t, 0, 0, 60, 120)
	_, err := b.CheckInFor(t.Context(), byHost(""), later.ID)
	wantErr(t, err, library.ErrCheckInTooEarly)
	_, err = b.CheckOutFor(t.Context(), byHost(""), later.ID)
	wantErr(t, err, library.ErrNotCheckedIn)
	b.clock(t, 120) // the end of the window; the worker has not run
	_, err = b.CheckInFor(t.Context(), byHost(""), later.ID)
	wantErr(t, err, library.ErrNotConfirmed)
	for _, id := range []int64{1 << 40} {
		_, err = b.CheckInFor(t.Context(), byHost(""), id)
		wantErr(t, err, library.ErrReservationNotFound)
		_, err = b.CheckOutFor(t.Context(), byHost(""), id)
		wantErr(t, err, library.ErrReservationNotFound)
	}
	b = setup(t)
	missed := b.inStatus(t, 1, 2, 1, library.NoShow)
	_, err = b.CheckInFor(t.Context(), byHost(""), missed.ID)
	wantErr(t, err, library.ErrNotConfirmed)
}

// TestBookForIgnoresLimits checks which rules hold for staff: those about the seat, and none about
// the user, except that the user is at one place at a time.
func TestBookForIgnoresLimits(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 1
	b := setupWith(t, rules)
	b.db.Exec(t, `UPDATE users SET suspended_until = dlsms_now() + interval '1 day'`)
	book := func(user, seat, from, to int) error {
		_, err := b.BookFor(t.Context(), byHost("exam"), library.Booking{
			UserID: b.users[user], SeatID: b.seats[seat], StartTime: at(from), EndTime: at(to),
		})
		return err
	}
	for i, w := range [][2]int{{0, 5}, {60, 60 + 7*24*60}, {30 * 24 * 60, 30*24*60 + 60}} {
		if err := book(0, i, w[0], w[1]); err != nil {
			t.Errorf("%v: %v", w, err)
		}
	}
	for _, tc := range []struct {
		name                 string
		user, seat, from, to int
		want                 error
	}{
		{"the past", 1, 3, -10, 60, library.ErrWindowNotAllowed},
		{"more than 7 days", 1, 3, 0, 7*24*60 + 1, library.ErrWindowNotAllowed},
		{"more than 400 days ahead", 1, 3, 401 * 24 * 60, 401*24*60 + 60, library.Invalid()},
		{"a seat that is taken", 1, 1, 90, 100, library.ErrSeatTaken},
		{"a user who is busy", 0, 3, 90, 100, library.ErrUserBusy},
	} {
		if err := book(tc.user, tc.seat, tc.from, tc.to); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	b.db.Exec(t, `UPDATE seats SET out_of_service = true WHERE id = $1`, b.seats[3])
	wantErr(t, book(1, 3, 60, 90), library.ErrSeatOutOfService)
	b.db.Exec(t, `UPDATE seats SET retired_at = dlsms_now() WHERE id = $1`, b.seats[3])
	wantErr(t, book(1, 3, 60, 90), library.ErrSeatNotFound)
	_, err := b.BookFor(t.Context(), byHost(""), library.Booking{UserID: 1 << 40, SeatID: b.seats[4], EndTime: at(60)})
	wantErr(t, err, library.ErrPersonNotFound)
	b.db.Exec(t, `UPDATE users SET closed_at = dlsms_now() WHERE id = $1`, b.users[2])
	wantErr(t, book(2, 4, 60, 90), library.ErrPersonNotFound)
	if n := len(b.audited(t)); n != 3 {
		t.Errorf("the audit log has %d rows, want 3", n)
	}
}

func TestBookForRepeats(t *testing.T) {
	t.Parallel()
	b := setup(t)
	booking := library.Booking{
		UserID: b.users[0], SeatID: b.seats[0], StartTime: at(60), EndTime: at(120), RequestID: "once",
	}
	first, err := b.BookFor(t.Context(), byHost("by phone"), booking)
	if err != nil {
		t.Fatal(err)
	}
	before := b.everything(t)
	again, err := b.BookFor(t.Context(), byHost("by phone"), booking)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("again (-first +again):\n%s", diff)
	}
	booking.EndTime = at(121)
	_, err = b.BookFor(t.Context(), byHost("by phone"), booking)
	wantErr(t, err, library.ErrRequestIDReused)
	wantEqual(t, "rows", b.everything(t), before)
	if n := len(b.audited(t)); n != 1 {
		t.Errorf("the audit log has %d rows, want 1", n)
	}
}

// TestBookForRaces lets staff and students book the same seat and the same user at the same time, on
// several replicas. The calls that lose must learn why, and there must be no deadlock.
func TestBookForRaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	replicas := b.replicas(t, 3)
	for round := range 10 {
		from := 60 + round*60
		var g sync.WaitGroup
		var mu sync.Mutex
		won := 0
		race := func(book func() error) {
			g.Go(func() {
				err := book()
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case !errors.Is(err, library.ErrSeatTaken) && !errors.Is(err, library.ErrUserBusy):
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		for i, s := range replicas {
			// Bookings of user 0 at different seats, and bookings of seat 0 by different users.
			for _, k := range [][2]int{{0, 0}, {0, 1 + i}, {1 + i, 0}} {
				booking := library.Booking{
					UserID: b.users[k[0]], SeatID: b.seats[k[1]], StartTime: at(from), EndTime: at(from + 60),
				}
				race(func() error { _, err := s.BookFor(t.Context(), byHost("race"), booking); return err })
				race(func() error { _, err := s.Reserve(t.Context(), booking); return err })
			}
		}
		g.Wait()
		if won == 0 || won > 2 { // user 0 has one seat, and seat 0 has one user
			t.Errorf("round %d: %d calls won", round, won)
		}
	}
	if n := b.deadlocks(t, replicas...); n > 0 {
		t.Errorf("%d deadlocks", n)
	}
	booked := storetest.Value[int](t, b.db, `SELECT count(*) FROM reservation_events WHERE by_library`)
	if n := len(b.audited(t)); n != booked {
		t.Errorf("%d bookings by staff, %d audit rows", booked, n)
	}
	storetest.CheckInvariants(t, b.db)
}

// TestDeskRaces lets staff and a user end, use and miss the same reservation at the same time.
func TestDeskRaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	replicas := b.replicas(t, 2)
	for range 15 {
		r := b.reserve(t, 0, 0, 0, 60)
		var g sync.WaitGroup
		for _, call := range []func(s *store.Store) error{
			func(s *store.Store) error { _, _, err := s.CancelFor(t.Context(), byHost("x"), r.ID); return err },
			func(s *store.Store) error { _, err := s.CheckInFor(t.Context(), byHost("x"), r.ID); return err },
			func(s *store.Store) error { _, err := s.CheckOutFor(t.Context(), byHost("x"), r.ID); return err },
			func(s *store.Store) error { _, err := s.Cancel(t.Context(), b.users[0], r.ID); return err },
			func(s *store.Store) error { _, err := s.CheckIn(t.Context(), b.users[0], r.ID, nil); return err },
		} {
			for _, s := range replicas {
				g.Go(func() {
					err := call(s)
					if err != nil && !errors.Is(err, library.ErrNotConfirmed) && !errors.Is(err, library.ErrNotCheckedIn) {
						t.Error(err)
					}
				})
			}
		}
		g.Wait()
		if _, _, err := b.CancelFor(t.Context(), byHost("clear"), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	byStaff := storetest.Value[int](t, b.db, `SELECT count(*) FROM reservation_events WHERE by_library`)
	if n := len(b.audited(t)); n != byStaff {
		t.Errorf("%d transitions by staff, %d audit rows", byStaff, n)
	}
	if n := b.deadlocks(t, replicas...); n > 0 {
		t.Errorf("%d deadlocks", n)
	}
	storetest.CheckInvariants(t, b.db)
}

// TestAuditIsPartOfTheChange makes the insert into the audit log fail. Then no change is made.
func TestAuditIsPartOfTheChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Altered()
	confirmed := b.reserve(t, 0, 0, 0, 60)
	sitting := b.inStatus(t, 1, 2, 1, library.CheckedIn)
	b.actor(t, 2, library.RoleStaff, nil)
	b.db.Exec(t, `ALTER TABLE audit_log ADD CONSTRAINT no_audit CHECK (false)`)
	before := b.everything(t)
	people := func() []string {
		return storetest.Rows[string](t, b.db, `SELECT to_json(u)::text FROM users u ORDER BY id`)
	}
	had := people()
	order := byHost("x")
	for name, err := range map[string]error{
		"BookFor": func() error {
			_, err := b.BookFor(t.Context(), order, library.Booking{
				UserID: b.users[3], SeatID: b.seats[3], StartTime: at(60), EndTime: at(120), RequestID: "k",
			})
			return err
		}(),
		"CancelFor":   func() error { _, _, err := b.CancelFor(t.Context(), order, confirmed.ID); return err }(),
		"CheckInFor":  func() error { _, err := b.CheckInFor(t.Context(), order, confirmed.ID); return err }(),
		"CheckOutFor": func() error { _, err := b.CheckOutFor(t.Context(), order, sitting.ID); return err }(),
		"CloseUser":   func() error { _, err := b.CloseUser(t.Context(), order, b.users[0]); return err }(),
		"SetRole": func() error {
			_, err := b.SetRole(t.Context(), order, library.Grant{
				StudentID: b.studentID(t, 2), Role: library.RoleAdmin,
			})
			return err
		}(),
		"UpsertPeople": func() error {
			name := "New"
			_, err := b.UpsertPeople(t.Context(), order, []library.PersonChange{{StudentID: b.studentID(t, 2), Name: &name}})
			return err
		}(),
		"CreateKey": func() error {
			_, err := b.CreateKey(t.Context(), order, library.ServiceKey{
				Name: "Gate", Branch: "branch-0", Scopes: []library.KeyScope{library.ScopeArrivals},
			}, make([]byte, 32))
			return err
		}(),
	} {
		if err == nil || !strings.Contains(err.Error(), "no_audit") {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantEqual(t, "rows", b.everything(t), before)
	wantEqual(t, "users", people(), had)
	wantEqual(t, "keys and revocations", storetest.Value[int](t, b.db, `
		SELECT (SELECT count(*) FROM service_keys) + (SELECT count(*) FROM revocations)`), 0)
}

func (b bundle) studentID(t *testing.T, user int) string {
	t.Helper()
	return storetest.Value[string](t, b.db, `SELECT student_id FROM users WHERE id = $1`, b.users[user])
}

func (b bundle) key(t *testing.T, scopes ...library.KeyScope) library.ServiceKey {
	t.Helper()
	k, err := b.CreateKey(t.Context(), byHost("new"), library.ServiceKey{
		Name: "Gate", Branch: "branch-0", Scopes: scopes,
	}, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRecordArrival(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.CheckInLead = time.Hour
	b := setupWith(t, rules)
	other := storetest.Value[int64](t, b.db, `
		WITH b AS (INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'other', 'Other', 'UTC') RETURNING id)
		INSERT INTO seats (library_id, branch_id, area, label, amenities)
		SELECT 1, id, 'A', 'A-1', '{1}' FROM b RETURNING id`)
	b.db.Exec(t, `UPDATE users SET card = '0042' WHERE id = $1`, b.users[0])
	k := b.key(t, library.ScopeArrivals)
	gate := library.Order{Actor: library.Actor{Role: library.RoleKey, KeyID: k.ID}, Action: "RecordArrival"}
	arrive := func(card, studentID string) []string {
		t.Helper()
		visits, err := b.RecordArrival(t.Context(), gate, card, studentID)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range visits {
			out = append(out, fmt.Sprint(r.ID, " ", r.Status))
		}
		return out
	}
	if got := arrive("0042", ""); len(got) > 0 {
		t.Errorf("an arrival without a reservation: %v", got)
	}
	first := b.reserve(t, 0, 0, 0, 30)
	next := b.reserve(t, 0, 1, 30, 60)
	b.reserve(t, 0, 2, 120, 180) // check-in is not open
	b.reserve(t, 1, 4, 0, 60)    // another user
	b.reserve(t, 0, 3, 60, 90)   // another branch
	b.db.Exec(t, `UPDATE reservations SET seat_id = $1 WHERE seat_id = $2 AND user_id = $3`, other, b.seats[3], b.users[0])
	want := []string{fmt.Sprint(first.ID, " CHECKED_IN"), fmt.Sprint(next.ID, " CHECKED_IN")}
	wantEqual(t, "visits", arrive("0042", ""), want)
	wantEqual(t, "visits again", arrive("", strings.ToLower(b.studentID(t, 0))), want)
	wantEqual(t, "events", storetest.Rows[string](t, b.db, `
		SELECT concat_ws(' ', reservation_id, kind, by_library, notifies) FROM reservation_events
		WHERE kind = 'CHECKED_IN' ORDER BY id`),
		[]string{fmt.Sprint(first.ID, " CHECKED_IN t t"), fmt.Sprint(next.ID, " CHECKED_IN t t")})
	wantEqual(t, "audit log", b.audited(t), []string{
		fmt.Sprintf("HOST test key/%d new", k.ID),
		fmt.Sprintf("KEY RecordArrival reservation/%d", first.ID), fmt.Sprintf("KEY RecordArrival reservation/%d", next.ID),
	})
	for _, card := range []string{"42", "none"} {
		_, err := b.RecordArrival(t.Context(), gate, card, "")
		wantErr(t, err, library.ErrPersonNotFound)
	}
	b.db.Exec(t, `UPDATE users SET closed_at = dlsms_now() WHERE id = $1`, b.users[0])
	_, err := b.RecordArrival(t.Context(), gate, "0042", "")
	wantErr(t, err, library.ErrPersonNotFound)
	_, err = b.RecordArrival(t.Context(), by(b.actor(t, 4, library.RoleAdmin, nil), ""), "0042", "")
	wantErr(t, err, library.ErrRoleRequired)
	if _, err := b.RevokeKey(t.Context(), byHost(""), k.ID); err != nil {
		t.Fatal(err)
	}
	_, err = b.RecordArrival(t.Context(), gate, "0042", "")
	wantErr(t, err, library.ErrTokenRevoked)
}

// TestArrivalsOfADay lists the reservations of a branch in Berlin by its local day.
func TestArrivalsOfADay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `UPDATE branches SET timezone = 'Europe/Berlin'`)
	// noon is 13:00 in Berlin. The day ends 11 hours later.
	want := []int64{
		b.reserve(t, 0, 0, 0, 60).ID, b.reserve(t, 1, 1, 0, 60).ID, b.reserve(t, 2, 2, 30, 60).ID,
		b.reserve(t, 0, 0, 10*60+59, 11*60+20).ID,
	}
	tomorrow := b.reserve(t, 1, 0, 11*60+20, 11*60+40).ID
	cancelled := b.reserve(t, 1, 3, 120, 180).ID
	if _, err := b.Cancel(t.Context(), b.users[1], cancelled); err != nil {
		t.Fatal(err)
	}
	held := b.offered(t, 3, 4, 240, 300).ReservationID // a hold is no arrival
	list := func(day time.Time, limit int) (ids []int64) {
		t.Helper()
		var after store.ReservationCursor
		for {
			page, err := b.Arrivals(t.Context(), library.Host, "branch-0", day, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				ids = append(ids, r.ID)
				if r.StudentID == "" || r.Name == "" {
					t.Errorf("reservation %d has no user", r.ID)
				}
			}
			if len(page) < limit {
				return ids
			}
			after = store.ReservationCursor{StartTime: page[limit-1].StartTime, ID: page[limit-1].ID}
		}
	}
	wantEqual(t, "today", list(time.Time{}, 100), want)
	wantEqual(t, "today, in pages", list(time.Time{}, 1), want)
	wantEqual(t, "today by its date", list(time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), 3), want)
	wantEqual(t, "tomorrow", list(time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC), 3), []int64{tomorrow})

	from, until, err := b.ArrivalDay(t.Context(), library.Host, "branch-0", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	day := []time.Duration{from.Sub(noon), until.Sub(noon)}
	wantEqual(t, "the day", day, []time.Duration{-13 * time.Hour, 11 * time.Hour})
	changed, err := b.ChangedArrivals(t.Context(), library.Host, "branch-0", append(want[1:3:3], held, cancelled))
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for _, r := range changed {
		ids = append(ids, r.ID)
	}
	wantEqual(t, "changed", ids, append(want[1:3:3], cancelled))
	b.db.Exec(t, `INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'other', 'Other', 'UTC')`)
	changed, err = b.ChangedArrivals(t.Context(), library.Host, "other", want)
	if err != nil || len(changed) > 0 {
		t.Errorf("of another branch: %v, %v", changed, err)
	}

	_, err = b.Arrivals(t.Context(), library.Host, "none", time.Time{}, store.ReservationCursor{}, 1)
	wantRefusal(t, err, library.BranchNotFound("none"))
}

func TestFindPeople(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `UPDATE users SET student_id = 'Ida.1', name = 'Ida 100%', email = 'Ida@X.example', card = 'c-1'
		WHERE id = $1`, b.users[0])
	b.db.Exec(t, `UPDATE users SET student_id = 'Idb', name = 'ida 1000', email = 'ida@x.example'
		WHERE id = $1`, b.users[1])
	staff, librarian := b.actor(t, 2, library.RoleStaff, []int64{}), b.actor(t, 3, library.RoleLibrarian, []int64{})
	for _, tc := range []struct {
		actor library.Actor
		query library.PersonQuery
		want  []string
		err   error
	}{
		{staff, library.PersonQuery{StudentID: "iDA.1"}, []string{"Ida.1"}, nil},
		{staff, library.PersonQuery{StudentID: "ida"}, nil, nil},
		{staff, library.PersonQuery{Card: "c-1"}, []string{"Ida.1"}, nil},
		{staff, library.PersonQuery{Card: "C-1"}, nil, nil},
		{staff, library.PersonQuery{Email: "IDA@x.EXAMPLE"}, []string{"Ida.1", "Idb"}, nil},
		{staff, library.PersonQuery{Name: "ida"}, nil, library.ErrRoleRequired},
		{librarian, library.PersonQuery{Name: "IDA"}, []string{"Ida.1", "Idb"}, nil},
		{librarian, library.PersonQuery{Name: "100%"}, []string{"Ida.1"}, nil},
		{librarian, library.PersonQuery{Name: "d_"}, nil, nil},
		{librarian, library.PersonQuery{Name: `\`}, nil, nil},
	} {
		people, err := b.FindPeople(t.Context(), tc.actor, tc.query, 20)
		var got []string
		for _, p := range people {
			got = append(got, p.StudentID)
		}
		if !errors.Is(err, tc.err) || !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %v, %v", tc.query, got, err)
		}
	}
	if people, err := b.FindPeople(t.Context(), librarian, library.PersonQuery{Name: "ida"}, 1); err != nil ||
		len(people) != 1 {
		t.Errorf("%v, %v; want one user", people, err)
	}
}

// TestOverview checks that an overview has only rows of the branches in scope.
func TestOverview(t *testing.T) {
	t.Parallel()
	b := setup(t)
	home := b.home(t)
	past := b.inStatus(t, 0, 1, 0, library.Completed)
	missed := b.inStatus(t, 0, 1, 2, library.NoShow)
	upcoming := b.reserve(t, 0, 1, 600, 660)
	b.reserve(t, 1, 3, 700, 760)
	entry := b.join(t, 0, 3, 700, 760)
	b.db.Exec(t, `INSERT INTO strikes (library_id, user_id, reservation_id, branch_id, at, expires_at, strike_limit,
			suspension_days)
		SELECT 1, $1, $2, $3, dlsms_now(), dlsms_now() + interval '30 days', 3, '{7}'`, b.users[0], missed.ID, home)
	b.db.Exec(t, `UPDATE users SET suspended_until = dlsms_now() + interval '1 hour', card = '7'
		WHERE id = $1`, b.users[0])
	for _, actor := range []library.Actor{library.Host, b.actor(t, 4, library.RoleStaff, []int64{home})} {
		o, err := b.Overview(t.Context(), actor, b.users[0])
		if err != nil || len(o.Reservations) != 3 || o.Reservations[0].ID != upcoming.ID || len(o.Entries) != 1 ||
			o.Entries[0].ID != entry.ID || len(o.Strikes) != 1 || !o.Strikes[0].Counts ||
			o.Strikes[0].Branch != "branch-0" || o.Person.Card != "7" || o.Person.SuspendedUntil == nil {
			t.Errorf("%+v, %v (past %d)", o, err, past.ID)
		}
	}
	for _, branches := range [][]int64{{}, {home + 1}} {
		o, err := b.Overview(t.Context(), b.actor(t, 4, library.RoleStaff, branches), b.users[0])
		if err != nil || len(o.Reservations)+len(o.Entries)+len(o.Strikes) != 0 || o.Person.ID != b.users[0] {
			t.Errorf("%v: %+v, %v", branches, o, err)
		}
	}
	_, err := b.Overview(t.Context(), library.Host, 1<<40)
	wantErr(t, err, library.ErrPersonNotFound)
}
