package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// join puts a user in line for a seat and a window. from and to are minutes after noon.
func (b bundle) join(t *testing.T, user, seat, from, to int) library.WaitlistEntry {
	t.Helper()
	e, err := b.JoinWaitlist(t.Context(), library.Booking{
		UserID: b.users[user], SeatID: b.seats[seat], StartTime: at(from), EndTime: at(to),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// entry returns the present state of one of the user's entries.
func (b bundle) entry(t *testing.T, user int, id int64) library.WaitlistEntry {
	t.Helper()
	list, err := b.Waitlist(t.Context(), b.users[user])
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(e library.WaitlistEntry) bool { return e.ID == id })
	if i < 0 {
		t.Fatalf("user %d has no entry %d", user, id)
	}
	return list[i]
}

// offered makes an offer to a user for a seat that is free in the window, and returns the entry.
func (b bundle) offered(t *testing.T, user, seat, from, to int) library.WaitlistEntry {
	t.Helper()
	return b.offeredBy(t, len(b.users)-1, user, seat, from, to)
}

// offeredBy is offered, where the user other takes the seat and then cancels.
func (b bundle) offeredBy(t *testing.T, other, user, seat, from, to int) library.WaitlistEntry {
	t.Helper()
	taken := b.reserve(t, other, seat, from, to)
	e := b.join(t, user, seat, from, to)
	mustDo(t, b.Cancel, b.users[other], taken.ID)
	if e = b.entry(t, user, e.ID); e.Status != library.EntryOffered {
		t.Fatalf("no offer: %+v", e)
	}
	return e
}

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
		b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '13:59' FROM branches`) // 12:59 by our noon
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
		t.Errorf("after leaving one: %v", err)
	}
}

// TestJoinWaitlistRefusesFullWaitlist checks the limits of live entries at one seat, of one user
// and of all users. Ended entries do not count.
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

// TestWaitlistIsBounded joins and leaves many times. Waitlist returns all live entries, and the
// newest of the others.
func TestWaitlistIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 4, 0, 0, 240)
	live := b.join(t, 0, 0, 0, 60)
	const most = 100
	var left []int64
	for range most + 5 {
		e := b.join(t, 0, 0, 60, 120)
		if _, err := b.LeaveWaitlist(t.Context(), b.users[0], e.ID); err != nil {
			t.Fatal(err)
		}
		left = append(left, e.ID)
	}
	list, err := b.Waitlist(t.Context(), b.users[0])
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, e := range list {
		got = append(got, e.ID)
	}
	wantEqual(t, "listed", got, append([]int64{live.ID}, left[5:]...))
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

func TestPositions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 4, 0, 0, 240)
	first := b.join(t, 0, 0, 0, 60)
	second := b.join(t, 1, 0, 30, 90)
	apart := b.join(t, 2, 0, 90, 150) // touches the second one and overlaps none
	third := b.join(t, 3, 0, 0, 240)
	other := b.join(t, 0, 0, 60, 120) // the same user with a window that touches the first one
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
	again("when all is over")
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

// TestFreedSeatIsOffered frees a seat in each possible way. The same transaction offers it.
func TestFreedSeatIsOffered(t *testing.T) {
	t.Parallel()
	for name, free := range map[string]func(t *testing.T, b bundle, r library.Reservation){
		"cancel": func(t *testing.T, b bundle, r library.Reservation) { mustDo(t, b.Cancel, b.users[4], r.ID) },
		"check-out": func(t *testing.T, b bundle, r library.Reservation) {
			mustDo(t, b.CheckIn, b.users[4], r.ID)
			mustDo(t, b.CheckOut, b.users[4], r.ID)
		},
		"no-show": func(t *testing.T, b bundle, r library.Reservation) {
			b.clock(t, 15)
			wantDone(t, 1, b.MarkNoShows)
		},
		"the end": func(t *testing.T, b bundle, r library.Reservation) {
			mustDo(t, b.CheckIn, b.users[4], r.ID)
			b.clock(t, 60)
			wantDone(t, 1, b.CompleteEnded)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			taken := b.reserve(t, 4, 0, 0, 60)
			entry := b.join(t, 0, 0, 30, 90)
			later := b.join(t, 1, 0, 0, 90)
			free(t, b, taken)
			now := storetest.Value[time.Time](t, b.db, `SELECT dlsms_now()`)
			expires := now.Add(10 * time.Minute)
			entry.Status, entry.OfferExpiresAt = library.EntryOffered, &expires
			got := b.entry(t, 0, entry.ID)
			entry.ReservationID = got.ReservationID
			wantEqual(t, "the head of the line", got, entry)
			wantEqual(t, "the next", b.entry(t, 1, later.ID).Status, library.EntryWaiting)
			held, err := b.Reservation(t.Context(), b.users[0], got.ReservationID)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "held", held, library.Reservation{
				ID: got.ReservationID, SeatRef: entry.SeatRef, UserID: b.users[0], StartTime: at(30), EndTime: at(90),
				Status: library.Held, CheckInOpensAt: at(15), CreatedAt: now,
			})
			_, err = b.Reserve(t.Context(), library.Booking{
				UserID: b.users[2], SeatID: b.seats[0], StartTime: now, EndTime: at(90),
			})
			wantErr(t, err, library.ErrSeatTaken) // no other user can take the offered seat
			storetest.CheckInvariants(t, b.db)
		})
	}
}

// wantDone runs a step and checks the number of its transitions.
func wantDone(t *testing.T, want int, step func(ctx context.Context, limit int) (int, bool, error)) {
	t.Helper()
	n, more, err := step(t.Context(), 100)
	if err != nil || more || n != want {
		t.Fatalf("%d done, more %v, %v; want %d", n, more, err, want)
	}
}

func TestDeclinedAndExpiredOffersGoToNext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	taken := b.reserve(t, 4, 0, 60, 120)
	var entries []library.WaitlistEntry
	for user := range 3 {
		entries = append(entries, b.join(t, user, 0, 60, 120))
	}
	statuses := func() (s []library.WaitlistStatus) {
		for user, e := range entries {
			s = append(s, b.entry(t, user, e.ID).Status)
		}
		return s
	}
	mustDo(t, b.Cancel, b.users[4], taken.ID)
	wantEqual(t, "after the cancel", statuses(), []library.WaitlistStatus{"OFFERED", "WAITING", "WAITING"})
	first := b.entry(t, 0, entries[0].ID)
	left, err := b.LeaveWaitlist(t.Context(), b.users[0], first.ID)
	if err != nil || left.Status != library.EntryLeft || left.OfferExpiresAt != nil {
		t.Errorf("declined: %+v, %v", left, err)
	}
	wantEqual(t, "after it was declined", statuses(), []library.WaitlistStatus{"LEFT", "OFFERED", "WAITING"})
	wantEqual(t, "history", b.history(t, first.ReservationID), []string{"OFFERED", "DECLINED"})

	second := b.entry(t, 1, entries[1].ID)
	b.db.FreezeClock(t, at(10).Add(-time.Microsecond))
	wantDone(t, 0, b.ExpireOffers)
	b.clock(t, 10)
	wantDone(t, 1, b.ExpireOffers)
	wantEqual(t, "after it ran out", statuses(), []library.WaitlistStatus{"LEFT", "EXPIRED", "OFFERED"})
	wantEqual(t, "history", b.history(t, second.ReservationID), []string{"OFFERED", "OFFER_EXPIRED"})
	if got := b.entry(t, 2, entries[2].ID); !got.OfferExpiresAt.Equal(at(20)) || got.Position != 1 {
		t.Errorf("the last one: %+v", got)
	}
	wantEqual(t, "the second user's reservation", mustRead(t, b, 1, second.ReservationID).Status, library.Cancelled)
	storetest.CheckInvariants(t, b.db)
}

func mustRead(t *testing.T, b bundle, user int, id int64) library.Reservation {
	t.Helper()
	r, err := b.Reservation(t.Context(), b.users[user], id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOfferExpiresAtEndOfWindow(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MinDuration = 5 * time.Minute // no shorter window is offered
	b := setupWith(t, rules)
	taken := b.reserve(t, 4, 0, 0, 60)
	mustDo(t, b.CheckIn, b.users[4], taken.ID)
	e := b.join(t, 0, 0, 30, 60)
	b.clock(t, 55)
	mustDo(t, b.CheckOut, b.users[4], taken.ID)
	if got := b.entry(t, 0, e.ID); got.OfferExpiresAt == nil || !got.OfferExpiresAt.Equal(at(60)) {
		t.Errorf("offered: %+v", got)
	}
	_, r, err := b.ClaimOffer(t.Context(), b.users[0], e.ID)
	if err != nil || !r.CheckInDeadline.Equal(at(60)) || !r.CheckInOpensAt.Equal(at(15)) {
		t.Errorf("claimed: %+v, %v", r, err)
	}
	storetest.CheckInvariants(t, b.db)
}

// TestNoOfferThatCannotBeClaimed frees a seat whose first waiters could not claim it. One has a
// window that is nearly over, and one has as many reservations as the library allows. They wait
// until their windows have passed, and the next waiter gets the offer.
func TestNoOfferThatCannotBeClaimed(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 2
	for name, free := range map[string]func(t *testing.T, b bundle, r library.Reservation){
		"cancel":   func(t *testing.T, b bundle, r library.Reservation) { mustDo(t, b.Cancel, b.users[4], r.ID) },
		"checkout": func(t *testing.T, b bundle, r library.Reservation) { mustDo(t, b.CheckOut, b.users[4], r.ID) },
		"no_show":  func(t *testing.T, b bundle, _ library.Reservation) { b.clock(t, 16); wantDone(t, 1, b.MarkNoShows) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupWith(t, rules)
			taken := b.reserve(t, 4, 0, 0, 60)
			if name == "checkout" {
				mustDo(t, b.CheckIn, b.users[4], taken.ID)
			}
			ending := b.join(t, 0, 0, 0, 20)
			first := b.reserve(t, 1, 1, 100, 120)
			b.reserve(t, 1, 1, 200, 220)
			full := b.join(t, 1, 0, 0, 60)
			next := b.join(t, 2, 0, 0, 60)
			if name != "no_show" {
				b.clock(t, 6) // 14 minutes are left of the first window
			}
			free(t, b, taken)
			wantStatus := func(what string, user int, e library.WaitlistEntry, want library.WaitlistStatus) {
				t.Helper()
				if got := b.entry(t, user, e.ID).Status; got != want {
					t.Errorf("%s: %s, want %s", what, got, want)
				}
			}
			wantStatus("nearly over", 0, ending, library.EntryWaiting)
			wantStatus("enough reservations", 1, full, library.EntryWaiting)
			wantStatus("the next", 2, next, library.EntryOffered)
			wantDone(t, 0, b.OfferFreeSeats)
			// The window becomes free again, and the user is below the limit.
			if _, err := b.LeaveWaitlist(t.Context(), b.users[2], next.ID); err != nil {
				t.Fatal(err)
			}
			wantDone(t, 0, b.OfferFreeSeats)
			mustDo(t, b.Cancel, b.users[1], first.ID)
			wantStatus("with room", 1, full, library.EntryOffered)
			if _, _, err := b.ClaimOffer(t.Context(), b.users[1], full.ID); err != nil {
				t.Error(err)
			}
			b.clock(t, 20)
			wantDone(t, 1, b.ExpireWaiting)
			wantStatus("past", 0, ending, library.EntryExpired)
			storetest.CheckInvariants(t, b.db)
		})
	}
}

// TestASweepFindsOnlyWhatItCanServe: the worker looks again as long as a look finds something, so
// what is found and then not served would keep it busy for good.
func TestASweepFindsOnlyWhatItCanServe(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 1
	for name, join := range map[string]func(t *testing.T, b bundle){
		"a window that is nearly over": func(t *testing.T, b bundle) { b.join(t, 0, 0, 0, 20) },
		"a user with enough reservations": func(t *testing.T, b bundle) {
			b.reserve(t, 0, 1, 100, 120)
			b.join(t, 0, 0, 0, 60)
		},
		"a user who is busy": func(t *testing.T, b bundle) {
			b.reserve(t, 0, 1, 0, 60)
			b.join(t, 0, 0, 0, 60)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupWith(t, rules)
			taken := b.reserve(t, 4, 0, 0, 60)
			join(t, b)
			b.clock(t, 6) // 14 minutes are left of a window of 20
			mustDo(t, b.Cancel, b.users[4], taken.ID)
			found, err := b.FindDue(t.Context(), store.OfferStep, store.DueQuery{Most: 10})
			if err != nil || len(found.Seats) != 0 {
				t.Errorf("found %v, %v", found.Seats, err)
			}
			if n, _, err := b.Run(t.Context(), store.OfferStep, b.seats[:1]); err != nil || n != 0 {
				t.Errorf("%d are served, %v", n, err)
			}
		})
	}
}

func TestSeveralOffersWhereSeveralFit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	taken := b.reserve(t, 4, 0, 0, 240)
	b.reserve(t, 3, 0, 240, 300)
	long := b.join(t, 0, 0, 200, 260) // only a part of this window becomes free
	morning := b.join(t, 0, 0, 0, 60)
	b.join(t, 1, 0, 30, 90)  // behind the one before
	b.join(t, 2, 0, 60, 120) // touches the first one
	b.join(t, 1, 0, 120, 240)
	mustDo(t, b.Cancel, b.users[4], taken.ID)
	got := storetest.Rows[string](t, b.db, `
		SELECT extract(epoch FROM lower(during) - dlsms_now())::int / 60 || ' ' || status
		FROM waitlist_entries ORDER BY id`)
	wantEqual(t, "entries", got, []string{"200 WAITING", "0 OFFERED", "30 WAITING", "60 OFFERED", "120 OFFERED"})
	if b.entry(t, 0, long.ID).Position != 1 || b.entry(t, 0, morning.ID).Position != 1 {
		t.Error("positions")
	}
	storetest.CheckInvariants(t, b.db)
}

func TestBusyUserIsSkipped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	taken := b.reserve(t, 4, 0, 0, 60)
	busy := b.join(t, 0, 0, 0, 60)
	held := b.join(t, 1, 0, 0, 60)
	free := b.join(t, 2, 0, 0, 60)
	elsewhere := b.reserve(t, 0, 1, 30, 90)
	b.offeredBy(t, 3, 1, 2, 30, 90) // an offer also makes its user busy: no user gets two offers at once
	mustDo(t, b.Cancel, b.users[4], taken.ID)
	wantEqual(t, "the busy one", b.entry(t, 0, busy.ID).Status, library.EntryWaiting)
	wantEqual(t, "the one with an offer", b.entry(t, 1, held.ID).Status, library.EntryWaiting)
	offer := b.entry(t, 2, free.ID)
	wantEqual(t, "the free one", offer.Status, library.EntryOffered)

	// The busy user becomes free, is the first in line, and gets the seat when it becomes free
	// again.
	mustDo(t, b.Cancel, b.users[0], elsewhere.ID)
	if _, err := b.LeaveWaitlist(t.Context(), b.users[2], free.ID); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "the head", b.entry(t, 0, busy.ID).Status, library.EntryOffered)
	storetest.CheckInvariants(t, b.db)
}

// TestFreedUserIsServed ends a reservation, which also frees its user. The user then gets an offer
// for a seat that has been free all along.
func TestFreedUserIsServed(t *testing.T) {
	t.Parallel()
	for name, free := range map[string]func(t *testing.T, b bundle, r library.Reservation, offer library.WaitlistEntry){
		"cancel": func(t *testing.T, b bundle, r library.Reservation, _ library.WaitlistEntry) {
			mustDo(t, b.Cancel, b.users[0], r.ID)
		},
		"a cancel by an operator": func(t *testing.T, b bundle, r library.Reservation, _ library.WaitlistEntry) {
			if _, _, err := b.CancelFor(t.Context(), r.ID, "closed"); err != nil {
				t.Fatal(err)
			}
		},
		"check-out": func(t *testing.T, b bundle, r library.Reservation, _ library.WaitlistEntry) {
			mustDo(t, b.CheckIn, b.users[0], r.ID)
			mustDo(t, b.CheckOut, b.users[0], r.ID)
		},
		"no-show": func(t *testing.T, b bundle, _ library.Reservation, _ library.WaitlistEntry) {
			b.clock(t, 15)
			wantDone(t, 1, b.MarkNoShows)
		},
		"the end": func(t *testing.T, b bundle, r library.Reservation, _ library.WaitlistEntry) {
			mustDo(t, b.CheckIn, b.users[0], r.ID)
			b.clock(t, 30)
			wantDone(t, 1, b.CompleteEnded)
		},
		"a declined offer": func(t *testing.T, b bundle, _ library.Reservation, offer library.WaitlistEntry) {
			if _, err := b.LeaveWaitlist(t.Context(), b.users[0], offer.ID); err != nil {
				t.Fatal(err)
			}
		},
		"an expired offer": func(t *testing.T, b bundle, _ library.Reservation, _ library.WaitlistEntry) {
			b.clock(t, 10)
			wantDone(t, 1, b.ExpireOffers)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var offer library.WaitlistEntry
			var busyWith library.Reservation
			taken := b.reserve(t, 4, 0, 0, 60)
			waiting := b.join(t, 0, 0, 0, 60)
			if strings.HasSuffix(name, "offer") {
				offer = b.offeredBy(t, 3, 0, 1, 0, 30)
			} else {
				busyWith = b.reserve(t, 0, 1, 0, 30)
			}
			mustDo(t, b.Cancel, b.users[4], taken.ID)
			wantEqual(t, "while busy", b.entry(t, 0, waiting.ID).Status, library.EntryWaiting)
			free(t, b, busyWith, offer)
			wantEqual(t, "when free", b.entry(t, 0, waiting.ID).Status, library.EntryOffered)
			storetest.CheckInvariants(t, b.db)
		})
	}
}

// TestSweepOffersFreeSeats checks the cases that no transaction of a user serves.
func TestSweepOffersFreeSeats(t *testing.T) {
	t.Parallel()
	b := setup(t)
	taken := b.reserve(t, 4, 0, 60, 120)
	e := b.join(t, 0, 0, 60, 120)
	behind := b.join(t, 1, 0, 60, 120)
	b.db.Exec(t, `UPDATE seats SET out_of_service = true`)
	mustDo(t, b.Cancel, b.users[4], taken.ID)
	wantDone(t, 0, b.OfferFreeSeats)
	b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '10:00' FROM branches`)
	b.db.Exec(t, `UPDATE seats SET out_of_service = false`)
	wantDone(t, 0, b.OfferFreeSeats) // closed
	b.db.Exec(t, `DELETE FROM branch_hours`)
	wantDone(t, 1, b.OfferFreeSeats)
	wantDone(t, 0, b.OfferFreeSeats)
	wantEqual(t, "the head", b.entry(t, 0, e.ID).Status, library.EntryOffered)
	wantEqual(t, "the next", b.entry(t, 1, behind.ID).Status, library.EntryWaiting)
	storetest.CheckInvariants(t, b.db)
}

