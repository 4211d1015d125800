package e2e_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// previousRelease is the last commit of the previous release. During a rolling update, replicas of
// the previous release run beside new replicas, on the new schema. Each release changes this
// constant (see CONTRIBUTING.md, "Migrations").
const previousRelease = "8545fae40eba7966b4d81aa9f0ad8b9d768fee73"

// buildPrevious builds the previous release from the git history, and returns its binary. If the
// source tree has no history, as in an archive, it returns the binary of this release instead. Then
// the test makes the same calls, but proves nothing about the previous release.
func buildPrevious(t *testing.T) (binary string) {
	t.Helper()
	dir := t.TempDir()
	binary = filepath.Join(dir, "dlsms")
	archive := filepath.Join(dir, "source.tar")
	git := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "archive", "-o", archive, previousRelease)
	git.Dir = ".."
	if out, err := git.CombinedOutput(); err != nil {
		if _, exists := os.Stat(filepath.Join("..", ".git")); exists == nil {
			t.Fatalf("the history lacks %s: fetch all of it (%v)\n%s", previousRelease, err, out)
		}
		t.Log("no history to build the previous release from: using the binary under test")
		link(t, program("dlsms"), binary)
		return binary
	}
	source := filepath.Join(dir, "source")
	for _, args := range [][]string{
		{"mkdir", source},
		{"tar", "-x", "-C", source, "-f", archive},
		{"go", "build", "-buildvcs=false", "-o", binary, "."},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		if args[0] == "go" {
			cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	return binary
}

// TestRollingUpdate checks an update under load. Replicas of the previous release serve while the
// database is migrated, and on the new schema; then replicas of this release take over. The load
// books, cancels, checks in and checks out. The test itself uses the waitlist, waits for a no-show by
// the worker, and closes a seat that the previous release has reserved.
func TestRollingUpdate(t *testing.T) {
	t.Parallel()
	env := e2e.NoRateLimits()
	env["GRACE_MINUTES"] = "0.2"
	previous := buildPrevious(t)
	s := start(t, stack.Config{Binary: previous, Env: env, NoHTTP: true})
	l, end := startLoad(t, s)
	l.progress(60, 10)

	migrate := launch(t, map[string]string{"DATABASE_URL": s.Postgres.DatabaseURL()}, "migrate")
	if code := migrate.exit(); code != 0 {
		t.Fatalf("migrate: exit %d", code)
	}
	if !strings.Contains(migrate.stdout.String(), "applied migrations") &&
		!strings.Contains(migrate.stdout.String(), "up to date") {
		t.Errorf("migrate printed %q", migrate.stdout.String())
	}
	l.progress(60, 10)

	// The waitlist: the cancel of owner makes an offer, which waiter claims.
	place := s.branch(t, 3)
	seats := place.seats
	owner, waiter, absent := s.student(t), s.student(t), s.student(t)
	w := tomorrow(0, 1)
	booked := owner.book(seats[0], w)
	joined, err := waiter.Notify.JoinWaitlist(t.Context(), w.waiting(seats[0]))
	entry := need(waiter, "waiting", joined, err).GetEntry()
	owner.cancel(booked.GetId())
	claimed, err := waiter.Notify.ClaimOffer(t.Context(), &dlsmsv1.ClaimOfferRequest{EntryId: entry.GetId()})
	r := need(waiter, "claiming", claimed, err).GetReservation()
	if r.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED {
		t.Errorf("claimed: %v", r)
	}
	// The worker: a reservation without a check-in becomes a no-show.
	missed := absent.request(
		&dlsmsv1.CreateReservationRequest{SeatId: seats[1], EndTime: timestamppb.New(time.Now().Add(time.Hour))},
	)
	eventually(t, "a no-show", func() bool {
		return absent.reservation(missed.GetId()).GetStatus() == dlsmsv1.ReservationStatus_RESERVATION_STATUS_NO_SHOW
	})
	// A restarted replica must accept a schema that is newer than its release.
	if err := s.Replicas[0].Restart(t.Context()); err != nil {
		t.Error(err)
	}
	l.progress(60, 10)

	// This release takes over, one replica after another, with the data of the previous one.
	kept, waiting := owner.book(seats[2], w), s.student(t)
	if joined, err = waiting.Notify.JoinWaitlist(t.Context(), w.waiting(seats[2])); err != nil {
		t.Fatal(err)
	}
	link(t, program("dlsms"), previous)
	for _, replica := range s.Replicas {
		if err := replica.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.progress(60, 10)
	}
	// The staff close the seats, and this release ends what the previous one has made.
	closure := &dlsmsv1.CreateClosureRequest{
		Branch: place.code, SeatIds: seats[2:3], ExpectedReservations: 1,
		OnBookings: dlsmsv1.BookingAction_BOOKING_ACTION_CANCEL,
	}
	made, err := s.librarian(t).Admin.CreateClosure(t.Context(), closure)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the closure cancels the reservation", func() bool {
		return owner.reservation(kept.GetId()).GetStatus() == dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED
	})
	lift := &dlsmsv1.UpdateClosureRequest{ClosureId: made.GetClosure().GetId(), Lift: true}
	if _, err := s.librarian(t).Admin.UpdateClosure(t.Context(), lift); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the entry of the previous release gets an offer", func() bool {
		resp, err := waiting.Notify.ClaimOffer(t.Context(), &dlsmsv1.ClaimOfferRequest{EntryId: joined.GetEntry().GetId()})
		return err == nil && resp.GetReservation().GetSeat().GetId() == seats[2]
	})
	end()
}

// link makes name a link to a program, in place of the file that has this name.
func link(t *testing.T, program, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.Symlink(program, name); err != nil {
		t.Fatal(err)
	}
}
