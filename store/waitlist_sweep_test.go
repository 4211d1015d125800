package store_test

import (
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestSweepFindsOnlySeatsToOffer checks that FindDue does not find a seat whose waiters cannot get
// an offer. The worker repeats FindDue until FindDue finds nothing. If FindDue found such a seat
// each time, the worker would never stop.
func TestSweepFindsOnlySeatsToOffer(t *testing.T) {
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
			b.clock(t, 6) // 14 minutes are left of the window of 20, too few for an offer
			mustDo(t, b.Cancel, b.users[4], taken.ID)
			found, err := b.FindDue(t.Context(), store.OfferStep, store.DueQuery{Most: 10})
			if err != nil || len(found.Seats) != 0 {
				t.Errorf("found %v, %v", found.Seats, err)
			}
			if n, _, err := b.Run(t.Context(), store.OfferStep, b.seats[:1]); err != nil || n != 0 {
				t.Errorf("%d offers were made, %v", n, err)
			}
		})
	}
}

// TestSweepOffersFreeSeats puts a seat back into service and opens its branch. Such a change by SQL
// makes no offer, so the sweep of the worker must make it.
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
	wantDone(t, 0, b.OfferFreeSeats) // the branch is closed
	b.db.Exec(t, `DELETE FROM branch_hours`)
	wantDone(t, 1, b.OfferFreeSeats)
	wantDone(t, 0, b.OfferFreeSeats)
	wantEqual(t, "the head", b.entry(t, 0, e.ID).Status, library.EntryOffered)
	wantEqual(t, "the next", b.entry(t, 1, behind.ID).Status, library.EntryWaiting)
	storetest.CheckInvariants(t, b.db)
}

// TestSweepWithMoreEntriesThanItsLimit has ten entries that fit at one seat, and a limit of three
// rows. The sweep makes one offer and reports that there may be more.
func TestSweepWithMoreEntriesThanItsLimit(t *testing.T) {
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
