package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// daily returns the same hours for each day of the week.
func daily(opens, closes time.Duration) (hours []library.OpenHours) {
	for day := range 7 {
		hours = append(hours, library.OpenHours{Weekday: time.Weekday(day), Opens: opens, Closes: closes})
	}
	return hours
}

// dayOf returns the number of days from 1970 to a time.
func dayOf(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

// TestSetWeeklyHours shortens the hours of a branch. Noon is 13:00 in Berlin.
func TestSetWeeklyHours(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `UPDATE branches SET timezone = 'Europe/Berlin'`)
	kept, lost := b.reserve(t, 0, 0, 60, 120), b.reserve(t, 1, 1, 240, 360)
	here := b.reserve(t, 2, 2, 0, 360)
	mustDo(t, b.checkIn, b.users[2], here.ID)
	b.reserve(t, 4, 3, 240, 360)
	entry := b.join(t, 3, 3, 240, 360)
	hours := daily(8*time.Hour, 18*time.Hour) // 300 minutes after noon
	set := func(hours []library.OpenHours, d library.Disruption, validate bool) (library.Impact, error) {
		o := order("SetWeeklyHours")
		o.ValidateOnly = validate
		after, impact, err := b.SetWeeklyHours(t.Context(), o, "branch-0", hours, d)
		if err == nil && len(hours) > 0 {
			wantEqual(t, "hours", after, hours)
		}
		return impact, err
	}
	impact, err := set(hours, cancelling(0), true)
	if err != nil || impact.Reservations != 3 || impact.CheckedIn != 1 || impact.Entries != 1 {
		t.Fatalf("%+v, %v", impact, err)
	}
	_, err = set(hours, cancelling(2), false)
	wantErr(t, err, library.ErrChangedSinceCheck)
	wantEqual(t, "rows of hours", storetest.Value[int](t, b.db, `SELECT count(*) FROM branch_hours`), 0)
	for range 2 { // the second call changes nothing
		if _, err := set(hours, cancelling(3), false); err != nil {
			t.Fatal(err)
		}
	}
	wantEqual(t, "sweeps", storetest.Value[int](t, b.db, `SELECT count(*) FROM sweeps`), 1)
	wantEqual(t, "ended", b.sweep(t), 3)
	if _, err := set(hours, cancelling(3), false); err != nil { // repeated after the sweep
		t.Fatal(err)
	}
	wantEqual(t, "audit log", b.audit(t), []string{"SetWeeklyHours hours/branch-0"})
	wantEqual(t, "kept", mustRead(t, b, 0, kept.ID).Status, library.Confirmed)
	wantEqual(t, "lost", mustRead(t, b, 1, lost.ID).Status, library.Cancelled)
	wantEqual(t, "told", b.told(t, 1), []string{"CANCELLED by library: A pipe has burst."})
	short := mustRead(t, b, 2, here.ID)
	wantEqual(t, "at the seat", short.Status, library.CheckedIn)
	wantEqual(t, "until the branch closes", short.EndTime.UTC(), at(300))
	wantEqual(t, "told", b.told(t, 2), []string{"SHORTENED by library: A pipe has burst."})
	wantEqual(t, "entry", b.entry(t, 3, entry.ID).Status, library.EntryWaiting)

	if _, err := set(nil, library.Disruption{OnBookings: library.KeepBookings}, false); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "rows of the audit log", len(b.audit(t)), 2)
	b.reserve(t, 1, 1, 480, 500) // always open again
	wantDone(t, 1, b.OfferFreeSeats)
	storetest.CheckInvariants(t, b.db)
}

