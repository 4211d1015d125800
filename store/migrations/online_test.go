package migrations_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/store/storetest"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// connect opens a session for the test.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%v: %s", err, sql)
	}
}

// TestBookingsContinueWhileMigrationWaits lets a migration wait for a lock that a long transaction
// holds. Meanwhile each booking must succeed within 2.5 s.
func TestBookingsContinueWhileMigrationWaits(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	db.FreezeClock(t, noon)
	s := db.Open(t, library.DefaultPolicy())
	const bookings = 40
	seats, users := db.Seats(t, bookings), db.Users(t, bookings)
	report := connect(t, db.URL)
	exec(t, report, `BEGIN`)
	exec(t, report, `SELECT count(*) FROM reservations`)

	next := fstest.MapFS{
		"90000_next.sql": {Data: []byte("-- +goose Up\nALTER TABLE reservations ADD COLUMN note text;\n")},
	}
	done := make(chan error, 1)
	go func() { done <- migrations.ApplyUpTo(t.Context(), db.URL, next, 0) }()

	for i := range bookings {
		if i%10 == 0 { // this booking comes while the migration waits, not between two attempts
			storetest.Eventually(t, "the migration waits", func() bool { return waits(t, db) })
		}
		begun := time.Now()
		_, err := s.Reserve(t.Context(), library.Booking{
			UserID: users[i], SeatID: seats[i], StartTime: noon, EndTime: noon.Add(time.Hour),
		})
		if took := time.Since(begun); err != nil || took > 2500*time.Millisecond {
			t.Errorf("booking %d took %v: %v", i, took, err)
		}
	}
	exec(t, report, `COMMIT`)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := storetest.Value[int](t, db, `SELECT count(*) FROM reservations WHERE note IS NULL`); n != bookings {
		t.Errorf("%d bookings", n)
	}
}

func waits(t *testing.T, db *storetest.DB) bool {
	t.Helper()
	return storetest.Value[bool](t, db, `
		SELECT EXISTS (
			SELECT FROM pg_locks
			WHERE mode = 'AccessExclusiveLock' AND NOT granted AND relation = 'reservations'::regclass)`)
}

