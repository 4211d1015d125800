package library

import (
	"cmp"
	"reflect"
	"slices"
	"time"
)

// Span is a duration that JSON has as text, such as "1h30m0s".
type Span time.Duration

// MarshalText formats the duration like time.Duration.
func (d Span) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText parses a duration like time.ParseDuration.
func (d *Span) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Span(parsed)
	return err
}

// Rules are the rules that a policy sets. A field that is nil sets no rule. A limit of 0 means no
// limit.
type Rules struct {
	MayBook     *bool `json:"may_book,omitempty"`
	MinDuration *Span `json:"min_reservation,omitempty"`
	MaxDuration *Span `json:"max_reservation,omitempty"`
	// Step is a divisor of 24 hours. Reservations start and end at multiples of Step after midnight,
	// in the time zone of the branch.
	Step     *Span `json:"step,omitempty"`
	MaxAhead *Span `json:"max_ahead,omitempty"`
	// OpensAt is the time after midnight from which a further day can be reserved. With it, MaxAhead
	// counts whole days.
	OpensAt               *Span `json:"opens_at,omitempty"`
	MaxUpcoming           *int  `json:"max_upcoming,omitempty"`
	MaxMinutesPerDay      *int  `json:"max_minutes_per_day,omitempty"`
	MaxMinutesPerWeek     *int  `json:"max_minutes_per_week,omitempty"`
	MaxReservationsPerDay *int  `json:"max_reservations_per_day,omitempty"`
	// A week starts on Monday.
	MaxReservationsPerWeek *int `json:"max_reservations_per_week,omitempty"`
	// LatestCancellation is how long before its start a reservation can be cancelled at the latest.
	// Without this rule, a reservation can be cancelled until it ends.
	LatestCancellation *Span `json:"latest_cancellation,omitempty"`
	CheckInLead        *Span `json:"check_in_lead,omitempty"`
	Grace              *Span `json:"grace,omitempty"`
	// CheckIn is what a user needs to check in. The policies at the time of the check-in decide, so
	// that staff can drop a proof at once when a screen is broken.
	CheckIn        *CheckInRule `json:"check_in,omitempty"`
	StrikeLimit    *int         `json:"strike_limit,omitempty"`
	StrikeDays     *int         `json:"strike_days,omitempty"`
	SuspensionDays []int        `json:"suspension_days,omitempty"`
}

// Over returns the rules of r, and those of less where r sets none.
func (r Rules) Over(less Rules) Rules {
	over(&r.MayBook, less.MayBook)
	over(&r.MinDuration, less.MinDuration)
	over(&r.MaxDuration, less.MaxDuration)
	over(&r.Step, less.Step)
	over(&r.MaxAhead, less.MaxAhead)
	over(&r.OpensAt, less.OpensAt)
	over(&r.MaxUpcoming, less.MaxUpcoming)
	over(&r.MaxMinutesPerDay, less.MaxMinutesPerDay)
	over(&r.MaxMinutesPerWeek, less.MaxMinutesPerWeek)
	over(&r.MaxReservationsPerDay, less.MaxReservationsPerDay)
	over(&r.MaxReservationsPerWeek, less.MaxReservationsPerWeek)
	over(&r.LatestCancellation, less.LatestCancellation)
	over(&r.CheckInLead, less.CheckInLead)
	over(&r.Grace, less.Grace)
	over(&r.CheckIn, less.CheckIn)
	over(&r.StrikeLimit, less.StrikeLimit)
	over(&r.StrikeDays, less.StrikeDays)
	if r.SuspensionDays == nil {
		r.SuspensionDays = less.SuspensionDays
	}
	return r
}

func over[T any](rule **T, less *T) {
	if *rule == nil {
		*rule = less
	}
}

// Equal reports whether both set the same rules.
func (r Rules) Equal(other Rules) bool { return reflect.DeepEqual(r, other) }

// Empty reports whether r sets no rule.
func (r Rules) Empty() bool { return r.Equal(Rules{}) }

// PolicyScope is where a policy applies, and on which dates. The scope identifies the policy.
type PolicyScope struct {
	BranchID int64  // 0: the whole library
	Branch   string // code; empty: the whole library
	Area     string // empty: all areas
	Group    string // empty: all users
	// FirstDay and LastDay are dates, as midnight UTC. A zero date means that there is no limit. The
	// date of a reservation is the date of its start in the time zone of the branch.
	FirstDay time.Time
	LastDay  time.Time
}

// ScopedRules are the rules of one policy with their scope.
type ScopedRules struct {
	PolicyScope

	Rules Rules
}

