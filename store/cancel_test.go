package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestCancelFor(t *testing.T) {
	t.Parallel()
	for from, want := range map[library.ReservationStatus]struct {
		status library.ReservationStatus // after CancelFor
		event  library.EventKind
	}{
		library.Confirmed: {library.Cancelled, library.EventCancelled},
		library.CheckedIn: {library.Completed, library.EventCheckedOut},
		library.Held:      {library.Cancelled, library.EventDeclined},
		library.Completed: {library.Completed, ""},
		library.Cancelled: {library.Cancelled, ""},
		library.NoShow:    {library.NoShow, ""},
	} {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := b.inStatus(t, 0, 1, 0, from)
			if from != library.Held && want.event != "" {
				b.join(t, 2, 0, 0, 60)
			}
			before := b.everything(t)
			got, changed, err := b.CancelFor(t.Context(), byHost("water damage"), r.ID)
			if err != nil || got.Status != want.status || changed != (want.event != "") {
				t.Fatalf("%s, %v, %v", got.Status, changed, err)
			}
			wantEqual(t, "ended by the library", got.EndedByLibrary, changed)
			read, err := b.Reservation(t.Context(), r.UserID, r.ID)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "the reservation as it is read later", read, got)
			if !changed {
				wantEqual(t, "rows", b.everything(t), before)
				return
			}
			const lastEvent = `
				SELECT kind || ' ' || reason FROM reservation_events WHERE reservation_id = $1 ORDER BY version DESC LIMIT 1`
			wantEqual(t, "event", storetest.Value[string](t, b.db, lastEvent, r.ID), string(want.event)+" water damage")
			if from == library.Held {
				wantEqual(t, "entry", storetest.Value[string](t, b.db, `SELECT status FROM waitlist_entries`), "LEFT")
			} else {
				offer := storetest.Value[string](t, b.db, `
					SELECT user_id || COALESCE(reason, '') FROM reservation_events WHERE kind = 'OFFERED'`)
				wantEqual(t, "user and reason of the offer's event", offer,
					storetest.Value[string](t, b.db, `SELECT $1::bigint::text`, b.users[2]))
			}
			after := b.everything(t)
			if _, changed, err := b.CancelFor(t.Context(), byHost("again"), r.ID); err != nil || changed {
				t.Errorf("again: %v, %v", changed, err)
			}
			wantEqual(t, "rows after the second call", b.everything(t), after)
			storetest.CheckInvariants(t, b.db)
		})
	}
	b := setup(t)
	_, _, err := b.CancelFor(t.Context(), byHost(""), 1)
	wantErr(t, err, library.ErrReservationNotFound)
}

// TestEraseUser checks that no data of the person is left, and that the waiting users get the
// seats.
func TestEraseUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := storetest.Value[string](t, b.db, `
		UPDATE users SET student_id = 'Gone.I', name = 'Ida', email = 'ida@x.example', password_hash = 'hash',
			role = 'LIBRARIAN'
		WHERE id = $1 RETURNING student_id`, b.users[0])
	generation := storetest.Value[int64](t, b.db, `SELECT token_generation FROM users WHERE id = $1`, b.users[0])
	past := b.inStatus(t, 0, 1, 0, library.Completed)
	sitting := b.inStatus(t, 0, 1, 1, library.CheckedIn)
	upcoming := b.reserve(t, 0, 2, 120, 180)
	next := b.join(t, 1, 2, 120, 180)
	held := b.offeredBy(t, 3, 0, 3, 240, 300)
	behind := b.join(t, 2, 3, 240, 300)
	b.reserve(t, 4, 4, 360, 420)
	waiting := b.join(t, 0, 4, 360, 420)
	f := b.follow(t)

	erased, err := b.EraseUser(t.Context(), "GONE.i")
	if err != nil {
		t.Fatal(err)
	}
	erasedID := storetest.Value[string](t, b.db, `SELECT student_id FROM users WHERE id = $1`, b.users[0])
	wantEqual(t, "erased", erased, store.Erased{UserID: b.users[0], StudentID: erasedID, Reservations: 3, Entries: 2})
	wantEqual(t, "reservations", storetest.Rows[string](t, b.db, `
		SELECT r.status || ' ' || e.kind || COALESCE(' ' || e.reason, '')
		FROM reservations r JOIN reservation_events e ON e.reservation_id = r.id AND e.version = r.version
		WHERE r.id = ANY($1) ORDER BY r.id`, []int64{past.ID, sitting.ID, upcoming.ID, held.ReservationID}),
		[]string{"COMPLETED CHECKED_OUT", "COMPLETED CHECKED_OUT erased", "CANCELLED CANCELLED erased",
			"CANCELLED DECLINED erased"})
	for user, entry := range map[int]library.WaitlistEntry{0: held, 1: next, 2: behind} {
		want := library.EntryOffered
		if user == 0 {
			want = library.EntryLeft
		}
		wantEqual(t, "entry", b.entry(t, user, entry.ID).Status, want)
	}
	wantEqual(t, "entry", b.entry(t, 0, waiting.ID).Status, library.EntryLeft)
	wantEqual(t, "user", storetest.Value[bool](t, b.db, `
		SELECT student_id ~ ('^gone-' || id || '-[0-9a-f]{6}$') AND name = 'gone' AND email = 'gone'
		AND password_hash = '' AND role = 'STUDENT' FROM users WHERE id = $1`, b.users[0]), true)
	raised := storetest.Value[int64](t, b.db, `SELECT token_generation FROM users WHERE id = $1`, b.users[0])
	if raised <= generation {
		t.Errorf("token generation %d, want more than %d", raised, generation)
	}
	wantEqual(t, "rows that name the person", storetest.Value[int](t, b.db, `
		SELECT count(*) FROM users u WHERE u::text ~* 'ida|gone\.i'`), 0)
	if _, err := b.Credentials(t.Context(), id); !errors.Is(err, library.ErrUserNotFound) {
		t.Errorf("credentials: %v", err)
	}
	log, err := b.Revocations(t.Context(), store.Snapshot{})
	if err != nil || len(log.Revocations) != 1 || log.Revocations[0].UserID != b.users[0] ||
		log.Revocations[0].Generation != raised ||
		log.Revocations[0].ExpiresAt.Before(at(0).AddDate(1, 0, 0)) {
		t.Errorf("revocations %+v, %v", log.Revocations, err)
	}
	if kinds := f.kinds(t); len(kinds) != 5 {
		t.Errorf("events: %v; want 3 ends and 2 offers", kinds)
	}
	if _, err := b.EraseUser(t.Context(), id); !errors.Is(err, library.ErrUserNotFound) {
		t.Errorf("again: %v", err)
	}
	storetest.CheckInvariants(t, b.db)
}

