package store_test

import (
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

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
		CheckInRule: library.CheckInNone,
	}
	wantEqual(t, "reservation", r, wantReservation)
	wantEqual(t, "stored", mustRead(t, b, 0, r.ID), wantReservation)
	b.clock(t, 30)
	mustDo(t, b.checkIn, b.users[0], r.ID)
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
	wantEqual(t, "the reservation of the no-show", mustRead(t, b, 4, taken.ID).Status, library.NoShow)
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
		"a seat in a closure that keeps reservations": {
			want: library.ErrSeatClosed,
			change: func(t *testing.T, b bundle, _ library.WaitlistEntry) {
				b.closeBranch(t, 90, 240, 0, func(s *library.ClosureSpec) { s.OnBookings = library.KeepBookings })
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
