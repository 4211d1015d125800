package store_test

import (
	"context"
	"fmt"
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

// follower repeatedly reads the change log or the revocation list from its last snapshot.
type follower struct {
	*store.Store
	snapshot store.Snapshot
}

// follow returns a follower that begins with the current state.
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
	wantEqual(t, "ran out", f.kinds(t), []library.EventKind{library.EventOfferExpired})
	f.snapshot = from
	wantEqual(t, "the same once more", f.kinds(t), []library.EventKind{library.EventOfferExpired})
	f.snapshot = store.Snapshot{}
	wantEqual(t, "from the beginning", f.kinds(t), []library.EventKind{library.EventReserved, library.EventCancelled,
		library.EventOffered, library.EventOfferExpired})
}

// writers are sessions that insert rows with ids of their own, each in a transaction that ends at a
// random time.
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

// randomly makes one session take a random step and returns the ids of the rows that it committed.
func (w *writers) randomly(t *testing.T, random *rand.Rand, insert string) (committed []int64) {
	t.Helper()
	s := w.sessions[random.IntN(len(w.sessions))]
	switch dice := random.IntN(10); {
	case !s.open:
		s.exec(t, `BEGIN`)
		s.open = true
	case dice < 6:
		if dice == 0 { // a row written in a subtransaction has the id of the top transaction
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

// TestChangesMissNothing writes events in transactions that overlap, end in any order or roll back.
// Each read returns exactly the events that were committed since the last one. One session writes
// at the beginning and commits at the end.
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
	looks := 0
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
			looks++
		}
	}
	if len(f.snapshot.InProgress) == 0 {
		t.Error("the long transaction is not in progress")
	}
	f.changes(t)
	long.exec(t, `COMMIT`)
	events := f.changes(t).Events
	if len(events) != 1 || events[0].ReservationID != 1<<40 {
		t.Errorf("of the long transaction: %+v", events)
	}
	t.Logf("%d rows, %d looks", w.nextID, looks)
}

func TestRevocationsMissNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	insert := fmt.Sprintf(`INSERT INTO revocations (library_id, user_id, jti, expires_at)
		VALUES (1, %d, $1::bigint::text, '%s')`, b.users[0], at(60).Format(time.RFC3339))
	w := b.writers(t, 4)
	var snapshot store.Snapshot
	var want []string
	look := func() {
		t.Helper()
		log, err := b.Revocations(t.Context(), snapshot)
		if err != nil {
			t.Fatal(err)
		}
		snapshot = log.Snapshot
		var got []string
		for _, r := range log.Revocations {
			if r.UserID != b.users[0] || !r.ExpiresAt.Equal(at(60)) || r.Generation != 0 {
				t.Errorf("%+v", r)
			}
			got = append(got, r.JTI)
		}
		slices.Sort(got)
		slices.Sort(want)
		wantEqual(t, "revocations", got, want)
		want = nil
	}
	for range 600 {
		for _, id := range w.randomly(t, random, insert) {
			want = append(want, fmt.Sprint(id))
		}
		if random.IntN(4) == 0 {
			look()
		}
	}
	look()
}

func TestRevocations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	revoke := func(jti string, until int) {
		t.Helper()
		if err := b.RevokeToken(t.Context(), b.users[0], jti, at(until)); err != nil {
			t.Fatal(err)
		}
	}
	all := func() (got []store.Revocation) {
		t.Helper()
		log, err := b.Revocations(t.Context(), store.Snapshot{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range log.Revocations {
			log.Revocations[i].ExpiresAt = log.Revocations[i].ExpiresAt.UTC()
		}
		slices.SortFunc(log.Revocations, func(a, b store.Revocation) int { return a.ExpiresAt.Compare(b.ExpiresAt) })
		return log.Revocations
	}
	revoke("a", 10)
	revoke("a", 10) // to revoke a token twice is no error
	revoke("b", 20)
	user := b.users[0]
	generation, err := b.ChangePassword(t.Context(), user, "", "new", at(30))
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Revocation{
		{UserID: user, JTI: "a", ExpiresAt: at(10)}, {UserID: user, JTI: "b", ExpiresAt: at(20)}, {UserID: user,
			Generation: generation, ExpiresAt: at(30)},
	}
	wantEqual(t, "all", all(), want)
	wantErr(t, b.RevokeToken(t.Context(), 1<<40, "c", at(10)), library.ErrTokenInvalid)

	wantDone(t, 0, b.ForgetRevocations)
	b.clock(t, 10)
	wantEqual(t, "once one has expired", all(), want[1:])
	wantDone(t, 0, b.ForgetRevocations) // it is kept for a minute, because clocks differ
	b.clock(t, 22)
	n, more, err := b.ForgetRevocations(t.Context(), 1)
	if err != nil || n != 1 || !more {
		t.Errorf("%d forgotten, more %v, %v", n, more, err)
	}
	wantDone(t, 1, b.ForgetRevocations)
	wantEqual(t, "left in the table", storetest.Value[int](t, b.db, `SELECT count(*) FROM revocations`), 1)
	wantEqual(t, "in force", all(), want[2:])
}

// TestBrokenLogConnReadsNothing: after the connection breaks, its snapshots are invalid. So no
// events are read, however many there are.
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
	_, _ = b.Changes(t.Context(), world.Snapshot) // notices that the connection is closed
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
		t.Errorf("the next look: %+v, %v", next, err)
	}
}