// TestSweepServesMoreThanOneRead has more fitting entries at one seat than one query reads.
func TestSweepServesMoreThanOneRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.users = b.db.Users(t, 20)
	taken := b.reserve(t, 19, 0, 60, 120)
	for user := range 10 {
		b.join(t, user, 0, 60, 120)
	}
	b.db.Exec(t, `UPDATE seats SET out_of_service = true`)
	mustDo(t, b.Cancel, b.users[19], taken.ID)
	b.db.Exec(t, `UPDATE seats SET out_of_service = false`)
	n, more, err := b.OfferFreeSeats(t.Context(), 3)
	if err != nil || n != 1 || !more {
		t.Errorf("%d, %v, %v", n, more, err)
	}
	wantDone(t, 0, b.OfferFreeSeats)
	storetest.CheckInvariants(t, b.db)
}

func TestClaimOffer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	offer := b.offered(t, 0, 0, 30, 90)
	b.clock(t, 5)
	entry, r, err := b.ClaimOffer(t.Context(), b.users[0], offer.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := offer
	want.Status, want.Position, want.OfferExpiresAt = library.EntryClaimed, 0, nil
	wantEqual(t, "entry", entry, want)
	deadline := at(45)
	wantReservation := library.Reservation{
		ID: offer.ReservationID, SeatRef: offer.SeatRef, UserID: b.users[0], StartTime: at(30), EndTime: at(90),
		Status: library.Confirmed, CheckInOpensAt: at(15), CheckInDeadline: &deadline, CreatedAt: noon,
	}
	wantEqual(t, "reservation", r, wantReservation)
	wantEqual(t, "stored", mustRead(t, b, 0, r.ID), wantReservation)
	b.clock(t, 30)
	mustDo(t, b.CheckIn, b.users[0], r.ID)
	again, first, err := b.ClaimOffer(t.Context(), b.users[0], offer.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "claimed again: entry", again, entry)
	wantEqual(t, "claimed again: reservation", first, r)
	wantEqual(t, "history", b.history(t, r.ID), []string{"OFFERED", "CLAIMED", "CHECKED_IN"})
	_, err = b.LeaveWaitlist(t.Context(), b.users[0], offer.ID)
	wantErr(t, err, library.ErrNotOffered)
	storetest.CheckInvariants(t, b.db)
}

func TestLateClaimLeavesTimeToCheckIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	taken := b.reserve(t, 4, 0, 0, 60)
	e := b.join(t, 0, 0, 0, 60)
	b.clock(t, 15)
	wantDone(t, 1, b.MarkNoShows)
	b.clock(t, 20)
	_, r, err := b.ClaimOffer(t.Context(), b.users[0], e.ID)
	if err != nil || !r.CheckInDeadline.Equal(at(35)) {
		t.Errorf("%+v, %v", r, err)
	}
	wantEqual(t, "the no-show", mustRead(t, b, 4, taken.ID).Status, library.NoShow)
	storetest.CheckInvariants(t, b.db)
}

func TestClaimOfferRefuses(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 2
	for name, tc := range map[string]struct {
		change func(t *testing.T, b bundle, e library.WaitlistEntry)
		want   error
	}{
		"an offer past its expiry": {
			want: library.ErrOfferExpired,
			change: func(t *testing.T, b bundle, _ library.WaitlistEntry) {
				b.clock(t, 10)
			},
		},
		"an offer that the worker has ended": {
			want: library.ErrOfferExpired,
			change: func(t *testing.T, b bundle, _ library.WaitlistEntry) {
				b.clock(t, 10)
				wantDone(t, 1, b.ExpireOffers)
			},
		},
		"a declined offer": {want: library.ErrNotOffered, change: func(t *testing.T, b bundle, e library.WaitlistEntry) {
			if _, err := b.LeaveWaitlist(t.Context(), b.users[0], e.ID); err != nil {
				t.Fatal(err)
			}
		}},
		"a busy user": {want: library.ErrUserBusy, change: func(t *testing.T, b bundle, _ library.WaitlistEntry) {
			b.reserve(t, 0, 1, 30, 90)
		}},
		"a user at the limit": {
			want: library.ErrTooManyReservations,
			change: func(t *testing.T, b bundle, _ library.WaitlistEntry) {
				b.reserve(t, 0, 1, 120, 180)
				b.reserve(t, 0, 1, 180, 240)
			},
		},
		"a seat out of service": {
			want: library.ErrSeatOutOfService,
			change: func(t *testing.T, b bundle, _ library.WaitlistEntry) {
				b.db.Exec(t, `UPDATE seats SET out_of_service = true`)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupWith(t, rules)
			e := b.offered(t, 0, 0, 60, 120)
			tc.change(t, b, e)
			before := b.everything(t)
			_, _, err := b.ClaimOffer(t.Context(), b.users[0], e.ID)
			wantErr(t, err, tc.want)
			_, _, err = b.ClaimOffer(t.Context(), b.users[1], e.ID)
			wantErr(t, err, library.ErrEntryNotFound)
			wantEqual(t, "refused and changed", b.everything(t), before)
		})
	}
}

