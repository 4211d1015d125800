package store_test

import (
	or "cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// check checks a reservation of a user at a seat. from and to are minutes after noon.
func (b bundle) check(t *testing.T, user, seat, from, to int) library.Check {
	t.Helper()
	found, err := b.CheckReservation(t.Context(), library.Booking{
		UserID: b.users[user], SeatID: b.seats[seat], StartTime: at(from), EndTime: at(to),
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func reasons(broken []*library.Error) (list []string) {
	for _, err := range broken {
		list = append(list, err.Reason)
	}
	return list
}

// drawWorld makes a random state of the library around the time now.
func drawWorld(t *testing.T, rt *rapid.T, b bundle, p places, now time.Time) {
	t.Helper()
	for _, sql := range []string{
		`DELETE FROM reservation_events`, `DELETE FROM reservations`, `DELETE FROM policies`,
		`DELETE FROM effective_policies`, `DELETE FROM branch_hours`, `DELETE FROM branch_days`, `DELETE FROM closures`,
		`UPDATE seats SET out_of_service = false`, `UPDATE users SET suspended_until = NULL, user_group = ''`,
	} {
		b.db.Exec(t, sql)
	}
	maybe := func(oneIn int, sql string, args ...any) {
		if rapid.IntRange(1, oneIn).Draw(rt, sql) == oneIn {
			b.db.Exec(t, sql, args...)
		}
	}
	maybe(2, `UPDATE users SET user_group = 'phd' WHERE id = $1`, b.users[0])
	maybe(5, `UPDATE users SET suspended_until = $2 WHERE id = $1`, b.users[0], now.Add(time.Hour))
	maybe(5, `UPDATE seats SET out_of_service = true WHERE id = $1`, b.seats[0])
	maybe(3, `INSERT INTO branch_hours SELECT 1, id, d, '8:00', '22:00' FROM branches, generate_series(1, 7) d`)
	maybe(5, `INSERT INTO branch_days SELECT 1, id, $1::timestamptz::date + 1, NULL, NULL FROM branches`, now)
	maybe(4, `INSERT INTO closures (library_id, branch_id, area, during, on_bookings)
		SELECT 1, branch_id, area, tstzrange($1, $2), 'KEEP' FROM seats WHERE id = $3`,
		now.Add(26*time.Hour), now.Add(30*time.Hour), b.seats[0])
	for range rapid.IntRange(0, 6).Draw(rt, "reservations") {
		quarters := rapid.SampledFrom([]int{-20, 0, 4, 8, 20, 40, 80, 96, 100, 104, 108, 112, 120, 160, 200}).Draw(rt, "from")
		start := now.Add(time.Duration(quarters) * 15 * time.Minute)
		status := rapid.SampledFrom([]string{"CONFIRMED", "CANCELLED", "NO_SHOW"}).Draw(rt, "status")
		b.db.Exec(t, `INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at,
				check_in_deadline, created_at, ended_at)
			SELECT 1, $1, $2, tstzrange($3, $4), $5, $3, $4, $3, CASE WHEN $5 <> 'CONFIRMED' THEN $4::timestamptz END
			ON CONFLICT DO NOTHING`,
			rapid.SampledFrom(b.seats).Draw(rt, "taken seat"), rapid.SampledFrom(b.users[:2]).Draw(rt, "by"),
			start, start.Add(time.Duration(rapid.SampledFrom([]int{4, 1, 8, 12}).Draw(rt, "length"))*15*time.Minute), status)
	}
	for range rapid.IntRange(0, 4).Draw(rt, "policies") {
		b.setPolicyOf(t, p.drawScope(rt), drawRules(rt))
	}
}

// TestCheckAgreesWithReserve checks and makes random bookings in random worlds. Check finds nothing
// exactly when Reserve succeeds. Otherwise the first broken rule is the error of Reserve, with the
// same numbers. Every alternative can be reserved. The worlds are around both days of 2026 on which
// the clocks change, and around another day.
func TestCheckAgreesWithReserve(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `UPDATE seats SET area = 'Quiet' WHERE id = $1`, b.seats[4])
	branch := storetest.Value[int64](t, b.db, `SELECT id FROM branches`)
	found := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		now := rapid.SampledFrom([]time.Time{
			noon, noon.AddDate(0, 0, 26), time.Date(2026, 10, 24, 10, 7, 0, 0, time.UTC),
		}).Draw(rt, "now")
		b.db.FreezeClock(t, now)
		drawWorld(t, rt, b, places{
			branches: []library.PolicyScope{{BranchID: branch, Branch: "branch-0"}}, areas: []string{"Area", "Quiet"},
			groups: []string{"phd"}, days: []string{now.AddDate(0, 0, 1).Format(time.DateOnly), now.Format(time.DateOnly)},
		}, now)
		booking := library.Booking{UserID: b.users[0], SeatID: rapid.SampledFrom(b.seats[:2]).Draw(rt, "seat")}
		start := now
		if rapid.IntRange(0, 4).Draw(rt, "now?") > 0 {
			quarters := rapid.SampledFrom([]int{96, 104, 110, 1, 4, 8, 12, 20, 24, 40, 80, 130, 200, 0, -1}).Draw(rt, "start")
			start = now.Truncate(time.Hour).Add(time.Duration(quarters) * 15 * time.Minute)
			booking.StartTime = start
		}
		quarters := rapid.SampledFrom([]int{4, 8, 2, 1, 6, 12, 24, 40, 50, -1}).Draw(rt, "length")
		booking.EndTime = start.Add(time.Duration(quarters) * 15 * time.Minute)

		check, checkErr := b.CheckReservation(t.Context(), booking)
		would, validErr := b.ValidateReservation(t.Context(), booking)
		for _, a := range check.Alternatives {
			other := library.Booking{UserID: b.users[0], SeatID: a.SeatID, StartTime: a.StartTime, EndTime: a.EndTime}
			if booking.StartTime.IsZero() && a.SeatID != booking.SeatID {
				other.StartTime = time.Time{}
			}
			if _, err := b.ValidateReservation(t.Context(), other); err != nil {
				rt.Fatalf("alternative %+v: %v", a, err)
			}
		}
		made, err := b.Reserve(t.Context(), booking)
		if fmt.Sprint(err) != fmt.Sprint(validErr) {
			rt.Fatalf("Reserve: %v; ValidateReservation: %v", err, validErr)
		}
		if err == nil {
			found["success"]++
			made.ID = 0
			if diff := cmp.Diff(made, would, sameTimes); diff != "" || checkErr != nil || len(check.Broken) > 0 {
				rt.Fatalf("check: %v, %v; reservation (-made +validated):\n%s", check.Broken, checkErr, diff)
			}
			return
		}
		refused, ok := errors.AsType[*library.Error](err)
		if !ok {
			rt.Fatal(err)
		}
		found[refused.Reason]++
		if errors.Is(err, library.Invalid()) {
			if !errors.Is(checkErr, library.Invalid()) {
				rt.Fatalf("check: %v, %v; Reserve: %v", check.Broken, checkErr, err)
			}
			return
		}
		if checkErr != nil || len(check.Broken) == 0 {
			rt.Fatalf("check: %v, %v; Reserve: %v", check.Broken, checkErr, err)
		}
		first := check.Broken[0]
		if diff := cmp.Diff(refused.Metadata, first.Metadata); first.Reason != refused.Reason || diff != "" {
			rt.Fatalf("check: %v; Reserve: %v %s", check.Broken, err, diff)
		}
		if refused.Reason == "WINDOW_NOT_ALLOWED" {
			windows := slices.DeleteFunc(reasons(check.Broken), func(r string) bool { return r != refused.Reason })
			if len(refused.Fields) == 0 || len(refused.Fields) != len(windows) {
				rt.Fatalf("fields %v, broken %v", refused.Fields, check.Broken)
			}
		}
	})
	t.Log(found)
}

// TestCheckFindsEveryRule breaks most rules at once.
func TestCheckFindsEveryRule(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 1, 0, 0, 60)
	b.reserve(t, 0, 1, 30, 90)
	b.setPolicy(t, library.Rules{
		MayBook: ptr(false), MaxDuration: lasting(30 * time.Minute), Step: lasting(time.Hour), MaxAhead: lasting(time.Minute),
		MaxUpcoming: ptr(1), MaxMinutesPerDay: ptr(90), MaxMinutesPerWeek: ptr(91), MaxReservationsPerDay: ptr(1),
		MaxReservationsPerWeek: ptr(1),
	})
	b.db.Exec(t, `UPDATE seats SET out_of_service = true`)
	b.db.Exec(t, `UPDATE users SET suspended_until = $1`, at(600))
	b.db.Exec(t, `INSERT INTO branch_days SELECT 1, id, '2026-03-02', NULL, NULL FROM branches`)
	closure := storetest.Value[int64](t, b.db, `INSERT INTO closures (library_id, branch_id, during, on_bookings)
		SELECT 1, id, tstzrange($1, NULL), 'KEEP' FROM branches RETURNING id`, at(20))
	found := b.check(t, 0, 0, 10, 70)
	window := map[string]string{
		"min_reservation": "900", "max_reservation": "1800", "max_ahead": "60", "step": "3600",
		"now": "2026-03-02T12:00:00Z",
	}
	quota := func(rule, limit, used string) library.Error {
		numbers := map[string]string{"rule": rule, "limit": limit, "used": used}
		return library.Error{Reason: "QUOTA_EXHAUSTED", Metadata: numbers}
	}
	seat := map[string]string{"seat_id": fmt.Sprint(b.seats[0])}
	want := []library.Error{
		{Reason: "WINDOW_NOT_ALLOWED", Metadata: window, Message: "start_time: it is more than 1m0s ahead"},
		{Reason: "WINDOW_NOT_ALLOWED", Metadata: window,
			Message: "start_time: it must be a multiple of 1h0m0s after midnight"},
		{Reason: "WINDOW_NOT_ALLOWED", Metadata: window, Message: "end_time: the window must be at most 30m0s long"},
		{Reason: "WINDOW_NOT_ALLOWED", Metadata: window, Message: "end_time: it must be a multiple of 1h0m0s after midnight"},
		{Reason: "SUSPENDED", Metadata: map[string]string{"suspended_until": "2026-03-02T22:00:00Z"}},
		{Reason: "BOOKING_NOT_ALLOWED"},
		{Reason: "SEAT_OUT_OF_SERVICE", Metadata: seat},
		{Reason: "BRANCH_CLOSED"},
		{Reason: "SEAT_CLOSED", Metadata: map[string]string{
			"closure_id": fmt.Sprint(closure), "closed_from": "2026-03-02T12:20:00Z",
		}},
		{Reason: "SEAT_TAKEN", Metadata: seat},
		{Reason: "USER_BUSY"},
		{Reason: "TOO_MANY_RESERVATIONS", Metadata: map[string]string{"limit": "1"}},
		quota("max_minutes_per_day", "90", "60"), quota("max_minutes_per_week", "91", "60"),
		quota("max_reservations_per_day", "1", "1"), quota("max_reservations_per_week", "1", "1"),
	}
	var got []library.Error
	for _, err := range found.Broken {
		one := library.Error{Reason: err.Reason, Metadata: err.Metadata}
		if err.Reason == "WINDOW_NOT_ALLOWED" {
			one.Message = err.Message
		}
		got = append(got, one)
	}
	if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool {
		return p.Last().String() == ".cause"
	}, cmp.Ignore())); diff != "" {
		t.Errorf("broken (-want +got):\n%s", diff)
	}
	if len(found.Alternatives) > 0 {
		t.Errorf("alternatives: %+v", found.Alternatives)
	}
}

