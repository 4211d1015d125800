package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// byHost is an order of the host.
func hostOrder(action string) library.Order {
	return library.Order{Actor: library.Host, Action: action}
}

// checkOnly returns an order that changes nothing.
func checkOnly(o library.Order) library.Order {
	o.ValidateOnly = true
	return o
}

// librarian makes a user a librarian of branches, or of all if branches is nil, and returns the
// actor.
func librarian(t *testing.T, b bundle, user int, branches []int64) library.Actor {
	t.Helper()
	b.db.Exec(t, `UPDATE users SET role = 'LIBRARIAN', branches = $2 WHERE id = $1`, b.users[user], branches)
	id := library.Identity{ID: b.users[user]}
	id.StudentID = storetest.Value[string](t, b.db, `SELECT student_id FROM users WHERE id = $1`, id.ID)
	id.TokenGeneration = storetest.Value[int64](t, b.db, `SELECT token_generation FROM users WHERE id = $1`, id.ID)
	return library.Actor{Token: &id, Role: library.RoleLibrarian}
}

// audited returns the rows of the audit log as text, without their times, and forgets them.
func audited(t *testing.T, b bundle) []string {
	t.Helper()
	rows := storetest.Rows[string](t, b.db, `
		SELECT concat_ws(' ', action, object, before, after) FROM audit_log ORDER BY id`)
	b.db.Exec(t, `DELETE FROM audit_log`)
	return rows
}

func TestUpsertBranch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	law := library.Branch{Code: "law", Name: "Law", Timezone: "Europe/Berlin"}
	if _, created, err := b.UpsertBranch(t.Context(), checkOnly(hostOrder("UpsertBranch")), law); err != nil || !created {
		t.Errorf("checked: %t, %v", created, err)
	}
	wantEqual(t, "branches after the check", storetest.Value[int](t, b.db, `SELECT count(*)::int FROM branches`), 1)
	for i := range 2 {
		got, created, err := b.UpsertBranch(t.Context(), hostOrder("UpsertBranch"), law)
		if err != nil || created != (i == 0) || got.Code != "law" || got.Timezone != "Europe/Berlin" || got.SeatCount != 0 {
			t.Errorf("call %d: %+v, %t, %v", i, got, created, err)
		}
	}
	law.Name, law.Timezone = "Law Library", "UTC"
	if got, created, err := b.UpsertBranch(t.Context(), hostOrder("UpsertBranch"), law); err != nil || created ||
		got.Name != "Law Library" || got.Timezone != "UTC" {
		t.Errorf("changed: %+v, %t, %v", got, created, err)
	}
	wantEqual(t, "audit log", audited(t, b), []string{
		`UpsertBranch branch/law {"name": "Law", "timezone": "Europe/Berlin"}`,
		`UpsertBranch branch/law {"name": "Law", "timezone": "Europe/Berlin"} {"name": "Law Library", "timezone": "UTC"}`,
	})
	law.Timezone = "europe/berlin"
	_, _, err := b.UpsertBranch(t.Context(), hostOrder("UpsertBranch"), law)
	wantErr(t, err, library.Invalid())
	_, _, err = b.UpsertBranch(t.Context(), library.Order{Actor: librarian(t, b, 0, nil)}, law)
	wantRefusal(t, err, library.RoleRequired(library.RoleAdmin))
}

// TestUpsertBranchRace has many calls create one branch at the same time. One of them creates it.
func TestUpsertBranchRace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var calls sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 8 {
		calls.Go(func() {
			_, created, err := b.UpsertBranch(t.Context(), hostOrder("UpsertBranch"),
				library.Branch{Code: "law", Name: "Law", Timezone: "UTC"})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if created {
				made++
			}
		})
	}
	calls.Wait()
	if rows := audited(t, b); made != 1 || len(rows) != 1 {
		t.Errorf("%d calls created the branch: %v", made, rows)
	}
}

