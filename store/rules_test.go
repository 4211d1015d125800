package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// refusal returns the error that a booking breaks with, or nil.
func refusal(t *testing.T, err error) *library.Error {
	t.Helper()
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*library.Error](err)
	if !ok {
		t.Fatal(err)
	}
	return refused
}

// TestRulesOfPolicies breaks each rule of a policy once, and keeps it once. The user has reserved
// two hours on the day and three in the week: 13:00 to 15:00 today, and an hour on Wednesday. Times
// are minutes after noon on a Monday.
func TestRulesOfPolicies(t *testing.T) {
	t.Parallel()
	const day = 24 * 60
	for name, tc := range map[string]struct {
		rules    library.Rules
		from, to int // breaks the rule
		ok       [2]int
		want     *library.Error
		metadata map[string]string
	}{
		"may_book": {rules: library.Rules{MayBook: ptr(false)}, from: 300, to: 360, want: library.ErrBookingNotAllowed},
		"shortest": {rules: library.Rules{MinDuration: lasting(time.Hour)}, from: 300, to: 359, ok: [2]int{300, 360},
			want: library.ErrWindowNotAllowed, metadata: map[string]string{"min_reservation": "3600"}},
		"longest": {rules: library.Rules{MaxDuration: lasting(time.Hour)}, from: 300, to: 361, ok: [2]int{300, 360},
			want: library.ErrWindowNotAllowed, metadata: map[string]string{"max_reservation": "3600"}},
		"longer than the setting": {rules: library.Rules{MaxDuration: lasting(20 * time.Hour)}, from: 300, to: 1501,
			ok: [2]int{300, 1500}, want: library.ErrWindowNotAllowed, metadata: map[string]string{"max_reservation": "72000"}},
		"start off the grid": {rules: library.Rules{Step: lasting(30 * time.Minute)}, from: 315, to: 360,
			ok: [2]int{300, 330}, want: library.ErrWindowNotAllowed, metadata: map[string]string{"step": "1800"}},
		"end off the grid": {rules: library.Rules{Step: lasting(30 * time.Minute)}, from: 300, to: 345,
			ok: [2]int{300, 330}, want: library.ErrWindowNotAllowed, metadata: map[string]string{"step": "1800"}},
		"ahead": {rules: library.Rules{MaxAhead: lasting(6 * time.Hour)}, from: 361, to: 400, ok: [2]int{360, 400},
			want: library.ErrWindowNotAllowed, metadata: map[string]string{"max_ahead": "21600"}},
		"further than the setting": {rules: library.Rules{MaxAhead: lasting(20 * 24 * time.Hour)}, from: 20*day + 1,
			to: 20*day + 60, ok: [2]int{20 * day, 20*day + 60}, want: library.ErrWindowNotAllowed,
			metadata: map[string]string{"max_ahead": "1728000"}},
		// Noon UTC is 13:00 in Berlin.
		"not open yet": {rules: library.Rules{MaxAhead: lasting(2 * 24 * time.Hour), OpensAt: lasting(14 * time.Hour)},
			from: day + 11*60, to: day + 12*60, ok: [2]int{day + 9*60, day + 10*60}, want: library.ErrWindowNotAllowed,
			metadata: map[string]string{"bookable_at": "2026-03-02T13:00:00Z", "max_ahead": "172800"}},
		"upcoming": {rules: library.Rules{MaxUpcoming: ptr(2)}, from: 300, to: 360, want: library.ErrTooManyReservations,
			metadata: map[string]string{"limit": "2"}},
		"minutes of the day": {rules: library.Rules{MaxMinutesPerDay: ptr(180)}, from: 300, to: 361, ok: [2]int{300, 360},
			want:     library.ErrQuotaExhausted,
			metadata: map[string]string{"rule": "max_minutes_per_day", "limit": "180", "used": "120"}},
		"minutes of the week": {rules: library.Rules{MaxMinutesPerWeek: ptr(240)}, from: 300, to: 361, ok: [2]int{300, 360},
			want:     library.ErrQuotaExhausted,
			metadata: map[string]string{"rule": "max_minutes_per_week", "limit": "240", "used": "180"}},
		"reservations of the day": {rules: library.Rules{MaxReservationsPerDay: ptr(1)}, from: 300, to: 360,
			ok: [2]int{day, day + 60}, want: library.ErrQuotaExhausted,
			metadata: map[string]string{"rule": "max_reservations_per_day", "limit": "1", "used": "1"}},
		"reservations of the week": {rules: library.Rules{MaxReservationsPerWeek: ptr(2)},
			from: 6*day + 10*60, to: 6*day + 11*60 - 1, ok: [2]int{6*day + 11*60, 6*day + 12*60},
			want:     library.ErrQuotaExhausted,
			metadata: map[string]string{"rule": "max_reservations_per_week", "limit": "2", "used": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.reserve(t, 0, 1, 60, 180)
			b.reserve(t, 0, 1, 2*day, 2*day+60)
			b.setPolicy(t, tc.rules)
			booking := library.Booking{UserID: b.users[0], SeatID: b.seats[0], StartTime: at(tc.from), EndTime: at(tc.to)}
			_, err := b.Reserve(t.Context(), booking)
			wantErr(t, err, tc.want)
			for name, value := range tc.metadata {
				if got := refusal(t, err).Metadata[name]; got != value {
					t.Errorf("metadata %s is %q, want %q", name, got, value)
				}
			}
			if tc.ok != [2]int{} {
				b.reserve(t, 0, 0, tc.ok[0], tc.ok[1])
			}
		})
	}
}

