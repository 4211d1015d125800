package store_test

import (
	"testing"

	"github.com/dlsms/dlsms/library"
)

// TestNoShowWhenWaitlistFails makes a no-show at a seat whose waitlist cannot be served. The seat
// is the only one of its transaction. The no-show is committed, and the offer is made later.
func TestNoShowWhenWaitlistFails(t *testing.T) {
	t.Parallel()
	endWithBrokenWaitlist(t, library.EventNoShow, func(t *testing.T, b bundle, _ library.Reservation) {
		t.Helper()
		b.clock(t, 15)
		wantDone(t, 1, b.MarkNoShows)
	})
}

// TestSlowStepFailsInTime runs a step whose statement does not end. Postgres ends the statement
// while the transaction has time left, so the step fails with ErrOverloaded and its connection
// stays open. Without the time left, the deadline of the transaction closes the connection.
func TestSlowStepFailsInTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Altered()
	r := b.reserve(t, 0, 0, 0, 60)
	b.clock(t, 15)
	b.db.Exec(t, `CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql
		AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
		CREATE TRIGGER poison BEFORE UPDATE ON reservations FOR EACH ROW EXECUTE FUNCTION poison()`)
	_, _, err := b.MarkNoShows(t.Context(), 10)
	wantErr(t, err, library.ErrOverloaded)
	b.db.Exec(t, dropTrigger)
	wantDone(t, 1, b.MarkNoShows)
	wantEqual(t, "history", b.history(t, r.ID), []string{"RESERVED", "NO_SHOW"})
}
