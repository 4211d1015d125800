package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// pages reads a list of reservations to its end, in pages of two, and returns the ids.
func (b bundle) pages(t *testing.T, user int, view store.View) (ids []int64) {
	t.Helper()
	var after store.ReservationCursor
	for {
		page, err := b.Reservations(t.Context(), b.users[user], view, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			ids = append(ids, r.ID)
			after = store.ReservationCursor{StartTime: r.StartTime, ID: r.ID}
		}
		if len(page) < 2 {
			return ids
		}
	}
}

func TestReservations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cancelled := b.reserve(t, 0, 0, 0, 60)
	mustDo(t, b.Cancel, b.users[0], cancelled.ID)
	again := b.reserve(t, 0, 0, 0, 60) // the same start, so the id decides the order
	tomorrow := b.reserve(t, 0, 0, 24*60, 25*60)
	evening := b.reserve(t, 0, 1, 300, 360)
	held := b.offered(t, 0, 2, 400, 460)
	b.reserve(t, 1, 1, 0, 60) // another user's reservation, which must not be listed
	list := func(when string, upcoming, history, all []int64) {
		t.Helper()
		wantEqual(t, when+": upcoming", b.pages(t, 0, store.ViewUpcoming), upcoming)
		wantEqual(t, when+": history", b.pages(t, 0, store.ViewHistory), history)
		wantEqual(t, when+": all", b.pages(t, 0, store.ViewAll), all)
	}
	all := []int64{cancelled.ID, again.ID, evening.ID, held.ReservationID, tomorrow.ID}
	list("at noon", []int64{again.ID, evening.ID, held.ReservationID, tomorrow.ID}, []int64{cancelled.ID}, all)
	mustDo(t, b.checkIn, b.users[0], again.ID)
	b.clock(t, 60) // the reservation has ended, although the worker has not completed it
	list("at one", []int64{evening.ID, held.ReservationID, tomorrow.ID}, []int64{again.ID, cancelled.ID}, all)
	for _, step := range workerSteps(b.Store) {
		if _, _, err := step(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
	}
	list("after the worker", []int64{evening.ID, tomorrow.ID}, []int64{held.ReservationID, again.ID, cancelled.ID}, all)
	b.clock(t, 30*24*60-1)
	list("in 30 days", nil, []int64{tomorrow.ID, held.ReservationID, evening.ID, again.ID, cancelled.ID}, all)
	b.clock(t, 30*24*60)
	list("after 30 days", nil, []int64{tomorrow.ID, held.ReservationID, evening.ID, again.ID}, all)
	b.clock(t, 32*24*60)
	list("after a month", nil, nil, all)
}

func TestNotifications(t *testing.T) {
	t.Parallel()
	b := setup(t)
	taken := b.reserve(t, 1, 0, 0, 60)
	e := b.join(t, 0, 0, 0, 60)
	mustDo(t, b.Cancel, b.users[1], taken.ID)
	offer := b.entry(t, 0, e.ID)
	if _, _, err := b.ClaimOffer(t.Context(), b.users[0], e.ID); err != nil {
		t.Fatal(err)
	}
	b.clock(t, 10)
	wantDone(t, 1, b.RemindOfCheckIn)
	wantDone(t, 0, b.RemindOfCheckIn)
	b.clock(t, 12)
	mustDo(t, b.checkIn, b.users[0], offer.ReservationID)
	b.clock(t, 60)
	wantDone(t, 1, b.CompleteEnded)
	got, err := b.Notifications(t.Context(), b.users[0], 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	deadline, expires := at(15), at(10)
	like := func(
		i int, kind library.EventKind, status library.ReservationStatus, minutes int, deadline, expires *time.Time,
	) library.Notification {
		return library.Notification{
			ID: got[i].ID, Kind: kind, UserID: b.users[0], ReservationID: offer.ReservationID, EntryID: e.ID, SeatRef: e.SeatRef,
			Timezone: "Europe/Berlin", StartTime: at(0), EndTime: at(60), Status: status,
			CheckInDeadline: deadline, OfferExpiresAt: expires, CreatedAt: at(minutes),
		}
	}
	if len(got) != 3 {
		t.Fatalf("%d notifications: %+v", len(got), got)
	}
	wantEqual(t, "notifications", got, []library.Notification{
		like(0, library.EventOffered, library.Held, 0, nil, &expires),
		like(1, library.EventReminded, library.Confirmed, 10, &deadline, nil),
		like(2, library.EventCompleted, library.Completed, 60, &deadline, nil),
	})
	after, err := b.Notifications(t.Context(), b.users[0], got[0].ID, 1)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "the second one", after, got[1:2])
	others, err := b.Notifications(t.Context(), b.users[1], 0, 10)
	if err != nil || len(others) != 0 {
		t.Errorf("notifications of the other user: %+v, %v", others, err)
	}
}

