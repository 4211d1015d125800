package storetest

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestEventuallyLockedInTransaction looks at the activity before the other session waits. Later looks
// of the same transaction must see it.
func TestEventuallyLockedInTransaction(t *testing.T) {
	t.Parallel()
	db := NewDB(t)
	other, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(t.Context()) })
	db.Exec(t, `BEGIN`)
	db.Exec(t, `LOCK TABLE screens IN ACCESS EXCLUSIVE MODE`)
	if n := Value[int](t, db, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
		AND datname = current_database()`); n != 0 {
		t.Fatalf("%d sessions wait for a lock", n)
	}
	done := make(chan error, 1)
	go func() {
		_, err := other.Exec(t.Context(), `SELECT count(*) FROM screens`)
		done <- err
	}()
	db.EventuallyLocked(t, "FROM screens")
	db.Exec(t, `ROLLBACK`)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
