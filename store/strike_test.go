package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

const day = 24 * 60 // minutes

// strikePolicy writes a policy of the whole library that counts no-shows.
func (b bundle) strikePolicy(t *testing.T, limit, days int, ladder ...int) {
	t.Helper()
	b.db.Exec(t, `
		INSERT INTO effective_policies
			(library_id, branch_id, area, user_group, dates, strike_limit, strike_days, suspension_days)
		VALUES (1, 0, '', '', '(,)', $1, $2, $3)`, limit, days, ladder)
}

// miss makes a no-show of a user: a reservation that starts some minutes after noon, without a
// check-in. Then the clock shows the check-in deadline.
func (b bundle) miss(t *testing.T, user, seat, from int) library.Reservation {
	t.Helper()
	b.clock(t, from)
	r := b.reserve(t, user, seat, from, from+60)
	b.clock(t, from+15)
	wantDone(t, 1, b.MarkNoShows)
	return r
}

// judge decides about all new strikes and returns the number of users that they suspend.
func (b bundle) judge(t *testing.T) (suspended int) {
	t.Helper()
	users, err := b.Unjudged(t.Context(), nil, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range users {
		is, busy, err := b.Judge(t.Context(), user)
		if err != nil || busy {
			t.Fatalf("busy %t, %v", busy, err)
		}
		if is {
			suspended++
		}
	}
	if users, err := b.Unjudged(t.Context(), nil, 1000); err != nil || len(users) > 0 {
		t.Fatalf("users %v are not judged, %v", users, err)
	}
	return suspended
}

func (b bundle) standing(t *testing.T, user int) library.Standing {
	t.Helper()
	s, err := b.Standing(t.Context(), b.users[user])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantSuspended checks the end of the suspension of a user, in minutes after noon. 0 means that the
// user must not be suspended.
func (b bundle) wantSuspended(t *testing.T, user, until int) {
	t.Helper()
	var want *time.Time
	if until != 0 {
		end := at(until)
		want = &end
	}
	wantEqual(t, fmt.Sprintf("suspension of user %d", user), b.standing(t, user).SuspendedUntil, want)
}

func (b bundle) counting(t *testing.T, user int) (n int) {
	t.Helper()
	for _, k := range b.standing(t, user).Strikes {
		if k.Counts {
			n++
		}
	}
	return n
}

func (b bundle) audits(t *testing.T) int {
	t.Helper()
	return storetest.Value[int](t, b.db, `SELECT count(*) FROM audit_log`)
}

func TestNoShowIsStrikeByPolicy(t *testing.T) {
	t.Parallel()
	type policy struct {
		branch      string // SQL
		area, group string
		dates       string
		limit       any
	}
	library := func(limit any) policy { return policy{branch: `0`, dates: `(,)`, limit: limit} }
	const here, elsewhere = `(SELECT min(id) FROM branches)`, `(SELECT min(id) + 1 FROM branches)`
	for name, c := range map[string]struct {
		policies []policy
		want     []int // limits of the strikes
	}{
		"no policy":                       {nil, nil},
		"a policy without strikes":        {[]policy{library(nil)}, nil},
		"limit 0":                         {[]policy{library(0)}, nil},
		"library":                         {[]policy{library(3)}, []int{3}},
		"branch":                          {[]policy{library(3), {here, "", "", "(,)", 5}}, []int{5}},
		"branch without strikes":          {[]policy{library(3), {here, "", "", "(,)", 0}}, nil},
		"another branch":                  {[]policy{library(3), {elsewhere, "", "", "(,)", 0}}, []int{3}},
		"only another branch":             {[]policy{{elsewhere, "", "", "(,)", 3}}, nil},
		"area":                            {[]policy{library(3), {here, "Area", "", "(,)", 6}}, []int{6}},
		"group":                           {[]policy{library(3), {"0", "", "phd", "(,)", 7}}, []int{7}},
		"another group":                   {[]policy{library(3), {"0", "", "guest", "(,)", 7}}, []int{3}},
		"date":                            {[]policy{{"0", "", "", "[2026-03-02,2026-03-03)", 4}}, []int{4}},
		"the next date in UTC":            {[]policy{{"0", "", "", "[2026-03-03,)", 4}}, nil},
		"unknown rules have default days": {[]policy{library(1)}, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.db.Exec(t, `UPDATE users SET user_group = 'phd'`)
			for _, p := range c.policies {
				b.db.Exec(t, `
					INSERT INTO effective_policies (library_id, branch_id, area, user_group, dates, strike_limit)
					VALUES (1, `+p.branch+`, $1, $2, $3::text::daterange, $4)`, p.area, p.group, p.dates, p.limit)
			}
			r := b.miss(t, 0, 0, 0)
			got := storetest.Rows[int](t, b.db, `SELECT strike_limit FROM strikes`)
			wantEqual(t, "limits of strikes", got, append([]int{}, c.want...))
			if len(c.want) == 0 {
				return
			}
			strikes := b.standing(t, 0).Strikes
			if len(strikes) != 1 {
				t.Fatalf("strikes %+v", strikes)
			}
			k := strikes[0]
			if k.ReservationID != r.ID || k.Branch != "branch-0" || !k.At.Equal(at(15)) ||
				!k.ExpiresAt.Equal(at(15+30*day)) || !k.Counts || k.ForgivenAt != nil {
				t.Errorf("strike %+v", k)
			}
			wantEqual(t, "default ladder",
				storetest.Value[[]int32](t, b.db, `SELECT suspension_days FROM strikes`), []int32{7})
		})
	}
}

// TestStrikeUsesLocalDate makes a no-show at 23:30 UTC, which is the next date in Berlin. The
// branch has an unknown time zone in the second case, and the date is then that of UTC.
func TestStrikeUsesLocalDate(t *testing.T) {
	t.Parallel()
	for zone, want := range map[string]int{"Europe/Berlin": 1, "Europe/Berln": 0} {
		b := setup(t)
		b.db.Altered()
		b.db.Exec(t, `INSERT INTO effective_policies (library_id, branch_id, area, user_group, dates, strike_limit)
			VALUES (1, 0, '', '', '[2026-03-03,)', 1)`)
		b.clock(t, 11*60+30)
		b.reserve(t, 0, 0, 11*60+30, 12*60+30)
		b.db.Exec(t, `SET session_replication_role = replica; UPDATE branches SET timezone = '`+zone+`';
			SET session_replication_role = DEFAULT`)
		b.clock(t, 11*60+45)
		wantDone(t, 1, b.MarkNoShows)
		wantEqual(t, zone, storetest.Value[int](t, b.db, `SELECT count(*) FROM strikes`), want)
	}
}

// TestOnlyNoShowsAreStrikes ends reservations in all other ways.
func TestOnlyNoShowsAreStrikes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 1, 30, 7)
	cancelled, byStaff, visit := b.reserve(t, 0, 0, 0, 60), b.reserve(t, 1, 1, 0, 60), b.reserve(t, 2, 2, 0, 60)
	if _, err := b.Cancel(t.Context(), b.users[0], cancelled.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.CancelFor(t.Context(), byHost("water damage"), byStaff.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CheckIn(t.Context(), b.users[2], visit.ID, nil); err != nil {
		t.Fatal(err)
	}
	b.clock(t, 60)
	wantDone(t, 0, b.MarkNoShows)
	wantDone(t, 1, b.CompleteEnded)
	wantEqual(t, "strikes", storetest.Value[int](t, b.db, `SELECT count(*) FROM strikes`), 0)
}

// TestLadderOfSuspensions suspends a user again and again. The limit is two strikes, and the
// suspensions last 7, then 14 days.
func TestLadderOfSuspensions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 2, 30, 7, 14)
	from := 0
	for round, days := range []int{7, 14, 14} {
		b.miss(t, 0, 0, from)
		wantEqual(t, "suspended by one strike", b.judge(t), 0)
		b.wantSuspended(t, 0, 0)
		b.miss(t, 0, 0, from+120)
		wantEqual(t, "suspended by two strikes", b.judge(t), 1)
		until := from + 135 + days*day
		b.wantSuspended(t, 0, until)
		wantEqual(t, "counting strikes", b.counting(t, 0), 0)
		wantEqual(t, "ask at", b.standing(t, 0).AskAtBranch, "branch-0")
		b.clock(t, until)
		b.wantSuspended(t, 0, 0)
		wantEqual(t, "ask at", b.standing(t, 0).AskAtBranch, "")
		from = until + 60
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	// A year later, the ladder begins again, and the strikes of then are not listed.
	from += 366 * day
	b.miss(t, 0, 0, from)
	b.miss(t, 0, 0, from+120)
	b.judge(t)
	b.wantSuspended(t, 0, from+135+7*day)
	wantEqual(t, "strikes of the past year", len(b.standing(t, 0).Strikes), 2)
	storetest.CheckInvariants(t, b.db)
}