// TestQuotasCountWhatWasUsed has one reservation of each status. Cancelled reservations and offers
// do not count, a no-show counts, and a completed reservation counts until its end.
func TestQuotasCountWhatWasUsed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	done := b.reserve(t, 0, 0, 0, 120)
	mustDo(t, b.checkIn, b.users[0], done.ID)
	mustDo(t, b.Cancel, b.users[0], b.reserve(t, 0, 0, 180, 240).ID)
	b.clock(t, 30)
	mustDo(t, b.CheckOut, b.users[0], done.ID)
	b.offered(t, 0, 0, 300, 360)
	missed := b.reserve(t, 0, 0, 120, 160)
	b.clock(t, 170)
	if _, _, err := b.MarkNoShows(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if r := mustRead(t, b, 0, missed.ID); r.Status != library.NoShow {
		t.Fatal(r.Status)
	}
	b.setPolicy(t, library.Rules{MaxMinutesPerDay: ptr(89)}) // 30 and 40 minutes are used
	_, err := b.Reserve(t.Context(), library.Booking{
		UserID: b.users[0], SeatID: b.seats[1], StartTime: at(180), EndTime: at(200),
	})
	wantErr(t, err, library.ErrQuotaExhausted)
	if used := refusal(t, err).Metadata["used"]; used != "70" {
		t.Errorf("%s minutes are used, want 70", used)
	}
	b.reserve(t, 0, 1, 180, 199)
}

func TestStaffBookingsIgnoreLimits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.setPolicy(t, library.Rules{
		MayBook: ptr(false), MaxDuration: lasting(time.Minute), Step: lasting(24 * time.Hour), MaxAhead: lasting(time.Minute),
		OpensAt: lasting(0), MaxUpcoming: ptr(1), MaxMinutesPerDay: ptr(1), MaxReservationsPerWeek: ptr(1),
	})
	for _, from := range []int{10, 2000} {
		booking := library.Booking{UserID: b.users[0], SeatID: b.seats[0], StartTime: at(from), EndTime: at(from + 90)}
		if _, err := store.ReserveForStaff(t.Context(), b.Store, booking); err != nil {
			t.Error(err)
		}
	}
	week := library.Booking{UserID: b.users[0], SeatID: b.seats[1], StartTime: at(0), EndTime: at(7*24*60 + 1)}
	_, err := store.ReserveForStaff(t.Context(), b.Store, week)
	wantErr(t, err, library.ErrWindowNotAllowed)
	if fields := refusal(t, err).Fields; len(fields) != 1 || fields[0].Field != "end_time" {
		t.Errorf("fields: %v", fields)
	}
}

