package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/dlsms/dlsms/library"
)

const (
	// withPolicy joins the seat, branch and user of r, which is a reservation or a waitlist entry, and
	// the policy p that applies to it. If there is no policy, the columns of p are NULL, and the
	// settings of the process apply.
	withPolicy = atSeat + `
	JOIN users u ON u.library_id = r.library_id AND u.id = r.user_id
	LEFT JOIN LATERAL dlsms_policy(r.library_id, s.branch_id, s.area, u.user_group,
		(lower(r.during) AT TIME ZONE b.timezone)::date) p ON true`

	// withQuotas joins the quotas of the policy p, and what the user has used without r. The usage is
	// computed only if there is a quota.
	withQuotas = `
	LEFT JOIN LATERAL (
		SELECT p.max_minutes_per_day, p.max_minutes_per_week, p.max_reservations_per_day, p.max_reservations_per_week, g.*
		FROM dlsms_usage(r.library_id, r.user_id, b.timezone, lower(r.during), r.id) g
		WHERE GREATEST(p.max_minutes_per_day, p.max_minutes_per_week,
			p.max_reservations_per_day, p.max_reservations_per_week) > 0 OFFSET 0
	) w ON true`

	// quotaColumns are the columns of quotaUse. w has the limits and the usage.
	quotaColumns = `
		ARRAY[w.max_minutes_per_day, w.max_minutes_per_week, w.max_reservations_per_day,
			w.max_reservations_per_week]::bigint[] AS limits,
		ARRAY[extract(epoch FROM w.day_time) * 1000000, extract(epoch FROM w.week_time) * 1000000,
			w.day_count, w.week_count]::bigint[] AS used`
)

// quotaNames are the rules and the outcomes of the quotas, in the order of the columns of quotaUse.
// The first minuteQuotas of them limit minutes, and the others limit the number of reservations.
var quotaNames = []string{
	"max_minutes_per_day", "max_minutes_per_week", "max_reservations_per_day", "max_reservations_per_week",
}

const minuteQuotas = 2

// quotaUse has the limits of a user on a day and in a week, and what the user has used of them. A
// limit that is nil or 0 is none.
type quotaUse struct {
	Limits []*int64 // minutes or reservations
	Used   []*int64 // microseconds or reservations
}

// exhausted returns ErrQuotaExhausted if a reservation of this length would exceed a limit. added
// says that the reservation is new.
func (q quotaUse) exhausted(length time.Duration, added bool) error {
	for i, limit := range q.Limits {
		if limit == nil || *limit == 0 || q.Used[i] == nil {
			continue
		}
		most, wanted := *limit, *q.Used[i]
		switch {
		case i < minuteQuotas:
			most *= time.Minute.Microseconds()
			wanted += length.Microseconds()
		case added:
			wanted++
		default:
			continue
		}
		if wanted > most {
			return q.refusal(i)
		}
	}
	return nil
}

// refusal returns the error for the quota with index i. Its numbers are absent if they have changed
// since.
func (q quotaUse) refusal(i int) error {
	err := library.ErrQuotaExhausted.With("rule", quotaNames[i])
	if q.Limits[i] == nil || q.Used[i] == nil {
		return err
	}
	used := *q.Used[i]
	if i < minuteQuotas {
		used /= time.Minute.Microseconds()
	}
	return err.With("limit", strconv.FormatInt(*q.Limits[i], 10)).With("used", strconv.FormatInt(used, 10))
}

// longestWindow returns a length that no policy allows to exceed.
func (s *Store) longestWindow() time.Duration {
	return max(s.policy.MaxDuration, maxStaffBooking) + library.ClockTolerance
}

const (
	// The lock of the library puts the changes of its policies one after another. Each of them
	// resolves all policies.
	lockLibrary = `SELECT 1 FROM libraries WHERE id = $1 FOR NO KEY UPDATE`

	selectPolicies = `
		SELECT p.id, COALESCE(p.branch_id, 0) AS branch_id, COALESCE(b.code, '') AS branch,
			COALESCE(p.area, '') AS area, COALESCE(p.user_group, '') AS user_group,
			lower(p.dates) AS first_day, upper(p.dates) - 1 AS last_day, p.rules
		FROM policies p LEFT JOIN branches b ON b.library_id = p.library_id AND b.id = p.branch_id
		WHERE p.library_id = $1`

	insertPolicy = `
		INSERT INTO policies (library_id, branch_id, area, user_group, dates, rules)
		VALUES ($1, $2, $3, $4, daterange($5, $6, '[]'), $7)`
	updatePolicy = `UPDATE policies SET rules = $3 WHERE library_id = $1 AND id = $2`
	deletePolicy = `DELETE FROM policies WHERE library_id = $1 AND id = $2`

	deleteEffective = `DELETE FROM effective_policies WHERE library_id = $1`

	selectAreaExists = `
		SELECT EXISTS (SELECT FROM seats
			WHERE library_id = $1 AND branch_id = $2 AND area = $3 AND retired_at IS NULL)`
)