func TestStrikeExpires(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 2, 10, 7)
	b.miss(t, 0, 0, 0)
	b.clock(t, 15+10*day-1)
	wantEqual(t, "counting strikes before the first expires", b.counting(t, 0), 1)
	b.miss(t, 0, 0, 10*day+1) // the deadline is after the first strike has expired
	wantEqual(t, "suspended", b.judge(t), 0)
	wantEqual(t, "counting strikes", b.counting(t, 0), 1)
	b.miss(t, 0, 0, 10*day+120)
	wantEqual(t, "suspended", b.judge(t), 1)
}

// TestNewestStrikeDecides changes the policy between the strikes of a user.
func TestNewestStrikeDecides(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 2, 30, 7)
	b.miss(t, 0, 0, 0)
	b.db.Exec(t, `UPDATE effective_policies SET strike_limit = 3, suspension_days = '{21}'`)
	b.miss(t, 0, 0, 120)
	wantEqual(t, "suspended", b.judge(t), 0)
	b.miss(t, 0, 0, 240)
	wantEqual(t, "suspended", b.judge(t), 1)
	b.wantSuspended(t, 0, 255+21*day)
}

// TestSuspensionRefusesBooking checks each call of a suspended user: nothing new is booked, and
// what is booked stays.
func TestSuspensionRefusesBooking(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 1, 30, 7)
	b.clock(t, 0)
	kept := b.reserve(t, 0, 1, 180, 240)
	b.reserve(t, 1, 2, 30, 150)
	b.join(t, 0, 2, 30, 150)
	b.miss(t, 0, 0, 0)
	wantEqual(t, "suspended", b.judge(t), 1)

	booking := library.Booking{UserID: b.users[0], SeatID: b.seats[3], StartTime: at(60), EndTime: at(90)}
	_, err := b.Reserve(t.Context(), booking)
	wantErr(t, err, library.ErrSuspended)
	refused, _ := errors.AsType[*library.Error](err)
	wantEqual(t, "suspended_until", refused.Metadata["suspended_until"], at(15+7*day).Format(time.RFC3339))
	booking.SeatID, booking.StartTime, booking.EndTime = b.seats[2], at(45), at(75)
	_, err = b.JoinWaitlist(t.Context(), booking)
	wantErr(t, err, library.ErrSuspended)

	// The seat for which the user waits becomes free. It is not offered until the suspension ends.
	taken := storetest.Value[int64](t, b.db, `SELECT id FROM reservations WHERE seat_id = $1`, b.seats[2])
	if _, err := b.Cancel(t.Context(), b.users[1], taken); err != nil {
		t.Fatal(err)
	}
	wantDone(t, 0, b.OfferFreeSeats)
	storetest.CheckInvariants(t, b.db)
	if _, err := b.SetSuspension(t.Context(), byHost("a mistake"), b.users[0], time.Time{}); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "offers after the suspension", storetest.Value[int](t, b.db,
		`SELECT count(*) FROM waitlist_entries WHERE status = 'OFFERED'`), 1)

	b.clock(t, 180)
	if _, err := b.CheckIn(t.Context(), b.users[0], kept.ID, nil); err != nil {
		t.Error(err)
	}
}

