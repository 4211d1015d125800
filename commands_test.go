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
	want := []string{"CANCELLED water damage", "CANCELLED erased"}
	got := storetest.Rows[string](t, db,
		`SELECT status || ' ' || reason FROM reservation_events WHERE kind = 'CANCELLED' ORDER BY id`)
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("events %v, want %v", got, want)
	}
	if _, err := runCommand(t, "erase", id); err == nil || !strings.HasPrefix(err.Error(), "DATABASE_URL: is missing") {
		t.Errorf("dlsms erase without DATABASE_URL: %v", err)
	}
}