// Dated reports whether the policy is limited to some dates.
func (s PolicyScope) Dated() bool { return !s.FirstDay.IsZero() || !s.LastDay.IsZero() }

// until returns the day after the last day, or zero.
func (s PolicyScope) until() time.Time {
	if s.LastDay.IsZero() {
		return s.LastDay
	}
	return s.LastDay.AddDate(0, 0, 1)
}

// ComparePrecedence orders scopes. Of two policies that apply to the same reservation, the one with
// the greater scope wins, rule by rule. The order is library, group, branch, branch and group, area,
// area and group. Of two policies that differ only in their dates, the one with dates wins. If both
// have dates, the one that begins later wins, and then the one that ends earlier.
func ComparePrecedence(a, b PolicyScope) int {
	level := func(s PolicyScope) (n int) {
		switch {
		case s.Area != "":
			n = 4
		case s.BranchID != 0:
			n = 2
		}
		if s.Group != "" {
			n++
		}
		return n
	}
	dated := func(s PolicyScope) int {
		if s.Dated() {
			return 1
		}
		return 0
	}
	endless := func(s PolicyScope) int {
		if s.LastDay.IsZero() {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(level(a), level(b)), cmp.Compare(a.Branch, b.Branch), cmp.Compare(a.Area, b.Area),
		cmp.Compare(a.Group, b.Group), cmp.Compare(dated(a), dated(b)), a.FirstDay.Compare(b.FirstDay),
		cmp.Compare(endless(a), endless(b)), b.LastDay.Compare(a.LastDay))
}

// EffectiveRules are the rules that all policies together set for a branch, an area, a group and
// some dates. 0 and empty stand for all branches, areas and groups that have no EffectiveRules of
// their own.
type EffectiveRules struct {
	BranchID int64
	Area     string
	Group    string
	// From and Until are dates, [From, Until). A zero date means that there is no limit.
	From  time.Time
	Until time.Time

	Rules Rules
}

// MaxEffectiveRules bounds the combinations of branches, areas, groups and spans of dates to which
// policies are resolved. 20,000 rows are written in about half a second.
const MaxEffectiveRules = 20_000

// ResolvePolicies returns the effective rules of every branch, area and group that a policy
// mentions, and of all others. For a branch, area, group and date, the effective rules with the
// most specific scope have all rules that apply. The result is false if there are more than
// MaxEffectiveRules combinations.
func ResolvePolicies(policies []ScopedRules) ([]EffectiveRules, bool) {
	if len(policies) == 0 {
		return nil, true
	}
	type place struct {
		branch int64
		area   string
	}
	places, groups := []place{{}}, []string{""}
	bounds := []time.Time{{}} // the zero date is the first bound, and the end of the last segment
	for _, p := range policies {
		places = append(places, place{p.BranchID, ""}, place{p.BranchID, p.Area})
		groups = append(groups, p.Group)
		bounds = append(bounds, p.FirstDay, p.until())
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.branch, b.branch), cmp.Compare(a.area, b.area))
	})
	slices.Sort(groups)
	slices.SortFunc(bounds, time.Time.Compare)
	places, groups, bounds = slices.Compact(places), slices.Compact(groups), slices.Compact(bounds)
	if len(places)*len(groups)*len(bounds) > MaxEffectiveRules {
		return nil, false
	}
	sorted := slices.SortedFunc(slices.Values(policies), func(a, b ScopedRules) int {
		return ComparePrecedence(a.PolicyScope, b.PolicyScope)
	})
	var out []EffectiveRules
	for _, at := range places {
		for _, group := range groups {
			for i, from := range bounds {
				e := EffectiveRules{BranchID: at.branch, Area: at.area, Group: group, From: from}
				if i+1 < len(bounds) {
					e.Until = bounds[i+1]
				}
				for _, p := range sorted {
					if p.covers(e) {
						e.Rules = p.Rules.Over(e.Rules)
					}
				}
				if last := len(out) - 1; i > 0 && out[last].Rules.Equal(e.Rules) {
					out[last].Until = e.Until
					continue
				}
				out = append(out, e)
			}
		}
	}
	return out, true
}

// covers reports whether the policy applies to the branch, area, group and dates of e. No policy
// begins or ends inside the dates of e.
func (s PolicyScope) covers(e EffectiveRules) bool {
	return (s.BranchID == 0 || s.BranchID == e.BranchID) && (s.Area == "" || s.Area == e.Area) &&
		(s.Group == "" || s.Group == e.Group) && !e.From.Before(s.FirstDay) &&
		(s.LastDay.IsZero() || !e.Until.IsZero() && !e.Until.After(s.until()))
}