func TestClaimOfferRefusesWaitingEntry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 4, 0, 0, 60)
	e := b.join(t, 0, 0, 0, 60)
	_, _, err := b.ClaimOffer(t.Context(), b.users[0], e.ID)
	wantErr(t, err, library.ErrNotOffered)
	b.clock(t, 60)
	wantDone(t, 1, b.ExpireWaiting)
	_, _, err = b.ClaimOffer(t.Context(), b.users[0], e.ID)
	wantErr(t, err, library.ErrNotOffered)
	_, err = b.LeaveWaitlist(t.Context(), b.users[0], e.ID)
	wantErr(t, err, library.ErrNotOffered)
	wantEqual(t, "status", b.entry(t, 0, e.ID).Status, library.EntryExpired)
}

func TestLeaveWaitlist(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 4, 0, 0, 60)
	e := b.join(t, 0, 0, 0, 60)
	before := b.everything(t)
	_, err := b.LeaveWaitlist(t.Context(), b.users[1], e.ID)
	wantErr(t, err, library.ErrEntryNotFound)
	_, err = b.LeaveWaitlist(t.Context(), b.users[0], 1<<40)
	wantErr(t, err, library.ErrEntryNotFound)
	wantEqual(t, "refused and changed", b.everything(t), before)
	first, err := b.LeaveWaitlist(t.Context(), b.users[0], e.ID)
	if err != nil {
		t.Fatal(err)
	}
	b.clock(t, 5)
	again, err := b.LeaveWaitlist(t.Context(), b.users[0], e.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "left again", again, first)
	b.join(t, 0, 0, 10, 60) // the user may join again
	storetest.CheckInvariants(t, b.db)
}

