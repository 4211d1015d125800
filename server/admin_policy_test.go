package server

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// policyAdmin registers an admin, and returns a context that carries the token.
func policyAdmin(t *testing.T, s *testServer, db *storetest.DB) context.Context {
	t.Helper()
	s.register(t, "A00001")
	db.Exec(t, `UPDATE users SET role = 'ADMIN' WHERE student_id = 'A00001'`)
	return bearing(t.Context(), s.login(t, "A00001", testPassword))
}

func TestSetPolicyAndListPolicies(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Seats(t, 1)
	s := startOn(t, db, nil, nil)
	admin := dlsmsv1.NewAdminServiceClient(s.conn)
	ctx := policyAdmin(t, s, db)
	duration := func(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
	full := &dlsmsv1.Policy{
		Branch: "branch-0", Area: "Area", Group: "phd", FirstDay: "2027-03-01", LastDay: "2027-03-14",
		Rules: &dlsmsv1.PolicyRules{
			MayBook: proto.Bool(true), MinReservation: duration(time.Minute), MaxReservation: duration(7 * 24 * time.Hour),
			Step: duration(time.Minute), MaxAhead: duration(400 * 24 * time.Hour), OpensAt: proto.String("08:30"),
			MaxUpcoming: proto.Int32(0), MaxMinutesPerDay: proto.Int32(1440), MaxMinutesPerWeek: proto.Int32(10080),
			MaxReservationsPerDay: proto.Int32(100), MaxReservationsPerWeek: proto.Int32(1000),
			LatestCancellation: duration(0), CheckInLead: duration(24 * time.Hour), Grace: duration(0),
			StrikeLimit: proto.Int32(3), StrikeDays: proto.Int32(30), SuspensionDays: []int32{7, 14},
		},
	}
	library := &dlsmsv1.Policy{Rules: &dlsmsv1.PolicyRules{MayBook: proto.Bool(false)}}
	for _, p := range []*dlsmsv1.Policy{full, library} {
		for _, validateOnly := range []bool{true, false} {
			resp, err := admin.SetPolicy(ctx, &dlsmsv1.SetPolicyRequest{Policy: p, ValidateOnly: validateOnly, Reason: "exams"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p, resp.GetPolicy(), protocmp.Transform()); diff != "" {
				t.Errorf("SetPolicy (-sent +answered):\n%s", diff)
			}
		}
	}
	got, err := admin.ListPolicies(ctx, &dlsmsv1.ListPoliciesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	list := &dlsmsv1.ListPoliciesResponse{Policies: []*dlsmsv1.Policy{library, full}, Defaults: &dlsmsv1.PolicyRules{
		MayBook: proto.Bool(true), MinReservation: duration(15 * time.Minute), MaxReservation: duration(12 * time.Hour),
		MaxAhead: duration(14 * 24 * time.Hour), MaxUpcoming: proto.Int32(10), MaxMinutesPerDay: proto.Int32(0),
		MaxMinutesPerWeek: proto.Int32(0), MaxReservationsPerDay: proto.Int32(0), MaxReservationsPerWeek: proto.Int32(0),
		CheckInLead: duration(15 * time.Minute), Grace: duration(15 * time.Minute), StrikeLimit: proto.Int32(0),
		CheckIn: dlsmsv1.CheckInRule_CHECK_IN_RULE_NONE,
	}}
	if diff := cmp.Diff(list, got, protocmp.Transform()); diff != "" {
		t.Errorf("ListPolicies (-want +got):\n%s", diff)
	}
	if rows := storetest.Value[int](t, db, `
		SELECT count(*) FROM audit_log WHERE action = 'SetPolicy' AND reason = 'exams'`); rows != 2 {
		t.Errorf("%d rows of the audit log", rows)
	}
	_, err = admin.SetPolicy(s.student(t), &dlsmsv1.SetPolicyRequest{Policy: library})
	want(t, err, codes.PermissionDenied, "ROLE_REQUIRED")
}

func TestSetPolicyReportsAllFields(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	admin := dlsmsv1.NewAdminServiceClient(s.conn)
	ctx := policyAdmin(t, s, db)
	long := durationpb.New(401 * 24 * time.Hour)
	days := make([]int32, 2)
	_, err := admin.SetPolicy(ctx, &dlsmsv1.SetPolicyRequest{Reason: "a\nb", Policy: &dlsmsv1.Policy{
		Area: "Area", Group: "\x01", FirstDay: "2027-03-02", LastDay: "2027-03-01",
		Rules: &dlsmsv1.PolicyRules{
			MinReservation: durationpb.New(0), MaxReservation: long, Step: durationpb.New(7 * time.Minute), MaxAhead: long,
			OpensAt: proto.String("8:30"), MaxUpcoming: proto.Int32(-1), MaxMinutesPerDay: proto.Int32(1441),
			MaxMinutesPerWeek: proto.Int32(10081), MaxReservationsPerDay: proto.Int32(101),
			MaxReservationsPerWeek: proto.Int32(1001), LatestCancellation: durationpb.New(time.Millisecond), CheckInLead: long,
			Grace: long, StrikeLimit: proto.Int32(101), StrikeDays: proto.Int32(0), SuspensionDays: days,
		},
	}})
	want(t, err, codes.InvalidArgument, "INVALID_FIELDS")
	prefix := "policy.rules."
	if diff := cmp.Diff([]string{
		"reason", "policy.group", prefix + "min_reservation", prefix + "max_reservation", prefix + "max_ahead",
		prefix + "opens_at", prefix + "max_upcoming", prefix + "max_minutes_per_day", prefix + "max_minutes_per_week",
		prefix + "max_reservations_per_day", prefix + "max_reservations_per_week", prefix + "latest_cancellation",
		prefix + "check_in_lead", prefix + "grace", prefix + "strike_limit", prefix + "strike_days", prefix + "step",
		prefix + "suspension_days[0]", prefix + "suspension_days[1]", "policy.branch", "policy.last_day",
	}, fieldsOf(err)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	_, err = admin.SetPolicy(ctx, &dlsmsv1.SetPolicyRequest{})
	if fields := fieldsOf(err); len(fields) != 1 || fields[0] != "policy" {
		t.Errorf("without a policy: %v", fields)
	}
	_, err = admin.SetPolicy(ctx, &dlsmsv1.SetPolicyRequest{Policy: &dlsmsv1.Policy{
		FirstDay: "2027-02-30", Rules: &dlsmsv1.PolicyRules{
			MinReservation: durationpb.New(time.Hour), MaxReservation: durationpb.New(time.Minute),
			SuspensionDays: make([]int32, 11),
		},
	}})
	if diff := cmp.Diff([]string{
		"policy.first_day", prefix + "max_reservation", prefix + "suspension_days",
	}, fieldsOf(err)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestCheckReservationAndValidateOnly(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, tuesday)
	seats := db.Seats(t, 2)
	s := startOn(t, db, nil, nil)
	mine, other := s.student(t), s.student(t)
	book := &dlsmsv1.CreateReservationRequest{
		SeatId: seats[0], StartTime: stamp(time.Hour), EndTime: stamp(2 * time.Hour), ValidateOnly: true,
	}
	would, err := s.reservation.CreateReservation(other, book)
	if err != nil || would.GetReservation().GetId() != 0 {
		t.Fatalf("validated: %v, %v", would, err)
	}
	book.ValidateOnly = false
	made, err := s.reservation.CreateReservation(other, book)
	if err != nil {
		t.Fatal(err)
	}
	id := made.GetReservation().GetId()
	made.GetReservation().Id = 0
	if diff := cmp.Diff(made, would, protocmp.Transform()); diff != "" {
		t.Errorf("reservation (-made +validated):\n%s", diff)
	}
	found, err := s.reservation.CheckReservation(mine, &dlsmsv1.CheckReservationRequest{
		SeatId: seats[0], StartTime: stamp(90 * time.Minute), EndTime: stamp(14 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, b := range found.GetBroken() {
		reasons = append(reasons, b.GetReason())
	}
	if diff := cmp.Diff([]string{"WINDOW_NOT_ALLOWED", "SEAT_TAKEN"}, reasons); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	if b := found.GetBroken()[0]; b.GetMessage() != "end_time: the window must be at most 12h0m0s long" ||
		b.GetMetadata()["max_reservation"] != "43200" {
		t.Errorf("broken: %v", b)
	}
	found, err = s.reservation.CheckReservation(mine, &dlsmsv1.CheckReservationRequest{
		SeatId: seats[0], StartTime: stamp(90 * time.Minute), EndTime: stamp(2 * time.Hour),
	})
	if err != nil || len(found.GetAlternatives()) != 4 {
		t.Fatalf("%v, %v", found, err)
	}
	first, last := found.GetAlternatives()[0], found.GetAlternatives()[3]
	if !first.GetStartTime().AsTime().Equal(tuesday.Add(2*time.Hour)) || first.GetSeat().GetId() != seats[0] ||
		!last.GetEndTime().AsTime().Equal(tuesday.Add(2*time.Hour)) || last.GetSeat().GetLabel() != "A-2" {
		t.Errorf("alternatives: %v", found.GetAlternatives())
	}
	_, err = s.reservation.CheckReservation(mine, &dlsmsv1.CheckReservationRequest{
		SeatId: -1, StartTime: stamp(2), EndTime: stamp(1),
	})
	if diff := cmp.Diff([]string{"seat_id", "end_time"}, fieldsOf(err)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	_, err = s.reservation.CheckReservation(mine, &dlsmsv1.CheckReservationRequest{
		SeatId: 1 << 40, EndTime: stamp(time.Hour),
	})
	want(t, err, codes.NotFound, "SEAT_NOT_FOUND")

	longer, err := s.reservation.ExtendReservation(other, &dlsmsv1.ExtendReservationRequest{
		ReservationId: id, EndTime: stamp(3 * time.Hour), ValidateOnly: true,
	})
	if err != nil || !longer.GetReservation().GetEndTime().AsTime().Equal(tuesday.Add(3*time.Hour)) {
		t.Errorf("extension: %v, %v", longer, err)
	}
	entry, err := s.notify.JoinWaitlist(mine, &dlsmsv1.JoinWaitlistRequest{
		SeatId: seats[0], StartTime: stamp(time.Hour), EndTime: stamp(2 * time.Hour), ValidateOnly: true,
	})
	if err != nil || entry.GetEntry().GetId() != 0 || entry.GetEntry().GetPosition() != 1 {
		t.Errorf("entry: %v, %v", entry, err)
	}
	if rows := storetest.Value[string](t, db, `SELECT (SELECT count(*) FROM waitlist_entries) || ' ' || max(upper(during))
		FROM reservations`); rows != "0 2027-03-02 14:00:00+00" {
		t.Errorf("validated calls left %s", rows)
	}
}
