package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestFreedSeatIsOffered frees a seat in each possible way. The transaction that frees the seat
// must also offer it to the first entry that fits.
func TestFreedSeatIsOffered(t *testing.T) {
	t.Parallel()
	for name, free := range map[string]func(t *testing.T, b bundle, r library.Reservation){
		"cancel": func(t *testing.T, b bundle, r library.Reservation) { mustDo(t, b.Cancel, b.users[4], r.ID) },
		"check-out": func(t *testing.T, b bundle, r library.Reservation) {
			mustDo(t, b.checkIn, b.users[4], r.ID)
			mustDo(t, b.CheckOut, b.users[4], r.ID)
		},
		"no-show": func(t *testing.T, b bundle, r library.Reservation) {
			b.clock(t, 15)
			wantDone(t, 1, b.MarkNoShows)
		},
		"the end": func(t *testing.T, b bundle, r library.Reservation) {
			mustDo(t, b.checkIn, b.users[4], r.ID)
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
				Status: library.Held, CheckInOpensAt: at(15), CreatedAt: now, CheckInRule: library.CheckInNone,
			})
			_, err = b.Reserve(t.Context(), library.Booking{
				UserID: b.users[2], SeatID: b.seats[0], StartTime: now, EndTime: at(90),
			})
			wantErr(t, err, library.ErrSeatTaken) // no other user can take the offered seat
			storetest.CheckInvariants(t, b.db)
		})
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
	wantEqual(t, "after the offer was declined", statuses(), []library.WaitlistStatus{"LEFT", "OFFERED", "WAITING"})
	wantEqual(t, "history", b.history(t, first.ReservationID), []string{"OFFERED", "DECLINED"})

	second := b.entry(t, 1, entries[1].ID)
	b.db.FreezeClock(t, at(10).Add(-time.Microsecond))
	wantDone(t, 0, b.ExpireOffers)
	b.clock(t, 10)
	wantDone(t, 1, b.ExpireOffers)
	wantEqual(t, "after the offer expired", statuses(), []library.WaitlistStatus{"LEFT", "EXPIRED", "OFFERED"})
	wantEqual(t, "history", b.history(t, second.ReservationID), []string{"OFFERED", "OFFER_EXPIRED"})
	if got := b.entry(t, 2, entries[2].ID); !got.OfferExpiresAt.Equal(at(20)) || got.Position != 1 {
		t.Errorf("the last one: %+v", got)
	}
	wantEqual(t, "the second user's reservation", mustRead(t, b, 1, second.ReservationID).Status, library.Cancelled)
	storetest.CheckInvariants(t, b.db)
}

func TestOfferExpiresAtEndOfWindow(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MinDuration = 5 * time.Minute // the 5 minutes that are left must be enough for an offer
	b := setupWith(t, rules)
	taken := b.reserve(t, 4, 0, 0, 60)
	mustDo(t, b.checkIn, b.users[4], taken.ID)
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

// TestOfferSkipsWaiterWhoCannotClaim frees a seat whose first two waiters could not claim it. The
// window of the first is nearly over, and the second has as many reservations as the library
// allows. The third waiter gets the offer. The first two keep waiting.
func TestOfferSkipsWaiterWhoCannotClaim(t *testing.T) {
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
				mustDo(t, b.checkIn, b.users[4], taken.ID)
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
			wantStatus("the entry whose window is nearly over", 0, ending, library.EntryWaiting)
			wantStatus("the user with two reservations", 1, full, library.EntryWaiting)
			wantStatus("the third entry", 2, next, library.EntryOffered)
			wantDone(t, 0, b.OfferFreeSeats)
			// The offer is declined. Then the second user cancels a reservation and is below the
			// limit.
			if _, err := b.LeaveWaitlist(t.Context(), b.users[2], next.ID); err != nil {
				t.Fatal(err)
			}
			wantDone(t, 0, b.OfferFreeSeats)
			mustDo(t, b.Cancel, b.users[1], first.ID)
			wantStatus("the user, below the limit again", 1, full, library.EntryOffered)
			if _, _, err := b.ClaimOffer(t.Context(), b.users[1], full.ID); err != nil {
				t.Error(err)
			}
			b.clock(t, 20)
			wantDone(t, 1, b.ExpireWaiting)
			wantStatus("the entry whose window has passed", 0, ending, library.EntryExpired)
			storetest.CheckInvariants(t, b.db)
		})
	}
}

