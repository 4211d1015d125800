package store_test

import (
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

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