func TestLeaveWaitlistRefusesExpiredOffer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.offered(t, 0, 0, 30, 90)
	b.clock(t, 10)
	_, err := b.LeaveWaitlist(t.Context(), b.users[0], e.ID)
	wantErr(t, err, library.ErrOfferExpired) // even before the worker has ended the offer
	wantDone(t, 1, b.ExpireOffers)
	_, err = b.LeaveWaitlist(t.Context(), b.users[0], e.ID)
	wantErr(t, err, library.ErrOfferExpired)
}

func TestWaitlistOmitsEntriesAfterADay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 4, 0, 0, 60)
	e := b.join(t, 0, 0, 0, 60)
	if _, err := b.LeaveWaitlist(t.Context(), b.users[0], e.ID); err != nil {
		t.Fatal(err)
	}
	for minutes, want := range map[int]int{24*60 - 1: 1, 24 * 60: 0} {
		b.clock(t, minutes)
		list, err := b.Waitlist(t.Context(), b.users[0])
		if err != nil || len(list) != want {
			t.Errorf("after %d minutes: %v, %v", minutes, list, err)
		}
	}
}

// TestCancelDoesNotWaitForAnotherSeat cancels while another session holds the lock of a seat that
// the user waits for. The cancellation must not wait long. The worker offers that seat later.
func TestCancelDoesNotWaitForAnotherSeat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	mine := b.reserve(t, 0, 0, 10, 60)
	theirs := b.reserve(t, 1, 1, 10, 60)
	entry := b.join(t, 0, 1, 10, 60)
	if _, err := b.Cancel(t.Context(), b.users[1], theirs.ID); err != nil {
		t.Fatal(err)
	}
	w := b.writers(t, 1).sessions[0]
	w.exec(t, `BEGIN`)
	w.exec(t, `SELECT 1 FROM seats WHERE id = $1 FOR UPDATE`, b.seats[1])
	began := time.Now()
	if _, err := b.Cancel(t.Context(), b.users[0], mine.ID); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the cancellation took %v", took)
	}
	w.exec(t, `COMMIT`)
	wantDone(t, 1, b.OfferFreeSeats)
	if e := b.entry(t, 0, entry.ID); e.Status != library.EntryOffered {
		t.Errorf("the entry is %s", e.Status)
	}
}
