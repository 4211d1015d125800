package store_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/store/storetest"
)

// follower reads the change log again and again, each time from the snapshot of its last read.
type follower struct {
	*store.Store
	snapshot store.Snapshot
}

// follow returns a follower that knows the present state. Its first read returns the changes from
// now on.
func (b bundle) follow(t *testing.T) *follower {
	t.Helper()
	w, err := b.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &follower{b.Store, w.Snapshot}
}

func (f *follower) changes(t *testing.T) store.Changes {
	t.Helper()
	c, err := f.Changes(t.Context(), f.snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Snapshot.After(f.snapshot) {
		t.Errorf("snapshot %+v after %+v", c.Snapshot, f.snapshot)
	}
	f.snapshot = c.Snapshot
	return c
}

// kinds returns the kinds of the events since the last read.
func (f *follower) kinds(t *testing.T) (kinds []library.EventKind) {
	t.Helper()
	for _, e := range f.changes(t).Events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func TestChanges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.follow(t)
	wantEqual(t, "at first", f.kinds(t), nil)
	r := b.reserve(t, 0, 0, 0, 60)
	c := f.changes(t)
	id := storetest.Value[int64](t, b.db, `SELECT id FROM reservation_events`)
	wantEqual(t, "events", c.Events, []library.Event{{
		ID: id, Kind: library.EventReserved, At: noon, ReservationID: r.ID, Version: 1, SeatID: b.seats[0],
		UserID:    b.users[0],
		StartTime: noon, EndTime: at(60), Status: library.Confirmed, CheckInDeadline: at(15),
	}})
	if !c.Now.Equal(noon) || c.CatalogChanged {
		t.Errorf("now %v, catalog %v", c.Now, c.CatalogChanged)
	}
	wantEqual(t, "again", f.kinds(t), nil)

	b.join(t, 1, 0, 0, 60)
	mustDo(t, b.Cancel, b.users[0], r.ID)
	events := f.changes(t).Events
	if len(events) != 2 || events[0].Kind != library.EventCancelled || events[1].Kind != library.EventOffered ||
		!events[1].OfferExpiresAt.Equal(at(10)) ||
		!events[1].CheckInDeadline.IsZero() || events[0].Version != 2 {
		t.Errorf("cancelled and offered: %+v", events)
	}
	from := f.snapshot
	b.clock(t, 10)
	wantDone(t, 1, b.ExpireOffers)
	wantEqual(t, "after the offer expired", f.kinds(t), []library.EventKind{library.EventOfferExpired})
	f.snapshot = from
	wantEqual(t, "from the same snapshot again", f.kinds(t), []library.EventKind{library.EventOfferExpired})
	f.snapshot = store.Snapshot{}
	wantEqual(t, "from the beginning", f.kinds(t), []library.EventKind{library.EventReserved, library.EventCancelled,
		library.EventOffered, library.EventOfferExpired})
}

// writers are sessions that insert rows. Each session has a transaction that ends at a random time.
// The writers choose the ids of the rows themselves, so that a test knows which rows were
// committed.
type writers struct {
	sessions []*writer
	nextID   int64
}

type writer struct {
	conn    *pgx.Conn
	open    bool
	pending []int64
}

func (b bundle) writers(t *testing.T, n int) *writers {
	t.Helper()
	w := &writers{}
	for range n {
		conn, err := pgx.Connect(t.Context(), b.db.UnguardedURL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		w.sessions = append(w.sessions, &writer{conn: conn})
	}
	return w
}

func (w *writer) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := w.conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// randomly makes one session take a random step: begin, insert a row, roll back or commit. It
// returns the ids of the rows that the step committed.
func (w *writers) randomly(t *testing.T, random *rand.Rand, insert string) (committed []int64) {
	t.Helper()
	s := w.sessions[random.IntN(len(w.sessions))]
	switch dice := random.IntN(10); {
	case !s.open:
		s.exec(t, `BEGIN`)
		s.open = true
	case dice < 6:
		if dice == 0 { // the xid of a row is that of the whole transaction, also after a savepoint
			s.exec(t, `SAVEPOINT s`)
		}
		w.nextID++
		s.exec(t, insert, w.nextID)
		s.pending = append(s.pending, w.nextID)
	case dice == 6:
		s.exec(t, `ROLLBACK`)
		s.open, s.pending = false, nil
	default:
		s.exec(t, `COMMIT`)
		committed, s.open, s.pending = s.pending, false, nil
	}
	return committed
}

// TestChangesMissNothing writes events in six sessions, in transactions that overlap, end in any
// order or roll back. Each read must return exactly the events that were committed since the last
// read. A seventh session writes one event before all others and commits it after all others. While
// its transaction is in progress, reads must neither return its event nor repeat other events. The
// read after its commit must return its event and no other.
func TestChangesMissNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const insert = `
		INSERT INTO reservation_events (library_id, at, kind, reservation_id, version, seat_id, user_id, during, status,
		check_in_opens_at, created_at)
		VALUES (1, now(), 'RESERVED', $1, 1, 1, 1, tstzrange(now(), now() + interval '1 h'), 'CONFIRMED', now(), now())`
	f := b.follow(t)
	w := b.writers(t, 7)
	long := w.sessions[6]
	w.sessions = w.sessions[:6]
	long.exec(t, `BEGIN`)
	long.exec(t, insert, 1<<40)
	var want []int64
	reads := 0
	for range 1500 {
		want = append(want, w.randomly(t, random, insert)...)
		if random.IntN(4) == 0 {
			var got []int64
			for _, e := range f.changes(t).Events {
				got = append(got, e.ReservationID)
			}
			slices.Sort(got)
			slices.Sort(want)
			wantEqual(t, "changes", got, want)
			want = nil
			reads++
		}
	}
	if len(f.snapshot.InProgress) == 0 {
		t.Error("the long transaction is not in progress")
	}
	f.changes(t)
	long.exec(t, `COMMIT`)
	events := f.changes(t).Events
	if len(events) != 1 || events[0].ReservationID != 1<<40 {
		t.Errorf("events of the long transaction: %+v", events)
	}
	t.Logf("%d rows, %d reads", w.nextID, reads)
}

// TestBrokenLogConnReadsNothing breaks the connection of the change log and that of the revocation
// list. This invalidates the snapshots that were taken on them. A read from such a snapshot must
// return only a new snapshot and no rows.
func TestBrokenLogConnReadsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	world, err := b.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log, err := b.Revocations(t.Context(), store.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	b.reserve(t, 0, 0, 10, 60)
	if err := b.RevokeToken(t.Context(), b.users[0], "ended", at(60)); err != nil {
		t.Fatal(err)
	}
	b.db.Exec(t, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()
		AND pid <> pg_backend_pid()`)
	_, _ = b.Changes(t.Context(), world.Snapshot) // fails, because the connection is broken
	_, _ = b.Revocations(t.Context(), log.Snapshot)
	changes, err := b.Changes(t.Context(), world.Snapshot)
	if err != nil || changes.Snapshot.After(world.Snapshot) || len(changes.Events) > 0 {
		t.Errorf("changes: %+v, %v", changes, err)
	}
	again, err := b.Revocations(t.Context(), log.Snapshot)
	if err != nil || again.Snapshot.After(log.Snapshot) || len(again.Revocations) > 0 {
		t.Errorf("revocations: %+v, %v", again, err)
	}
	if next, err := b.Changes(t.Context(), changes.Snapshot); err != nil || !next.Snapshot.After(changes.Snapshot) {
		t.Errorf("the read from the new snapshot: %+v, %v", next, err)
	}
}

// TestRestoredIntoAnotherCluster gives rows transaction ids far ahead of this cluster, as a restore
// from another cluster does. Every read would return such rows again as new. After migrations.Up,
// the reads must not return them.
func TestRestoredIntoAnotherCluster(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 10, 60)
	if err := b.RevokeToken(t.Context(), b.users[0], "ended", at(60)); err != nil {
		t.Fatal(err)
	}
	tables := []string{"branches", "seats", "revocations", "reservation_events"}
	b.db.Exec(t, `SET session_replication_role = replica`) // no triggers, as in a restore
	for _, table := range tables {
		b.db.Exec(t, `UPDATE `+table+` SET xid = (xid::text::numeric + 1e12)::text::xid8`)
	}
	for _, err := range atOnce(3, func(int) error {
		_, err := migrations.Up(t.Context(), b.db.URL)
		return err
	}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	world, err := b.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	changes, err := b.Changes(t.Context(), world.Snapshot)
	if err != nil || len(changes.Events) > 0 || changes.CatalogChanged {
		t.Errorf("old rows are new: %d events, the catalog: %v; %v", len(changes.Events), changes.CatalogChanged, err)
	}
	log, err := b.Revocations(t.Context(), store.Snapshot{})
	if err != nil || len(log.Revocations) != 1 {
		t.Errorf("all revocations: %v, %v", log.Revocations, err)
	}
	if log, err = b.Revocations(t.Context(), log.Snapshot); err != nil || len(log.Revocations) > 0 {
		t.Errorf("old revocations are new: %v, %v", log.Revocations, err)
	}
	for _, table := range tables {
		n := storetest.Value[int](t, b.db, `SELECT count(*) FROM `+table+`
			WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())`)
		if n > 0 {
			t.Errorf("%d rows of %s have an xid of the future", n, table)
		}
	}
}

// TestNowIsBeforeTheSnapshot makes Postgres wait for 0.2 s after it has taken the snapshot of a
// read, and before it reads the clock. A change that is committed during the wait is not in the
// result. So Changes.Now must be earlier than the commit.
func TestNowIsBeforeTheSnapshot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for function, clock := range map[string]string{"dlsms_now": "clock_timestamp()",
		"dlsms_began": "transaction_timestamp()"} {
		b.db.Exec(t, `CREATE OR REPLACE FUNCTION `+function+`() RETURNS timestamptz LANGUAGE plpgsql AS $$
			BEGIN PERFORM pg_sleep(0.2); RETURN `+clock+`; END $$`)
	}
	world, err := b.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	since := world.Snapshot
	for _, read := range []string{"the first read", "a read after one that found nothing"} {
		var changes store.Changes
		var reading sync.WaitGroup
		reading.Go(func() { changes, err = b.Changes(t.Context(), since) })
		for storetest.Value[int](t, b.db, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'
			AND datname = current_database()`) == 0 {
			runtime.Gosched() // Postgres sleeps for 0.2 s only
		}
		committed := storetest.Value[time.Time](t, b.db, `UPDATE seats SET area = area || '.' WHERE id = $1
			RETURNING clock_timestamp()`, b.seats[0])
		reading.Wait()
		// If another session of the cluster changes the snapshot, Changes reads a second time. Then
		// the result has the change, so any time is correct.
		if err != nil || !changes.CatalogChanged && changes.Now.After(committed) {
			t.Errorf("%s: changed %v as of %v, and something was committed after %v; %v", read, changes.CatalogChanged,
				changes.Now, committed, err)
		}
		for range 2 { // until the snapshot is unchanged
			if changes, err = b.Changes(t.Context(), changes.Snapshot); err != nil {
				t.Fatal(err)
			}
		}
		since = changes.Snapshot
	}
}