// TestEraseWhileSeatsAreFreed erases a user while three other calls run. One cancels the user's
// reservation, one cancels another user's reservation of a seat for which the user waits, and one
// runs the worker's step that makes offers. Afterwards the user must have no live reservation and
// no live waitlist entry.
func TestEraseWhileSeatsAreFreed(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxWaitingPerSeat = 0 // no limit, because each round leaves a live entry
	b := setupWith(t, rules)
	replicas := b.replicas(t, 2)
	for round := range 15 {
		start := 60 + round*90
		mine := b.reserve(t, 0, 0, start, start+30)
		other := b.reserve(t, 1, 1, start+30, start+60)
		b.join(t, 0, 1, start+30, start+60) // gets an offer when the other reservation is cancelled
		b.join(t, 2, 0, start, start+30)    // gets an offer when the user's reservation is cancelled
		b.db.Exec(t, `UPDATE users SET student_id = 'erased' WHERE id = $1`, b.users[0])
		var g sync.WaitGroup
		var mineErr, otherErr, offerErr, err error
		g.Go(func() { _, mineErr = replicas[1].Cancel(t.Context(), b.users[0], mine.ID) })
		g.Go(func() { _, otherErr = replicas[1].Cancel(t.Context(), b.users[1], other.ID) })
		g.Go(func() { _, _, offerErr = replicas[1].OfferFreeSeats(t.Context(), 10) })
		g.Go(func() { _, err = replicas[0].EraseUser(t.Context(), "erased") })
		g.Wait()
		if err := errors.Join(err, mineErr, otherErr, offerErr); err != nil {
			t.Fatal(err)
		}
		if n := storetest.Value[int](t, b.db, `
			SELECT (SELECT count(*) FROM reservations WHERE user_id = $1 AND occupies)
				+ (SELECT count(*) FROM waitlist_entries WHERE user_id = $1 AND live)`,
			b.users[0]); n != 0 {
			t.Fatalf("round %d: the erased user has %d live rows", round, n)
		}
	}
	storetest.CheckInvariants(t, b.db)
}

