package e2e_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// TestRestoreServesBackup makes a backup of a running system, changes the data, and restores the
// backup. The system then has the data of the backup, refuses the tokens of users that the backup
// does not have, uses no id again, and delivers each later notification.
func TestRestoreServesBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The user postgres must be able to enter the directory of the database.
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	env := e2e.NoRateLimits()
	env["JWT_SECRET"] = "restore:" + rand.Text() + rand.Text()
	cfg := stack.Config{Dir: dir, Env: env}
	s, err := startSystem(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := s.branch(t, 2)
	seat, contended := b.seats[0], b.seats[1]
	early, other := s.student(t), s.student(t)
	kept := early.book(seat, tomorrow(0, 1))
	offered(t, early, other, contended, tomorrow(10, 11), 0)
	before, err := s.anonymous().Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{Branch: b.code})
	if err != nil {
		t.Fatal(err)
	}

	file, err := stack.Backup(t.Context(), stack.BackupConfig{Dir: dir, File: filepath.Join(dir, "test.dump"), Log: s.log})
	if err != nil {
		t.Fatal(err)
	}
	lost := early.book(seat, tomorrow(2, 3))
	late := s.student(t)
	late.book(seat, tomorrow(4, 5))
	known := early.notifications(0)
	seen := offered(t, early, other, contended, tomorrow(12, 13), known[len(known)-1].GetId())
	restore := stack.RestoreConfig{Dir: dir, File: file, Binary: program("dlsms"), Log: s.log}
	if err := stack.Restore(t.Context(), restore); err == nil || !strings.Contains(err.Error(), "another run uses") {
		t.Errorf("a restore under a running system: %v", err)
	}
	if err := s.stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	if err := stack.Restore(t.Context(), restore); err != nil {
		t.Fatal(err)
	}
	names := s.names
	s = start(t, cfg)
	s.names = names // the restored database has the users of the first system
	early.Client, other.Client = early.WithConn(s.proxied[0]), other.WithConn(s.proxied[1])
	if got := early.reservation(kept.GetId()); got.GetStatus() != kept.GetStatus() {
		t.Errorf("the reservation of the backup is %v", got)
	}
	all := early.reservations(dlsmsv1.ReservationView_RESERVATION_VIEW_UNSPECIFIED)
	if slices.ContainsFunc(all, func(r *dlsmsv1.Reservation) bool { return r.GetId() == lost.GetId() }) {
		t.Error("the reservation from after the backup is still there")
	}
	refused(t, other.tryToBook(seat, tomorrow(0, 1)), "SEAT_TAKEN")
	for i := range s.copies() {
		direct := conn(t, s, i)
		seats, err := e2e.Anonymous(direct).Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{Branch: b.code})
		if err != nil || seats.GetAvailableCount() != before.GetAvailableCount() {
			t.Errorf("replica %d has %d free seats, %v", i, seats.GetAvailableCount(), err)
		}
		_, err = late.WithConn(direct).Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{})
		refused(t, err, "TOKEN_INVALID")
	}
	_, err = s.anonymous().Login(t.Context(), late.User.GetStudentId(), password)
	refused(t, err, "BAD_CREDENTIALS")

	const far = 900_000_000 // ids move on to 100,000 times the seconds since the start of 2026
	if again := early.book(seat, tomorrow(2, 3)); again.GetId() < lost.GetId()+far {
		t.Errorf("the reservation after the restore has the id %d, the one before it %d", again.GetId(), lost.GetId())
	}
	if now := s.student(t); now.id() < late.id()+far {
		t.Errorf("the user after the restore has the id %d, the one before it %d", now.id(), late.id())
	}
	offered(t, early, other, contended, tomorrow(14, 15), seen)
	if got := early.notifications(seen); len(got) != 1 {
		t.Errorf("%d notifications after the last one that the client saw, want 1", len(got))
	}
}

// offered makes the user wait for a seat that another user has, and then gives the seat back. It
// waits for the notification of the offer, which must have an id above after, and returns its id.
func offered(t *testing.T, user, other student, seat int64, w window, after int64) (id int64) {
	t.Helper()
	r := other.book(seat, w)
	user.wait(seat, w)
	other.cancel(r.GetId())
	eventually(t, "the user gets an offer", func() bool {
		for _, n := range user.notifications(after) {
			id = n.GetId()
		}
		return id > after
	})
	return id
}