func TestForgiveOneStrike(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 2, 30, 7, 14)
	for i := range 2 {
		b.miss(t, 0, 0, 120*i)
	}
	b.judge(t)
	b.wantSuspended(t, 0, 135+7*day)
	id := b.standing(t, 0).Strikes[1].ID
	which := library.StrikeSelection{StrikeID: id}

	order := byHost("the scanner was down")
	order.ValidateOnly = true
	forgive := func(order library.Order, want library.Forgiveness) {
		t.Helper()
		got, err := b.ForgiveStrikes(t.Context(), order, which)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "forgiven", got, want)
	}
	forgive(order, library.Forgiveness{Strikes: 1, Suspensions: 1})
	b.wantSuspended(t, 0, 135+7*day)
	wantEqual(t, "audit rows", b.audits(t), 0)

	order.ValidateOnly = false
	forgive(order, library.Forgiveness{Strikes: 1, Suspensions: 1})
	b.wantSuspended(t, 0, 0)
	k := b.standing(t, 0).Strikes[1]
	if k.ForgivenAt == nil || k.Reason != "the scanner was down" || k.Counts {
		t.Errorf("forgiven strike %+v", k)
	}
	wantEqual(t, "counting strikes", b.counting(t, 0), 1) // the other strike counts again
	wantEqual(t, "ask at", b.standing(t, 0).AskAtBranch, "branch-0")
	audit := storetest.Value[string](t, b.db,
		`SELECT action || ' ' || object || ' ' || reason || ' ' || after::text FROM audit_log`)
	wantEqual(t, "audit", audit,
		fmt.Sprintf(`test strike/%d the scanner was down {"lifted": 1, "forgiven": 1}`, id))

	forgive(order, library.Forgiveness{}) // the second call finds nothing to do
	wantEqual(t, "audit rows", b.audits(t), 1)

	// The suspension was lifted, so the next one is the first of the ladder again.
	b.miss(t, 0, 0, 240)
	b.judge(t)
	b.wantSuspended(t, 0, 255+7*day)

	_, err := b.ForgiveStrikes(t.Context(), order, library.StrikeSelection{StrikeID: id + 1000})
	wantErr(t, err, library.ErrStrikeNotFound)
	storetest.CheckInvariants(t, b.db)
}

