package store_test

import (
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/store/storetest"
)

// lastIDs returns the highest id that each table has used so far, by the name of the table.
func lastIDs(t *testing.T, db *storetest.DB) map[string]int64 {
	t.Helper()
	tables := storetest.Rows[string](t, db, `
		SELECT table_name::text FROM information_schema.columns
		WHERE table_schema = 'public' AND is_identity = 'YES' AND data_type = 'bigint'`)
	if len(tables) < 7 {
		t.Fatalf("%d tables with ids", len(tables))
	}
	ids := map[string]int64{}
	for _, table := range tables {
		ids[table] = storetest.Value[int64](t, db, `
			SELECT COALESCE(pg_sequence_last_value(pg_get_serial_sequence($1, 'id')::regclass), 0)`, table)
	}
	return ids
}

// wantMovedOn checks that each table continues above the ids in before, so that it uses none of
// them again.
func wantMovedOn(t *testing.T, when string, db *storetest.DB, before map[string]int64) {
	t.Helper()
	for table, now := range lastIDs(t, db) {
		if now < before[table] || now >= 1<<53 {
			t.Errorf("%s: %s continues at %d, but has already used %d", when, table, now, before[table])
		}
	}
}

// migrate brings the database to the newest schema and checks that Result.Moved equals moved. when
// names the situation in failure messages.
func migrate(t *testing.T, when, databaseURL string, moved bool) {
	t.Helper()
	result, err := migrations.Up(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(when, err)
	}
	if result.Moved != moved {
		t.Errorf("%s: moved is %v", when, result.Moved)
	}
}

