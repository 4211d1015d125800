package store_test

import (
	"encoding/json"
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

func ptr[T any](v T) *T { return &v }

func lasting(d time.Duration) *library.Span { return ptr(library.Span(d)) }

func date(text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	return days(text)[0]
}

// host is the order of a command on the host.
var host = library.Order{Actor: library.Host, Action: "SetPolicy"}

// setPolicy sets a policy of the library.
func (b bundle) setPolicy(t *testing.T, rules library.Rules) {
	t.Helper()
	b.setPolicyOf(t, library.PolicyScope{}, rules)
}

func (b bundle) setPolicyOf(t *testing.T, scope library.PolicyScope, rules library.Rules) {
	t.Helper()
	if _, err := b.SetPolicy(t.Context(), host, library.ScopedRules{PolicyScope: scope, Rules: rules}); err != nil {
		t.Fatal(err)
	}
}

// numbers returns rules as numbers by name. It is the form in which the test compares the rules of
// Go with the columns of effective_policies.
func numbers(r library.Rules) map[string]any {
	out := map[string]any{}
	for name, d := range map[string]*library.Span{
		"min": r.MinDuration, "max": r.MaxDuration, "step": r.Step, "ahead": r.MaxAhead, "opens": r.OpensAt,
		"cancel": r.LatestCancellation, "lead": r.CheckInLead, "grace": r.Grace,
	} {
		if d != nil {
			out[name] = time.Duration(*d).Seconds()
		}
	}
	for name, n := range map[string]*int{
		"upcoming": r.MaxUpcoming, "minutes_day": r.MaxMinutesPerDay, "minutes_week": r.MaxMinutesPerWeek,
		"count_day": r.MaxReservationsPerDay, "count_week": r.MaxReservationsPerWeek, "strikes": r.StrikeLimit,
		"strike_days": r.StrikeDays,
	} {
		if n != nil {
			out[name] = float64(*n)
		}
	}
	if r.MayBook != nil {
		out["may"] = *r.MayBook
	}
	if r.SuspensionDays != nil {
		out["suspensions"] = fmt.Sprint(r.SuspensionDays)
	}
	return out
}

const selectNumbers = `
	SELECT COALESCE((SELECT jsonb_strip_nulls(jsonb_build_object(
			'may', p.may_book, 'min', extract(epoch FROM p.min_duration), 'max', extract(epoch FROM p.max_duration),
			'step', extract(epoch FROM p.step), 'ahead', extract(epoch FROM p.max_ahead),
			'opens', extract(epoch FROM p.opens_at), 'cancel', extract(epoch FROM p.cancel_until),
			'lead', extract(epoch FROM p.check_in_lead), 'grace', extract(epoch FROM p.grace),
			'upcoming', p.max_upcoming, 'minutes_day', p.max_minutes_per_day, 'minutes_week', p.max_minutes_per_week,
			'count_day', p.max_reservations_per_day, 'count_week', p.max_reservations_per_week,
			'strikes', p.strike_limit, 'strike_days', p.strike_days,
			'suspensions', '[' || array_to_string(p.suspension_days, ' ') || ']'))
		FROM dlsms_policy(1, x.branch, x.area, x.grp, x.day) p), '{}')::text
	FROM unnest($1::bigint[], $2::text[], $3::text[], $4::date[]) WITH ORDINALITY x (branch, area, grp, day, place)
	ORDER BY place`

// drawRules draws rules, each of them with a probability of about one in three.
func drawRules(t *rapid.T) library.Rules {
	set := func() bool { return rapid.IntRange(0, 2).Draw(t, "set") == 0 }
	minutes := func(least, most int) *library.Span {
		if !set() {
			return nil
		}
		return lasting(time.Duration(rapid.IntRange(least, most).Draw(t, "minutes")) * time.Minute)
	}
	number := func(most int) *int {
		if !set() {
			return nil
		}
		return ptr(rapid.IntRange(0, most).Draw(t, "number"))
	}
	r := library.Rules{
		MinDuration: minutes(1, 90), MaxDuration: minutes(60, 600), MaxAhead: minutes(60, 4*24*60),
		MaxUpcoming: number(5), MaxMinutesPerDay: number(600), MaxMinutesPerWeek: number(1200),
		MaxReservationsPerDay: number(3), MaxReservationsPerWeek: number(5), LatestCancellation: minutes(0, 300),
		CheckInLead: minutes(0, 60), Grace: minutes(0, 60), StrikeLimit: number(5), OpensAt: minutes(0, 24*60-1),
	}
	if set() {
		r.MayBook = ptr(rapid.IntRange(0, 3).Draw(t, "may") > 0)
	}
	if set() {
		r.Step = lasting(time.Duration(rapid.SampledFrom([]int{15, 30, 60, 90, 120}).Draw(t, "step")) * time.Minute)
	}
	if set() {
		r.StrikeDays, r.SuspensionDays = ptr(rapid.IntRange(1, 9).Draw(t, "days")), []int{1, 7}
	}
	return r
}

// places are the values of the scopes that random policies and bookings use.
type places struct {
	branches []library.PolicyScope // with only the branch set
	areas    []string
	groups   []string
	days     []string
}

func (p places) drawScope(t *rapid.T) library.PolicyScope {
	var scope library.PolicyScope
	if rapid.Bool().Draw(t, "has branch") {
		scope = rapid.SampledFrom(p.branches).Draw(t, "branch")
		if rapid.Bool().Draw(t, "has area") {
			scope.Area = rapid.SampledFrom(p.areas).Draw(t, "area")
		}
	}
	if rapid.Bool().Draw(t, "has group") {
		scope.Group = rapid.SampledFrom(p.groups).Draw(t, "group")
	}
	first := date(rapid.SampledFrom(append([]string{""}, p.days...)).Draw(t, "first"))
	last := date(rapid.SampledFrom(append([]string{""}, p.days...)).Draw(t, "last"))
	if !last.IsZero() && last.Before(first) {
		first, last = last, first
	}
	scope.FirstDay, scope.LastDay = first, last
	return scope
}

// rank orders the policies that apply to one reservation. It is a second implementation of
// library.ComparePrecedence, with numbers.
func rank(s library.PolicyScope) []int {
	level := map[[3]bool]int{
		{false, false, false}: 0, {false, false, true}: 1, {true, false, false}: 2, {true, false, true}: 3,
		{true, true, false}: 4, {true, true, true}: 5,
	}[[3]bool{s.Branch != "", s.Area != "", s.Group != ""}]
	day := func(t time.Time, none int) int {
		if t.IsZero() {
			return none
		}
		return int(t.Unix() / 86400)
	}
	dated := 0
	if !s.FirstDay.IsZero() || !s.LastDay.IsZero() {
		dated = 1
	}
	return []int{level, dated, day(s.FirstDay, -1), -day(s.LastDay, 1<<30)}
}

// rulesOf returns the rules for a reservation, computed from the policies one rule at a time.
func rulesOf(policies []library.ScopedRules, branch, area, group string, on time.Time) map[string]any {
	out, best := map[string]any{}, map[string][]int{}
	for _, p := range policies {
		if p.Branch != "" && p.Branch != branch || p.Area != "" && p.Area != area || p.Group != "" && p.Group != group ||
			on.Before(p.FirstDay) || !p.LastDay.IsZero() && on.After(p.LastDay) {
			continue
		}
		for name, value := range numbers(p.Rules) {
			if before, ok := best[name]; !ok || slices.Compare(rank(p.PolicyScope), before) > 0 {
				out[name], best[name] = value, rank(p.PolicyScope)
			}
		}
	}
	return out
}

// TestPoliciesResolveToTheMostSpecificRule sets random policies, and compares the policy of every
// branch, area, group and day with one that is computed rule by rule.
func TestPoliciesResolveToTheMostSpecificRule(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.clock(t, -14*24*60) // before all days
	b.db.Seats(t, 1)
	b.db.Exec(t, `INSERT INTO seats (library_id, branch_id, area, label) SELECT 1, id, 'Quiet', 'Q-1' FROM branches`)
	ids := storetest.Rows[int64](t, b.db, `SELECT id FROM branches ORDER BY code`)
	p := places{
		branches: []library.PolicyScope{{BranchID: ids[0], Branch: "branch-0"}, {BranchID: ids[1], Branch: "branch-1"}},
		areas:    []string{"Area", "Quiet"}, groups: []string{"phd", "staff"},
		days: []string{"2026-02-28", "2026-03-01", "2026-03-02", "2026-03-10"},
	}
	rapid.Check(t, func(rt *rapid.T) {
		b.db.Exec(t, `DELETE FROM policies`)
		b.db.Exec(t, `DELETE FROM effective_policies`)
		var policies []library.ScopedRules
		for range rapid.IntRange(0, 8).Draw(rt, "policies") {
			policy := library.ScopedRules{PolicyScope: p.drawScope(rt), Rules: drawRules(rt)}
			policies = slices.DeleteFunc(policies, func(other library.ScopedRules) bool {
				return other.PolicyScope == policy.PolicyScope
			})
			if !policy.Rules.Empty() {
				policies = append(policies, policy)
			}
			b.setPolicyOf(t, policy.PolicyScope, policy.Rules)
		}
		var branches []int64
		var areas, groups []string
		var on []time.Time
		var want []map[string]any
		for i, id := range ids {
			for _, area := range []string{"Area", "Quiet", "Other"} {
				for _, group := range []string{"", "phd", "staff", "other"} {
					for _, day := range days("2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02", "2026-03-03", "2026-03-11") {
						branches, areas, groups, on = append(branches, id), append(areas, area), append(groups, group), append(on, day)
						want = append(want, rulesOf(policies, p.branches[i].Branch, area, group, day))
					}
				}
			}
		}
		for i, text := range storetest.Rows[string](t, b.db, selectNumbers, branches, areas, groups, on) {
			got := map[string]any{}
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				rt.Fatal(err)
			}
			if diff := cmp.Diff(want[i], got); diff != "" {
				rt.Fatalf("branch %d, area %s, group %s, %v (-want +got):\n%s", branches[i], areas[i], groups[i], on[i], diff)
			}
		}
		listed, err := b.Policies(t.Context(), library.Host)
		if err != nil || len(listed) != len(policies) {
			rt.Fatalf("%d policies listed, %d set; %v", len(listed), len(policies), err)
		}
	})
}

func TestSetPolicyRepeatedOrValidatedChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stored := func() []string {
		return storetest.Rows[string](t, b.db, `
			SELECT p::text FROM policies p UNION ALL SELECT e::text FROM effective_policies e
			UNION ALL SELECT format('%s: %s -> %s, %s', object, before, after, reason) FROM audit_log ORDER BY 1`)
	}
	exams := library.ScopedRules{
		PolicyScope: library.PolicyScope{
			Branch: "branch-0", Area: "Area", Group: "phd", FirstDay: date("2026-03-02"), LastDay: date("2026-03-08"),
		}, Rules: library.Rules{MaxDuration: lasting(2 * time.Hour), OpensAt: lasting(8 * time.Hour)},
	}
	order := host
	order.Reason, order.ValidateOnly = "exams", true
	if _, err := b.SetPolicy(t.Context(), order, exams); err != nil || len(stored()) != 0 {
		t.Fatalf("validated: %v, %v", stored(), err)
	}
	order.ValidateOnly = false
	for range 2 {
		if _, err := b.SetPolicy(t.Context(), order, exams); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "audit", storetest.Rows[string](t, b.db, `
			SELECT format('%s: %s -> %s, %s', object, before, after, reason) FROM audit_log`), []string{
			`policy/branch-0/Area/phd/2026-03-02..2026-03-08:  -> {"opens_at": "8h0m0s", "max_reservation": "2h0m0s"}, exams`,
		})
	}
	listed, err := b.Policies(t.Context(), library.Host)
	if err != nil || len(listed) != 1 || listed[0].LastDay != exams.LastDay || !listed[0].Rules.Equal(exams.Rules) {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	exams.Rules = library.Rules{}
	for range 2 {
		if _, err := b.SetPolicy(t.Context(), host, exams); err != nil {
			t.Fatal(err)
		}
	}
	wantEqual(t, "rows", storetest.Value[string](t, b.db, `SELECT format('%s %s %s', (SELECT count(*) FROM policies),
		(SELECT count(*) FROM effective_policies), (SELECT count(*) FROM audit_log))`), "0 0 2")
}

func TestSetPolicyRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	some := library.Rules{MaxUpcoming: ptr(1)}
	b.db.Seats(t, 1)
	b.db.Exec(t, `UPDATE users SET role = 'LIBRARIAN',
		branches = ARRAY(SELECT id FROM branches WHERE code = 'branch-0') WHERE id = $1`, b.users[0])
	id := library.Identity{ID: b.users[0], StudentID: "U0-1", TokenGeneration: storetest.Value[int64](t, b.db,
		`SELECT token_generation FROM users WHERE id = $1`, b.users[0])}
	librarian := library.Order{Actor: library.Actor{Token: &id, Role: library.RoleLibrarian}, Action: "SetPolicy"}
	for name, tc := range map[string]struct {
		order library.Order
		scope library.PolicyScope
		want  error
	}{
		"an unknown branch":      {host, library.PolicyScope{Branch: "none"}, library.ErrBranchNotFound},
		"an unknown area":        {host, library.PolicyScope{Branch: "branch-0", Area: "None"}, library.Invalid()},
		"the library":            {librarian, library.PolicyScope{Group: "phd"}, library.ErrBranchRequired},
		"a branch out of scope":  {librarian, library.PolicyScope{Branch: "branch-1"}, library.ErrBranchRequired},
		"a branch in scope":      {librarian, library.PolicyScope{Branch: "branch-0"}, nil},
		"a library-wide command": {host, library.PolicyScope{}, nil},
	} {
		_, err := b.SetPolicy(t.Context(), tc.order, library.ScopedRules{PolicyScope: tc.scope, Rules: some})
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	b.setPolicyOf(t, library.PolicyScope{Branch: "branch-1"}, some)
	listed, err := b.Policies(t.Context(), librarian.Actor)
	if err != nil || len(listed) != 2 || listed[0].Branch != "" || listed[1].Branch != "branch-0" {
		t.Errorf("a librarian of branch-0 sees %+v, %v", listed, err)
	}
}

