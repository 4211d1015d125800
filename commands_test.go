package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// TestGrant gives roles with the command grant.
func TestGrant(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	user := db.Users(t, 1)[0]
	db.Seats(t, 1)
	id := storetest.Value[string](t, db, `SELECT student_id FROM users`)
	home := storetest.Value[int64](t, db, `SELECT id FROM branches`)
	row := func() string {
		return storetest.Value[string](t, db, `SELECT concat_ws(' ', role, branches) FROM users`)
	}
	for _, c := range []struct {
		args []string
		says string // how the output begins, or the error if fails is set
		row  string // afterwards
		fail bool
	}{
		{[]string{"--role=admin", "--user=" + strings.ToLower(id)},
			fmt.Sprintf("user %d (%s) has the role ADMIN for all branches; ", user, id), "ADMIN", false},
		{[]string{"--role=staff", "--user=" + id, "--branch=branch-0", "--reason=new job"},
			fmt.Sprintf("user %d (%s) has the role STAFF for branch-0; ", user, id), fmt.Sprintf("STAFF {%d}", home), false},
		{[]string{"--role=student", "--user=" + id},
			fmt.Sprintf("user %d (%s) has the role STUDENT; ", user, id), "STUDENT", false},
		{[]string{"--role=admin", "--user=" + id, "--branch=branch-0"}, "--branch: ", "STUDENT", true},
		{[]string{"--role=staff", "--user=" + id, "--branch=none"}, "grant the role staff to ", "STUDENT", true},
		{[]string{"--role=staff", "--user=none"}, `grant the role staff to "none": `, "STUDENT", true},
		{[]string{"--role=king", "--user=" + id}, "dlsms: --role must be one of ", "STUDENT", true},
		{[]string{"--role=staff"}, "dlsms: missing flags: --user=", "STUDENT", true},
	} {
		out, err := runCommand(t, append(append([]string{"grant"}, c.args...), "--database-url="+db.URL)...)
		said := out
		if err != nil {
			said = err.Error()
		}
		if (err != nil) != c.fail || !strings.HasPrefix(said, c.says) || row() != c.row {
			t.Errorf("%v: %q, %v; the row is %q", c.args, out, err, row())
		}
	}
	got := storetest.Rows[string](t, db, `
		SELECT concat_ws(' ', role, action, object, after->>'role', NULLIF(reason, '')) FROM audit_log ORDER BY id`)
	object := fmt.Sprintf("HOST grant user/%d ", user)
	want := []string{object + "ADMIN", object + "STAFF new job", object + "STUDENT"}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("audit log %v, want %v", got, want)
	}
}

// TestCancelAndErase runs the commands that cancel a reservation for its user and erase a user.
func TestCancelAndErase(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	db.FreezeClock(t, noon)
	s := db.Open(t, library.DefaultPolicy())
	user, seats := db.Users(t, 1)[0], db.Seats(t, 2)
	var ids []string
	for i, seat := range seats {
		start := noon.Add(time.Duration(i) * time.Hour)
		r, err := s.Reserve(t.Context(), library.Booking{
			UserID: user, SeatID: seat, StartTime: start, EndTime: start.Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, strconv.FormatInt(r.ID, 10))
	}
	id := storetest.Value[string](t, db, `SELECT student_id FROM users`)
	for _, c := range []struct {
		args      []string
		says      string // how the output begins; empty: the command fails
		complaint string // how the error begins, if the command fails
	}{
		{[]string{"cancel", ids[0], "--reason=water damage"},
			fmt.Sprintf("reservation %s of user %d is CANCELLED", ids[0], user), ""},
		{[]string{"cancel", ids[0]}, "reservation " + ids[0] + " is CANCELLED already: nothing to do", ""},
		{[]string{"cancel", "99"}, "", "cancel reservation 99: "},
		{[]string{"cancel", ids[1], "--reason=" + strings.Repeat("ü", 501)}, "",
			"--reason: must be text of at most 500 characters"},
		{[]string{"cancel", ids[1], "--claim-minutes=x"}, "", "CLAIM_MINUTES: "},
		{[]string{"erase", strings.ToLower(id)},
			fmt.Sprintf("user %d is erased and has the student id gone-%[1]d-", user), ""},
		{[]string{"erase", id}, "no user has the student id \"" + id + "\": nothing to do", ""},
	} {
		out, err := runCommand(t, append(c.args, "--database-url="+db.URL)...)
		switch {
		case c.says != "" && (err != nil || !strings.HasPrefix(out, c.says)):
			t.Errorf("%v: %q, %v; want %q", c.args, out, err, c.says)
		case c.says == "" && (err == nil || !strings.HasPrefix(err.Error(), c.complaint)):
			t.Errorf("%v: %q, %v; want the error %q", c.args, out, err, c.complaint)
		}
	}
	want := []string{"CANCELLED", "CANCELLED erased"} // the reason of staff is personal data
	got := storetest.Rows[string](t, db,
		`SELECT concat_ws(' ', status, reason) FROM reservation_events WHERE kind = 'CANCELLED' ORDER BY id`)
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("events %v, want %v", got, want)
	}
	if _, err := runCommand(t, "erase", id); err == nil || !strings.HasPrefix(err.Error(), "DATABASE_URL: is missing") {
		t.Errorf("dlsms erase without DATABASE_URL: %v", err)
	}
}