// TestSetDays closes a date, opens it for a part of the day, and removes the exception. Noon is 13:00
// in Berlin.
func TestSetDays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	today := dayOf(noon)
	lost, kept := b.reserve(t, 0, 0, 24*60, 25*60), b.reserve(t, 1, 1, 48*60, 49*60)
	set := func(
		dates []int64, open []library.OpenHours, remove bool, d library.Disruption,
	) ([]library.DayHours, library.Impact) {
		t.Helper()
		days, impact, err := b.SetDays(t.Context(), order("SetDays"), "branch-0", dates, open, remove, d)
		if err != nil {
			t.Fatal(err)
		}
		return days, impact
	}
	_, _, err := b.SetDays(t.Context(), order("SetDays"), "branch-0", []int64{today + 1}, nil, false, cancelling(0))
	wantErr(t, err, library.ErrChangedSinceCheck)
	for range 2 {
		days, impact := set([]int64{today + 1}, nil, false, cancelling(1))
		wantEqual(t, "days", days, []library.DayHours{{Day: int(today) + 1}})
		wantEqual(t, "impact", impact.Reservations, 1)
	}
	wantEqual(t, "ended", b.sweep(t), 1)
	wantEqual(t, "lost", mustRead(t, b, 0, lost.ID).Status, library.Cancelled)
	wantEqual(t, "kept", mustRead(t, b, 1, kept.ID).Status, library.Confirmed)
	_, err = b.Reserve(t.Context(), library.Booking{
		UserID: b.users[2], SeatID: b.seats[2], StartTime: at(24 * 60), EndTime: at(25 * 60),
	})
	wantErr(t, err, library.ErrBranchClosed)

	// Several spans, one of them past midnight, on two dates.
	open := []library.OpenHours{
		{Opens: 8 * time.Hour, Closes: 12 * time.Hour}, {Opens: 20 * time.Hour, Closes: 2 * time.Hour},
	}
	days, impact := set([]int64{today + 1, today + 2}, open, false, library.Disruption{OnBookings: library.KeepBookings})
	wantEqual(t, "days", days, []library.DayHours{{Day: int(today) + 1, Open: open}, {Day: int(today) + 2, Open: open}})
	wantEqual(t, "kept reservations outside the hours", impact.Reservations, 1)
	b.reserve(t, 2, 2, 32*60, 36*60+30) // 21:00 to 1:30
	_, err = b.Reserve(t.Context(), library.Booking{
		UserID: b.users[3], SeatID: b.seats[3], StartTime: at(36 * 60), EndTime: at(37*60 + 1),
	})
	wantErr(t, err, library.ErrBranchClosed) // closed from 2:00 on

	days, _ = set([]int64{today + 1, today + 2}, nil, true, library.Disruption{OnBookings: library.KeepBookings})
	wantEqual(t, "days", days, []library.DayHours(nil))
	set([]int64{today + 2}, nil, true, library.Disruption{OnBookings: library.KeepBookings})
	b.reserve(t, 3, 3, 36*60, 37*60)
	wantEqual(t, "rows of the audit log", len(b.audit(t)), 3)
	storetest.CheckInvariants(t, b.db)
}

// TestDatesInThePast checks that the hours of a date, the end of an announcement and the last day of
// a policy are refused if they have passed, because the year is then probably wrong. A removal is not
// refused.
func TestDatesInThePast(t *testing.T) {
	t.Parallel()
	b := setup(t)
	invalid := library.Invalid(library.FieldViolation{})
	setDays := func(remove bool, days ...int64) error {
		_, _, err := b.SetDays(t.Context(), order("SetDays"), "branch-0", days, nil, remove, cancelling(0))
		return err
	}
	announce := func(until time.Time) error {
		_, err := b.SetAnnouncement(t.Context(), order("SetAnnouncement"), "branch-0", library.Texts{"en": "x"}, until)
		return err
	}
	mayBook := false
	policy := func(last time.Time, rules library.Rules) error {
		_, err := b.SetPolicy(t.Context(), order("SetPolicy"), library.ScopedRules{
			PolicyScope: library.PolicyScope{Branch: "branch-0", LastDay: last}, Rules: rules,
		})
		return err
	}
	today := noon.Truncate(24 * time.Hour)
	for name, call := range map[string]func() error{
		"two days ago":             func() error { return setDays(false, dayOf(noon)-3, dayOf(noon)-2) },
		"an announcement":          func() error { return announce(at(0)) },
		"the last day of a policy": func() error { return policy(today.AddDate(0, 0, -2), library.Rules{MayBook: &mayBook}) },
	} {
		before := b.everything(t)
		if err := call(); !errors.Is(err, invalid) {
			t.Errorf("%s: %v", name, err)
		}
		wantEqual(t, name+": rows", b.everything(t), before)
	}
	for name, call := range map[string]func() error{
		"two days ago, removed":        func() error { return setDays(true, dayOf(noon)-2) },
		"hours that end today":         func() error { return setDays(false, dayOf(noon)-1) },
		"an announcement":              func() error { return announce(at(1)) },
		"a policy that lasts to today": func() error { return policy(today, library.Rules{MayBook: &mayBook}) },
		"a policy that is removed":     func() error { return policy(today.AddDate(0, 0, -2), library.Rules{}) },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSetDaysLimitsImpactToItsDates has a reservation that an earlier change of the hours has kept
// outside them. A change of another date does not count it.
func TestSetDaysLimitsImpactToItsDates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 24*60, 25*60)
	keep := library.Disruption{OnBookings: library.KeepBookings}
	today := dayOf(noon)
	for day, want := range map[int64]int{today + 1: 1, today + 5: 0} {
		_, impact, err := b.SetDays(t.Context(), order("SetDays"), "branch-0", []int64{day}, nil, false, keep)
		if err != nil || impact.Reservations != want {
			t.Errorf("day %d: %+v, %v", day-today, impact, err)
		}
	}
}
