package store_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// countAll counts all hours that can be counted.
func countAll(t *testing.T, s *store.Store, hours int) {
	t.Helper()
	for {
		done, err := s.CountUsage(t.Context(), hours)
		if err != nil {
			t.Fatal(err)
		}
		if !done.More {
			return
		}
	}
}

var allUsage = []library.UsageBy{
	library.UsageByHour, library.UsageByDay, library.UsageByWeekdayHour, library.UsageByArea, library.UsageByGroup,
}

// wantUsage compares reports with the brute-force count.
func (p *usagePlace) wantUsage(t *testing.T, s *store.Store, q library.UsageQuery, now time.Time) {
	t.Helper()
	got, err := s.Usage(t.Context(), library.Host, q)
	if err != nil {
		t.Fatal(err)
	}
	if !got.CountedUntil.Equal(now) {
		t.Errorf("counted until %v, want %v", got.CountedUntil, now)
	}
	want := p.bruteForce(q, now)
	if len(want) == 0 || len(got.Rows) != len(want) {
		t.Fatalf("%v: %d rows, want %d", q, len(got.Rows), len(want))
	}
	for i := range want {
		if a, b := usageText(got.Rows[i]), usageText(want[i]); a != b {
			t.Fatalf("%v: row %d is\n%s\nwant\n%s", q, i, a, b)
		}
	}
}

func usageText(r library.UsageRow) string {
	median := "none"
	if r.MedianWait != nil {
		median = r.MedianWait.String()
	}
	f := r.UsageFigures
	f.MedianWait = nil
	return fmt.Sprintf("%+v %+v median %s", r.UsageKey, f, median)
}

// TestUsageEqualsBruteForce counts a month with each change of the clocks. It is still the last day of
// the month: the report has final hours, hours that are counted from events, and hours to come.
func TestUsageEqualsBruteForce(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]time.Time{
		"spring": time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
		"autumn": time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newUsagePlace(t, 7)
			end := begin.AddDate(0, 1, 0)
			p.close(t, usageClosure{
				p.seats[0].branch, "Quiet", begin.Add(50 * time.Hour), begin.Add(53*time.Hour + 20*time.Minute),
			})
			p.close(t, usageClosure{p.seats[0].branch, "", begin.Add(52 * time.Hour), begin.Add(60 * time.Hour)})
			p.month(begin, end)
			now := end.AddDate(0, 0, -1).Add(10*time.Hour + 37*time.Minute)
			p.db.FreezeClock(t, now)
			p.write(t, now)
			s := p.db.Open(t, library.DefaultPolicy())
			countAll(t, s, 17) // hours in a transaction
			for _, by := range allUsage {
				for _, q := range []library.UsageQuery{
					{FirstDay: begin.AddDate(0, 0, 3), LastDay: end},
					{FirstDay: begin, LastDay: end, Branch: "b0"},
					{FirstDay: begin.AddDate(0, 0, 1), LastDay: begin.AddDate(0, 0, 5), Area: "Quiet"},
					{FirstDay: end.AddDate(0, 0, -8), LastDay: end.AddDate(0, 0, -3)}, // the change of the clocks
				} {
					q.By = by
					p.wantUsage(t, s, q, now)
				}
			}
		})
	}
}

