package store_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// whileWorking runs f while each step runs again and again on its own goroutine, like in a worker.
// Each step runs once more after f, so that all rows that became due during f are processed.
func whileWorking(t *testing.T, f func(), steps ...func(context.Context, int) (int, bool, error)) {
	t.Helper()
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for _, step := range steps {
		workers.Go(func() {
			for last := false; !last; {
				select {
				case <-stop:
					last = true
				default:
				}
				if _, _, err := step(context.WithoutCancel(t.Context()), 100); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	f()
	close(stop)
	workers.Wait()
}

// untilBoth repeats a race 3 to 20 times, until it was won at least once and lost at least once. A
// race that always has the same result proves nothing.
func untilBoth(t *testing.T, race func() (won, lost int)) {
	t.Helper()
	won, lost := 0, 0
	for round := 0; round < 20 && (round < 3 || won == 0 || lost == 0); round++ {
		w, l := race()
		won, lost = won+w, lost+l
	}
	t.Logf("%d won, %d lost", won, lost)
	if won == 0 || lost == 0 {
		t.Errorf("%d won, %d lost: all races had the same result", won, lost)
	}
}

// rivals is the number of rows of a race that become due at the same moment.
const rivals = 40

// TestCheckInAgainstNoShow lets 40 users check in one after another while the clock passes their
// deadline. If the call of a user succeeds, the reservation must be checked in. If the call fails
// because it is too late, the reservation must be a no-show.
func TestCheckInAgainstNoShow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seats, b.users = b.db.Seats(t, rivals), b.db.Users(t, rivals)
	stores := b.replicas(t, 2)
	from := 0
	untilBoth(t, func() (won, lost int) {
		from += 120
		b.clock(t, from)
		ids := make([]int64, rivals)
		for i := range ids {
			ids[i] = b.reserve(t, i, i, from, from+60).ID
		}
		errs := make([]error, rivals)
		b.db.SetClock(t, at(from+15).Add(-20*time.Millisecond))
		whileWorking(t, func() {
			eachInTurn(4, rivals, func(i int) {
				_, errs[i] = stores[i%2].CheckIn(t.Context(), b.users[i], ids[i], nil)
			})
			b.untilPast(t, at(from+15))
		}, stores[0].MarkNoShows, stores[1].MarkNoShows)
		wantDone(t, 0, b.MarkNoShows)
		for i, err := range errs {
			status := mustRead(t, b, i, ids[i]).Status
			switch {
			case err == nil && status == library.CheckedIn:
				won++
			case errors.Is(err, library.ErrCheckInTooLate) && status == library.NoShow:
				lost++
			default:
				t.Errorf("answered %v, and the reservation is %s", err, status)
			}
		}
		b.clock(t, from+60)
		wantDone(t, won, b.CompleteEnded)
		return won, lost
	})
	storetest.CheckInvariants(t, b.db)
}

// eachInTurn calls f once for each number from 0 to n-1. Several goroutines take the numbers in
// ascending order.
func eachInTurn(goroutines, n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// untilPast waits until the database's clock has passed the time due.
func (b bundle) untilPast(t *testing.T, due time.Time) {
	t.Helper()
	storetest.Eventually(t, "the clock is past "+due.String(), func() bool {
		return storetest.Value[bool](t, b.db, `SELECT dlsms_now() > $1`, due)
	})
}

// TestClaimAgainstExpiry lets offers expire while their users claim or decline them. If a user does
// not get the seat, the next entry must get an offer.
func TestClaimAgainstExpiry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seats, b.users = b.db.Seats(t, rivals), b.db.Users(t, 2*rivals+1)
	stores := b.replicas(t, 2)
	from := 0
	untilBoth(t, func() (won, lost int) {
		from += 120
		b.clock(t, from)
		entries, next := make([]library.WaitlistEntry, rivals), make([]library.WaitlistEntry, rivals)
		for i := range entries {
			taken := b.reserve(t, 2*rivals, i, from+30, from+90)
			entries[i] = b.join(t, i, i, from+30, from+90)
			next[i] = b.join(t, rivals+i, i, from+30, from+90)
			mustDo(t, b.Cancel, b.users[2*rivals], taken.ID)
		}
		errs := make([]error, rivals)
		b.db.SetClock(t, at(from+10).Add(-30*time.Millisecond))
		whileWorking(t, func() {
			eachInTurn(4, rivals, func(i int) {
				if i%4 == 3 {
					_, errs[i] = stores[i%2].LeaveWaitlist(t.Context(), b.users[i], entries[i].ID)
				} else {
					_, _, errs[i] = stores[i%2].ClaimOffer(t.Context(), b.users[i], entries[i].ID)
				}
			})
			b.untilPast(t, at(from+10))
		}, stores[0].ExpireOffers, stores[1].ExpireOffers)
		wantDone(t, 0, b.ExpireOffers)
		for i, err := range errs {
			e, behind := b.entry(t, i, entries[i].ID), b.entry(t, rivals+i, next[i].ID)
			status := mustRead(t, b, i, e.ReservationID).Status
			switch {
			case i%4 < 3 && err == nil && e.Status == library.EntryClaimed && status == library.Confirmed &&
				behind.Status == library.EntryWaiting:
				won++
			case i%4 == 3 && err == nil && e.Status == library.EntryLeft && status == library.Cancelled &&
				behind.Status == library.EntryOffered:
				won++
			case errors.Is(err, library.ErrOfferExpired) && e.Status == library.EntryExpired && status == library.Cancelled &&
				behind.Status == library.EntryOffered:
				lost++
			default:
				t.Errorf("answered %v; the entry is %s, its reservation %s, the next in line %s", err, e.Status, status,
					behind.Status)
			}
		}
		b.clock(t, from+100)
		for _, step := range []func(context.Context, int) (int, bool, error){b.ExpireOffers, b.MarkNoShows, b.ExpireWaiting} {
			if _, _, err := step(t.Context(), 100); err != nil {
				t.Fatal(err)
			}
		}
		return won, lost
	})
	storetest.CheckInvariants(t, b.db)
}

// TestCheckOutAgainstEnd lets the windows of reservations end while their users check out. Each
// reservation must have exactly one end.
func TestCheckOutAgainstEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seats, b.users = b.db.Seats(t, rivals), b.db.Users(t, rivals)
	stores := b.replicas(t, 2)
	from := 0
	untilBoth(t, func() (won, lost int) {
		from += 120
		b.clock(t, from)
		ids := make([]int64, rivals)
		for i := range ids {
			ids[i] = b.reserve(t, i, i, from, from+60).ID
			mustDo(t, b.checkIn, b.users[i], ids[i])
		}
		b.db.SetClock(t, at(from+60).Add(-20*time.Millisecond))
		whileWorking(t, func() {
			eachInTurn(4, rivals, func(i int) {
				if r, err := stores[i%2].CheckOut(t.Context(), b.users[i], ids[i]); err != nil || r.Status != library.Completed {
					t.Errorf("%+v, %v", r, err)
				}
			})
		}, stores[0].CompleteEnded, stores[1].CompleteEnded)
		out := storetest.Value[int](t, b.db, `
			SELECT count(*) FROM reservation_events WHERE kind = 'CHECKED_OUT' AND reservation_id = ANY($1)`, ids)
		return out, rivals - out
	})
	storetest.CheckInvariants(t, b.db)
}

// TestJoinAgainstCancel has three users act at once: the first cancels, the second joins the
// waitlist and the third books. The seat must never be free while the second user waits.
func TestJoinAgainstCancel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := b.replicas(t, 3)
	outcomes := map[string]int{}
	for round := range 60 {
		from := 120 * round
		taken := b.reserve(t, 0, 0, from, from+60)
		booking := library.Booking{UserID: b.users[1], SeatID: b.seats[0], StartTime: at(from), EndTime: at(from + 60)}
		walkIn := booking
		walkIn.UserID = b.users[2]
		var e library.WaitlistEntry
		errs := atOnce(3, func(i int) (err error) {
			switch i {
			case 0:
				_, err = stores[0].Cancel(t.Context(), b.users[0], taken.ID)
			case 1:
				e, err = stores[1].JoinWaitlist(t.Context(), booking)
			default:
				_, err = stores[2].Reserve(t.Context(), walkIn)
			}
			return err
		})
		status := library.WaitlistStatus("")
		if errs[1] == nil {
			status = b.entry(t, 1, e.ID).Status
		}
		switch {
		case errs[0] != nil:
			t.Fatal(errs[0])
		case errs[1] == nil && status == library.EntryOffered && errors.Is(errs[2], library.ErrSeatTaken):
			outcomes["offered"]++
		case errs[1] == nil && status == library.EntryWaiting && errs[2] == nil:
			outcomes["waits behind the third user"]++
		case errors.Is(errs[1], library.ErrSeatAvailable):
			outcomes["could not join a free seat"]++
		default:
			t.Errorf("join %v, entry %s, walk-in %v", errs[1], status, errs[2])
		}
		for _, id := range storetest.Rows[int64](t, b.db, `SELECT id FROM waitlist_entries WHERE live`) {
			if _, err := b.LeaveWaitlist(t.Context(), b.users[1], id); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range storetest.Rows[int64](t, b.db, `SELECT id FROM reservations WHERE occupies`) {
			mustDo(t, b.Cancel, b.users[2], id)
		}
	}
	t.Log(outcomes)
	storetest.CheckInvariants(t, b.db)
}

// TestWaitlistIsNotBypassed offers a seat to 40 waiting users, one after another, while other users
// try to book it. No booking may succeed while an entry waits.
func TestWaitlistIsNotBypassed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const line = 40
	b.users = b.db.Users(t, line+4)
	stores := b.replicas(t, 2)
	holder := b.reserve(t, line, 0, 30, 90)
	entries := make([]library.WaitlistEntry, line)
	for i := range entries {
		entries[i] = b.join(t, i, 0, 30, 90)
	}
	var waiting atomic.Bool
	waiting.Store(true)
	var tries atomic.Int64
	var walkIns sync.WaitGroup
	for i := range 3 {
		walkIns.Go(func() {
			for waiting.Load() {
				_, err := stores[i%2].Reserve(t.Context(), library.Booking{
					UserID: b.users[line+1+i], SeatID: b.seats[0], StartTime: at(45), EndTime: at(75),
				})
				if tries.Add(1); !errors.Is(err, library.ErrSeatTaken) && waiting.Load() {
					t.Errorf("a walk-in got the answer %v", err)
					return
				}
			}
		})
	}
	mustDo(t, b.Cancel, b.users[line], holder.ID)
	for i := range entries {
		e := b.entry(t, i, entries[i].ID)
		wantEqual(t, "the head of the line", e.Status, library.EntryOffered)
		waiting.Store(i < line-1) // after the last waiter gives the seat up, any user may book it
		if i%2 == 0 {
			if _, err := stores[0].LeaveWaitlist(t.Context(), b.users[i], e.ID); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, _, err := stores[1].ClaimOffer(t.Context(), b.users[i], e.ID); err != nil {
			t.Fatal(err)
		}
		mustDo(t, stores[0].Cancel, b.users[i], e.ReservationID)
	}
	walkIns.Wait()
	t.Logf("%d attempts to bypass the waitlist", tries.Load())
	if tries.Load() < line {
		t.Errorf("only %d attempts to bypass the waitlist", tries.Load())
	}
	storetest.CheckInvariants(t, b.db)
}
