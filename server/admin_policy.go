package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
)

const (
	maxSuspensions = 10 // lengths of suspensions in a policy
)

func (s *adminService) ListPolicies(
	ctx context.Context, _ *dlsmsv1.ListPoliciesRequest,
) (*dlsmsv1.ListPoliciesResponse, error) {
	policies, err := s.store.Policies(ctx, edge.Caller(ctx).Actor())
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.ListPoliciesResponse{Defaults: rulesProto(s.store.Defaults())}
	for _, p := range policies {
		resp.Policies = append(resp.Policies, policyProto(p))
	}
	return resp, nil
}

func (s *adminService) SetPolicy(
	ctx context.Context, req *dlsmsv1.SetPolicyRequest,
) (*dlsmsv1.SetPolicyResponse, error) {
	var c check
	order := c.order(ctx, "SetPolicy", req)
	policy := c.policy(req.GetPolicy())
	if rule := policy.Rules.CheckIn; rule != nil && (rule.NeedsSeat() || rule.NeedsScreen()) && !s.codes.Enabled() {
		c.fault("policy.rules.check_in", "needs codes, and the server has no PRESENCE_SECRET to make them")
	}
	if err := c.err(); err != nil {
		return nil, err
	}

	p, err := s.store.SetPolicy(ctx, order, policy)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.SetPolicyResponse{Policy: policyProto(p)}, nil
}

// policy checks a policy as a whole.
func (c *check) policy(v *dlsmsv1.Policy) library.ScopedRules {
	if v == nil {
		c.fault("policy", "is missing")
		return library.ScopedRules{}
	}
	p := library.ScopedRules{PolicyScope: library.PolicyScope{
		Branch:   c.text("policy.branch", v.GetBranch(), 0, 32),
		Area:     c.text("policy.area", v.GetArea(), 0, 100),
		Group:    c.text("policy.group", v.GetGroup(), 0, maxGroup),
		FirstDay: c.policyDay("policy.first_day", v.GetFirstDay()),
		LastDay:  c.policyDay("policy.last_day", v.GetLastDay()),
	}, Rules: c.rules("policy.rules.", v.GetRules())}
	if p.Area != "" && p.Branch == "" {
		c.fault("policy.branch", "is missing: an area belongs to a branch")
	}
	if !p.FirstDay.IsZero() && !p.LastDay.IsZero() && p.LastDay.Before(p.FirstDay) {
		c.fault("policy.last_day", "must not be before first_day")
	}
	return p
}

// policyDay checks an optional date, "YYYY-MM-DD", in the years 2000 to 2199. It returns midnight UTC, or
// zero for an empty text.
func (c *check) policyDay(field, v string) time.Time {
	if v == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.DateOnly, v)
	if err != nil || t.Before(minTime) || !t.Before(maxTime) {
		c.fault(field, "must be a date in the years 2000 to 2199, such as 2026-02-14")
		return time.Time{}
	}
	return t
}

// rules checks the rules of a policy. prefix is the path of their fields.
func (c *check) rules(prefix string, v *dlsmsv1.PolicyRules) library.Rules {
	if v == nil {
		return library.Rules{}
	}
	const day = 24 * time.Hour
	span := func(field string, d *durationpb.Duration, least, most time.Duration) *library.Span {
		return c.ruleSpan(prefix+field, d, least, most)
	}
	m := v.ProtoReflect() // a getter cannot tell an unset number from 0
	number := func(field protoreflect.Name, least, most int) *int {
		d := m.Descriptor().Fields().ByName(field)
		if !m.Has(d) {
			return nil
		}
		return c.ruleNumber(prefix+string(field), int(m.Get(d).Int()), least, most)
	}
	r := library.Rules{
		MayBook:                v.MayBook,
		MinDuration:            span("min_reservation", v.GetMinReservation(), time.Minute, day),
		MaxDuration:            span("max_reservation", v.GetMaxReservation(), time.Minute, 7*day),
		Step:                   span("step", v.GetStep(), time.Minute, day),
		MaxAhead:               span("max_ahead", v.GetMaxAhead(), time.Minute, 400*day),
		OpensAt:                c.ruleTime(prefix+"opens_at", v.OpensAt),
		MaxUpcoming:            number("max_upcoming", 0, 1000),
		MaxMinutesPerDay:       number("max_minutes_per_day", 0, 1440),
		MaxMinutesPerWeek:      number("max_minutes_per_week", 0, 10080),
		MaxReservationsPerDay:  number("max_reservations_per_day", 0, 100),
		MaxReservationsPerWeek: number("max_reservations_per_week", 0, 1000),
		LatestCancellation:     span("latest_cancellation", v.GetLatestCancellation(), 0, 7*day),
		CheckInLead:            span("check_in_lead", v.GetCheckInLead(), 0, day),
		Grace:                  span("grace", v.GetGrace(), 0, day),
		CheckIn:                c.checkInRule(prefix+"check_in", v.GetCheckIn()),
		StrikeLimit:            number("strike_limit", 0, 100),
		StrikeDays:             number("strike_days", 1, 366),
	}
	if step := r.Step; step != nil && *step > 0 && day%time.Duration(*step) != 0 {
		c.fault(prefix+"step", "must be a divisor of 24 hours")
	}
	if r.MinDuration != nil && r.MaxDuration != nil && *r.MinDuration > *r.MaxDuration {
		c.fault(prefix+"max_reservation", "must not be shorter than min_reservation")
	}
	if len(v.GetSuspensionDays()) > maxSuspensions {
		c.fault(prefix+"suspension_days", fmt.Sprintf("must be at most %d", maxSuspensions))
		return r
	}
	for i, n := range v.GetSuspensionDays() {
		days := c.ruleNumber(fmt.Sprintf("%ssuspension_days[%d]", prefix, i), int(n), 1, 366)
		r.SuspensionDays = append(r.SuspensionDays, *days)
	}
	return r
}