// TestRestoredIntoAnotherCluster: restored rows keep the transaction ids of their old cluster,
// which may be far ahead. They must not count as new in every read.
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
		t.Errorf("news: %d events, the catalog changed: %v; %v", len(changes.Events), changes.CatalogChanged, err)
	}
	log, err := b.Revocations(t.Context(), store.Snapshot{})
	if err != nil || len(log.Revocations) != 1 {
		t.Errorf("in force: %v, %v", log.Revocations, err)
	}
	if log, err = b.Revocations(t.Context(), log.Snapshot); err != nil || len(log.Revocations) > 0 {
		t.Errorf("news: %v, %v", log.Revocations, err)
	}
	for _, table := range tables {
		n := storetest.Value[int](t, b.db, `SELECT count(*) FROM `+table+`
			WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())`)
		if n > 0 {
			t.Errorf("%d rows of %s are ahead of their time", n, table)
		}
	}
}

// TestNowIsBeforeTheSnapshot delays Postgres between the snapshot of a read and its reading of the
// clock. A change that commits during the delay is not in the result, so Now must be earlier than
// this commit.
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
	for _, look := range []string{"the first look", "a look in a calm"} {
		var changes store.Changes
		var looking sync.WaitGroup
		looking.Go(func() { changes, err = b.Changes(t.Context(), since) })
		for storetest.Value[int](t, b.db, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'
			AND datname = current_database()`) == 0 {
			runtime.Gosched() // the delay is a fifth of a second
		}
		committed := storetest.Value[time.Time](t, b.db, `UPDATE seats SET area = area || '.' WHERE id = $1
			RETURNING clock_timestamp()`, b.seats[0])
		looking.Wait()
		// If other sessions of the cluster are busy, Changes reads again and sees the change.
		if err != nil || !changes.CatalogChanged && changes.Now.After(committed) {
			t.Errorf("%s: changed %v as of %v, and something was committed after %v; %v", look, changes.CatalogChanged,
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

// TestForgetRevocationsKeepsTheLimit deletes one row at a time, with a planner that uses only nested
// loops. An earlier query sometimes deleted two, because it locked another row for each deleted row.
func TestForgetRevocationsKeepsTheLimit(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s, err := store.Open(t.Context(), store.Config{
		URL:      db.URL + "&enable_hashjoin=off&enable_mergejoin=off&enable_hashagg=off&enable_sort=off&enable_material=off",
		MinConns: 1, MaxConns: 1, Policy: library.DefaultPolicy(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	const rows = 10
	db.Exec(t, `INSERT INTO revocations (library_id, user_id, jti, expires_at)
		SELECT 1, $1, i::text, now() - interval '1 h' FROM generate_series(1, $2) i`, db.Users(t, 1)[0], rows)
	for i := range rows {
		if n, more, err := s.ForgetRevocations(t.Context(), 1); n != 1 || !more || err != nil {
			t.Fatalf("%d: %d forgotten, more %v, %v", i, n, more, err)
		}
	}
}

// TestForgetRevocationsInTwoReplicas: two replicas delete the same rows. Neither waits for the
// other, and each row is deleted once.
func TestForgetRevocationsInTwoReplicas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := b.replicas(t, 3)
	const rows = 500
	b.db.Exec(t, `INSERT INTO revocations (library_id, user_id, jti, expires_at) SELECT 1, $1, i::text, $2
		FROM generate_series(1, $3) i`, b.users[0], at(-10), rows)
	forgotten := make([]int, 3)
	for _, err := range atOnce(3, func(i int) error {
		for more := true; more; {
			n, again, err := stores[i].ForgetRevocations(t.Context(), 20)
			if err != nil {
				return err
			}
			forgotten[i], more = forgotten[i]+n, again
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if sum := forgotten[0] + forgotten[1] + forgotten[2]; sum != rows {
		t.Errorf("%v forgotten of %d", forgotten, rows)
	}
}

// TestCatalogChanges: after any change by SQL, the next read reports a changed catalog, once.
func TestCatalogChanges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `INSERT INTO libraries (id, name) VALUES (2, 'Other')`)
	b.db.Exec(t, `INSERT INTO branches (library_id, code, name, timezone)
		VALUES (2, 'other', 'Other', 'UTC'), (1, 'spare', 'Spare', 'UTC')`)
	f := b.follow(t)
	for _, tc := range []struct {
		sql  string
		want bool
	}{
		{`SELECT 1`, false},
		{`UPDATE seats SET label = 'B-1' WHERE label = 'A-1'`, true},
		{`UPDATE seats SET out_of_service = true WHERE label = 'A-2'`, true},
		{`UPDATE seats SET xid = '3' WHERE label = 'A-2'`, true}, // a trigger overwrites a forged xid
		{`UPDATE branches SET name = 'New'`, true},
		{`INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '20:00' FROM branches WHERE library_id = 1`, true},
		{`UPDATE branch_hours SET closes = '21:00'`, true},
		{`DELETE FROM branch_hours`, true},
		{`DELETE FROM branch_hours`, false},
		{`INSERT INTO seats (library_id, branch_id, area, label) SELECT library_id, id, 'Area', 'new' FROM branches
			WHERE code = 'branch-0'`, true},
		{`DELETE FROM seats WHERE label = 'new'`, true},
		{`UPDATE users SET name = 'N'`, false},
		{`UPDATE branches SET name = 'Else' WHERE library_id = 2`, false},
		{`INSERT INTO branch_hours SELECT 2, id, 1, '8:00', '20:00' FROM branches WHERE library_id = 2`, false},
		{`INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '20:00' FROM branches WHERE code = 'spare'`, true},
		{`DELETE FROM branches WHERE code = 'spare'`, true},
	} {
		b.db.Exec(t, tc.sql)
		if got := f.changes(t).CatalogChanged; got != tc.want {
			t.Errorf("%s: changed %v, want %v", tc.sql, got, tc.want)
		}
		if f.changes(t).CatalogChanged {
			t.Errorf("%s: changed twice", tc.sql)
		}
	}
	w := b.writers(t, 1).sessions[0]
	w.exec(t, `BEGIN`)
	w.exec(t, `UPDATE seats SET label = 'C-1' WHERE label = 'B-1'`)
	b.reserve(t, 0, 2, 0, 60)
	if c := f.changes(t); c.CatalogChanged || len(c.Events) != 1 {
		t.Errorf("before the commit: %+v", c)
	}
	w.exec(t, `COMMIT`)
	if !f.changes(t).CatalogChanged || f.changes(t).CatalogChanged {
		t.Error("a change that was in progress at the last look was not seen once")
	}
}

// TestChangesOfAnotherLibrary: a follower never sees changes of another library.
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

// TestNotificationsMissNothing creates notifications for a few users in many concurrent
// transactions. Readers continue after the last id that they saw. They miss none, whatever the
// order of the commits.
func TestNotificationsMissNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rounds, seats, users = 20, 8, 2
	b.seats, b.users = b.db.Seats(t, seats), b.db.Users(t, users)
	stores := b.replicas(t, 3)
	writing := make(chan struct{})
	var readers sync.WaitGroup
	got := make([][]int64, users)
	for user := range users {
		readers.Go(func() {
			last := int64(0)
			for over := false; ; {
				page, err := stores[user%3].Notifications(t.Context(), b.users[user], last, 5)
				if err != nil {
					t.Error(err)
					return
				}
				for _, n := range page {
					got[user], last = append(got[user], n.ID), n.ID
				}
				if over && len(page) == 0 {
					return
				}
				select {
				case <-writing:
					over = true // the last commits must still be read
				default:
				}
			}
		})
	}
	for round := range rounds {
		b.clock(t, 60*round+seats/2) // half of the visits have ended, so the workers complete them too
		ids := make([]int64, seats)
		for i := range ids { // one after another, because a user has one seat at a time
			ids[i] = b.reserveQuickVisit(t, i%users, i, 60*round)
		}
		for _, err := range atOnce(seats+2, func(i int) error {
			if i >= seats {
				_, _, err := stores[i%3].CompleteEnded(t.Context(), 100)
				return err
			}
			_, err := stores[i%3].CheckOut(t.Context(), b.users[i%users], ids[i])
			return err
		}) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	close(writing)
	readers.Wait()
	for user := range users {
		want := storetest.Rows[int64](t, b.db, `SELECT id FROM reservation_events WHERE user_id = $1
			AND kind IN ('CHECKED_OUT', 'COMPLETED') ORDER BY id`, b.users[user])
		if len(want) != rounds*seats/users {
			t.Errorf("%d notifications, want %d", len(want), rounds*seats/users)
		}
		wantEqual(t, "notifications", got[user], want)
	}
	wantEqual(t, "from the first", len(got[0])+len(got[1]), rounds*seats)
}

// reserveQuickVisit inserts a CHECKED_IN reservation of one minute. Each has a minute of its own,
// so a user may have several, and all have ended later.
func (b bundle) reserveQuickVisit(t *testing.T, user, seat, from int) int64 {
	t.Helper()
	id := storetest.Value[int64](t, b.db, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at,
		check_in_deadline, created_at, checked_in_at)
		VALUES (1, $1, $2, tstzrange($3, $4), 'CHECKED_IN', $3, $4, $3, $3)
		RETURNING id`, b.seats[seat], b.users[user], at(from+seat), at(from+seat+1))
	return id
}