// TestForgiveKeepsSuspension forgives one of three strikes that led to a suspension by a limit of
// two. Two strikes are enough for the suspension.
func TestForgiveKeepsSuspension(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 2, 30, 7)
	for i := range 3 {
		b.miss(t, 0, 0, 120*i)
	}
	b.judge(t)
	strikes := b.standing(t, 0).Strikes
	for i, want := range []library.Forgiveness{{Strikes: 1}, {Strikes: 1, Suspensions: 1}, {Strikes: 1}} {
		got, err := b.ForgiveStrikes(t.Context(), byHost("x"), library.StrikeSelection{StrikeID: strikes[i].ID})
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, fmt.Sprintf("forgiven strike %d", i), got, want)
	}
	b.wantSuspended(t, 0, 0)
	wantEqual(t, "counting strikes", b.counting(t, 0), 0)
}

// TestForgiveSpan forgives the strikes of a branch in an hour. User 0 has both strikes in it, user
// 1 has one in it, and user 2 has both at another branch.
func TestForgiveSpan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 2, 30, 7)
	b.seats = append(b.seats, b.db.Seats(t, 1)...)
	for _, m := range []struct{ user, seat, from int }{
		{1, 0, 0}, {0, 0, 120}, {2, 5, 130}, {0, 1, 150}, {1, 0, 160}, {2, 5, 170},
	} {
		b.clock(t, m.from)
		b.reserve(t, m.user, m.seat, m.from, m.from+30)
		b.clock(t, m.from+15)
		wantDone(t, 1, b.MarkNoShows)
	}
	wantEqual(t, "suspended", b.judge(t), 3)
	until := at(240)
	for user := range 3 {
		if b.standing(t, user).SuspendedUntil == nil {
			t.Fatalf("user %d is not suspended", user)
		}
	}
	which := library.StrikeSelection{Branch: "branch-0", StartTime: at(120), EndTime: until}
	for _, want := range []library.Forgiveness{{Strikes: 3, Suspensions: 2}, {}} {
		got, err := b.ForgiveStrikes(t.Context(), byHost("power cut"), which)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "forgiven", got, want)
	}
	b.wantSuspended(t, 0, 0)
	b.wantSuspended(t, 1, 0)
	if b.standing(t, 2).SuspendedUntil == nil {
		t.Error("the strikes of another branch were forgiven")
	}
	wantEqual(t, "counting strikes of user 1", b.counting(t, 1), 1)
	wantEqual(t, "audit", storetest.Rows[string](t, b.db, `SELECT object FROM audit_log`), []string{"branch/branch-0"})
	which.Branch = "nowhere"
	_, err := b.ForgiveStrikes(t.Context(), byHost("x"), which)
	wantErr(t, err, library.ErrBranchNotFound)
}