// TestUpRebuildsInvalidIndex cancels the build of an index, which leaves the index invalid. The
// next Up must build it again.
func TestUpRebuildsInvalidIndex(t *testing.T) {
	t.Parallel()
	url := storetest.NewEmptyDB(t)
	if err := migrations.ApplyUpTo(t.Context(), url, migrations.Files, 5); err != nil {
		t.Fatal(err)
	}
	writer, watcher := connect(t, url), connect(t, url)
	exec(t, writer, `BEGIN`)
	exec(t, writer, `LOCK TABLE reservations IN ROW EXCLUSIVE MODE`) // like a booking that does not end
	failed := make(chan error, 1)
	go func() {
		_, err := migrations.Up(t.Context(), url)
		failed <- err
	}()
	const building = `
		FROM pg_stat_activity
		WHERE datname = current_database()
			AND query LIKE 'CREATE INDEX CONCURRENTLY reservations_seat %'
			AND wait_event_type = 'Lock'`
	count := func(sql string) (n int) {
		t.Helper()
		if err := watcher.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	storetest.Eventually(t, "the index is being built", func() bool { return count(`SELECT count(*) `+building) == 1 })
	exec(t, watcher, `SELECT pg_cancel_backend(pid) `+building)
	if err := <-failed; err == nil {
		t.Error("Up succeeded although its CREATE INDEX was cancelled")
	}
	const invalid = `SELECT count(*) FROM pg_index WHERE NOT indisvalid`
	if n := count(invalid); n != 1 {
		t.Errorf("%d invalid indexes are left", n)
	}
	exec(t, writer, `COMMIT`)
	if _, err := migrations.Up(t.Context(), url); err != nil {
		t.Error(err)
	}
	if n := count(invalid); n != 0 {
		t.Errorf("%d invalid indexes are left after the next start", n)
	}
	const valid = `SELECT count(*) FROM pg_index WHERE indexrelid = 'reservations_seat'::regclass AND indisvalid`
	if n := count(valid); n != 1 {
		t.Error("the index is missing")
	}
}

// TestEveryForeignKeyHasAnIndex checks each foreign key for an index that speeds up a delete in the
// other table. The first columns of such an index are the columns of the key, in any order. The
// index has all rows, or all rows in which the key is not NULL.
func TestEveryForeignKeyHasAnIndex(t *testing.T) {
	t.Parallel()
	keys := storetest.Rows[string](t, storetest.NewDB(t), `
		SELECT conrelid::regclass || '.' || conname FROM pg_constraint c
		WHERE contype = 'f' AND NOT EXISTS (
			SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
			WHERE i.indrelid = c.conrelid AND i.indisvalid AND m.amname = 'btree'
				AND c.conkey <@ (i.indkey::int2[])[0:cardinality(c.conkey) - 1]
				AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) ~ '^\(\w+ IS NOT NULL\)$'))`)
	if len(keys) > 0 {
		t.Errorf("foreign keys without an index: %v", keys)
	}
}

// TestCheckInsAreHOTUpdates books 400 seats and checks in a day later. By then, later rows have
// filled the pages of the table up to its fillfactor. At least 98 % of the check-ins must be HOT
// updates, which change no index.
func TestCheckInsAreHOTUpdates(t *testing.T) {
	t.Parallel()
	// The test has a cluster of its own. In a shared cluster, a transaction of another test would
	// keep old row versions in this database, too, and these need room on the pages.
	db, _ := storetest.NewCluster(t)
	db.FreezeClock(t, noon.Add(-24*time.Hour))
	s := db.Open(t, library.DefaultPolicy())
	const visits = 400
	seats, users := db.Seats(t, visits), db.Users(t, visits)
	ids := make([]int64, visits)
	for i := range visits {
		r, err := s.Reserve(t.Context(), library.Booking{
			UserID: users[i], SeatID: seats[i], StartTime: noon, EndTime: noon.Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = r.ID
	}
	db.FreezeClock(t, noon)
	for i, id := range ids {
		if _, err := s.CheckIn(t.Context(), users[i], id, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.Close() // its sessions then report their statistics
	var updates, hot int64
	storetest.Eventually(t, "all updates are reported", func() bool {
		updates = storetest.Value[int64](t, db, `SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'reservations'`)
		hot = storetest.Value[int64](t, db, `SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'reservations'`)
		return updates >= visits
	})
	if share := float64(hot) / float64(updates); share < 0.98 {
		t.Errorf("%.0f%% of %d check-ins are HOT", 100*share, updates)
	}
}

// TestUpOnNewerSchema checks that a binary runs on the schema of the next release and reports that
// the schema is newer. The binary must refuse the schema of the release after that.
func TestUpOnNewerSchema(t *testing.T) {
	t.Parallel()
	url := storetest.NewEmptyDB(t)
	first, err := migrations.Up(t.Context(), url)
	if err != nil || first.Schema != first.Newest {
		t.Fatalf("%+v, %v", first, err)
	}
	conn := connect(t, url)
	for _, c := range []struct {
		name           string
		schema, oldest int64
		refused        bool
	}{
		{"the next release", first.Newest + 3, first.Newest - 2, false},
		{"the next release, which needs all of this one", first.Newest + 3, first.Newest, false},
		{"the release after the next", first.Newest + 7, first.Newest + 3, true},
	} {
		const insertVersion = `INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)`
		if _, err := conn.Exec(t.Context(), insertVersion, c.schema); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), `UPDATE schema_compatibility SET oldest_binary = $1`, c.oldest); err != nil {
			t.Fatal(err)
		}
		got, err := migrations.Up(t.Context(), url)
		if errors.Is(err, migrations.ErrTooOld) != c.refused {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.refused && (store.Unavailable(err) || !strings.Contains(err.Error(), "start a newer release")) {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.refused && (got.Schema != c.schema || got.Newest != first.Newest || len(got.Applied) > 0) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