// TestChangesOfAnotherLibrary opens a store for library 2. It must return no row of library 1, and
// change none.
func TestChangesOfAnotherLibrary(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `INSERT INTO libraries (id, name) VALUES (2, 'Other')`)
	other, err := store.Open(t.Context(), store.Config{URL: b.db.URL, MinConns: 1, MaxConns: 2, LibraryID: 2,
		Policy: b.Policy()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	f := &follower{other, store.Snapshot{}}
	r := b.reserve(t, 0, 0, 0, 60)
	wantEqual(t, "events", f.kinds(t), nil)
	w, err := other.LoadWorld(t.Context())
	if err != nil || len(w.Seats)+len(w.Branches)+len(w.Taken) != 0 {
		t.Errorf("%+v, %v", w, err)
	}
	_, err = other.Reserve(t.Context(), library.Booking{UserID: b.users[1], SeatID: b.seats[1], StartTime: at(0),
		EndTime: at(60)})
	wantErr(t, err, library.ErrTokenInvalid) // the user is of another library
	_, err = other.Cancel(t.Context(), b.users[0], r.ID)
	wantErr(t, err, library.ErrReservationNotFound)
	list, err := other.Notifications(t.Context(), b.users[0], 0, 10)
	if err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	b.clock(t, 15)
	wantDone(t, 0, other.MarkNoShows)
	wantDone(t, 1, b.MarkNoShows)
}