func TestListBranches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `UPDATE branches SET timezone = 'Pacific/Auckland'`) // noon UTC is the next day there
	b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 7, '22:00', '02:00' FROM branches`)
	b.db.Exec(t, `INSERT INTO branch_days SELECT 1, id, d, o, c FROM branches, (VALUES
		($1::date, '9:00'::time, '12:00'::time), ($1 + 1, '13:00', '24:00'), ($1 + 1, '9:00', '12:00'), ($1 + 2, NULL, NULL))
		v (d, o, c)`, noon)
	b.db.Exec(t, `UPDATE seats SET out_of_service = true WHERE id = $1`, b.seats[0])
	b.db.Exec(t, `UPDATE seats SET out_of_service = true, retired_at = now(), area = 'Old' WHERE id = $1`, b.seats[1])
	b.db.Exec(t, `UPDATE seats SET area = 'Attic' WHERE id = $1`, b.seats[2])
	b.db.Exec(t, `INSERT INTO areas SELECT 1, id, 'Attic', '5' FROM branches`)
	b.db.Exec(t, `INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'a', 'A', 'UTC')`)
	main := storetest.Value[int64](t, b.db, `SELECT id FROM branches WHERE code = 'branch-0'`)

	all, err := b.ListBranches(t.Context(), library.Host)
	if err != nil || len(all) != 2 || all[0].Code != "a" {
		t.Fatalf("%+v, %v", all, err)
	}
	today := int(noon.Unix() / 86400)
	want := library.BranchSettings{
		Branch: library.Branch{
			ID: main, Code: "branch-0", Name: "Branch", Timezone: "Pacific/Auckland", Announcement: library.Texts{},
			Hours: []library.OpenHours{{Weekday: time.Sunday, Opens: 22 * time.Hour, Closes: 2 * time.Hour}},
			Days: []library.DayHours{
				{Day: today + 1, Open: []library.OpenHours{
					{Opens: 9 * time.Hour, Closes: 12 * time.Hour}, {Opens: 13 * time.Hour, Closes: 24 * time.Hour},
				}},
				{Day: today + 2, Open: []library.OpenHours{}},
			},
		},
		Areas:     []library.Area{{Name: "Area", SeatCount: 3}, {Name: "Attic", Floor: "5", SeatCount: 1}},
		SeatCount: 4, OutOfServiceCount: 1,
	}
	if diff := cmp.Diff(want, all[1]); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct{ scope []int64 }{{[]int64{main}}, {[]int64{}}} {
		got, err := b.ListBranches(t.Context(), librarian(t, b, 0, c.scope))
		if err != nil || len(got) != len(c.scope) {
			t.Errorf("scope %v: %+v, %v", c.scope, got, err)
		}
	}
}

func TestSetAnnouncement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	text := library.Texts{"en": "Fire drill", "de": "Probealarm"}
	for range 2 {
		got, err := b.SetAnnouncement(t.Context(), hostOrder("SetAnnouncement"), "branch-0", text, at(60))
		if err != nil || got.Announcement["de"] != "Probealarm" || !got.AnnouncedUntil.Equal(at(60)) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if rows := audited(t, b); len(rows) != 1 {
		t.Errorf("audit log %v", rows)
	}
	for range 2 {
		got, err := b.SetAnnouncement(t.Context(), hostOrder("SetAnnouncement"), "branch-0", nil, at(60))
		if err != nil || len(got.Announcement) != 0 || !got.AnnouncedUntil.IsZero() {
			t.Errorf("removed: %+v, %v", got, err)
		}
	}
	if rows := audited(t, b); len(rows) != 1 {
		t.Errorf("audit log %v", rows)
	}
	_, err := b.SetAnnouncement(t.Context(), hostOrder("SetAnnouncement"), "none", nil, at(0))
	wantRefusal(t, err, library.BranchNotFound("none"))
	_, err = b.SetAnnouncement(t.Context(), library.Order{Actor: librarian(t, b, 0, []int64{})}, "branch-0", nil, at(0))
	wantRefusal(t, err, library.BranchRequired("branch-0"))
}

// TestRenameArea renames an area, and all rows that name it.
func TestRenameArea(t *testing.T) {
	t.Parallel()
	b := setup(t)
	branch := storetest.Value[int64](t, b.db, `SELECT id FROM branches`)
	b.db.Exec(t, `INSERT INTO closures (library_id, branch_id, area, during, on_bookings)
		VALUES (1, $1, 'Area', tstzrange($2, NULL), 'KEEP')`, branch, at(600))
	b.db.Exec(t, `INSERT INTO policies (library_id, branch_id, area, rules) VALUES (1, $1, 'Area', '{}')`, branch)
	b.db.Exec(t, `INSERT INTO effective_policies (library_id, branch_id, area, user_group, dates)
		VALUES (1, $1, 'Area', '', '(,)')`, branch)
	order := hostOrder("UpsertArea")
	got, err := b.UpsertArea(t.Context(), checkOnly(order), "branch-0", "Area", "Hall", "2")
	wantEqual(t, "checked", fmt.Sprint(got, err), "{Hall 2 5} <nil>")
	wantEqual(t, "areas", storetest.Rows[string](t, b.db, `SELECT DISTINCT area FROM seats`), []string{"Area"})
	for range 2 { // the second call finds the area under its new name
		got, err = b.UpsertArea(t.Context(), order, "branch-0", "Area", "Hall", "2")
		wantEqual(t, "renamed", fmt.Sprint(got, err), "{Hall 2 5} <nil>")
	}
	names := `SELECT DISTINCT area FROM seats UNION ALL SELECT area FROM closures UNION ALL SELECT area FROM policies
		UNION ALL SELECT area FROM effective_policies UNION ALL SELECT name FROM areas`
	wantEqual(t, "areas", storetest.Rows[string](t, b.db, names), []string{"Hall", "Hall", "Hall", "Hall", "Hall"})
	wantEqual(t, "audit log", audited(t, b), []string{
		`UpsertArea branch/branch-0 {"name": "Area", "floor": ""} {"name": "Hall", "floor": "2"}`,
	})
	got, err = b.UpsertArea(t.Context(), order, "branch-0", "Hall", "", "")
	wantEqual(t, "without a floor", fmt.Sprint(got, err), "{Hall  5} <nil>")
	for _, names := range [][2]string{{"Area", ""}, {"Area", "Area"}, {"Area", "None"}} {
		_, err = b.UpsertArea(t.Context(), order, "branch-0", names[0], names[1], "")
		wantErr(t, err, library.ErrAreaNotFound)
	}
}

// TestJoinAreas gives an area the name of another one. A closure of one of them must not close the
// seats of the other.
func TestJoinAreas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	branch := storetest.Value[int64](t, b.db, `SELECT id FROM branches`)
	b.db.Exec(t, `UPDATE seats SET area = 'Hall' WHERE id = ANY($1)`, b.seats[3:])
	for _, area := range []string{"Area", "Hall"} {
		b.db.Exec(t, `INSERT INTO closures (library_id, branch_id, area, during, on_bookings)
			VALUES (1, $1, $2, tstzrange($3, NULL), 'KEEP'), (1, $1, $2, tstzrange($4, $5), 'KEEP')`,
			branch, area, at(600), at(-60), at(-30))
		b.db.Exec(t, `INSERT INTO policies (library_id, branch_id, area, rules) VALUES (1, $1, $2, '{}')`, branch, area)
		b.db.Exec(t, `INSERT INTO sweeps (library_id, branch_id, cause, area, during)
			VALUES (1, $1, 'HOURS', $2, tstzrange($3, NULL))`, branch, area, at(0))
	}
	order := hostOrder("UpsertArea")
	_, err := b.UpsertArea(t.Context(), order, "branch-0", "Area", "Hall", "2")
	wantErr(t, err, library.Invalid())
	b.db.Exec(t, `DELETE FROM policies WHERE area = 'Hall'`)
	got, err := b.UpsertArea(t.Context(), order, "branch-0", "Area", "Hall", "2")
	wantEqual(t, "joined", fmt.Sprint(got, err), "{Hall 2 5} <nil>")
	closed := `SELECT COALESCE(area, '-') || ' ' || COALESCE(seat_ids::text, '-') FROM `
	first := strings.ReplaceAll(fmt.Sprint("{", b.seats[0], ",", b.seats[1], ",", b.seats[2], "}"), " ", "")
	second := strings.ReplaceAll(fmt.Sprint("{", b.seats[3], ",", b.seats[4], "}"), " ", "")
	wantEqual(t, "closures", storetest.Rows[string](t, b.db, closed+`closures ORDER BY id`),
		[]string{"- " + first, "Hall -", "- " + second, "Hall -"})
	wantEqual(t, "sweeps", storetest.Rows[string](t, b.db, closed+`sweeps ORDER BY id`),
		[]string{"- " + first, "- " + second})
	wantEqual(t, "policies", storetest.Rows[string](t, b.db, `SELECT area FROM policies`), []string{"Hall"})
}

func TestRetireSeats(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 30, 90)
	b.reserve(t, 1, 1, 24*60, 24*60+30)
	b.reserve(t, 2, 2, 30, 90)
	order := hostOrder("RetireSeats")
	ids := []int64{b.seats[1], b.seats[0], b.seats[0]}
	n, impact, err := b.RetireSeats(t.Context(), checkOnly(order), "branch-0", ids, 0, nil)
	if err != nil || n != 2 || impact.Reservations != 2 || len(impact.Days) != 2 || len(impact.First) != 2 {
		t.Fatalf("checked: %d, %+v, %v", n, impact, err)
	}
	_, _, err = b.RetireSeats(t.Context(), order, "branch-0", ids, 1, nil)
	wantErr(t, err, library.ErrChangedSinceCheck)
	for i := range 2 {
		n, _, err = b.RetireSeats(t.Context(), order, "branch-0", ids, 2, library.Texts{"en": "Renovation"})
		if err != nil || n != 2-2*i {
			t.Errorf("call %d: %d, %v", i, n, err)
		}
	}
	wantEqual(t, "sweeps", storetest.Rows[string](t, b.db,
		`SELECT concat_ws(' ', cause, cardinality(seat_ids), note) FROM sweeps`), []string{`SEATS 2 {"en": "Renovation"}`})
	wantEqual(t, "audit log", audited(t, b), []string{`RetireSeats branch/branch-0 {"retired": ["A-1", "A-2"]}`})
	_, err = b.Reserve(t.Context(), library.Booking{
		UserID: b.users[3], SeatID: b.seats[0], StartTime: at(120), EndTime: at(180)})
	wantErr(t, err, library.ErrSeatNotFound)
	for _, ids := range [][]int64{{99999}, {b.seats[2], 99999}} {
		_, _, err = b.RetireSeats(t.Context(), order, "branch-0", ids, 0, nil)
		wantErr(t, err, library.ErrSeatNotFound)
	}
	b.db.Exec(t, `INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'law', 'Law', 'UTC')`)
	_, _, err = b.RetireSeats(t.Context(), order, "law", []int64{b.seats[2]}, 0, nil)
	wantErr(t, err, library.ErrSeatNotFound)
}

func TestUpsertSeats(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 30, 90)
	x, y := 100, 200
	seats := []library.SeatSpec{
		{Label: "A-1", Area: "Area", OutOfService: true},
		{Label: "B-1", Area: "Hall", Amenities: []int16{2, 1, 2}, XCm: &x, YCm: &y, Desk: "D"},
		{Label: "A-2", Area: "Area"},
	}
	order := hostOrder("UpsertSeats")
	cancel := library.Disruption{OnBookings: library.CancelBookings}
	plan, err := b.UpsertSeats(t.Context(), checkOnly(order), "branch-0", seats, cancel)
	want := []library.SeatChange{
		{Branch: "branch-0", Label: "A-1", SeatID: b.seats[0], Action: library.UpdateSeat, Fields: []library.FieldChange{
			{Field: library.SeatOutOfService, From: "false", To: "true"},
		}},
		{Branch: "branch-0", Label: "B-1", Action: library.CreateSeat},
		{Branch: "branch-0", Label: "A-2", SeatID: b.seats[1], Action: library.SameSeat},
	}
	if diff := cmp.Diff(want, plan.Changes); err != nil || diff != "" || plan.Impact.Reservations != 1 {
		t.Fatalf("checked: %v, %+v\n%s", err, plan.Impact, diff)
	}
	wantEqual(t, "seats", storetest.Value[int](t, b.db, `SELECT count(*)::int FROM seats WHERE NOT out_of_service`), 5)
	_, err = b.UpsertSeats(t.Context(), order, "branch-0", seats, cancel)
	wantErr(t, err, library.ErrChangedSinceCheck)
	wantEqual(t, "seats", storetest.Value[int](t, b.db, `SELECT count(*)::int FROM seats WHERE NOT out_of_service`), 5)
	cancel.Expected = 1
	plan, err = b.UpsertSeats(t.Context(), order, "branch-0", seats, cancel)
	if err != nil || plan.Changes[1].SeatID == 0 {
		t.Fatalf("%+v, %v", plan, err)
	}
	wantEqual(t, "the new seat", storetest.Value[string](t, b.db,
		`SELECT concat_ws(' ', area, amenities, x_cm, y_cm, angle, desk) FROM seats WHERE label = 'B-1'`),
		"Hall {1,2} 100 200 D")
	wantEqual(t, "sweeps", storetest.Value[int](t, b.db, `SELECT count(*)::int FROM sweeps`), 1)
	_, err = b.Reserve(t.Context(), library.Booking{
		UserID: b.users[3], SeatID: b.seats[0], StartTime: at(120), EndTime: at(180)})
	wantErr(t, err, library.ErrSeatOutOfService)
	rows := audited(t, b)
	if len(rows) != 1 || !strings.Contains(rows[0], `"A-1": {"out_of_service": "true"}`) {
		t.Errorf("audit log %v", rows)
	}
	plan, err = b.UpsertSeats(t.Context(), order, "branch-0", seats, cancel)
	if err != nil || plan.Count(library.SameSeat) != 3 {
		t.Errorf("repeated: %+v, %v", plan, err)
	}
	if rows := audited(t, b); len(rows) != 0 {
		t.Errorf("audit log of a repeated call %v", rows)
	}
	// A retired seat returns.
	b.db.Exec(t, `UPDATE seats SET retired_at = now(), out_of_service = true WHERE id = $1`, b.seats[1])
	plan, err = b.UpsertSeats(t.Context(), order, "branch-0", seats[2:], library.Disruption{})
	if err != nil || plan.Changes[0].Action != library.UpdateSeat || len(plan.Changes[0].Fields) != 2 {
		t.Errorf("returned: %+v, %v", plan, err)
	}
	b.reserve(t, 1, 1, 30, 90)
}

// TestSeatMovesIntoClosedArea moves seats into an area that has closures, after their sweeps have
// ended. The reservations that no longer fit are ended, and their users are told.
func TestSeatMovesIntoClosedArea(t *testing.T) {
	t.Parallel()
	b := setup(t)
	write := func(seats ...library.SeatSpec) {
		t.Helper()
		_, err := b.UpsertSeats(t.Context(), hostOrder("UpsertSeats"), "branch-0", seats, library.Disruption{})
		if err != nil {
			t.Fatal(err)
		}
	}
	write(library.SeatSpec{Label: "T-1", Area: "Attic"}, library.SeatSpec{Label: "C-1", Area: "Cellar"})
	b.closeBranch(t, 60, 120, 0, func(s *library.ClosureSpec) { s.Area = "Attic" })
	b.closeBranch(t, 180, 240, 0, func(s *library.ClosureSpec) { s.Area, s.OnBookings = "Attic", library.KeepBookings })
	b.closeBranch(t, 0, 30, 0, func(s *library.ClosureSpec) { s.Area = "Cellar" })
	b.sweep(t)
	b.reserve(t, 0, 0, 90, 150)
	b.reserve(t, 1, 0, 180, 210) // inside of a closure that keeps reservations
	b.reserve(t, 2, 1, 90, 150)  // at a seat that does not move
	write(library.SeatSpec{Label: "A-1", Area: "Attic"}, library.SeatSpec{Label: "A-2", Area: "Area", Desk: "new"})
	wantEqual(t, "ended", b.sweep(t), 1)
	wantEqual(t, "statuses", storetest.Rows[string](t, b.db, `SELECT status FROM reservations ORDER BY id`),
		[]string{"CANCELLED", "CONFIRMED", "CONFIRMED"})
	if told := b.told(t, 0); len(told) != 1 || !strings.Contains(told[0], "A pipe has burst.") {
		t.Errorf("told %q", told)
	}
	storetest.CheckInvariants(t, b.db)
}

// TestBookingRacesRetirement has users book seats while the seats are retired with the number that a
// check has shown. Each booking that succeeds is counted, or the retirement fails.
func TestBookingRacesRetirement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for round := range 10 {
		seat := b.db.Seats(t, 1)[0]
		branch := storetest.Value[string](t, b.db,
			`SELECT code FROM branches b JOIN seats s ON s.branch_id = b.id WHERE s.id = $1`, seat)
		var calls sync.WaitGroup
		var booked, retired error
		calls.Go(func() {
			_, booked = b.Reserve(t.Context(), library.Booking{UserID: b.users[0], SeatID: seat,
				StartTime: at(round * 60), EndTime: at(round*60 + 60)})
		})
		calls.Go(func() {
			_, _, retired = b.RetireSeats(t.Context(), hostOrder("RetireSeats"), branch, []int64{seat}, 0, nil)
		})
		calls.Wait()
		switch {
		case booked == nil && errors.Is(retired, library.ErrChangedSinceCheck):
		case errors.Is(booked, library.ErrSeatNotFound) && retired == nil:
		default:
			t.Errorf("round %d: the booking ends with %v, the retirement with %v", round, booked, retired)
		}
	}
}

// TestPlainNames compares the check of names in Go with the one of the database.
func TestPlainNames(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.StringOfN(rapid.OneOf(rapid.Rune(), rapid.RuneFrom(
			[]rune(" \u00a0\u3000a\u0001\u001f\u007f\u009f\u00a1\u200a\u200b\u200c\u200e\u200f\u2027\u2028\u202e\u202f\u2065\u2066\u2069\u206a\ufeff\t\n"))),
			0, 6, -1).Draw(r, "name")
		if strings.ContainsRune(name, 0) { // Postgres has no such text
			return
		}
		want := storetest.Value[bool](t, b.db, `SELECT dlsms_plain($1, 4)`, name)
		if got := library.PlainFault(name, 4); (got == "") != want {
			r.Fatalf("%q: %q, and the database says %t", name, got, want)
		}
	})
}