// ruleSpan checks an optional duration in whole seconds: least to most.
func (c *check) ruleSpan(field string, v *durationpb.Duration, least, most time.Duration) *library.Span {
	if v == nil {
		return nil
	}
	d := v.AsDuration()
	if !v.IsValid() || d < least || d > most || d%time.Second != 0 {
		c.fault(field, fmt.Sprintf("must be whole seconds, from %v to %v", least, most))
	}
	s := library.Span(d)
	return &s
}

// checkInRule checks an optional rule of check-in.
func (c *check) checkInRule(field string, v dlsmsv1.CheckInRule) *library.CheckInRule {
	if enum(c, field, v) == dlsmsv1.CheckInRule_CHECK_IN_RULE_UNSPECIFIED {
		return nil
	}
	r := library.CheckInRule(strings.TrimPrefix(v.String(), "CHECK_IN_RULE_"))
	return &r
}

// ruleNumber checks a number: least to most.
func (c *check) ruleNumber(field string, n, least, most int) *int {
	if n < least || n > most {
		c.fault(field, fmt.Sprintf("must be %d to %d", least, most))
	}
	return &n
}

// ruleTime checks an optional time of day, "HH:MM". It returns the time after midnight.
func (c *check) ruleTime(field string, v *string) *library.Span {
	if v == nil {
		return nil
	}
	t, err := time.Parse("15:04", *v)
	if err != nil || len(*v) != len("15:04") {
		c.fault(field, "must be a time such as 08:30")
	}
	s := library.Span(time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute)
	return &s
}

func policyProto(p library.ScopedRules) *dlsmsv1.Policy {
	date := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Format(time.DateOnly)
	}
	return &dlsmsv1.Policy{
		Branch: p.Branch, Area: p.Area, Group: p.Group, FirstDay: date(p.FirstDay), LastDay: date(p.LastDay),
		Rules: rulesProto(p.Rules),
	}
}

func rulesProto(r library.Rules) *dlsmsv1.PolicyRules {
	out := &dlsmsv1.PolicyRules{
		MayBook:                r.MayBook,
		MinReservation:         spanProto(r.MinDuration),
		MaxReservation:         spanProto(r.MaxDuration),
		Step:                   spanProto(r.Step),
		MaxAhead:               spanProto(r.MaxAhead),
		MaxUpcoming:            numberProto(r.MaxUpcoming),
		MaxMinutesPerDay:       numberProto(r.MaxMinutesPerDay),
		MaxMinutesPerWeek:      numberProto(r.MaxMinutesPerWeek),
		MaxReservationsPerDay:  numberProto(r.MaxReservationsPerDay),
		MaxReservationsPerWeek: numberProto(r.MaxReservationsPerWeek),
		LatestCancellation:     spanProto(r.LatestCancellation),
		CheckInLead:            spanProto(r.CheckInLead),
		Grace:                  spanProto(r.Grace),
		StrikeLimit:            numberProto(r.StrikeLimit),
		StrikeDays:             numberProto(r.StrikeDays),
	}
	if r.CheckIn != nil {
		out.CheckIn = checkInRuleProto(*r.CheckIn)
	}
	if r.OpensAt != nil {
		at := timeOfDay(time.Duration(*r.OpensAt))
		out.OpensAt = &at
	}
	for i := range r.SuspensionDays {
		out.SuspensionDays = append(out.SuspensionDays, *numberProto(&r.SuspensionDays[i]))
	}
	return out
}

func spanProto(d *library.Span) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(time.Duration(*d))
}

func numberProto(n *int) *int32 {
	if n == nil {
		return nil
	}
	v := count(*n)
	return &v
}
