package store_test

import (
	"errors"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestJoinWaitlist(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 0, 60)
	got := b.join(t, 1, 0, 30, 90)
	want := library.WaitlistEntry{
		ID: got.ID, SeatRef: library.SeatRef{SeatID: b.seats[0], Branch: "branch-0", Area: "Area", Label: "A-1"},
		UserID:    b.users[1],
		StartTime: at(30), EndTime: at(90), Status: library.EntryWaiting, Position: 1, CreatedAt: noon,
	}
	wantEqual(t, "joined", got, want)
	wantEqual(t, "stored", b.entry(t, 1, got.ID), want)
	storetest.CheckInvariants(t, b.db)
}

func TestJoinWaitlistRefuses(t *testing.T) {
	t.Parallel()
	hour := func(b bundle) library.Booking {
		return library.Booking{UserID: b.users[0], SeatID: b.seats[0], StartTime: at(0), EndTime: at(60)}
	}
	closes := func(t *testing.T, b bundle) {
		b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '13:59' FROM branches`) // 12:59 UTC
	}
	for name, tc := range map[string]struct {
		change func(t *testing.T, b bundle)
		want   error
		ask    func(b bundle) library.Booking
	}{
		"an unknown seat": {want: library.ErrSeatNotFound, ask: func(b bundle) library.Booking {
			k := hour(b)
			k.SeatID = 1 << 40
			return k
		}},
		"an unknown user": {want: library.ErrTokenInvalid, ask: func(b bundle) library.Booking {
			k := hour(b)
			k.UserID = 1 << 40
			return k
		}},
		"a free seat": {want: library.ErrSeatAvailable,
			ask: func(b bundle) library.Booking { k := hour(b); k.SeatID = b.seats[1]; return k }},
		"a free window": {want: library.ErrSeatAvailable,
			ask: func(b bundle) library.Booking { k := hour(b); k.StartTime, k.EndTime = at(60), at(120); return k }},
		"the past": {want: library.ErrWindowNotAllowed, ask: func(b bundle) library.Booking {
			k := hour(b)
			k.StartTime = at(-2)
			return k
		}},
		"too far ahead": {want: library.ErrWindowNotAllowed, ask: func(b bundle) library.Booking {
			k := hour(b)
			k.StartTime, k.EndTime = at(20161), at(20200)
			return k
		}},
		"too short": {want: library.ErrWindowNotAllowed, ask: func(b bundle) library.Booking {
			k := hour(b)
			k.EndTime = at(14)
			return k
		}},
		"too long": {want: library.ErrWindowNotAllowed, ask: func(b bundle) library.Booking {
			k := hour(b)
			k.EndTime = at(12*60 + 1)
			return k
		}},
		"reversed": {want: library.Invalid(), ask: func(b bundle) library.Booking {
			k := hour(b)
			k.EndTime = at(-60)
			return k
		}},
		"a century": {want: library.ErrWindowNotAllowed, change: closes,
			ask: func(b bundle) library.Booking { k := hour(b); k.EndTime = k.EndTime.AddDate(100, 0, 0); return k }},
		"out of service": {want: library.ErrSeatOutOfService, ask: hour,
			change: func(t *testing.T, b bundle) { b.db.Exec(t, `UPDATE seats SET out_of_service = true`) }},
		"closed hours": {want: library.ErrBranchClosed, ask: hour, change: closes},
		"the user's own seat": {want: library.ErrUserBusy,
			ask: func(b bundle) library.Booking { k := hour(b); k.UserID = b.users[4]; return k }},
		"waiting already": {want: library.ErrAlreadyWaiting, change: func(t *testing.T, b bundle) {
			b.join(t, 0, 0, 45, 90)
		}, ask: hour},
		"an offer already": {want: library.ErrAlreadyWaiting, ask: func(b bundle) library.Booking {
			k := hour(b)
			k.SeatID = b.seats[1]
			return k
		},
			change: func(t *testing.T, b bundle) { b.offeredBy(t, 1, 0, 1, 45, 90) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.reserve(t, 4, 0, 0, 60)
			if tc.change != nil {
				tc.change(t, b)
			}
			before := b.everything(t)
			_, err := b.JoinWaitlist(t.Context(), tc.ask(b))
			wantErr(t, err, tc.want)
			wantEqual(t, "refused and changed", b.everything(t), before)
		})
	}
}

func TestJoinWaitlistRefusesTooManyEntries(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxWaiting = 2
	b := setupWith(t, rules)
	b.reserve(t, 4, 0, 0, 240)
	first := b.join(t, 0, 0, 0, 60)
	b.join(t, 0, 0, 60, 120)
	before := b.everything(t)
	third := library.Booking{UserID: b.users[0], SeatID: b.seats[0], StartTime: at(120), EndTime: at(180)}
	_, err := b.JoinWaitlist(t.Context(), third)
	wantErr(t, err, library.ErrTooManyReservations)
	wantEqual(t, "refused and changed", b.everything(t), before)
	b.join(t, 1, 0, 120, 180) // another user
	if _, err := b.LeaveWaitlist(t.Context(), b.users[0], first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JoinWaitlist(t.Context(), third); err != nil {
		t.Errorf("after the user has left the first entry: %v", err)
	}
}

// TestJoinWaitlistRefusesFullWaitlist checks two limits of live entries at one seat: those of one
// user, and those of all users. Ended entries do not count.
func TestJoinWaitlistRefusesFullWaitlist(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxWaitingPerSeat, rules.MaxWaitlist = 2, 3
	b := setupWith(t, rules)
	b.reserve(t, 4, 0, 0, 240)
	b.reserve(t, 4, 1, 240, 300)
	refused := func(user, seat, from, to int, want *library.Error, limit string) {
		t.Helper()
		before := b.everything(t)
		_, err := b.JoinWaitlist(t.Context(), library.Booking{
			UserID: b.users[user], SeatID: b.seats[seat], StartTime: at(from), EndTime: at(to),
		})
		wantErr(t, err, want)
		if e, _ := errors.AsType[*library.Error](err); e == nil || e.Metadata["limit"] != limit {
			t.Errorf("the error states the limit as %v", e)
		}
		wantEqual(t, "refused and changed", b.everything(t), before)
	}
	first := b.join(t, 0, 0, 0, 60)
	b.join(t, 0, 0, 60, 120)
	refused(0, 0, 120, 180, library.ErrTooManyReservations, "2")
	b.join(t, 0, 1, 240, 300) // another seat
	b.join(t, 1, 0, 0, 60)
	refused(2, 0, 200, 240, library.ErrWaitlistFull, "3")
	if _, err := b.LeaveWaitlist(t.Context(), b.users[0], first.ID); err != nil {
		t.Fatal(err)
	}
	b.join(t, 2, 0, 200, 240)
	refused(0, 0, 120, 180, library.ErrWaitlistFull, "3")
}

func TestJoinReportsAllViolations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.JoinWaitlist(t.Context(), library.Booking{
		UserID: b.users[0], SeatID: b.seats[0], StartTime: at(-10), EndTime: at(-5),
	})
	invalid, ok := errors.AsType[*library.Error](err)
	if !ok {
		t.Fatal(err)
	}
	var fields []string
	for _, f := range invalid.Fields {
		fields = append(fields, f.Field)
	}
	wantEqual(t, "faulty fields", fields, []string{"start_time", "end_time"})
}

func TestWaitlistPositions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 4, 0, 0, 240)
	first := b.join(t, 0, 0, 0, 60)
	second := b.join(t, 1, 0, 30, 90)
	apart := b.join(t, 2, 0, 90, 150) // begins when the second window ends, and overlaps no earlier one
	third := b.join(t, 3, 0, 0, 240)
	other := b.join(t, 0, 0, 60, 120) // the user of the first entry; the window begins when the first one ends
	for _, tc := range []struct {
		e    library.WaitlistEntry
		user int
		want int32
	}{{first, 0, 1}, {second, 1, 2}, {apart, 2, 1}, {third, 3, 4}, {other, 0, 4}} {
		if tc.e.Position != tc.want {
			t.Errorf("entry %d joined at %d, want %d", tc.e.ID, tc.e.Position, tc.want)
		}
	}
	left, err := b.LeaveWaitlist(t.Context(), b.users[0], first.ID)
	if err != nil || left.Status != library.EntryLeft || left.Position != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
	for _, tc := range []struct {
		e    library.WaitlistEntry
		user int
		want int32
	}{{first, 0, 0}, {second, 1, 1}, {apart, 2, 1}, {third, 3, 3}, {other, 0, 4}} {
		if got := b.entry(t, tc.user, tc.e.ID).Position; got != tc.want {
			t.Errorf("entry %d is at %d, want %d", tc.e.ID, got, tc.want)
		}
	}
}

func TestRepeatedJoinReturnsFirstAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	taken := b.reserve(t, 4, 0, 0, 60)
	b.join(t, 1, 0, 0, 60)
	booking := library.Booking{
		UserID: b.users[0], SeatID: b.seats[0], StartTime: at(0), EndTime: at(60), RequestID: "once",
	}
	first, err := b.JoinWaitlist(t.Context(), booking)
	if err != nil || first.Position != 2 {
		t.Fatalf("%+v, %v", first, err)
	}
	again := func(when string) {
		t.Helper()
		got, err := b.JoinWaitlist(t.Context(), booking)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, when, got, first)
	}
	again("at once")
	list, err := b.Waitlist(t.Context(), b.users[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.LeaveWaitlist(t.Context(), b.users[1], list[0].ID); err != nil {
		t.Fatal(err)
	}
	again("when the first in line had left")
	mustDo(t, b.Cancel, b.users[4], taken.ID)
	again("with an offer")
	if _, _, err := b.ClaimOffer(t.Context(), b.users[0], first.ID); err != nil {
		t.Fatal(err)
	}
	again("after the claim")
	b.clock(t, 600)
	again("after the end of the window")
	other := booking
	other.EndTime = at(61)
	_, err = b.JoinWaitlist(t.Context(), other)
	wantErr(t, err, library.ErrRequestIDReused)
	_, err = b.Reserve(t.Context(), library.Booking{
		UserID: b.users[0], SeatID: b.seats[1], StartTime: at(600), EndTime: at(660), RequestID: "once",
	})
	if err != nil {
		t.Errorf("the request id of an entry blocks a reservation: %v", err)
	}
}
