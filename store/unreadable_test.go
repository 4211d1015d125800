package store_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// logged is a store and its log output.
type logged struct {
	*store.Store
	log bytes.Buffer
}

func (b bundle) logged(t *testing.T) *logged {
	t.Helper()
	l := &logged{}
	s, err := store.Open(t.Context(), store.Config{
		URL: b.db.URL, MinConns: 1, MaxConns: 2, Policy: b.Policy(), Log: slog.New(slog.NewTextHandler(&l.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	l.Store = s
	return l
}

// wantReported checks that each row of ids was logged once, and was counted at each read. times is
// the number of reads.
func (l *logged) wantReported(t *testing.T, table string, times int64, ids ...int64) {
	t.Helper()
	if n := l.UnreadableRows()[table]; n != times*int64(len(ids)) {
		t.Errorf("%s: %d rows counted, want %d", table, n, times*int64(len(ids)))
	}
	for _, id := range ids {
		if n := strings.Count(l.log.String(), fmt.Sprintf("table=%s id=%d ", table, id)); n != 1 {
			t.Errorf("%s %d: logged %d times: %s", table, id, n, l.log.String())
		}
	}
}

func seatIDs(seats []library.Seat) []int64 {
	ids := []int64{}
	for _, s := range seats {
		ids = append(ids, s.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestUnreadableSeatsAreSkipped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.DropChecks(t, "seats")
	l := b.logged(t)
	before, err := l.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.db.Exec(t, `UPDATE seats SET amenities = array_append(amenities, NULL) WHERE id = $1`, b.seats[1])
	b.db.Exec(t, `UPDATE seats SET label = 'other' WHERE id = $1`, b.seats[2])
	c, err := l.Changes(t.Context(), before.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "changed", seatIDs(c.Catalog.Seats), []int64{b.seats[2]})
	wantEqual(t, "unreadable", c.Catalog.Unreadable, []int64{b.seats[1]})
	w, err := l.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "loaded", seatIDs(w.Seats), slices.Delete(slices.Sorted(slices.Values(b.seats)), 1, 2))
	l.wantReported(t, "seats", 2, b.seats[1])

	b.db.Exec(t, `UPDATE seats SET amenities = '{1}' WHERE id = $1`, b.seats[1])
	if c, err = l.Changes(t.Context(), c.Snapshot); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "readable again", seatIDs(c.Catalog.Seats), []int64{b.seats[1]})
}

func TestBranchInUnknownZoneIsKeptAndReported(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.DropChecks(t, "branches")
	l := b.logged(t)
	w, err := l.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	branch := w.Branches[0].ID
	b.db.Exec(t, `UPDATE branches SET timezone = 'Europe/Berln' WHERE id = $1`, branch)
	c, err := l.Changes(t.Context(), w.Snapshot)
	if err != nil || len(c.Catalog.Branches) != 1 || c.Catalog.Branches[0].Timezone != "Europe/Berln" {
		t.Errorf("%+v, %v", c.Catalog.Branches, err)
	}
	if w, err = l.LoadWorld(t.Context()); err != nil || len(w.Branches) != 1 || len(w.Seats) != len(b.seats) {
		t.Errorf("%+v, %v", w.Branches, err)
	}
	l.wantReported(t, "branches", 2, branch)
}

func TestUnreadableReservationsAreSkipped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	good := b.reserve(t, 0, 0, 0, 60)
	bad := b.reserve(t, 1, 1, 0, 60)
	b.db.DropChecks(t, "reservations")
	b.db.Exec(t, `UPDATE reservations SET during = tstzrange(lower(during), 'infinity') WHERE id = $1`, bad.ID)
	l := b.logged(t)
	for range 2 {
		w, err := l.LoadWorld(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(w.Taken) != 1 || w.Taken[0].ReservationID != good.ID {
			t.Errorf("taken: %+v", w.Taken)
		}
	}
	l.wantReported(t, "reservations", 2, bad.ID)
}

// writeEvent inserts an event as the next version of the reservation and returns its id.
func (b bundle) writeEvent(t *testing.T, reservation int64, kind, status, occupies, deadline, offer string) int64 {
	t.Helper()
	return storetest.Value[int64](t, b.db, `
		INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, during,
			status, occupies, check_in_opens_at, check_in_deadline, offer_expires_at, created_at)
		SELECT 1, dlsms_now(), $2, id, (SELECT max(version) + 1 FROM reservation_events
		WHERE reservation_id = $1), seat_id, user_id, during,
			$3, NULLIF($4, '')::boolean, check_in_opens_at, NULLIF($5, '')::timestamptz, NULLIF($6, '')::timestamptz, created_at
		FROM reservations WHERE id = $1 RETURNING id`, reservation, kind, status, occupies, deadline, offer)
}

// TestEventsOfUnknownStatus writes events with a status that this version does not know. The column
// occupies then decides whether the seat is taken. If it is NULL, as in events of older versions,
// the event cannot be read.
func TestEventsOfUnknownStatus(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.DropChecks(t, "reservation_events")
	l := b.logged(t)
	w, err := l.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := b.reserve(t, 0, 0, 0, 60)
	takes := b.writeEvent(t, r.ID, "ARRIVED", "AWAY", "true", "", "")
	leaves := b.writeEvent(t, r.ID, "CANCELLED", "REFUSED", "false", "", "")
	unknown := b.writeEvent(t, r.ID, "CANCELLED", "REFUSED", "", "", "")
	endless := b.writeEvent(t, r.ID, "CHECKED_IN", "CHECKED_IN", "true", "infinity", "")
	older := b.writeEvent(t, r.ID, "CHECKED_IN", "CHECKED_IN", "", "", "")
	last := b.reserve(t, 1, 1, 0, 60)
	c, err := l.Changes(t.Context(), w.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	got := map[int64]bool{}
	for _, e := range c.Events[1:] {
		got[e.ID] = e.TakesSeat()
	}
	wantEqual(t, "events", got, map[int64]bool{takes: true, leaves: false, older: true,
		c.Events[len(c.Events)-1].ID: true})
	if c.Events[len(c.Events)-1].ReservationID != last.ID {
		t.Errorf("the last event is %+v", c.Events[len(c.Events)-1])
	}
	l.wantReported(t, "reservation_events", 1, unknown, endless)
}

// TestEventsHaveOccupies checks the column occupies in the events of a visit and of an offer.
func TestEventsHaveOccupies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 0, 60)
	mustDo(t, b.checkIn, b.users[0], r.ID)
	mustDo(t, b.CheckOut, b.users[0], r.ID)
	b.offered(t, 1, 1, 0, 60)
	wantEqual(t, "events", storetest.Rows[string](t, b.db, `
		SELECT kind || CASE WHEN occupies THEN ' takes' WHEN NOT occupies THEN ' leaves' ELSE ' is silent' END
		FROM reservation_events WHERE reservation_id = $1 OR kind = 'OFFERED' ORDER BY id`, r.ID),
		[]string{"RESERVED takes", "CHECKED_IN takes", "CHECKED_OUT leaves", "OFFERED takes"})
}

func TestUnreadableNotificationsAreSkipped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.DropChecks(t, "reservation_events")
	r := b.reserve(t, 0, 0, 0, 60)
	var good, bad []int64
	for i := range 12 {
		switch {
		case i%6 == 5:
			good = append(good, b.writeEvent(t, r.ID, "NO_SHOW", "NO_SHOW", "false", "", ""))
		case i%2 == 0:
			bad = append(bad, b.writeEvent(t, r.ID, "OFFERED", "HELD", "true", "", "")) // without offer_expires_at
		default:
			bad = append(bad, b.writeEvent(t, r.ID, "REMINDED", "CONFIRMED", "true", "-infinity", ""))
		}
	}
	l := b.logged(t)
	for limit := range 4 {
		var got []int64
		for after := int64(0); ; {
			list, err := l.Notifications(t.Context(), b.users[0], after, limit+1)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range list {
				got = append(got, n.ID)
				after = n.ID
			}
			if len(list) <= limit {
				break
			}
		}
		wantEqual(t, fmt.Sprintf("%d at a time", limit+1), got, good)
	}
	for _, id := range bad {
		if n := strings.Count(l.log.String(), fmt.Sprintf("table=reservation_events id=%d ", id)); n != 1 {
			t.Errorf("event %d is logged %d times", id, n)
		}
	}
}