func TestCancelMakesSeveralOffers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	taken := b.reserve(t, 4, 0, 0, 240)
	b.reserve(t, 3, 0, 240, 300)
	long := b.join(t, 0, 0, 200, 260) // only a part of this window becomes free
	morning := b.join(t, 0, 0, 0, 60)
	b.join(t, 1, 0, 30, 90)  // overlaps the window before, so it gets no offer
	b.join(t, 2, 0, 60, 120) // begins when the window of morning ends
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

func TestOfferSkipsBusyUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	taken := b.reserve(t, 4, 0, 0, 60)
	busy := b.join(t, 0, 0, 0, 60)
	held := b.join(t, 1, 0, 0, 60)
	free := b.join(t, 2, 0, 0, 60)
	elsewhere := b.reserve(t, 0, 1, 30, 90)
	b.offeredBy(t, 3, 1, 2, 30, 90) // a user with an offer gets no second one for this time
	mustDo(t, b.Cancel, b.users[4], taken.ID)
	wantEqual(t, "the busy one", b.entry(t, 0, busy.ID).Status, library.EntryWaiting)
	wantEqual(t, "the one with an offer", b.entry(t, 1, held.ID).Status, library.EntryWaiting)
	offer := b.entry(t, 2, free.ID)
	wantEqual(t, "the free one", offer.Status, library.EntryOffered)

	// The busy user cancels the other reservation. When the seat becomes free again, the user is
	// the first in line and gets the offer.
	mustDo(t, b.Cancel, b.users[0], elsewhere.ID)
	if _, err := b.LeaveWaitlist(t.Context(), b.users[2], free.ID); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "the head", b.entry(t, 0, busy.ID).Status, library.EntryOffered)
	storetest.CheckInvariants(t, b.db)
}

// TestFreedUserGetsOffer ends a reservation of a user who waits for another seat. That seat has
// been free, but was not offered because the user was busy. The end of the reservation frees the
// user, who then gets the offer.
func TestFreedUserGetsOffer(t *testing.T) {
	t.Parallel()
	for name, free := range map[string]func(t *testing.T, b bundle, r library.Reservation, offer library.WaitlistEntry){
		"cancel": func(t *testing.T, b bundle, r library.Reservation, _ library.WaitlistEntry) {
			mustDo(t, b.Cancel, b.users[0], r.ID)
		},
		"a cancel by an operator": func(t *testing.T, b bundle, r library.Reservation, _ library.WaitlistEntry) {
			if _, _, err := b.CancelFor(t.Context(), byHost("closed"), r.ID); err != nil {
				t.Fatal(err)
			}
		},
		"check-out": func(t *testing.T, b bundle, r library.Reservation, _ library.WaitlistEntry) {
			mustDo(t, b.checkIn, b.users[0], r.ID)
			mustDo(t, b.CheckOut, b.users[0], r.ID)
		},
		"no-show": func(t *testing.T, b bundle, _ library.Reservation, _ library.WaitlistEntry) {
			b.clock(t, 15)
			wantDone(t, 1, b.MarkNoShows)
		},
		"the end": func(t *testing.T, b bundle, r library.Reservation, _ library.WaitlistEntry) {
			mustDo(t, b.checkIn, b.users[0], r.ID)
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

// TestCancelDoesNotWaitForAnotherSeat cancels while another session holds the lock of a second
// seat, for which the user waits. The cancellation must not wait long for that lock. The worker
// offers the second seat later.
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
