package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/presence"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// checkIn checks in a user without a code.
func (b bundle) checkIn(ctx context.Context, userID, id int64) (library.Reservation, error) {
	return b.CheckIn(ctx, userID, id, nil)
}

// requires sets the rule of check-in for the branch of the seats.
func (b bundle) requires(t *testing.T, rule library.CheckInRule) {
	t.Helper()
	b.setPolicyOf(t, library.PolicyScope{Branch: "branch-0"}, library.Rules{CheckIn: &rule})
}

// screen adds a screen to a branch.
func (b bundle) screen(t *testing.T, branch, name string) library.Screen {
	t.Helper()
	screen, err := b.UpsertScreen(t.Context(), byHost("a new screen"), library.ScreenChange{Branch: branch, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return screen
}

func testCodes(t *testing.T) *presence.Codes {
	t.Helper()
	codes, err := presence.New([]string{"a secret of a test"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return codes
}

// with returns the function that judges codes of a call.
func with(codes *presence.Codes, sent ...string) library.Prove {
	return func(f library.CheckInFacts) (library.Presence, error) { return codes.Judge(f, sent...) }
}

// TestCheckInRecordsTheProof checks each proof in the answer, in the row, in the event of the check-in
// and in the answer to a repeated call. Later events of the reservation have no proof.
func TestCheckInRecordsTheProof(t *testing.T) {
	t.Parallel()
	b, codes := setup(t), testCodes(t)
	screen := b.screen(t, "branch-0", "Entrance")
	shown := codes.Show(screen.ID, noon, 0)[0]
	gate := b.serviceKey(t)
	desk := func(order library.Order) func(library.Reservation) (library.Reservation, error) {
		return func(r library.Reservation) (library.Reservation, error) {
			return b.CheckInFor(t.Context(), order, r.ID)
		}
	}
	by := func(sent ...string) func(library.Reservation) (library.Reservation, error) {
		return func(r library.Reservation) (library.Reservation, error) {
			return b.CheckIn(t.Context(), r.UserID, r.ID, with(codes, sent...))
		}
	}
	for i, tc := range []struct {
		rule    library.CheckInRule
		checkIn func(library.Reservation) (library.Reservation, error)
		proof   library.Proof
		screen  string
	}{
		{library.CheckInNone, by(), library.ProofNone, ""},
		{library.CheckInSeat, by(codes.Label(b.seats[1])), library.ProofSeat, ""},
		{library.CheckInScreen, by(shown.Code), library.ProofScreen, "Entrance"},
		{library.CheckInSeatAndScreen, by(shown.Digits, codes.Label(b.seats[3])), library.ProofSeatAndScreen, "Entrance"},
		{library.CheckInDesk, desk(byHost("at the desk")), library.ProofDesk, ""},
	} {
		b.requires(t, tc.rule)
		r := b.reserve(t, i%len(b.users), i%len(b.seats), 0, 60)
		wantEqual(t, "rule of the new reservation", r.CheckInRule, tc.rule)
		wantEqual(t, "rule", mustRead(t, b, i%len(b.users), r.ID).CheckInRule, tc.rule)
		got, err := tc.checkIn(r)
		if err != nil {
			t.Fatalf("%s: %v", tc.rule, err)
		}
		if got.Proof != tc.proof || got.Screen != tc.screen || got.CheckInRule != "" {
			t.Errorf("%s: proof %q of screen %q, rule %q", tc.rule, got.Proof, got.Screen, got.CheckInRule)
		}
		wantEqual(t, "the row", mustRead(t, b, i%len(b.users), r.ID), got)
		again, err := tc.checkIn(r)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "the repeated call", again, got)
		mustDo(t, b.CheckOut, r.UserID, r.ID)
		events := storetest.Rows[string](t, b.db, `
			SELECT concat_ws(' ', kind, proof, screen_id) FROM reservation_events WHERE reservation_id = $1 ORDER BY id`, r.ID)
		want := "CHECKED_IN " + string(tc.proof)
		if tc.screen != "" {
			want += " 1"
		}
		wantEqual(t, "events", events, []string{"RESERVED", want, "CHECKED_OUT"})
	}
	b.requires(t, library.CheckInDesk)
	r := b.reserve(t, 0, 0, 0, 60)
	studentID := storetest.Value[string](t, b.db, `SELECT student_id FROM users WHERE id = $1`, b.users[0])
	visits, err := b.RecordArrival(t.Context(), library.Order{Actor: gate, Action: "RecordArrival"}, "", studentID)
	if err != nil || len(visits) != 1 || visits[0].Proof != library.ProofArrival {
		t.Errorf("the arrival: %+v, %v", visits, err)
	}
	wantEqual(t, "the row", mustRead(t, b, 0, r.ID).Proof, library.ProofArrival)
}

// serviceKey returns a program of the branch of the seats as an actor.
func (b bundle) serviceKey(t *testing.T) library.Actor {
	t.Helper()
	key := b.key(t, library.ScopeArrivals, library.ScopeScreen)
	return library.Actor{Role: library.RoleKey, KeyID: key.ID}
}

// TestCheckInRefusesCodes checks that a refused check-in changes nothing, and that the reasons of
// time and status come first.
func TestCheckInRefusesCodes(t *testing.T) {
	t.Parallel()
	b, codes := setup(t), testCodes(t)
	b.db.Seats(t, 1) // branch-1
	here, elsewhere := b.screen(t, "branch-0", "Entrance"), b.screen(t, "branch-1", "Entrance")
	b.requires(t, library.CheckInScreen)
	r := b.reserve(t, 0, 0, 0, 60)
	before := b.everything(t)
	for name, tc := range map[string]struct {
		code string
		want error
	}{
		"no code":                    {"", library.ErrPresenceRequired},
		"a wrong code":               {"12345678", library.ErrPresenceInvalid},
		"an old code":                {codes.Show(here.ID, noon.Add(-time.Minute), 0)[0].Code, library.ErrPresenceExpired},
		"a screen of another branch": {codes.Show(elsewhere.ID, noon, 0)[0].Code, library.ErrPresenceElsewhere},
		"its digits":                 {codes.Show(elsewhere.ID, noon, 0)[0].Digits, library.ErrPresenceInvalid},
		"the label of the seat":      {codes.Label(b.seats[0]), library.ErrPresenceRequired},
	} {
		if _, err := b.CheckIn(t.Context(), b.users[0], r.ID, with(codes, tc.code)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if _, err := b.checkIn(t.Context(), b.users[0], r.ID); !errors.Is(err, library.ErrPresenceRequired) {
		t.Errorf("without codes: %v", err)
	}
	wantEqual(t, "rows", b.everything(t), before)

	good := codes.Show(here.ID, noon, 0)[0].Code
	off := true
	if _, err := b.UpsertScreen(t.Context(), byHost("stolen"), library.ScreenChange{
		Branch: "branch-0", Name: "Entrance", Off: &off,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CheckIn(t.Context(), b.users[0], r.ID, with(codes, good)); !errors.Is(err, library.ErrPresenceInvalid) {
		t.Errorf("a screen that was switched off: %v", err)
	}
	b.requires(t, library.CheckInNone) // a screen is broken: reservations that exist need no code any more
	if got, err := b.checkIn(t.Context(), b.users[0], r.ID); err != nil || got.Proof != library.ProofNone {
		t.Errorf("after the rule was dropped: %+v, %v", got, err)
	}
	later := b.reserve(t, 1, 1, 120, 180)
	need := library.CheckInScreen
	_, err := b.SetPolicy(t.Context(), host, library.ScopedRules{
		PolicyScope: library.PolicyScope{Branch: "branch-0"}, Rules: library.Rules{CheckIn: &need},
	})
	wantErr(t, err, library.Invalid()) // no user could check in
	b.screen(t, "branch-0", "Hall")
	b.requires(t, library.CheckInScreen)
	if _, err := b.checkIn(t.Context(), b.users[1], later.ID); !errors.Is(err, library.ErrCheckInTooEarly) {
		t.Errorf("too early: %v", err)
	}
}

// TestCodeIsJudgedAtItsArrival checks that a code does not expire while the call waits for the lock
// of the seat.
func TestCodeIsJudgedAtItsArrival(t *testing.T) {
	t.Parallel()
	b, codes := setup(t), testCodes(t)
	b.db.SetClock(t, noon) // a clock that runs: the transaction must begin before the lock is free
	screen := b.screen(t, "branch-0", "Entrance")
	b.requires(t, library.CheckInScreen)
	r := b.reserve(t, 0, 0, 0, 60)
	var judged time.Time
	other := b.writers(t, 1).sessions[0]
	other.exec(t, `BEGIN`)
	other.exec(t, `SELECT FROM seats WHERE id = $1 FOR NO KEY UPDATE`, b.seats[0])
	done := make(chan error, 1)
	go func() {
		_, err := b.CheckIn(t.Context(), b.users[0], r.ID, func(f library.CheckInFacts) (library.Presence, error) {
			judged = f.Now
			return codes.Judge(f, codes.Show(screen.ID, f.Now, 0)[0].Code)
		})
		done <- err
	}()
	b.db.EventuallyLocked(t, "FROM seats")
	waiting := storetest.Value[time.Time](t, b.db, `SELECT dlsms_now()`)
	other.exec(t, `COMMIT`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !judged.Before(waiting) {
		t.Errorf("the code was judged at %v, after the wait that was seen at %v", judged, waiting)
	}
}

func TestScreens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Seats(t, 1)
	key := b.serviceKey(t)
	if _, err := b.ScreenOf(t.Context(), key, 0, ""); !errors.Is(err, library.ErrScreenNotFound) {
		t.Errorf("no screen: %v", err)
	}
	order := byHost("a new screen")
	order.ValidateOnly = true
	made, err := b.UpsertScreen(t.Context(), order, library.ScreenChange{Branch: "branch-0", Name: "Entrance"})
	wantEqual(t, "only validated", made, library.Screen{Branch: "branch-0", Name: "Entrance"})
	if err != nil {
		t.Error(err)
	}
	first := b.screen(t, "branch-0", "Entrance")
	wantEqual(t, "the repeated call", b.screen(t, "branch-0", "Entrance"), first)
	other := b.screen(t, "branch-1", "Entrance")
	if now, err := b.ScreenOf(t.Context(), key, 0, ""); err != nil || now.Screen != first || !now.Now.Equal(noon) {
		t.Errorf("the only screen is %+v, %v", now, err)
	}
	second := b.screen(t, "branch-0", "Stairs")
	if first.ID != 1 || other.ID != 2 || second.ID != 3 {
		t.Errorf("the ids are %d, %d and %d", first.ID, other.ID, second.ID)
	}
	if _, err := b.ScreenOf(t.Context(), key, 0, ""); !errors.Is(err, library.Invalid()) {
		t.Errorf("several screens: %v", err)
	}
	if now, err := b.ScreenOf(t.Context(), key, 0, "Stairs"); err != nil || now.Screen != second {
		t.Errorf("the screen is %+v, %v", now, err)
	}
	rename := func(name, newName string) (library.Screen, error) {
		return b.UpsertScreen(t.Context(), byHost("moved"),
			library.ScreenChange{Branch: "branch-0", Name: name, NewName: newName})
	}
	for range 2 { // a repeated call finds nothing to do
		if got, err := rename("Stairs", "Hall"); err != nil || got.ID != second.ID || got.Name != "Hall" {
			t.Errorf("renamed: %+v, %v", got, err)
		}
	}
	if now, err := b.ScreenOf(t.Context(), key, second.ID, "Stairs"); err != nil || now.Name != "Hall" {
		t.Errorf("the renamed screen is %+v, %v", now, err)
	}
	if _, err := b.ScreenOf(t.Context(), key, other.ID, ""); !errors.Is(err, library.ErrScreenNotFound) {
		t.Errorf("a screen of another branch: %v", err)
	}
	if _, err := rename("Hall", "Entrance"); !errors.Is(err, library.Invalid()) {
		t.Errorf("a name of another screen: %v", err)
	}
	if _, err := rename("Nowhere", "Somewhere"); !errors.Is(err, library.ErrScreenNotFound) {
		t.Errorf("a screen that does not exist: %v", err)
	}
	off := true
	if _, err := b.UpsertScreen(t.Context(), byHost("stolen"), library.ScreenChange{
		Branch: "branch-0", Name: "hall", Off: &off,
	}); !errors.Is(err, library.ErrScreenNotFound) {
		t.Errorf("a misspelled screen was switched off: %v", err)
	}
	for _, change := range []library.ScreenChange{
		{Branch: "branch-0", Name: "Hall", Off: &off},
		{Branch: "branch-0", Name: "Hall"},                   // says nothing about off
		{Branch: "branch-0", Name: "Hall", NewName: "Foyer"}, // the same
		{Branch: "branch-0", Name: "Foyer", NewName: "Hall"},
	} {
		if got, err := b.UpsertScreen(t.Context(), byHost("off"), change); err != nil || !got.Off {
			t.Errorf("%+v: %+v, %v", change, got, err)
		}
	}
	screens, err := b.Screens(t.Context(), library.Host, "branch-0")
	if err != nil || len(screens) != 2 || screens[0].Name != "Entrance" || screens[1].Name != "Hall" {
		t.Errorf("the screens are %+v, %v", screens, err)
	}
	wantEqual(t, "audit log", b.audited(t), []string{
		fmt.Sprintf("HOST test key/%d new", key.KeyID),
		"HOST test screen/1 a new screen", "HOST test screen/2 a new screen", "HOST test screen/3 a new screen",
		"HOST test screen/3 moved", "HOST test screen/3 off", "HOST test screen/3 off", "HOST test screen/3 off",
	})
	if _, err := b.RevokeKey(t.Context(), byHost("lost"), key.KeyID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ScreenOf(t.Context(), key, 0, "Hall"); !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("a revoked key: %v", err)
	}
}

func TestSeatsToLabel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	get := func(area string, ids ...int64) ([]library.LabelSeat, error) {
		return b.SeatsToLabel(t.Context(), library.Host, "branch-0", area, ids)
	}
	if all, err := get(""); err != nil || len(all) != len(b.seats) {
		t.Errorf("all: %v, %v", all, err)
	}
	if one, err := get("Area", b.seats[1]); err != nil || len(one) != 1 || one[0].SeatID != b.seats[1] ||
		one[0].Branch != "branch-0" || one[0].BranchName != "Branch" {
		t.Errorf("one: %v, %v", one, err)
	}
	if _, err := get("Attic"); !errors.Is(err, library.ErrAreaNotFound) {
		t.Errorf("no area: %v", err)
	}
	if _, err := get("", b.seats[0], 1<<40); !errors.Is(err, library.ErrSeatNotFound) {
		t.Errorf("no seat: %v", err)
	}
	b.db.Seats(t, store.MaxLabels+1)
	if _, err := b.SeatsToLabel(t.Context(), library.Host, "branch-1", "", nil); !errors.Is(err, library.Invalid()) {
		t.Errorf("too many: %v", err)
	}
}