// TestReminders checks when a reminder comes: once, five minutes before the deadline, or at once if
// less time is left. It must not come after the deadline.
func TestReminders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 30, 90)
	b.db.FreezeClock(t, at(40).Add(-time.Microsecond))
	wantDone(t, 0, b.RemindOfCheckIn)
	b.clock(t, 40)
	wantDone(t, 1, b.RemindOfCheckIn)
	wantDone(t, 0, b.RemindOfCheckIn)
	wantEqual(t, "history", b.history(t, r.ID), []string{"RESERVED", "REMINDED"})

	arrived := b.reserve(t, 1, 1, 40, 100)
	mustDo(t, b.checkIn, b.users[1], arrived.ID)
	b.clock(t, 51)
	wantDone(t, 0, b.RemindOfCheckIn)
	wantDone(t, 1, b.MarkNoShows)
	late := b.reserve(t, 2, 2, 60, 120)
	b.clock(t, 75)
	wantDone(t, 0, b.RemindOfCheckIn) // the deadline has passed
	wantEqual(t, "history", b.history(t, late.ID), []string{"RESERVED"})
}

// TestStepsAreBounded runs a step with a limit of three rows while seven are due. The step must
// report whether more may be due.
func TestStepsAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.seats, b.users = b.db.Seats(t, 7), b.db.Users(t, 8)
	for i := range 7 {
		b.reserve(t, i, i, 0, 60)
	}
	for i := range 3 {
		b.join(t, 7, i, 0, 60)
	}
	b.clock(t, 15)
	for i, want := range []struct {
		n    int
		more bool
	}{{3, true}, {3, true}, {1, false}, {0, false}} {
		n, more, err := b.MarkNoShows(t.Context(), 3)
		if err != nil || n != want.n || more != want.more {
			t.Errorf("step %d: %d, more %v, %v; want %+v", i, n, more, err, want)
		}
	}
	// The user waits for three seats and gets one offer: no user has two offers at once.
	wantEqual(t, "offers", storetest.Value[int](t, b.db, `SELECT count(*) FROM reservations WHERE status = 'HELD'`), 1)
	storetest.CheckInvariants(t, b.db)
}

// TestStepsSkipLockedSeats checks that a step skips a seat that another transaction has locked.
func TestStepsSkipLockedSeats(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 0, 60)
	b.reserve(t, 1, 1, 0, 60)
	b.clock(t, 15)
	w := b.writers(t, 1).sessions[0]
	w.exec(t, `BEGIN`)
	w.exec(t, fmt.Sprintf(`SELECT 1 FROM seats WHERE id = %d FOR NO KEY UPDATE`, b.seats[0]))
	n, more, err := b.MarkNoShows(t.Context(), 100)
	if err != nil || n != 1 || !more {
		t.Errorf("%d, more %v, %v", n, more, err)
	}
	n, more, err = b.MarkNoShows(t.Context(), 100)
	if err != nil || n != 0 || !more {
		t.Errorf("%d, more %v, %v", n, more, err)
	}
	w.exec(t, `COMMIT`)
	wantDone(t, 1, b.MarkNoShows)
}

