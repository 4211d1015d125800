package store_test

import (
	"database/sql"
	"os"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the database/sql driver that goose drives
	"github.com/pressly/goose/v3"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/store/storetest"
)

// migratedTo creates a database with an earlier schema.
func migratedTo(t *testing.T, version int64) *storetest.DB {
	t.Helper()
	url := storetest.NewEmptyDB(t)
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("migrations"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	return storetest.Attach(t, url)
}

// TestMigrationRepairsOldRows migrates rows that the new schema refuses. The migration must repair
// the rows that have only one possible repair. If there are others, it must fail and name them. It
// must succeed after an operator has corrected the others.
func TestMigrationRepairsOldRows(t *testing.T) {
	t.Parallel()
	db := migratedTo(t, 3)
	db.Exec(t, `INSERT INTO branches (library_id, code, name, timezone)
		SELECT 1, 'b' || row_number() OVER (), 'Branch', z
		FROM unnest('{europe/berlin,Europe/Berln,EST5EDT,America/New_York}'::text[]) z`)
	db.Exec(t, `INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'b5', ' Fifth', 'UTC')`)
	db.Exec(t, `INSERT INTO seats (library_id, branch_id, area, label, amenities)
		SELECT 1, 1, 'Area', 'A-' || row_number() OVER (), a::smallint[]
		FROM unnest(ARRAY['{5,NULL,1,5}', '{NULL}', '{{1,2},{3,99}}', '[0:1]={1,2}', '{}']) a`)
	db.Exec(t, `INSERT INTO seats (library_id, branch_id, area, label) VALUES (1, 2, 'Area', E'B\t1')`)
	db.Exec(t, `
		INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes) VALUES (1, 1, 7, '24:00', '2:00')`)
	db.Users(t, 3)
	db.Exec(t, `UPDATE users SET email = repeat('e', 1001) WHERE id = 2`)
	db.Exec(t, `UPDATE users SET created_at = 'infinity' WHERE id = 3`)
	db.Exec(t, `INSERT INTO revocations (library_id, user_id, generation, expires_at) VALUES (1, 1, 1, 'infinity')`)
	db.Exec(t, `
		INSERT INTO waitlist_entries (library_id, seat_id, user_id, during, status, joined_position, created_at, ended_at)
		VALUES (1, 1, 1, '[2025-01-01, 2025-01-02)', 'LEFT', 1, '-infinity', '2025-01-01')`)

	for range 2 {
		_, err := migrations.Up(t.Context(), db.URL)
		if err == nil {
			t.Fatal("the migration succeeded")
		}
		for _, named := range []string{
			"branch b2 of library 1 has the time zone 'Europe/Berln'", "branch b3", "'EST5EDT'", "seat 6",
			"weekday 7 at 24:00",
			"branch b5 of library 1 has the name ' Fifth'", "user 2 of library 1", "user 3 of library 1",
		} {
			if !strings.Contains(err.Error(), named) {
				t.Errorf("the error does not name %s: %v", named, err)
			}
		}
		for _, fine := range []string{"b1", "b4", "seat 1 ", "user 1 "} {
			if strings.Contains(err.Error(), fine) {
				t.Errorf("the error names %s: %v", fine, err)
			}
		}
	}
	db.Exec(t, `UPDATE branches SET timezone = 'America/New_York' WHERE timezone = 'EST5EDT'`)
	db.Exec(t, `UPDATE branches SET timezone = 'Europe/Berlin' WHERE timezone = 'Europe/Berln'`)
	db.Exec(t, `UPDATE seats SET label = 'B-1' WHERE id = 6`)
	db.Exec(t, `UPDATE branches SET name = 'Fifth' WHERE code = 'b5'`)
	db.Exec(t, `UPDATE users SET email = 'e@x.example', created_at = now()`)
	db.Exec(t, `UPDATE branch_hours SET weekday = 1, opens = '0:00'`)
	if _, err := migrations.Up(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "time zones", storetest.Rows[string](t, db, `SELECT timezone FROM branches ORDER BY id`),
		[]string{"Europe/Berlin", "Europe/Berlin", "America/New_York", "America/New_York", "UTC"})
	wantEqual(t, "amenities", storetest.Rows[string](t, db, `SELECT amenities::text FROM seats ORDER BY id`),
		[]string{"{1,5}", "{}", "{1,2,3}", "{1,2}", "{}", "{}"})
	if _, err := db.Open(t, library.DefaultPolicy()).LoadWorld(t.Context()); err != nil {
		t.Errorf("LoadWorld: %v", err)
	}
	wantEqual(t, "revocations that can be read", storetest.Value[bool](t, db, `
		SELECT bool_and(isfinite(expires_at)) FROM revocations`), true)
	// Rows of the long table waitlist_entries may violate the constraint. It applies to new rows.
	wantEqual(t, "constraints for new rows alone", storetest.Rows[string](t, db, `
		SELECT conname::text FROM pg_constraint WHERE NOT convalidated`),
		[]string{"waitlist_times_check"})
}