// TestExamWeek has a shorter limit for the dates of an exam week, and a longer one for a group. The
// date is that of the start in Berlin: 23:30 UTC on the day before is the first day.
func TestExamWeek(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `UPDATE users SET user_group = 'phd' WHERE id = $1`, b.users[1])
	b.setPolicy(t, library.Rules{MaxDuration: lasting(4 * time.Hour)})
	week := library.PolicyScope{FirstDay: date("2026-03-04"), LastDay: date("2026-03-05")}
	b.setPolicyOf(t, week, library.Rules{MaxDuration: lasting(time.Hour)})
	week.Group = "phd"
	b.setPolicyOf(t, week, library.Rules{MaxDuration: lasting(2 * time.Hour)})
	const day = 24 * 60
	first, end := day+11*60, 3*day+11*60 // 0:00 in Berlin
	for name, tc := range map[string]struct{ user, from, longest int }{
		"before":              {0, first - 1, 240},
		"the first minute":    {0, first, 60},
		"the last minute":     {0, end - 1, 60},
		"after":               {0, end, 240},
		"the group":           {1, first, 120},
		"the group, later":    {1, end, 240},
		"the group, the last": {1, end - 1, 120},
	} {
		for _, longer := range []int{1, 0} {
			_, err := b.ValidateReservation(t.Context(), library.Booking{
				UserID: b.users[tc.user], SeatID: b.seats[0], StartTime: at(tc.from), EndTime: at(tc.from + tc.longest + longer),
			})
			if (err != nil) != (longer == 1) {
				t.Errorf("%s, %d minutes: %v", name, tc.longest+longer, err)
			}
		}
	}
}