// notified reserves a seat for a user from minute, checks in and checks out. This makes a
// notification. notified returns the id of the notification.
func (b bundle) notified(t *testing.T, user, seat, minute int) int64 {
	t.Helper()
	b.clock(t, minute)
	r := b.reserve(t, user, seat, minute, minute+15)
	if _, err := b.CheckIn(t.Context(), b.users[user], r.ID, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CheckOut(t.Context(), b.users[user], r.ID); err != nil {
		t.Fatal(err)
	}
	list, err := b.Notifications(t.Context(), b.users[user], 0, 100)
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	return list[len(list)-1].ID
}

// TestRestoreReusesNoID restores a dump, twice. After a restore, no table may use an id again that
// it used between the backup and the restore. Otherwise a new notification could have an id that a
// client has already seen. The client asks for notifications after the last id that it saw, so it
// would miss this one.
func TestRestoreReusesNoID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Altered()
	migrate(t, "a new database", b.db.URL, false)
	b.notified(t, 0, 0, 0)
	bin := storetest.Value[string](t, b.db, `SELECT setting FROM pg_config WHERE name = 'BINDIR'`)
	dump := filepath.Join(t.TempDir(), "dump")
	run := func(program string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	run("pg_dump", "-Fc", "-f", dump, b.db.URL)
	for round := range 2 {
		when := fmt.Sprint("restore ", round)
		seen := b.notified(t, 0, 0, 20+20*round)
		if _, err := b.RegisterUser(t.Context(), library.NewUser{StudentID: when, Role: library.RoleStudent}); err != nil {
			t.Fatal(err)
		}
		b.join(t, 1, b.seatOf(t, 2, 100), 100, 120)
		before := lastIDs(t, b.db)
		run("pg_restore", "--clean", "--if-exists", "--single-transaction", "-d", b.db.URL, dump)
		migrate(t, when, b.db.URL, true)
		wantMovedOn(t, when, b.db, before)
		migrate(t, "the second replica to start", b.db.URL, false)

		b.Store = b.db.Open(t, library.DefaultPolicy())
		if id := b.notified(t, 0, 0, 60+20*round); id <= seen {
			t.Errorf("%s: notification %d comes after %d", when, id, seen)
		}
		list, err := b.Notifications(t.Context(), b.users[0], seen, 10)
		if err != nil || len(list) != 1 {
			t.Errorf("%s: %d notifications after the last seen one, %v", when, len(list), err)
		}
	}
}

// seatOf reserves a seat for user 4 and returns the seat, so that another user can wait for it.
func (b bundle) seatOf(t *testing.T, seat, from int) int {
	t.Helper()
	b.reserve(t, 4, seat, from, from+20)
	return seat
}

// TestCopyReusesNoID copies a database. The copy must use other ids than the original, and the
// original must continue as before.
func TestCopyReusesNoID(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	migrate(t, "a new database", db.URL, false)
	db.Seats(t, 3)
	before := lastIDs(t, db)
	copied := storetest.CopyDB(t, db)
	migrate(t, "the copy", copied.URL, true)
	migrate(t, "the copy again", copied.URL, false)
	migrate(t, "the original", db.URL, false)
	wantMovedOn(t, "the copy", copied, before)
	if now := lastIDs(t, db); now["seats"] != before["seats"] {
		t.Errorf("the original continues at %v", now)
	}
}

// TestTwoCopiesReuseNoID copies one database twice, soon after its ids moved on, as two restores of
// one dump do. The second copy must not use the ids that the first copy used.
func TestTwoCopiesReuseNoID(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	migrate(t, "a new database", db.URL, false)
	db.Seats(t, 3)
	db.Exec(t, `SELECT dlsms_move_ids_on()`)
	before := lastIDs(t, db)
	for _, when := range []string{"the first copy", "the second copy"} {
		copied := storetest.CopyDB(t, db)
		migrate(t, when, copied.URL, true)
		wantMovedOn(t, when, copied, before)
		for range 100 {
			copied.Users(t, 1)
		}
		before = lastIDs(t, copied)
	}
}

// TestFailoverReusesNoID promotes a standby of Postgres, which may not know the last ids that the old
// primary assigned. When a running replica of DL-SMS reconnects, it must move the id sequences
// forward, so that no id is assigned twice. After a restart of the same Postgres, it must not.
func TestFailoverReusesNoID(t *testing.T) {
	t.Parallel()
	db, pg := storetest.NewCluster(t)
	s := db.Open(t, library.DefaultPolicy())
	db.Seats(t, 3)
	before := lastIDs(t, db)
	world, err := s.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	refresh := func() {
		t.Helper()
		storetest.Eventually(t, "the replica follows the log again", func() bool {
			_, err := s.Changes(t.Context(), world.Snapshot)
			return err == nil
		})
	}
	if err := errors.Join(pg.Kill(), pg.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	refresh()
	db.Reconnect(t)
	if now := lastIDs(t, db); now["seats"]-before["seats"] >= 1_000_000_000 {
		t.Errorf("after a crash: %v", now)
	}
	db.Exec(t, `VACUUM FULL database_identity`)
	migrate(t, "after a crash and a rewrite", db.URL, false)

	storetest.MakeStandby(t, pg)
	if _, err := s.Changes(t.Context(), world.Snapshot); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("a refresh on a standby: %v", err)
	}
	storetest.Promote(t, pg)
	refresh()
	db.Reconnect(t)
	after := lastIDs(t, db)
	for table, id := range after {
		if id < before[table]+1_000_000_000 {
			t.Errorf("%s continues at %d", table, id)
		}
	}
	migrate(t, "after the failover", db.URL, false) // the replica has already advanced the ids
}

// TestRestoreUnderRunningReplica simulates a restore while a replica runs, although the manual
// tells operators to stop the replicas. The replica must detect the restore, advance the ids, and
// read all data again.
func TestRestoreUnderRunningReplica(t *testing.T) {
	t.Parallel()
	b := setup(t)
	migrate(t, "a new database", b.db.URL, false)
	world, err := b.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log, err := b.Revocations(t.Context(), store.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	before := lastIDs(t, b.db)
	b.db.Exec(t, `
		UPDATE database_identity SET timeline = timeline`) // the same content, but another transaction wrote the row
	store.ForceRestoreCheck(b.Store)
	if _, err := b.Changes(t.Context(), world.Snapshot); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("the refresh that detects the restore: %v", err)
	}
	wantMovedOn(t, "restored", b.db,
		map[string]int64{"seats": before["seats"] + 1_000_000_000, "users": before["users"] + 1_000_000_000})
	if c, err := b.Changes(t.Context(), world.Snapshot); err != nil || c.Snapshot.After(world.Snapshot) {
		t.Errorf("the next refresh continues from the old snapshot: %v", err)
	}
	storetest.Eventually(t, "the revocations are read again", func() bool {
		again, err := b.Revocations(t.Context(), log.Snapshot)
		return err == nil && !again.Snapshot.After(log.Snapshot)
	})
	b.reserve(t, 0, 0, 0, 60)
}

// TestOrdinaryRoleCanMigrate checks that a role that owns its database, and has no other right, can
// migrate it.
func TestOrdinaryRoleCanMigrate(t *testing.T) {
	t.Parallel()
	db, _ := storetest.NewCluster(t)
	db.Exec(t, `CREATE ROLE plain LOGIN PASSWORD 'plain'`)
	db.Exec(t, `CREATE DATABASE plain OWNER plain`)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.Path = url.UserPassword("plain", "plain"), "/plain"
	migrate(t, "a new database", u.String(), false)
	s, err := store.Open(t.Context(), store.Config{
		URL: u.String(), MinConns: 1, MaxConns: 1, Policy: library.DefaultPolicy(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	u.Path = "/copied"
	db.Exec(t, `CREATE DATABASE copied OWNER plain TEMPLATE plain`)
	migrate(t, "a copy", u.String(), true)
}
