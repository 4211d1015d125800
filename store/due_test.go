package store_test

import (
	"testing"

	"github.com/dlsms/dlsms/library"
)

// TestNoShowWhenWaitlistFails makes a no-show at a seat whose waitlist cannot be served. The step
// runs for this seat alone, as the worker does after a failure. The no-show must be committed, and
// the offer is made later.
func TestNoShowWhenWaitlistFails(t *testing.T) {
	t.Parallel()
	endWithBrokenWaitlist(t, library.EventNoShow, func(t *testing.T, b bundle, _ library.Reservation) {
		t.Helper()
		b.clock(t, 15)
		wantDone(t, 1, b.MarkNoShows)
	})
}

// TestSlowStepFailsInTime runs a step with a statement that takes 60 s. Postgres must end the
// statement before the deadline of the transaction. Then the step fails with ErrOverloaded and its
// connection stays open.
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