func TestCheckRefusesFaultyRequests(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, tc := range map[string]struct {
		booking library.Booking
		want    error
	}{
		"an unknown seat":       {library.Booking{SeatID: 1 << 40, EndTime: at(60)}, library.ErrSeatNotFound},
		"an end in the past":    {library.Booking{EndTime: at(-60)}, library.Invalid()},
		"an unknown user":       {library.Booking{UserID: 1 << 40, EndTime: at(60)}, library.ErrTokenInvalid},
		"a reversed window":     {library.Booking{StartTime: at(60), EndTime: at(0)}, library.Invalid()},
		"a window of a century": {library.Booking{EndTime: at(0).AddDate(100, 0, 0)}, nil},
	} {
		tc.booking.UserID = or.Or(tc.booking.UserID, b.users[0])
		tc.booking.SeatID = or.Or(tc.booking.SeatID, b.seats[0])
		if _, err := b.CheckReservation(t.Context(), tc.booking); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// TestCheckSuggestsAlternatives has a taken seat. The nearest other times come first, within the
// opening hours and when the user is free, and then other seats: those of the same area that share
// most amenities, and no seat that is taken, closed, out of service, retired, or not for the user.
func TestCheckSuggestsAlternatives(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, d, '13:00', '20:00' FROM branches, generate_series(1, 7) d`)
	more := storetest.Rows[int64](t, b.db, `
		INSERT INTO seats (library_id, branch_id, area, label, amenities)
		SELECT 1, b.id, area, label, amenities::smallint[] FROM branches b, (VALUES
			('Other', 'O-1', '{1,2}'), ('Area', 'B-1', '{1}'), ('Area', 'B-2', '{1,2}'), ('No', 'N-1', '{1,2}'))
			x (area, label, amenities) RETURNING id`)
	other, one, both := more[0], more[1], more[2]
	b.db.Exec(t, `UPDATE seats SET amenities = '{1,2}' WHERE id = ANY ($1)`, b.seats)
	b.db.Exec(t, `UPDATE seats SET out_of_service = true, retired_at = now() WHERE id = $1`, b.seats[1])
	b.db.Exec(t, `UPDATE seats SET out_of_service = true WHERE id = $1`, b.seats[2])
	b.db.Exec(t, `INSERT INTO closures (library_id, branch_id, seat_ids, during, on_bookings)
		SELECT 1, id, ARRAY[$1::bigint], tstzrange($2, NULL), 'KEEP' FROM branches`, b.seats[3], at(0))
	b.setPolicyOf(t, library.PolicyScope{Branch: "branch-0", Area: "No"}, library.Rules{MayBook: ptr(false)})
	b.reserve(t, 1, 0, 60, 180)
	b.reserve(t, 2, 4, 60, 180)
	b.reserve(t, 0, 4, 240, 270) // the user is busy from 16:00 UTC
	found := b.check(t, 0, 0, 120, 180)
	wantEqual(t, "reasons", reasons(found.Broken), []string{"SEAT_TAKEN"})
	ref := func(id int64, area, label string) library.SeatRef {
		return library.SeatRef{SeatID: id, Branch: "branch-0", Area: area, Label: label}
	}
	mine := ref(b.seats[0], "Area", "A-1")
	wantEqual(t, "alternatives", found.Alternatives, []library.Alternative{
		{SeatRef: mine, StartTime: at(180), EndTime: at(240)},
		{SeatRef: mine, StartTime: at(0), EndTime: at(60)},
		{SeatRef: mine, StartTime: at(270), EndTime: at(330)},
		{SeatRef: ref(both, "Area", "B-2"), StartTime: at(120), EndTime: at(180)},
		{SeatRef: ref(one, "Area", "B-1"), StartTime: at(120), EndTime: at(180)},
	})
	b.db.Exec(t, `UPDATE seats SET out_of_service = true WHERE id = $1`, one)
	if last := b.check(t, 0, 0, 120, 180).Alternatives[4]; last.SeatID != other {
		t.Errorf("the last alternative is %+v, want seat %d in the other area", last, other)
	}
	b.setPolicy(t, library.Rules{Step: lasting(time.Hour)})
	if third := b.check(t, 0, 0, 120, 180).Alternatives[2]; !third.StartTime.Equal(at(300)) {
		t.Errorf("with a step of one hour, the third alternative is %+v", third)
	}
	if found := b.check(t, 0, 0, 0, 60); len(found.Broken)+len(found.Alternatives) > 0 {
		t.Errorf("a free window: %+v", found)
	}
}

func TestValidateChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	mine := b.reserve(t, 0, 0, 0, 60)
	b.reserve(t, 1, 0, 120, 180)
	before := b.everything(t)
	booking := library.Booking{UserID: b.users[2], SeatID: b.seats[1], StartTime: at(0), EndTime: at(60)}
	r, err := b.ValidateReservation(t.Context(), booking)
	if err != nil || r.ID != 0 || !r.CheckInDeadline.Equal(at(15)) || r.Label != "A-2" {
		t.Errorf("reservation: %+v, %v", r, err)
	}
	r, err = b.ValidateExtension(t.Context(), b.users[0], mine.ID, at(120))
	if err != nil || !r.EndTime.Equal(at(120)) {
		t.Errorf("extension: %+v, %v", r, err)
	}
	_, err = b.ValidateExtension(t.Context(), b.users[0], mine.ID, at(121))
	wantErr(t, err, library.ErrSeatTaken)
	booking.SeatID = b.seats[0]
	e, err := b.ValidateJoin(t.Context(), booking)
	if err != nil || e.ID != 0 || e.Position != 1 || e.Status != library.EntryWaiting {
		t.Errorf("entry: %+v, %v", e, err)
	}
	_, err = b.ValidateReservation(t.Context(), booking)
	wantErr(t, err, library.ErrSeatTaken)
	booking.StartTime, booking.EndTime = at(60), at(120)
	_, err = b.ValidateJoin(t.Context(), booking)
	wantErr(t, err, library.ErrSeatAvailable)
	wantEqual(t, "validated and changed", b.everything(t), before)
}

func TestValidateRepeatedReservationReturnsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	booking := library.Booking{
		UserID: b.users[0], SeatID: b.seats[0], StartTime: at(0), EndTime: at(60), RequestID: "once",
	}
	first, err := b.Reserve(t.Context(), booking)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.ValidateReservation(t.Context(), booking)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "validated", again, first)
	booking.EndTime = at(90)
	_, err = b.ValidateReservation(t.Context(), booking)
	wantErr(t, err, library.ErrRequestIDReused)
}