// staffOf makes a user a librarian of branches, given as SQL, and returns the actor.
func (b bundle) staffOf(t *testing.T, user int, branches string) library.Actor {
	t.Helper()
	b.db.Exec(t, `UPDATE users SET role = 'LIBRARIAN', branches = `+branches+` WHERE id = $1`, b.users[user])
	ids, err := b.Identities(t.Context(), b.users[user])
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	return library.Actor{Token: &ids[0], Role: library.RoleLibrarian}
}

func TestForgiveInScope(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 1, 30, 7)
	b.db.Seats(t, 1)
	b.miss(t, 0, 0, 0)
	b.judge(t)
	which := library.StrikeSelection{StrikeID: b.standing(t, 0).Strikes[0].ID}
	span := library.StrikeSelection{Branch: "branch-0", StartTime: noon, EndTime: at(60)}
	for branches, want := range map[string]error{
		`'{}'`: library.ErrBranchRequired,
		`(SELECT array_agg(id) FROM branches WHERE code = 'branch-1')`: library.ErrBranchRequired,
		`(SELECT array_agg(id) FROM branches WHERE code = 'branch-0')`: nil,
		`NULL`: nil,
	} {
		order := byHost("x")
		order.ValidateOnly, order.Actor = true, b.staffOf(t, 4, branches)
		for _, selection := range []library.StrikeSelection{which, span} {
			if _, err := b.ForgiveStrikes(t.Context(), order, selection); !errors.Is(err, want) {
				t.Errorf("branches %s: got %v, want %v", branches, err, want)
			}
		}
		wantScope := want
		if branches != `'{}'` {
			wantScope = nil // a suspension holds for the whole library
		}
		if _, err := b.SetSuspension(t.Context(), order, b.users[1], at(day)); !errors.Is(err, wantScope) {
			t.Errorf("SetSuspension with branches %s: got %v, want %v", branches, err, wantScope)
		}
	}
}