// TestUsageOfCalls makes one reservation of each kind with the methods of the store, and checks the
// report of each figure.
func TestUsageOfCalls(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	now := noon
	db.FreezeClock(t, now)
	seats, users := db.Seats(t, 4), db.Users(t, 4)
	s := db.Open(t, library.DefaultPolicy())
	ctx := t.Context()
	book := func(user, seat int) library.Reservation {
		t.Helper()
		r, err := s.Reserve(ctx, library.Booking{UserID: users[user], SeatID: seats[seat], EndTime: now.Add(2 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first := book(0, 0)
	_, err := s.CheckIn(ctx, users[0], first.ID, nil)
	must(err)
	book(1, 1) // becomes a no-show
	third := book(2, 2)
	for range 3 {
		_, err := s.Reserve(ctx, library.Booking{UserID: users[3], SeatID: seats[2], EndTime: now.Add(2 * time.Hour)})
		if err == nil {
			t.Fatal("a taken seat was booked")
		}
	}
	entry, err := s.JoinWaitlist(ctx, library.Booking{
		UserID: users[3], SeatID: seats[2], StartTime: now, EndTime: now.Add(2 * time.Hour),
	})
	must(err)
	now = now.Add(10 * time.Minute)
	db.FreezeClock(t, now)
	_, err = s.Cancel(ctx, users[2], third.ID)
	must(err)
	_, _, err = s.ClaimOffer(ctx, users[3], entry.ID)
	must(err)
	now = now.Add(20 * time.Minute)
	db.FreezeClock(t, now)
	for _, step := range store.DueSteps {
		if step.Name == "no_show" {
			_, _, err := s.Run(ctx, step, seats)
			must(err)
		}
	}
	_, err = s.CheckOut(ctx, users[0], first.ID)
	must(err)
	must(s.WriteRefusals(ctx))
	must(s.WriteRefusals(ctx)) // finds nothing to write
	now = now.Add(time.Minute) // a report does not have the events of its own moment
	db.FreezeClock(t, now)

	wait := 10 * time.Minute
	want := library.UsageFigures{
		// Seat 0 from 12:00 to 12:30, seat 1 until the no-show at 12:30, seat 2 until 12:10. The claim
		// at 12:10 took it again; its check-in was missed at 12:25, which the step saw at 12:30.
		// The branch is open from midnight in Berlin to 12:31.
		OpenSeconds: 4 * (13*3600 + 31*60), ReservedSeconds: 1800 + 1800 + 600 + 1200, UsedSeconds: 1800,
		Reservations: 4, CheckIns: 1, NoShows: 2, Cancelled: 1, RefusedTaken: 3, Joins: 1, Offers: 1, Claims: 1,
		MedianWait: &wait,
	}
	report := func() library.Usage {
		t.Helper()
		usage, err := s.Usage(ctx, library.Host, library.UsageQuery{
			FirstDay: dateOf(noon), LastDay: dateOf(noon), By: library.UsageByDay,
		})
		must(err)
		return usage
	}
	got := report()
	if len(got.Rows) != 1 || usageText(got.Rows[0]) != usageText(library.UsageRow{
		UsageKey: library.UsageKey{Day: dateOf(noon)}, UsageFigures: want,
	}) {
		t.Errorf("got %+v\nwant %+v", got.Rows, want)
	}

	// A day later, the sums say the same, also after the users of the reservations have changed.
	db.FreezeClock(t, now.Add(24*time.Hour))
	countAll(t, s, store.MaxUsageHours)
	db.Exec(t, `UPDATE reservations SET user_id = $1, request_id = NULL, request_hash = NULL`, users[0])
	db.Exec(t, `UPDATE reservation_events SET user_id = $1`, users[0])
	db.Exec(t, `UPDATE waitlist_entries SET user_id = $1`, users[0])
	db.Exec(t, `UPDATE users SET user_group = 'other'`)
	want.OpenSeconds = 4 * 11 * 3600 // from noon in UTC, the hour of the first event, to midnight in Berlin
	got = report()
	if len(got.Rows) != 1 || usageText(got.Rows[0]) != usageText(library.UsageRow{
		UsageKey: library.UsageKey{Day: dateOf(noon)}, UsageFigures: want,
	}) {
		t.Errorf("after a day: got %+v\nwant %+v", got.Rows, want)
	}
}

func dateOf(at time.Time) time.Time { return at.UTC().Truncate(24 * time.Hour) }

// TestUsageIsCountedOnce counts the same hours in many calls at the same time.
func TestUsageIsCountedOnce(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 11)
	begin := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	now := begin.AddDate(0, 0, 3)
	p.month(begin, now)
	p.db.FreezeClock(t, now)
	p.write(t, now)
	var all sync.WaitGroup
	for range 4 {
		s := p.db.Open(t, library.DefaultPolicy())
		all.Go(func() {
			for range 20 {
				if _, err := s.CountUsage(t.Context(), 5); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	s := p.db.Open(t, library.DefaultPolicy())
	countAll(t, s, 5)
	p.wantUsage(t, s, library.UsageQuery{FirstDay: begin, LastDay: now, By: library.UsageByGroup}, now)
}

// TestUsageAfterAWrongClock counts while the clock of the database is a day ahead. When it is set back,
// the hours that had not passed are counted again.
func TestUsageAfterAWrongClock(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 23)
	begin := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	now := begin.AddDate(0, 0, 2)
	p.month(begin, now)
	p.db.FreezeClock(t, now)
	p.write(t, now)
	s := p.db.Open(t, library.DefaultPolicy())
	countAll(t, s, 50)
	p.db.FreezeClock(t, now.AddDate(0, 0, 1))
	countAll(t, s, 50)
	p.db.FreezeClock(t, now.Add(time.Hour))
	countAll(t, s, 50)
	until := storetest.Value[time.Time](t, p.db, `SELECT counted_until FROM usage_progress`)
	if until.After(now.Add(time.Hour)) {
		t.Errorf("counted until %v, which is after now", until)
	}
	q := library.UsageQuery{FirstDay: begin.AddDate(0, 0, 1), LastDay: now, By: library.UsageByHour}
	p.wantUsage(t, s, q, now.Add(time.Hour))
}

// TestRetentionChangesNoSum makes a month anonymous, half of which has been counted before, and the
// rest is counted after it.
func TestRetentionChangesNoSum(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 19)
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	end := begin.AddDate(0, 1, 0)
	p.month(begin, end)
	p.db.FreezeClock(t, end)
	p.write(t, end)
	b := bundle{Store: p.db.Open(t, library.DefaultPolicy()), db: p.db}
	for range 40 {
		if _, err := b.CountUsage(t.Context(), 9); err != nil {
			t.Fatal(err)
		}
	}
	now := end.AddDate(0, 1, 1)
	p.db.FreezeClock(t, now)
	if moved := b.retain(t, 1, 100); moved["reservations"] < 500 {
		t.Errorf("only %v are anonymous", moved)
	}
	countAll(t, b.Store, 9)
	for _, by := range allUsage {
		p.wantUsage(t, b.Store, library.UsageQuery{FirstDay: begin, LastDay: end, By: by}, now)
	}
}

// TestUsageScope reads reports as librarians of some branches.
func TestUsageScope(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 13)
	begin := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	now := begin.AddDate(0, 0, 2)
	p.month(begin, now)
	p.db.FreezeClock(t, now)
	p.write(t, now)
	s := p.db.Open(t, library.DefaultPolicy())
	countAll(t, s, store.MaxUsageHours)
	own, other := p.seats[0].branch, p.seats[len(p.seats)-1].branch
	librarian := p.users[0].id
	p.db.Exec(t, `UPDATE users SET role = 'LIBRARIAN', branches = ARRAY[$2::bigint] WHERE id = $1`, librarian, own.id)
	actor := library.Actor{Role: library.RoleLibrarian, Token: &library.Identity{
		ID: librarian, StudentID: storetest.Value[string](t, p.db, `SELECT student_id FROM users WHERE id = $1`, librarian),
		TokenGeneration: storetest.Value[int64](t, p.db, `SELECT token_generation FROM users WHERE id = $1`, librarian),
	}}
	q := library.UsageQuery{FirstDay: begin, LastDay: now, By: library.UsageByArea}
	got, err := s.Usage(t.Context(), actor, q)
	if err != nil || len(got.Rows) != 2 || got.Rows[0].Branch != own.code || got.Rows[1].Branch != own.code {
		t.Errorf("%+v, %v", got.Rows, err)
	}
	q.Branch = other.code
	if _, err := s.Usage(t.Context(), actor, q); !errors.Is(err, library.ErrBranchRequired) {
		t.Errorf("another branch: %v", err)
	}
	q.Branch = "none"
	if _, err := s.Usage(t.Context(), actor, q); !errors.Is(err, library.ErrBranchNotFound) {
		t.Errorf("no branch: %v", err)
	}
	exported := 0
	export := library.ExportQuery{FirstDay: begin, LastDay: now}
	err = s.ExportReservations(t.Context(), actor, export, func(rows []library.ExportedReservation) error {
		for _, r := range rows {
			if r.Branch != own.code {
				t.Errorf("exported %+v", r)
			}
		}
		exported += len(rows)
		return nil
	})
	if err != nil || exported == 0 {
		t.Errorf("exported %d, %v", exported, err)
	}
	export.Branch = other.code
	err = s.ExportReservations(t.Context(), actor, export, func([]library.ExportedReservation) error { return nil })
	if !errors.Is(err, library.ErrBranchRequired) {
		t.Errorf("export of another branch: %v", err)
	}

	export.Branch = ""
	calls := 0
	err = s.ExportReservations(t.Context(), actor, export, func([]library.ExportedReservation) error {
		calls++
		p.db.Exec(t, `UPDATE users SET token_generation = token_generation + 1 WHERE id = $1`, actor.Token.ID)
		return nil
	})
	if !errors.Is(err, library.ErrTokenRevoked) || calls != 1 {
		t.Errorf("an export goes on for %d days after the end of its token: %v", calls, err)
	}
}

// TestExportReservations compares an export with the generated visits.
func TestExportReservations(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 17)
	begin := time.Date(2026, 3, 26, 0, 0, 0, 0, time.UTC)
	now := begin.AddDate(0, 0, 6)
	p.month(begin, now)
	p.db.FreezeClock(t, now)
	p.write(t, now)
	s := p.db.Open(t, library.DefaultPolicy())
	q := library.ExportQuery{FirstDay: begin.AddDate(0, 0, 1), LastDay: begin.AddDate(0, 0, 4)}
	var got []library.ExportedReservation
	calls := 0
	err := s.ExportReservations(t.Context(), library.Host, q, func(rows []library.ExportedReservation) error {
		calls++
		got = append(got, rows...)
		return nil
	})
	if err != nil || calls < 4 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	want := map[string]int{}
	number := 0
	for i := range p.visits {
		v := &p.visits[i]
		local := v.start.In(v.seat.branch.zone)
		on := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC)
		confirmed := slices.ContainsFunc(v.events, func(e usageEvent) bool {
			return e.kind == "RESERVED" || e.kind == "CLAIMED"
		})
		if confirmed && !on.Before(q.FirstDay) && !on.After(q.LastDay) {
			proof := ""
			for _, e := range v.events {
				proof += e.proof
			}
			want[fmt.Sprint(v.seat.branch.code, v.seat.area, v.user.id, v.user.group, v.start.UTC(), v.end.UTC(), proof)]++
			number++
		}
	}
	if len(got) != number || number < 50 {
		t.Errorf("exported %d, want %d", len(got), number)
	}
	for i, r := range got {
		key := fmt.Sprint(r.Branch, r.Area, r.UserID, r.Group, r.StartTime.UTC(), r.EndTime.UTC(), r.Proof)
		if want[key]--; want[key] < 0 {
			t.Errorf("not generated: %s", key)
		}
		if i > 0 && r.StartTime.Before(got[i-1].StartTime) {
			t.Errorf("row %d starts before row %d", i, i-1)
		}
		if (r.Status == library.CheckedIn || r.Status == library.Completed) != (r.CheckedInAt != nil) {
			t.Errorf("%+v", r)
		}
	}
	stop := errors.New("stop")
	err = s.ExportReservations(t.Context(), library.Host, q, func([]library.ExportedReservation) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("the error of emit: %v", err)
	}
}