// TestLocalTimesWhenClocksChange tests the rules in local time on both days of 2026 on which the
// clocks of Berlin change. On 29 March, 2:00 becomes 3:00 at 1:00 UTC. On 25 October, 3:00 becomes
// 2:00 at 1:00 UTC.
func TestLocalTimesWhenClocksChange(t *testing.T) {
	t.Parallel()
	hours := func(n int) *library.Span { return lasting(time.Duration(n) * time.Hour) }
	for name, tc := range map[string]struct {
		now      string
		rules    library.Rules
		reserved [2]string // reserved before, in UTC
		window   [2]string
		want     error
	}{
		// With a step of 4 hours, windows start at 0:00, 4:00, 8:00 … in local time.
		"on the grid in March": {
			now: "2026-03-28T12:00", rules: library.Rules{Step: hours(4)},
			window: [2]string{"2026-03-28T23:00", "2026-03-29T02:00"},
		},
		"off the grid in March": {
			now: "2026-03-28T12:00", rules: library.Rules{Step: hours(4)},
			window: [2]string{"2026-03-28T23:00", "2026-03-29T03:00"}, want: library.ErrWindowNotAllowed,
		},
		"on the grid in October": {
			now: "2026-10-24T12:00", rules: library.Rules{Step: hours(4)},
			window: [2]string{"2026-10-24T22:00", "2026-10-25T03:00"},
		},
		"off the grid in October": {
			now: "2026-10-24T12:00", rules: library.Rules{Step: hours(4)},
			window: [2]string{"2026-10-24T22:00", "2026-10-25T02:00"}, want: library.ErrWindowNotAllowed,
		},
		"twice 2:00 in October": {
			now: "2026-10-24T12:00", rules: library.Rules{Step: hours(2)},
			window: [2]string{"2026-10-25T00:00", "2026-10-25T01:00"},
		},
		"opens at 8:00, in March": {
			now: "2026-03-29T06:00", rules: library.Rules{MaxAhead: hours(24), OpensAt: hours(8)},
			window: [2]string{"2026-03-30T20:00", "2026-03-30T21:00"},
		},
		"7:59 is early in March": {
			now: "2026-03-29T05:59", rules: library.Rules{MaxAhead: hours(24), OpensAt: hours(8)},
			window: [2]string{"2026-03-29T22:00", "2026-03-29T23:00"}, want: library.ErrWindowNotAllowed,
		},
		"the day before in March": {
			now: "2026-03-29T05:59", rules: library.Rules{MaxAhead: hours(24), OpensAt: hours(8)},
			window: [2]string{"2026-03-29T20:59", "2026-03-29T21:59"},
		},
		"opens at 8:00 in October": {
			now: "2026-10-25T07:00", rules: library.Rules{MaxAhead: hours(24), OpensAt: hours(8)},
			window: [2]string{"2026-10-26T20:00", "2026-10-26T21:00"},
		},
		"7:59 is early in October": {
			now: "2026-10-25T06:59", rules: library.Rules{MaxAhead: hours(24), OpensAt: hours(8)},
			window: [2]string{"2026-10-25T23:00", "2026-10-26T00:00"}, want: library.ErrWindowNotAllowed,
		},
		// The day has 23 hours in March, and 25 hours in October.
		"the same day in March": {
			now: "2026-03-28T12:00", rules: library.Rules{MaxReservationsPerDay: ptr(1)},
			reserved: [2]string{"2026-03-28T23:00", "2026-03-28T23:30"},
			window:   [2]string{"2026-03-29T21:45", "2026-03-29T22:00"}, want: library.ErrQuotaExhausted,
		},
		"the next day in March": {
			now: "2026-03-28T12:00", rules: library.Rules{MaxReservationsPerDay: ptr(1)},
			reserved: [2]string{"2026-03-28T23:00", "2026-03-28T23:30"},
			window:   [2]string{"2026-03-29T22:00", "2026-03-29T22:30"},
		},
		"the same day in October": {
			now: "2026-10-24T12:00", rules: library.Rules{MaxReservationsPerDay: ptr(1)},
			reserved: [2]string{"2026-10-24T22:00", "2026-10-24T22:30"},
			window:   [2]string{"2026-10-25T22:45", "2026-10-25T23:00"}, want: library.ErrQuotaExhausted,
		},
		"the next day in October": {
			now: "2026-10-24T12:00", rules: library.Rules{MaxReservationsPerDay: ptr(1)},
			reserved: [2]string{"2026-10-24T22:00", "2026-10-24T22:30"},
			window:   [2]string{"2026-10-25T23:00", "2026-10-25T23:30"},
		},
		"the same week in October": {
			now: "2026-10-24T12:00", rules: library.Rules{MaxReservationsPerWeek: ptr(1)},
			reserved: [2]string{"2026-10-24T22:00", "2026-10-24T22:30"},
			window:   [2]string{"2026-10-25T22:45", "2026-10-25T23:00"}, want: library.ErrQuotaExhausted,
		},
		"the next week in October": {
			now: "2026-10-24T12:00", rules: library.Rules{MaxReservationsPerWeek: ptr(1)},
			reserved: [2]string{"2026-10-24T22:00", "2026-10-24T22:30"},
			window:   [2]string{"2026-10-25T23:00", "2026-10-25T23:30"},
		},
		"the dates of a policy": {
			now: "2026-10-24T12:00", rules: library.Rules{MaxDuration: hours(1)},
			window: [2]string{"2026-10-25T22:59", "2026-10-26T00:00"}, want: library.ErrWindowNotAllowed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			utc := func(text string) time.Time {
				at, err := time.Parse("2006-01-02T15:04", text)
				if err != nil {
					t.Fatal(err)
				}
				return at
			}
			b := setup(t)
			b.db.FreezeClock(t, utc(tc.now))
			window := func(times [2]string) library.Booking {
				return library.Booking{
					UserID: b.users[0], SeatID: b.seats[0], StartTime: utc(times[0]), EndTime: utc(times[1]),
				}
			}
			if tc.reserved[0] != "" {
				if _, err := b.Reserve(t.Context(), window(tc.reserved)); err != nil {
					t.Fatal(err)
				}
			}
			dates := library.PolicyScope{Branch: "branch-0", FirstDay: date("2026-03-28"), LastDay: date("2026-10-26")}
			b.setPolicyOf(t, dates, tc.rules)
			if _, err := b.Reserve(t.Context(), window(tc.window)); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestStepExemptsBookingsFromNow books without a start.
func TestStepExemptsBookingsFromNow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.clock(t, 7)
	b.setPolicy(t, library.Rules{Step: lasting(30 * time.Minute)})
	booking := library.Booking{UserID: b.users[0], SeatID: b.seats[0], EndTime: at(41)}
	r, err := b.Reserve(t.Context(), booking)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Extend(t.Context(), b.users[0], r.ID, at(51)); err != nil { // its start is off the grid
		t.Error(err)
	}
	r = b.reserve(t, 1, 0, 60, 90)
	_, err = b.Extend(t.Context(), b.users[1], r.ID, at(110))
	wantErr(t, err, library.ErrWindowNotAllowed)
	if _, err := b.Extend(t.Context(), b.users[1], r.ID, at(120)); err != nil {
		t.Error(err)
	}
}

func TestPolicyRulesExtensions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, other := b.reserve(t, 0, 0, 0, 60), b.reserve(t, 0, 1, 120, 180)
	b.setPolicy(t, library.Rules{
		MaxDuration: lasting(2 * time.Hour), MaxMinutesPerDay: ptr(150), MaxReservationsPerDay: ptr(1),
		Grace: lasting(40 * time.Minute),
	})
	_, err := b.Extend(t.Context(), b.users[0], other.ID, at(241))
	wantErr(t, err, library.ErrWindowNotAllowed)
	if got := refusal(t, err).Metadata["max_reservation"]; got != "7200" {
		t.Errorf("max_reservation is %s", got)
	}
	_, err = b.Extend(t.Context(), b.users[0], other.ID, at(211))
	wantErr(t, err, library.ErrQuotaExhausted)
	wantEqual(t, "metadata", refusal(t, err).Metadata,
		map[string]string{"rule": "max_minutes_per_day", "limit": "150", "used": "60"})
	if r, err := b.Extend(t.Context(), b.users[0], other.ID, at(210)); err != nil || !r.EndTime.Equal(at(210)) {
		t.Errorf("%+v, %v", r, err)
	}
	b.setPolicy(t, library.Rules{MaxDuration: lasting(20 * time.Hour)})
	mustDo(t, b.Cancel, b.users[0], other.ID)
	if _, err := b.Extend(t.Context(), b.users[0], first.ID, at(20*60)); err != nil {
		t.Errorf("longer than the setting: %v", err)
	}
}

func TestPolicyRulesCancellations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, second := b.reserve(t, 0, 0, 120, 180), b.reserve(t, 0, 1, 180, 240)
	b.setPolicyOf(t, library.PolicyScope{Branch: "branch-0"}, library.Rules{LatestCancellation: lasting(time.Hour)})
	b.clock(t, 60)
	mustDo(t, b.Cancel, b.users[0], first.ID)
	b.db.FreezeClock(t, at(120).Add(time.Microsecond))
	_, err := b.Cancel(t.Context(), b.users[0], second.ID)
	wantErr(t, err, library.ErrCancelTooLate)
	if got := refusal(t, err).Metadata["latest"]; got != "2026-03-02T14:00:00Z" {
		t.Errorf("latest is %s", got)
	}
	mustDo(t, b.Cancel, b.users[0], first.ID) // a repeated call
	if _, _, err := b.CancelFor(t.Context(), byHost("staff may cancel at any time"), second.ID); err != nil {
		t.Error(err)
	}
}