// TestSetPolicyRefusesTooManyCombinations has 142 groups and 142 dates, which make more than 20,000
// combinations.
// TestRepairPolicies restores what a replica of the release before loses: it writes the resolved
// policies without the rule for check-in.
func TestRepairPolicies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.screen(t, "branch-0", "Entrance")
	b.requires(t, library.CheckInScreen)
	effective := func() []string {
		return storetest.Rows[string](t, b.db, `SELECT to_json(p)::text FROM effective_policies p ORDER BY 1`)
	}
	want := effective()
	b.db.Exec(t, `UPDATE effective_policies SET check_in = NULL`)
	for range 2 {
		if err := b.RepairPolicies(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "resolved policies", effective(), want)
	}
}

func TestSetPolicyRefusesTooManyCombinations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `INSERT INTO policies (library_id, user_group, rules)
		SELECT 1, 'group ' || i, '{"max_upcoming": 1}' FROM generate_series(1, 141) i`)
	b.db.Exec(t, `INSERT INTO policies (library_id, dates, rules)
		SELECT 1, daterange(date '2026-01-01' + i, NULL), '{"max_upcoming": 1}' FROM generate_series(1, 140) i`)
	one := library.ScopedRules{Rules: library.Rules{MaxUpcoming: ptr(2)}}
	if _, err := b.SetPolicy(t.Context(), host, one); !errors.Is(err, library.Invalid()) {
		t.Errorf("142 groups and 141 spans of dates: %v", err)
	}
	b.db.Exec(t, `DELETE FROM policies WHERE user_group IN ('group 1', 'group 2')`)
	if _, err := b.SetPolicy(t.Context(), host, one); err != nil {
		t.Errorf("140 groups and 141 spans of dates: %v", err)
	}
}

// TestPoliciesChangeWhileBookingsRun changes policies in three stores, while others book, join,
// claim, extend and cancel. Every booking must follow one of the two policies that alternate:
// reservations of one hour or of two hours. At the end, the effective policies are those of the
// policies.
func TestPoliciesChangeWhileBookingsRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := b.replicas(t, 3)
	users := b.db.Users(t, 12)
	exactly := func(hours int) library.Rules {
		d := time.Duration(hours) * time.Hour
		return library.Rules{
			MinDuration: lasting(d), MaxDuration: lasting(d), MaxUpcoming: ptr(100), MaxAhead: lasting(400 * 24 * time.Hour),
		}
	}
	b.setPolicy(t, exactly(1))
	for _, err := range atOnce(3+len(users), func(i int) error {
		s := stores[i%3]
		for n := range 25 {
			if i < 3 {
				scope := library.PolicyScope{Group: fmt.Sprint("group ", i)}
				if i == 0 {
					scope = library.PolicyScope{}
				}
				if _, err := s.SetPolicy(t.Context(), host, library.ScopedRules{
					PolicyScope: scope, Rules: exactly(1 + n%2),
				}); err != nil {
					return err
				}
				continue
			}
			start := at(n * 300)
			booking := library.Booking{UserID: users[i-3], SeatID: b.seats[(i+n)%5], StartTime: start,
				EndTime: start.Add(time.Duration(1+i%2) * time.Hour)}
			r, err := s.Reserve(t.Context(), booking)
			switch {
			case err == nil && n%3 == 0:
				if _, err := s.Extend(t.Context(), booking.UserID, r.ID, start.Add(2*time.Hour)); err != nil &&
					!errors.Is(err, library.ErrWindowNotAllowed) && !errors.Is(err, library.ErrSeatTaken) {
					return err
				}
			case errors.Is(err, library.ErrSeatTaken):
				if _, err := s.JoinWaitlist(t.Context(), booking); err != nil &&
					!errors.Is(err, library.ErrWindowNotAllowed) && !errors.Is(err, library.ErrTooManyReservations) {
					return err
				}
			case err != nil && !errors.Is(err, library.ErrWindowNotAllowed):
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	wrong := storetest.Rows[string](t, b.db, `SELECT during::text FROM reservations
		WHERE upper(during) - lower(during) NOT IN ('1 hour', '2 hours')`)
	if len(wrong) > 0 {
		t.Errorf("reservations that no policy allowed: %v", wrong)
	}
	wantEqual(t, "effective policies", storetest.Rows[string](t, b.db, `
		SELECT user_group || ' ' || extract(epoch FROM max_duration)::int / 3600 FROM effective_policies
		ORDER BY user_group`),
		[]string{" 1", "group 1 1", "group 2 1"})
	if n := b.deadlocks(t, stores...); n > 0 {
		t.Errorf("%d deadlocks", n)
	}
}