func TestNextDue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	due := func(within, want int) {
		t.Helper()
		d, ok, err := b.NextDue(t.Context(), time.Duration(within)*time.Minute)
		if err != nil || ok != (want <= within) || ok && d != time.Duration(want)*time.Minute {
			t.Errorf("due in %v, %v, %v; want %d min", d, ok, err, want)
		}
	}
	due(60, 1000)
	r := b.reserve(t, 0, 0, 30, 90)
	due(60, 40) // the reminder
	due(39, 40)
	due(40, 40)
	b.clock(t, 40)
	due(60, 0)
	wantDone(t, 1, b.RemindOfCheckIn)
	due(60, 5) // the deadline
	mustDo(t, b.checkIn, b.users[0], r.ID)
	due(60, 50) // the end of the reservation
	due(49, 50)
	b.join(t, 1, 0, 60, 80)
	due(60, 40) // the end of the window of the waitlist entry
	b.offered(t, 2, 1, 60, 120)
	due(60, 10) // the end of the offer
	b.clock(t, 200)
	due(60, -150)
	for _, step := range workerSteps(b.Store) {
		if _, _, err := step(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
	}
	due(600, 1000)
}

// TestDueAt checks the time that Event.DueAt returns after each transition. It is the time at which
// the worker must make the next transition.
func TestDueAt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.follow(t)
	last := func() time.Time {
		t.Helper()
		events := f.changes(t).Events
		return events[len(events)-1].DueAt(b.Policy())
	}
	check := func(what string, want int) {
		t.Helper()
		if got := last(); !got.Equal(at(want)) {
			t.Errorf("%s: due at %v, want %v", what, got, at(want))
		}
	}
	r := b.reserve(t, 0, 0, 0, 60)
	check("reserved", 10)
	b.clock(t, 10)
	wantDone(t, 1, b.RemindOfCheckIn)
	check("reminded", 15)
	mustDo(t, b.checkIn, b.users[0], r.ID)
	check("checked in", 60)
	mustDo(t, b.CheckOut, b.users[0], r.ID)
	if got := last(); !got.IsZero() {
		t.Errorf("checked out: due at %v", got)
	}
	b.offered(t, 1, 1, 30, 90)
	check("offered", 20)
}

func TestLoadWorld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `UPDATE seats SET amenities = '{1,5}', out_of_service = true WHERE id = $1`, b.seats[1])
	b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 7, '8:00', '24:00' FROM branches`)
	b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 1, '20:30', '2:00' FROM branches`)
	confirmed := b.reserve(t, 0, 0, 9*60, 10*60)
	over := b.reserve(t, 1, 2, 9*60, 10*60)
	mustDo(t, b.Cancel, b.users[1], over.ID)
	w, err := b.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "now", w.Now, noon)
	branch := storetest.Value[int64](t, b.db, `SELECT id FROM branches`)
	wantEqual(t, "branches", w.Branches, []library.Branch{{
		ID: branch, Code: "branch-0", Name: "Branch", Timezone: "Europe/Berlin", Hours: []library.OpenHours{
			{Weekday: time.Sunday, Opens: 8 * time.Hour, Closes: 24 * time.Hour},
			{Weekday: time.Monday, Opens: 20*time.Hour + 30*time.Minute, Closes: 2 * time.Hour},
		},
	}})
	if len(w.Seats) != 5 || !w.Seats[1].OutOfService || !slices.Equal(w.Seats[1].Amenities, []int16{1, 5}) ||
		w.Seats[0].BranchID != branch || w.Seats[0].Label != "A-1" {
		t.Errorf("seats: %+v", w.Seats)
	}
	wantEqual(t, "taken", w.Taken, []library.TakenWindow{
		{ReservationID: confirmed.ID, Version: 1, SeatID: b.seats[0], StartTime: at(9 * 60), EndTime: at(10 * 60)},
	})
	c, err := b.Changes(t.Context(), store.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(c.Catalog.Seats, func(a, b library.Seat) int { return int(a.ID - b.ID) })
	wantEqual(t, "catalog", library.Catalog{Branches: c.Catalog.Branches, Seats: c.Catalog.Seats}, w.Catalog)
	b.clock(t, 10*60)
	if w, err = b.LoadWorld(t.Context()); err != nil || len(w.Taken) != 0 {
		t.Errorf("taken after the end of the reservation: %+v, %v", w.Taken, err)
	}
}