// TestEraseWhileTheUserJoins erases a user while a JoinWaitlist of this user waits for the lock of
// the seat. JoinWaitlist has locked the user, so EraseUser waits until JoinWaitlist has added the
// entry. EraseUser must then end this entry.
func TestEraseWhileTheUserJoins(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 1, 0, 0, 60)
	id := storetest.Value[string](t, b.db, `SELECT student_id FROM users WHERE id = $1`, b.users[0])
	held, err := psql(t, b.db).Begin(t.Context())
	if err == nil {
		_, err = held.Exec(t.Context(), `SELECT FROM seats WHERE id = $1 FOR UPDATE`, b.seats[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	lockWaits := func(want int) {
		t.Helper()
		storetest.Eventually(t, fmt.Sprintf("%d wait for a lock", want), func() bool {
			return want == storetest.Value[int](t, b.db, `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		})
	}
	var g sync.WaitGroup
	var joinErr, eraseErr error
	g.Go(func() {
		_, joinErr = b.JoinWaitlist(t.Context(), library.Booking{
			UserID: b.users[0], SeatID: b.seats[0], StartTime: at(0), EndTime: at(60),
		})
	})
	lockWaits(1) // JoinWaitlist waits for the seat
	g.Go(func() { _, eraseErr = b.EraseUser(t.Context(), id) })
	lockWaits(2) // EraseUser waits for the user
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.Wait()
	if err := errors.Join(joinErr, eraseErr); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "entries", storetest.Rows[string](t, b.db, `SELECT status FROM waitlist_entries`),
		[]string{"LEFT"})
}

// brokenWaitlists are faults that prevent offers of a seat to its waitlist. The SQL in put causes
// the fault, and the SQL in mend repairs it.
var brokenWaitlists = map[string]struct{ put, mend string }{
	"an unknown time zone": {
		put: `INSERT INTO branch_hours
				SELECT 1, id, d, '0:00', '24:00' FROM branches, generate_series(1, 7) d;
			SET session_replication_role = replica;
			UPDATE branches SET timezone = 'Europe/Berln';
			SET session_replication_role = DEFAULT`,
		mend: `UPDATE branches SET timezone = 'Europe/Berlin'`,
	},
	"a hold that is refused":     {fmt.Sprintf(triggerOnHold, `RAISE 'refused'`), dropTrigger},
	"a hold that takes too long": {fmt.Sprintf(triggerOnHold, `PERFORM pg_sleep(60)`), dropTrigger},
}

const (
	triggerOnHold = `CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql
		AS $$ BEGIN %s; RETURN NEW; END $$;
		CREATE TRIGGER poison BEFORE INSERT ON reservations
		FOR EACH ROW WHEN (NEW.status = 'HELD') EXECUTE FUNCTION poison()`
	dropTrigger = `DROP FUNCTION poison CASCADE`
)

// endWithBrokenWaitlist runs a test for each fault of brokenWaitlists. It causes the fault and
// calls end, which must end the reservation r. The end must be committed with an event of the given
// kind, although no offer can be made. After the repair, the worker's step must make the offer.
func endWithBrokenWaitlist(
	t *testing.T, kind library.EventKind, end func(t *testing.T, b bundle, r library.Reservation),
) {
	t.Helper()
	for name, c := range brokenWaitlists {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.db.Altered()
			r := b.reserve(t, 0, 0, 0, 60)
			next := b.join(t, 1, 0, 0, 60)
			b.db.Exec(t, c.put)
			end(t, b, r)
			wantEqual(t, "history", b.history(t, r.ID), []string{"RESERVED", string(kind)})
			wantEqual(t, "the next entry", b.entry(t, 1, next.ID).Status, library.EntryWaiting)
			b.db.Exec(t, c.mend)
			wantDone(t, 1, b.OfferFreeSeats)
			wantEqual(t, "the next entry", b.entry(t, 1, next.ID).Status, library.EntryOffered)
			storetest.CheckInvariants(t, b.db)
		})
	}
}

// TestCancelWhenWaitlistFails cancels a reservation while its seat cannot be offered. The
// cancellation must succeed: a user must be able to leave a reservation, whatever is wrong with the
// waitlist.
func TestCancelWhenWaitlistFails(t *testing.T) {
	t.Parallel()
	endWithBrokenWaitlist(t, library.EventCancelled, func(t *testing.T, b bundle, r library.Reservation) {
		t.Helper()
		mustDo(t, b.Cancel, b.users[0], r.ID)
	})
}

// TestCancelServesWaitlistDespiteBrokenSeat cancels the reservation of a user who waits for two
// other seats, both of them free. A trigger refuses the offer of the first seat. The user must
// still get an offer of the second.
func TestCancelServesWaitlistDespiteBrokenSeat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Altered()
	busy := b.reserve(t, 0, 0, 0, 120)
	first, second := b.reserve(t, 1, 1, 0, 30), b.reserve(t, 2, 2, 60, 90)
	bad, good := b.join(t, 0, 1, 0, 30), b.join(t, 0, 2, 60, 90)
	mustDo(t, b.Cancel, b.users[1], first.ID)
	mustDo(t, b.Cancel, b.users[2], second.ID)
	b.db.Exec(t, fmt.Sprintf(`CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql
		AS $$ BEGIN RAISE 'refused'; END $$;
		CREATE TRIGGER poison BEFORE INSERT ON reservations
		FOR EACH ROW WHEN (NEW.seat_id = %d) EXECUTE FUNCTION poison()`, b.seats[1]))
	mustDo(t, b.Cancel, b.users[0], busy.ID)
	wantEqual(t, "at the bad seat", b.entry(t, 0, bad.ID).Status, library.EntryWaiting)
	wantEqual(t, "at the other", b.entry(t, 0, good.ID).Status, library.EntryOffered)
}