func TestSetSuspension(t *testing.T) {
	t.Parallel()
	b := setup(t)
	set := func(until int, reason string, validate bool) {
		t.Helper()
		order := byHost(reason)
		order.ValidateOnly = validate
		var end time.Time
		if until != 0 {
			end = at(until)
		}
		p, err := b.SetSuspension(t.Context(), order, b.users[0], end)
		if err != nil {
			t.Fatal(err)
		}
		if until == 0 && p.SuspendedUntil != nil || until != 0 && !p.SuspendedUntil.Equal(end) || p.ID != b.users[0] {
			t.Errorf("answer %+v, want the end %v", p, end)
		}
	}
	set(7*day, "rude", true)
	b.wantSuspended(t, 0, 0)
	set(0, "nothing to do", false)
	wantEqual(t, "audit rows", b.audits(t), 0)
	for _, until := range []int{7 * day, 7 * day, 14 * day, 3 * day, 366 * day, 0, 0} {
		set(until, "rude", false)
		b.wantSuspended(t, 0, until)
	}
	type change struct {
		Before, After struct{ SuspendedUntil *time.Time }
	}
	var got []string
	for _, text := range storetest.Rows[string](t, b.db, `
		SELECT json_build_object('Before', json_build_object('SuspendedUntil', before->'suspended_until'),
			'After', json_build_object('SuspendedUntil', after->'suspended_until'))::text FROM audit_log ORDER BY id`) {
		var c change
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		minutes := func(end *time.Time) float64 {
			if end == nil {
				return 0
			}
			return end.Sub(noon).Hours() / 24
		}
		got = append(got, fmt.Sprintf("%.0f to %.0f", minutes(c.Before.SuspendedUntil), minutes(c.After.SuspendedUntil)))
	}
	wantEqual(t, "audit log", got, []string{"0 to 7", "7 to 14", "14 to 3", "3 to 366", "366 to 0"})
	wantEqual(t, "objects", storetest.Rows[string](t, b.db, `SELECT DISTINCT object FROM audit_log`),
		[]string{fmt.Sprintf("user/%d", b.users[0])})

	for _, wrong := range []int{-1, 366*day + 1} {
		_, err := b.SetSuspension(t.Context(), byHost("x"), b.users[0], at(wrong))
		refused, ok := errors.AsType[*library.Error](err)
		if !ok || len(refused.Fields) != 1 || refused.Fields[0].Field != "until" {
			t.Errorf("until %d: %v", wrong, err)
		}
	}
	_, err := b.SetSuspension(t.Context(), byHost("x"), b.users[0]+1000, at(day))
	wantErr(t, err, library.ErrPersonNotFound)
}

// TestStaffAndStrikesSuspend ends a suspension by staff, and then one by strikes, in both orders.
func TestStaffAndStrikesSuspend(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 1, 30, 7)
	b.miss(t, 0, 0, 0)
	b.judge(t)
	if _, err := b.SetSuspension(t.Context(), byHost("rude"), b.users[0], at(30*day)); err != nil {
		t.Fatal(err)
	}
	b.wantSuspended(t, 0, 30*day)
	which := library.StrikeSelection{StrikeID: b.standing(t, 0).Strikes[0].ID}
	if _, err := b.ForgiveStrikes(t.Context(), byHost("x"), which); err != nil {
		t.Fatal(err)
	}
	b.wantSuspended(t, 0, 30*day) // the suspension by staff remains
	wantEqual(t, "ask at", b.standing(t, 0).AskAtBranch, "")
}

