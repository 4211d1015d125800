package main

import (
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/store/storetest"
)

// TestReportCommands prints the sums of the demo, and exports a reservation.
func TestReportCommands(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	now := time.Date(2026, 3, 16, 12, 30, 0, 0, time.UTC)
	db.FreezeClock(t, now)
	run := func(args ...string) (string, error) {
		t.Helper()
		return runCommand(t, append(args, "--database-url="+db.URL)...)
	}
	if _, err := run("seed", "--bcrypt-cost=4"); err != nil {
		t.Fatal(err)
	}
	out, err := run("usage", "--from=2026-03-02", "--to=2026-03-15", "--by=area", "--branch=main")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != 4 || !strings.HasPrefix(lines[0], "\ufeffbranch,area,open_minutes,reserved_minutes,") ||
		!strings.HasPrefix(lines[1], "main,Group Study,161280,") { // 8 seats, 14 days
		t.Errorf("%v:\n%s", err, out)
	}
	if strings.Count(lines[1], ",") != strings.Count(lines[0], ",") {
		t.Errorf("the lines have different numbers of cells:\n%s", out)
	}
	out, err = run("usage", "--from=2026-03-02", "--to=2026-03-15", "--by=weekday-hour")
	if lines := strings.Count(out, "\n"); err != nil || lines != 7*24+1 {
		t.Errorf("%v: %d lines of an always open library", err, lines)
	}
	db.Exec(t, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
			created_at)
		SELECT 1, (SELECT min(id) FROM seats), (SELECT min(id) FROM users), tstzrange($1, $2), 'CONFIRMED', $1, $2, $1`,
		now, now.Add(time.Hour))
	out, err = run("export", "--from=2026-03-16", "--to=2026-03-16")
	if err != nil || strings.Count(out, "\n") != 2 || !strings.Contains(out, "2026-03-16T13:30:00+01:00") {
		t.Errorf("%v:\n%s", err, out)
	}
	for _, bad := range [][]string{
		{"usage", "--from=2026-03-32", "--to=2026-04-01"},
		{"usage", "--from=2026-03-02", "--to=2026-03-01"},
		{"usage", "--from=2026-03-02", "--to=2026-03-02", "--by=week"},
		{"export", "--from=2026-03-02"},
		{"export", "--from=2026-03-02", "--to=2026-03-02", "--branch=none"},
	} {
		if out, err := run(bad...); err == nil {
			t.Errorf("%v: no error, %s", bad, out)
		}
	}
}
