package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// condition is what alerts are for. TestAlertsFireAndEnd provokes it on a running system.
type condition struct {
	name string
	// alerts must fire while the condition holds, and end after it. Other alerts may fire, too.
	alerts []string
	// provoke starts the condition. It returns the function that ends it.
	provoke func(*testing.T, *system) (end func())
}

// disturbing conditions affect all calls, so each is provoked alone.
var disturbing = []condition{
	{"a replica is frozen", []string{"ReplicaDown"}, freezeReplica},
	{"nginx is stopped", []string{"ProxyDown"}, stopProxy},
	{"Postgres is unreachable", []string{"SeatsStale", "CallsFail", "WorkerFails"}, stopPostgres},
	{"Postgres is slow", []string{"PostgresSlow", "CallsSlow"}, slowPostgres(4)},
	{"more users call than a slow Postgres serves", []string{"CallsRefused"}, slowPostgres(200)},
	{"Redis is stopped", []string{"RedisDown"}, stopRedis},
	{"too many log in at once", []string{"LoginsRefused"}, rushLogins},
}

// local conditions affect one row or one file each. They are provoked together.
var local = []condition{
	{"a transaction holds a seat that is due", []string{"WorkerLate"}, lockDueSeat},
	{"the worker can't change a row", []string{"WorkerSkipsSeats"}, refuseNoShow},
	{"a row has a value that cannot be read", []string{"RowUnreadable"}, breakTimezone},
	{"the log is blocked", []string{"LogLinesDropped"}, blockLog},
	{"the certificate expires", []string{"CertificateExpires"}, expireCertificate},
	{"the disk of Postgres is full", []string{"PostgresDiskFull"}, fillDisk},
}

// TestAlertsFireAndEnd provokes each condition on a running system, and waits until Prometheus has
// seen its alerts fire and end.
func TestAlertsFireAndEnd(t *testing.T) {
	t.Parallel()
	s := startSystem(t, map[string]string{
		"DB_MAX_CONNS": "16", // 7 slots for reads and 7 for bookings, so that a slow Postgres is a bottleneck soon
		"LOG_LEVEL":    "info",
	})
	none := func(firing []string) bool { return len(firing) == 0 }
	s.waitFor(t, "no alert fires at the start", none)
	for _, c := range disturbing {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, s)
			s.waitFor(t, "all alerts end", none)
		})
	}
	for _, c := range local {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, s)
		})
	}
}

// test provokes the condition, and waits until its alerts have fired and ended.
func (c condition) test(t *testing.T, s *system) {
	t.Helper()
	end := sync.OnceFunc(c.provoke(t, s))
	defer end()
	for _, alert := range c.alerts {
		s.waitFor(t, alert+" fires", func(firing []string) bool { return slices.Contains(firing, alert) })
	}
	end()
	for _, alert := range c.alerts {
		s.waitFor(t, alert+" ends", func(firing []string) bool { return !slices.Contains(firing, alert) })
	}
}

// TestEveryAlertIsProvoked fails if a rule has no condition, and if a condition has no rule.
func TestEveryAlertIsProvoked(t *testing.T) {
	t.Parallel()
	rules, err := readRules()
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, c := range slices.Concat(disturbing, local) {
		have = append(have, c.alerts...)
	}
	for _, r := range rules {
		want = append(want, r.Alert)
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("the conditions provoke %v, the rules are %v", have, want)
	}
}