// TestPolicyRulesCheckIn has an area with its own times of check-in, for bookings and claims.
func TestPolicyRulesCheckIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.setPolicyOf(t, library.PolicyScope{Branch: "branch-0", Area: "Area"},
		library.Rules{CheckInLead: lasting(5 * time.Minute), Grace: lasting(25 * time.Minute)})
	e := b.offered(t, 0, 0, 60, 180)
	_, claimed, err := b.ClaimOffer(t.Context(), b.users[0], e.ID)
	if err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]library.Reservation{"booked": b.reserve(t, 1, 1, 60, 180), "claimed": claimed} {
		if !r.CheckInOpensAt.Equal(at(55)) || !r.CheckInDeadline.Equal(at(85)) {
			t.Errorf("%s: check-in from %v to %v", what, r.CheckInOpensAt, r.CheckInDeadline)
		}
	}
}

// TestPolicyRulesWaitlist has rules under which the first user in line cannot claim an offer. The
// offer goes to the second user, whose group has no such rule.
func TestPolicyRulesWaitlist(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]library.Rules{
		"may_book":        {MayBook: ptr(false)},
		"min_reservation": {MinDuration: lasting(61 * time.Minute)},
		"max_upcoming":    {MaxUpcoming: ptr(1)},
		"minutes a day":   {MaxMinutesPerDay: ptr(89)},
		"minutes a week":  {MaxMinutesPerWeek: ptr(89)},
		"a day":           {MaxReservationsPerDay: ptr(1)},
		"a week":          {MaxReservationsPerWeek: ptr(1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.db.Exec(t, `UPDATE users SET user_group = 'ruled' WHERE id = $1`, b.users[0])
			b.reserve(t, 0, 1, 300, 330)
			taken := b.reserve(t, 4, 0, 0, 60)
			first, second := b.join(t, 0, 0, 0, 60), b.join(t, 1, 0, 0, 60)
			scope := library.PolicyScope{Group: "ruled"}
			b.setPolicyOf(t, scope, rules)
			mustDo(t, b.Cancel, b.users[4], taken.ID)
			if e := b.entry(t, 0, first.ID); e.Status != library.EntryWaiting {
				t.Errorf("the first entry is %s", e.Status)
			}
			if e := b.entry(t, 1, second.ID); e.Status != library.EntryOffered {
				t.Errorf("the second entry is %s", e.Status)
			}
			if _, err := b.LeaveWaitlist(t.Context(), b.users[1], second.ID); err != nil {
				t.Fatal(err)
			}
			wantDone(t, 0, b.OfferFreeSeats)
			b.setPolicyOf(t, scope, library.Rules{})
			wantDone(t, 1, b.OfferFreeSeats)
			b.setPolicyOf(t, scope, rules)
			_, _, err := b.ClaimOffer(t.Context(), b.users[0], first.ID)
			if name == "min_reservation" { // an offer keeps its length
				if err != nil {
					t.Error(err)
				}
				return
			}
			want := library.ErrQuotaExhausted
			switch name {
			case "may_book":
				want = library.ErrBookingNotAllowed
			case "max_upcoming":
				want = library.ErrTooManyReservations
			}
			wantErr(t, err, want)
		})
	}
}

func TestPolicyRulesJoinWaitlist(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 4, 0, 0, 240)
	join := func(from, to int) error {
		_, err := b.JoinWaitlist(t.Context(), library.Booking{
			UserID: b.users[0], SeatID: b.seats[0], StartTime: at(from), EndTime: at(to),
		})
		return err
	}
	b.setPolicy(t, library.Rules{MayBook: ptr(false)})
	wantErr(t, join(0, 60), library.ErrBookingNotAllowed)
	b.setPolicy(t, library.Rules{MinDuration: lasting(time.Hour), Step: lasting(30 * time.Minute)})
	wantErr(t, join(0, 30), library.ErrWindowNotAllowed)
	wantErr(t, join(0, 75), library.ErrWindowNotAllowed)
	if got := refusal(t, join(0, 75)).Metadata; got["step"] != "1800" || got["min_reservation"] != "3600" {
		t.Errorf("metadata: %v", got)
	}
	if err := join(0, 60); err != nil {
		t.Error(err)
	}
	if n := storetest.Value[int](t, b.db, `SELECT count(*) FROM waitlist_entries`); n != 1 {
		t.Errorf("%d entries", n)
	}
}