// policyRow is a row of policies.
type policyRow struct {
	ID        int64
	BranchID  int64
	Branch    string
	Area      string
	UserGroup string
	FirstDay  *time.Time
	LastDay   *time.Time
	Rules     library.Rules
}

func (r policyRow) scoped() library.ScopedRules {
	p := library.ScopedRules{PolicyScope: library.PolicyScope{
		BranchID: r.BranchID, Branch: r.Branch, Area: r.Area, Group: r.UserGroup,
	}, Rules: r.Rules}
	if r.FirstDay != nil {
		p.FirstDay = *r.FirstDay
	}
	if r.LastDay != nil {
		p.LastDay = *r.LastDay
	}
	return p
}

func (t *staffTx) policies(ctx context.Context) ([]policyRow, error) {
	return rowsOf(ctx, t, pgx.RowToStructByName[policyRow], selectPolicies, t.s.lib)
}

// Policies returns the policies of the library and of the branches in the scope of the actor, the
// least specific first.
func (s *Store) Policies(ctx context.Context, actor library.Actor) ([]library.ScopedRules, error) {
	var out []library.ScopedRules
	err := s.asStaff(ctx, library.Order{Actor: actor}, func(ctx context.Context, t *staffTx) error {
		rows, err := t.policies(ctx)
		for _, r := range rows {
			if r.BranchID == 0 || t.includes(r.BranchID) == nil {
				out = append(out, r.scoped())
			}
		}
		return err
	})
	slices.SortFunc(out, func(a, b library.ScopedRules) int {
		return library.ComparePrecedence(a.PolicyScope, b.PolicyScope)
	})
	return out, err
}

// SetPolicy sets the rules of the policy with the scope of p, in place of its rules before. Without
// rules, it removes the policy. It returns the policy after the change. It fails with
// ErrBranchNotFound, ErrBranchRequired, or Invalid if the area does not exist, the last day of a
// policy with rules is in the past, or the policies have too many combinations: see
// library.MaxEffectiveRules.
func (s *Store) SetPolicy(
	ctx context.Context, order library.Order, p library.ScopedRules,
) (library.ScopedRules, error) {
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error { return t.setPolicy(ctx, &p) })
	return p, err
}