// waitFor waits until ok returns true for the alerts that fire.
func (s *system) waitFor(t *testing.T, what string, ok func(firing []string) bool) {
	t.Helper()
	const timeout = 2 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	began := time.Now()
	for {
		firing, err := s.firing(ctx)
		if err == nil && ok(firing) {
			t.Logf("%s after %s", what, time.Since(began).Round(time.Millisecond))
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s; firing: %v %v", timeout, what, firing, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// load makes calls with several clients until the function that it returns is called. Their errors
// are part of the conditions.
func (s *system) load(t *testing.T, clients int, call func(ctx context.Context, client, n int) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_ = call(ctx, client, n)
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// bookings is a call that books a seat and cancels the booking.
func (s *system) bookings(ctx context.Context, client, n int) error {
	id, err := s.book(ctx, s.seats[client%len(s.seats)], 24+client/len(s.seats))
	if err != nil {
		return err
	}
	_, err = s.user.Reservations.CancelReservation(ctx, &dlsmsv1.CancelReservationRequest{ReservationId: id})
	return err
}

func freezeReplica(t *testing.T, s *system) func() {
	t.Helper()
	s.signal(t, syscall.SIGSTOP)
	return func() { s.signal(t, syscall.SIGCONT) }
}

func (s *system) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := s.Replicas[0].Signal(sig); err != nil {
		t.Error(err)
	}
}

func stopProxy(t *testing.T, s *system) func() {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if err := s.Nginx.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := s.Nginx.Start(ctx); err != nil {
			t.Error(err)
		}
	}
}

func stopPostgres(t *testing.T, s *system) func() {
	t.Helper()
	stopLoad := s.load(t, 4, s.bookings)
	s.postgres.Stop()
	return func() {
		stopLoad()
		if err := s.postgres.Start(); err != nil {
			t.Error(err)
		}
	}
}

// slowPostgres delays the answers of Postgres while clients book.
func slowPostgres(clients int) func(*testing.T, *system) func() {
	return func(t *testing.T, s *system) func() {
		t.Helper()
		toxic, err := s.postgres.Toxics.AddToxicJson(strings.NewReader(
			`{"type": "latency", "stream": "downstream", "attributes": {"latency": 600}}`))
		if err != nil {
			t.Fatal(err)
		}
		stopLoad := s.load(t, clients, s.bookings)
		return func() {
			stopLoad()
			if err := s.postgres.Toxics.RemoveToxic(context.WithoutCancel(t.Context()), toxic.Name); err != nil {
				t.Error(err)
			}
		}
	}
}

func stopRedis(t *testing.T, s *system) func() {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if err := s.Redis.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	stopLoad := s.load(t, 1, s.bookings)
	return func() {
		stopLoad()
		if err := s.Redis.Start(ctx); err != nil {
			t.Error(err)
		}
	}
}

// rushLogins logs in from 60 clients at once. The student ids are different, because a replica
// serves them in turn.
func rushLogins(t *testing.T, s *system) func() {
	t.Helper()
	anonymous := e2e.Anonymous(s.conn)
	return s.load(t, 60, func(ctx context.Context, client, n int) error {
		_, err := anonymous.Login(ctx, fmt.Sprintf("rush-%d-%d", client, n), password)
		return err
	})
}

// lockDueSeat makes a reservation overdue, and holds the lock of its seat.
func lockDueSeat(t *testing.T, s *system) func() {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	seat := s.seats[0]
	reservation := s.bookSoon(t, seat)
	tx, err := s.db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rollback := sync.OnceFunc(func() {
		if err := tx.Rollback(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(rollback)
	if _, err := tx.Exec(ctx, `SELECT FROM seats WHERE id = $1 FOR UPDATE`, seat); err != nil {
		t.Fatal(err)
	}
	s.makeOverdue(t, reservation)
	return rollback
}

// refuseNoShow makes a reservation overdue that a trigger keeps from changing.
func refuseNoShow(t *testing.T, s *system) func() {
	t.Helper()
	seat := s.seats[1]
	reservation := s.bookSoon(t, seat)
	s.exec(t, fmt.Sprintf(`
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION 'refused'; END $f$;
		CREATE TRIGGER refuse BEFORE UPDATE ON reservations FOR EACH ROW WHEN (OLD.seat_id = %d)
			EXECUTE FUNCTION refuse()`, seat))
	s.makeOverdue(t, reservation)
	return func() { s.exec(t, `DROP FUNCTION refuse CASCADE`) }
}

// bookSoon books the seat for an hour that begins in a minute, and returns the id of the reservation.
func (s *system) bookSoon(t *testing.T, seat int64) int64 {
	t.Helper()
	start := time.Now().Add(time.Minute)
	resp, err := s.user.Reservations.CreateReservation(t.Context(), &dlsmsv1.CreateReservationRequest{
		SeatId: seat, StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetReservation().GetId()
}

// makeOverdue moves the reservation to an hour ago, and the deadline for its check-in to two seconds
// from now. The worker might see an earlier deadline only at its next full pass.
func (s *system) makeOverdue(t *testing.T, reservation int64) {
	t.Helper()
	s.exec(t, fmt.Sprintf(`SET session_replication_role = replica; -- without triggers
		UPDATE reservations SET during = tstzrange(lower(during) - interval '1 hour', upper(during) - interval '1 hour'),
			check_in_deadline = dlsms_now() + interval '2 s' WHERE id = %d;
		SET session_replication_role = DEFAULT`, reservation))
}

// exec runs SQL as the superuser.
func (s *system) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := s.db.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
		t.Error(err)
	}
}

func breakTimezone(t *testing.T, s *system) func() {
	t.Helper()
	set := func(zone string) {
		s.exec(t, fmt.Sprintf(`ALTER TABLE branches DISABLE TRIGGER branches_timezone; -- it refuses unknown time zones
			UPDATE branches SET timezone = '%s' WHERE id = (SELECT min(id) FROM branches);
			ALTER TABLE branches ENABLE TRIGGER branches_timezone`, zone))
	}
	set("Europe/Berln")
	stopLoad := s.load(t, 1, s.reads)
	return func() {
		stopLoad()
		set("Europe/Berlin")
	}
}

func (s *system) reads(ctx context.Context, _, _ int) error {
	_, err := s.user.Seats.GetSeats(ctx, &dlsmsv1.GetSeatsRequest{})
	return err
}

func blockLog(t *testing.T, s *system) func() {
	t.Helper()
	unblock := s.log.block()
	stopLoad := s.load(t, 4, s.reads)
	return func() {
		stopLoad()
		unblock()
	}
}

// expireCertificate writes a certificate that expires soon. nginx loads each new certificate.
func expireCertificate(t *testing.T, s *system) func() {
	t.Helper()
	s.writeCertificate(t, 13*24*time.Hour)
	return func() { s.writeCertificate(t, 90*24*time.Hour) }
}

// fillDisk sets the threshold of the rule to 256 MiB below the free space, and writes 512 MiB. A disk
// that is nearly full for the rule as it is would stop other programs of this machine.
func fillDisk(t *testing.T, s *system) func() {
	t.Helper()
	const mib = 1 << 20
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &fs); err != nil {
		t.Fatal(err)
	}
	free, size := float64(fs.Bavail)*float64(fs.Bsize), float64(fs.Blocks)*float64(fs.Bsize)
	s.replaceInRules(t, "< 0.1", fmt.Sprintf("< %.9f", (free-256*mib)/size))
	file := filepath.Join(s.dir, "fill")
	if err := os.WriteFile(file, make([]byte, 512*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	}
}

// replaceInRules changes the rules of the running Prometheus.
func (s *system) replaceInRules(t *testing.T, old, replacement string) {
	t.Helper()
	file := filepath.Join(s.dir, rulesFile)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(content), old, replacement, 1)
	if changed == string(content) {
		t.Fatalf("no rule has %q", old)
	}
	if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.reload(); err != nil {
		t.Fatal(err)
	}
}