// TestStrikesWhileUsersAct lets 40 users act at 40 seats while their deadlines pass: they check in,
// cancel, extend, and book the same seat for later. Three workers mark no-shows and judge strikes,
// and staff forgive them. No transaction may deadlock, each no-show has exactly one strike, and
// each suspension the right strikes.
func TestStrikesWhileUsersAct(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 2, 30, 7)
	b.seats, b.users = b.db.Seats(t, rivals), b.db.Users(t, rivals)
	stores := b.replicas(t, 3)
	deadlocks := func() int64 {
		return storetest.Value[int64](t, b.db, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
	}
	before := deadlocks()
	judgeAll := func(s *store.Store) func(context.Context, int) (int, bool, error) {
		return func(ctx context.Context, limit int) (int, bool, error) {
			users, err := s.Unjudged(ctx, nil, limit)
			for _, user := range users {
				if _, _, err := s.Judge(ctx, user); err != nil {
					return 0, false, err
				}
			}
			return len(users), false, err
		}
	}
	var done, refused, noShows atomic.Int64
	for round := range 4 {
		from := 120 * round
		b.clock(t, from)
		b.db.Exec(t, `
			UPDATE users SET suspended_until = NULL;
			UPDATE suspensions SET lifted_at = dlsms_now() WHERE lifted_at IS NULL`)
		ids := make([]int64, rivals)
		for i := range ids {
			ids[i] = b.reserve(t, i, i, from, from+60).ID
		}
		b.db.SetClock(t, at(from+15).Add(-20*time.Millisecond))
		forgive := func(ctx context.Context, _ int) (int, bool, error) {
			_, err := stores[0].ForgiveStrikes(ctx, byHost("x"), library.StrikeSelection{
				Branch: "branch-1", StartTime: at(from), EndTime: at(from + 60)})
			return 0, false, err
		}
		steps := []func(context.Context, int) (int, bool, error){
			stores[0].MarkNoShows, stores[1].MarkNoShows, stores[2].MarkNoShows, judgeAll(stores[1]), judgeAll(stores[2]),
		}
		if round%2 == 1 {
			steps = append(steps, forgive)
		}
		whileWorking(t, func() {
			eachInTurn(8, 2*rivals, func(n int) {
				i, s := n/2, stores[n%3]
				var err error
				switch rand.IntN(5) {
				case 0:
					_, err = s.CheckIn(t.Context(), b.users[i], ids[i], nil)
				case 1:
					_, err = s.Cancel(t.Context(), b.users[i], ids[i])
				case 2, 3: // to its present end: this changes nothing, but locks the user and then the seat
					_, err = s.Extend(t.Context(), b.users[i], ids[i], at(from+60))
				default:
					_, err = s.Reserve(t.Context(), library.Booking{
						UserID: b.users[i], SeatID: b.seats[i], StartTime: at(from + 61), EndTime: at(from + 90)})
				}
				switch {
				case err == nil:
					done.Add(1)
				case errors.Is(err, library.ErrCheckInTooLate), errors.Is(err, library.ErrNotConfirmed),
					errors.Is(err, library.ErrSuspended), errors.Is(err, library.ErrSeatTaken),
					errors.Is(err, library.ErrUserBusy):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
			b.untilPast(t, at(from+15))
		}, steps...)
		b.clock(t, from+100)
		for _, step := range []func(context.Context, int) (int, bool, error){b.MarkNoShows, b.CompleteEnded} {
			if _, _, err := step(t.Context(), 1000); err != nil {
				t.Fatal(err)
			}
		}
		b.judge(t)
	}
	noShows.Store(storetest.Value[int64](t, b.db, `SELECT count(*) FROM reservations WHERE status = 'NO_SHOW'`))
	strikes := storetest.Value[int64](t, b.db, `SELECT count(*) FROM strikes`)
	t.Logf("%d done, %d refused, %d no-shows", done.Load(), refused.Load(), noShows.Load())
	if noShows.Load() == 0 || strikes != noShows.Load() {
		t.Errorf("%d strikes, want one for each of %d no-shows", strikes, noShows.Load())
	}
	if n := deadlocks() - before; n != 0 {
		t.Errorf("%d deadlocks", n)
	}
	if wrong := storetest.Rows[string](t, b.db, `
		SELECT format('suspension %s: %s strikes', x.id, count(k.id)) FROM suspensions x
		LEFT JOIN strikes k ON k.suspension_id = x.id AND k.user_id = x.user_id AND k.forgiven_at IS NULL
		WHERE x.lifted_at IS NULL GROUP BY x.id HAVING count(k.id) < 2`); len(wrong) > 0 {
		t.Error(wrong)
	}
	storetest.CheckInvariants(t, b.db)
}