// setPolicy is SetPolicy in a transaction. It sets the id of the branch of p.
func (t *staffTx) setPolicy(ctx context.Context, p *library.ScopedRules) error {
	if err := t.lockScope(ctx, &p.PolicyScope); err != nil {
		return err
	}
	if _, err := t.Exec(ctx, lockLibrary, t.s.lib); err != nil {
		return err
	}
	now, err := t.now(ctx)
	if err != nil {
		return err
	}
	// The last day may still have begun somewhere on earth.
	if !p.Rules.Empty() && !p.LastDay.IsZero() && p.LastDay.Add(48*time.Hour).Before(now) {
		return library.Invalid(library.FieldViolation{Field: "policy.last_day", Message: "it is in the past"})
	}
	rows, err := t.policies(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(rows, func(r policyRow) bool {
		return library.ComparePrecedence(r.scoped().PolicyScope, p.PolicyScope) == 0
	})
	switch {
	case i < 0 && p.Rules.Empty(), i >= 0 && rows[i].Rules.Equal(p.Rules):
		return nil
	case i < 0 && p.Area != "":
		err = t.requireArea(ctx, p.PolicyScope)
	}
	if err == nil && p.Rules.CheckIn != nil && p.Rules.CheckIn.NeedsScreen() {
		err = t.requireScreens(ctx, rows, p.BranchID)
	}
	if err == nil {
		err = t.writePolicy(ctx, rows, i, *p)
	}
	return err
}

// lockScope locks the branch of a policy and sets its id. A policy of the library requires a scope
// of all branches.
func (t *staffTx) lockScope(ctx context.Context, scope *library.PolicyScope) error {
	if scope.Branch == "" {
		scope.BranchID = 0
		return t.includes(0)
	}
	b, err := t.lockBranch(ctx, scope.Branch)
	scope.BranchID = b.ID
	return err
}

func (t *staffTx) requireArea(ctx context.Context, scope library.PolicyScope) error {
	var exists bool
	err := t.QueryRow(ctx, selectAreaExists, t.s.lib, scope.BranchID, scope.Area).Scan(&exists)
	if err == nil && !exists {
		err = library.Invalid(library.FieldViolation{
			Field: "policy.area", Message: "names an area in which the branch has no seat",
		})
	}
	return err
}

// RepairPolicies resolves the policies again if a replica of the release before has removed the rules
// for check-in from the resolved ones: it does not know them. Each replica calls it when it starts.
// The last replica of an update starts when no older one runs any more.
func (s *Store) RepairPolicies(ctx context.Context) error {
	lost, err := queryOne(ctx, s.pool, pgx.ErrNoRows, pgx.RowTo[bool], selectCheckInLost, s.lib)
	if err != nil || !lost {
		return err
	}
	return s.asStaff(ctx, library.Order{Actor: library.Host}, func(ctx context.Context, t *staffTx) error {
		if _, err := t.Exec(ctx, lockLibrary, s.lib); err != nil {
			return err
		}
		rows, err := t.policies(ctx)
		if err != nil {
			return err
		}
		return t.writeEffective(ctx, rows)
	})
}

const selectCheckInLost = `
	SELECT EXISTS (SELECT FROM policies WHERE library_id = $1 AND rules ? 'check_in')
		AND NOT EXISTS (SELECT FROM effective_policies WHERE library_id = $1 AND check_in IS NOT NULL)`

// selectScreenless returns branches without a screen that is on. $2 is a branch, or 0 for all, and $3
// are branches to leave out.
const selectScreenless = `
	SELECT b.code FROM branches b
	WHERE b.library_id = $1 AND ($2::bigint = 0 OR b.id = $2) AND b.id <> ALL ($3::bigint[])
		AND EXISTS (SELECT FROM seats s WHERE s.library_id = $1 AND s.branch_id = b.id AND s.retired_at IS NULL)
		AND NOT EXISTS (SELECT FROM screens c WHERE c.library_id = $1 AND c.branch_id = b.id AND NOT c.off)
	ORDER BY b.code LIMIT 5`

// requireScreens fails with Invalid if a rule that needs a screen would hold at a branch without one.
// A rule of the whole library, with the branch 0, does not hold at a branch that has a rule of its own.
func (t *staffTx) requireScreens(ctx context.Context, policies []policyRow, branch int64) error {
	own := []int64{}
	for _, p := range policies {
		if p.Rules.CheckIn != nil && branch == 0 {
			own = append(own, p.BranchID)
		}
	}
	without, err := rowsOf(ctx, t, pgx.RowTo[string], selectScreenless, t.s.lib, branch, own)
	if err == nil && len(without) > 0 {
		err = library.Invalid(library.FieldViolation{
			Field:   "policy.rules.check_in",
			Message: "requires a screen that is on: add one with UpsertScreen to " + strings.Join(without, ", "),
		})
	}
	return err
}

// writePolicy writes a policy in place of rows[i], or as a new policy if i is below 0, and resolves
// all policies.
func (t *staffTx) writePolicy(ctx context.Context, rows []policyRow, i int, p library.ScopedRules) error {
	var before, after any
	var err error
	switch {
	case i < 0:
		_, err = t.Exec(ctx, insertPolicy, t.s.lib, orNil(p.BranchID), orNil(p.Area), orNil(p.Group),
			orNil(p.FirstDay), orNil(p.LastDay), p.Rules)
		rows = append(rows, policyRow{
			BranchID: p.BranchID, Branch: p.Branch, Area: p.Area, UserGroup: p.Group,
			FirstDay: orNil(p.FirstDay), LastDay: orNil(p.LastDay), Rules: p.Rules,
		})
	case p.Rules.Empty():
		before = rows[i].Rules
		_, err = t.Exec(ctx, deletePolicy, t.s.lib, rows[i].ID)
		rows = slices.Delete(rows, i, i+1)
	default:
		before = rows[i].Rules
		_, err = t.Exec(ctx, updatePolicy, t.s.lib, rows[i].ID, p.Rules)
		rows[i].Rules = p.Rules
	}
	if err != nil {
		return err
	}
	if !p.Rules.Empty() {
		after = p.Rules
	}
	if err := t.writeEffective(ctx, rows); err != nil {
		return err
	}
	return t.audit(ctx, p.BranchID, policyObject(p.PolicyScope), before, after)
}

// policyObject returns the name of a policy in the audit log. Example:
// policy/main/Quiet Floor/phd/2026-02-01..2026-02-14.
func policyObject(scope library.PolicyScope) string {
	day := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Format(time.DateOnly)
	}
	name := strings.Join([]string{
		"policy", scope.Branch, scope.Area, scope.Group, day(scope.FirstDay) + ".." + day(scope.LastDay),
	}, "/")
	return strings.TrimRight(strings.TrimSuffix(name, "/.."), "/")
}

// writeEffective resolves the policies and replaces all rows of effective_policies of the library.
// The caller has locked the library.
func (t *staffTx) writeEffective(ctx context.Context, rows []policyRow) error {
	policies := make([]library.ScopedRules, len(rows))
	for i, r := range rows {
		policies[i] = r.scoped()
	}
	effective, ok := library.ResolvePolicies(policies)
	if !ok {
		return library.Invalid(library.FieldViolation{Field: "policy", Message: fmt.Sprintf(
			"the policies of the library would have more than %d combinations of branches, areas, groups and dates",
			library.MaxEffectiveRules)})
	}
	if _, err := t.Exec(ctx, deleteEffective, t.s.lib); err != nil {
		return err
	}
	columns := []string{
		"library_id", "branch_id", "area", "user_group", "dates", "may_book", "min_duration", "max_duration", "step",
		"max_ahead", "opens_at", "max_upcoming", "max_minutes_per_day", "max_minutes_per_week",
		"max_reservations_per_day", "max_reservations_per_week", "cancel_until", "check_in_lead", "grace",
		"check_in", "strike_limit", "strike_days", "suspension_days",
	}
	_, err := t.CopyFrom(ctx, pgx.Identifier{"effective_policies"}, columns,
		pgx.CopyFromSlice(len(effective), func(i int) ([]any, error) {
			e, r := effective[i], effective[i].Rules
			return []any{
				t.s.lib, e.BranchID, e.Area, e.Group, policyDates(e.From, e.Until), r.MayBook, ruleInterval(r.MinDuration),
				ruleInterval(r.MaxDuration), ruleInterval(r.Step), ruleInterval(r.MaxAhead), ruleTime(r.OpensAt), r.MaxUpcoming,
				r.MaxMinutesPerDay, r.MaxMinutesPerWeek, r.MaxReservationsPerDay, r.MaxReservationsPerWeek,
				ruleInterval(r.LatestCancellation), ruleInterval(r.CheckInLead), ruleInterval(r.Grace),
				r.CheckIn, r.StrikeLimit, r.StrikeDays, r.SuspensionDays,
			}, nil
		}))
	return err
}

// ruleInterval converts a duration for a column of the type interval.
func ruleInterval(d *library.Span) pgtype.Interval {
	if d == nil {
		return pgtype.Interval{}
	}
	return pgtype.Interval{Microseconds: time.Duration(*d).Microseconds(), Valid: true}
}

// ruleTime converts a time after midnight for a column of the type time.
func ruleTime(d *library.Span) pgtype.Time {
	if d == nil {
		return pgtype.Time{}
	}
	return pgtype.Time{Microseconds: time.Duration(*d).Microseconds(), Valid: true}
}

// policyDates returns the range [from, until). A zero date means that there is no limit.
func policyDates(from, until time.Time) pgtype.Range[pgtype.Date] {
	r := pgtype.Range[pgtype.Date]{LowerType: pgtype.Unbounded, UpperType: pgtype.Unbounded, Valid: true}
	if !from.IsZero() {
		r.Lower, r.LowerType = pgtype.Date{Time: from, Valid: true}, pgtype.Inclusive
	}
	if !until.IsZero() {
		r.Upper, r.UpperType = pgtype.Date{Time: until, Valid: true}, pgtype.Exclusive
	}
	return r
}

// Defaults returns the rules of the settings of the process, which hold where no policy sets a rule.
func (s *Store) Defaults() library.Rules { return s.policy.Rules() }
