package server

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// librarianOf registers a user with the role LIBRARIAN for all branches, and returns a context that
// carries its token.
func (s *testServer) librarianOf(t *testing.T, db *storetest.DB, studentID string) context.Context {
	t.Helper()
	u := s.register(t, studentID)
	db.Exec(t, `UPDATE users SET role = 'LIBRARIAN' WHERE id = $1`, u.GetId())
	return bearing(t.Context(), s.login(t, studentID, testPassword))
}

// strikes records two strikes of a user today, by a policy with a limit of two, and a suspension of
// the user until tomorrow. It returns the ids of the strikes.
func strikes(t *testing.T, db *storetest.DB, userID int64) []int64 {
	t.Helper()
	seats := db.Seats(t, 2)
	db.Exec(t, `
		WITH missed AS (
			INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
				created_at, ended_at)
			SELECT 1, s, $2, tstzrange(t, t + interval '1 h'), 'NO_SHOW', t, t + interval '15 min', t, t + interval '15 min'
			FROM unnest($1::bigint[]) WITH ORDINALITY x (s, i), LATERAL (SELECT now() - i * interval '2 h' AS t) y
			RETURNING *
		), suspended AS (
			INSERT INTO suspensions (library_id, user_id, branch_id, begins_at, ends_at)
			SELECT 1, $2, (SELECT min(id) FROM branches), now(), now() + interval '1 day' RETURNING id, ends_at
		), struck AS (
			INSERT INTO strikes (library_id, user_id, reservation_id, branch_id, at, expires_at, strike_limit, suspension_days,
				judged, suspension_id)
			SELECT 1, $2, m.id, (SELECT min(id) FROM branches), m.ended_at, m.ended_at + interval '30 days', 2, '{1}', true, x.id
			FROM missed m CROSS JOIN suspended x
		)
		UPDATE users SET suspended_until = x.ends_at FROM suspended x WHERE users.id = $2`, seats, userID)
	return storetest.Rows[int64](t, db, `SELECT id FROM strikes WHERE user_id = $1 ORDER BY at DESC`, userID)
}

func TestStandingAndForgiveness(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	desk := dlsmsv1.NewDeskServiceClient(s.conn)
	user := s.register(t, "S2021001")
	student := bearing(t.Context(), s.login(t, "S2021001", testPassword))
	standing := func() *dlsmsv1.GetStandingResponse {
		t.Helper()
		got, err := s.reservation.GetStanding(student, &dlsmsv1.GetStandingRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := standing(); len(got.GetStrikes()) != 0 || got.GetSuspendedUntil() != nil || got.GetAskAtBranch() != "" {
		t.Errorf("a new user has the standing %v", got)
	}

	ids := strikes(t, db, user.GetId())
	got := standing()
	if len(got.GetStrikes()) != 2 || got.GetSuspendedUntil() == nil || got.GetAskAtBranch() != "branch-0" {
		t.Fatalf("standing %v", got)
	}
	k := got.GetStrikes()[0]
	if k.GetId() != ids[0] || k.GetBranch() != "branch-0" || k.GetCounts() || k.GetForgivenAt() != nil ||
		k.GetExpiresAt().AsTime().Sub(k.GetAt().AsTime()) != 30*24*time.Hour {
		t.Errorf("strike %v", k)
	}

	librarian := s.librarianOf(t, db, "L0001")
	request := &dlsmsv1.ForgiveStrikesRequest{StrikeId: ids[0], Reason: "the scanner was down", ValidateOnly: true}
	_, err := desk.ForgiveStrikes(student, request)
	want(t, err, codes.PermissionDenied, "ROLE_REQUIRED")
	for _, validate := range []bool{true, false} {
		request.ValidateOnly = validate
		done, err := desk.ForgiveStrikes(librarian, request)
		if err != nil || done.GetForgiven() != 1 || done.GetLifted() != 1 {
			t.Errorf("validate_only %t: %v, %v", validate, done, err)
		}
		if suspended := standing().GetSuspendedUntil() != nil; suspended != validate {
			t.Errorf("validate_only %t: the user is suspended: %t", validate, suspended)
		}
	}
	got = standing()
	if k := got.GetStrikes()[0]; k.GetForgivenAt() == nil || k.GetReason() != "the scanner was down" || k.GetCounts() {
		t.Errorf("forgiven strike %v", k)
	}
	if !got.GetStrikes()[1].GetCounts() || got.GetAskAtBranch() != "branch-0" {
		t.Errorf("the other strike does not count: %v", got)
	}
	request.StrikeId = 1
	_, err = desk.ForgiveStrikes(librarian, request)
	want(t, err, codes.NotFound, "STRIKE_NOT_FOUND")
	audit := storetest.Rows[string](t, db, `SELECT role || ' ' || action FROM audit_log WHERE request_id <> ''`)
	if !slices.Equal(audit, []string{"LIBRARIAN ForgiveStrikes"}) {
		t.Errorf("audit log %v", audit)
	}
}

func TestForgiveStrikesFields(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	desk := dlsmsv1.NewDeskServiceClient(s.conn)
	librarian := s.librarianOf(t, db, "L0001")
	from := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	stamp := func(hours int) *timestamppb.Timestamp {
		return timestamppb.New(from.Add(time.Duration(hours) * time.Hour))
	}
	for name, c := range map[string]struct {
		req  *dlsmsv1.ForgiveStrikesRequest
		want []string
	}{
		"nothing": {&dlsmsv1.ForgiveStrikesRequest{}, []string{"reason", "branch", "start_time", "end_time"}},
		"both": {
			&dlsmsv1.ForgiveStrikesRequest{StrikeId: 1, Branch: "main", StartTime: stamp(0), EndTime: stamp(1), Reason: "x"},
			[]string{"branch", "start_time", "end_time"},
		},
		"negative id": {&dlsmsv1.ForgiveStrikesRequest{StrikeId: -1, Reason: "x"}, []string{"strike_id"}},
		"reversed": {
			&dlsmsv1.ForgiveStrikesRequest{Branch: "main", StartTime: stamp(1), EndTime: stamp(0), Reason: "x"},
			[]string{"end_time"},
		},
		"too long": {
			&dlsmsv1.ForgiveStrikesRequest{Branch: "main", StartTime: stamp(0), EndTime: stamp(31*24 + 1), Reason: "x"},
			[]string{"end_time"},
		},
	} {
		_, err := desk.ForgiveStrikes(librarian, c.req)
		want(t, err, codes.InvalidArgument, "INVALID_FIELDS")
		if got := fieldsOf(err); !slices.Equal(got, c.want) {
			t.Errorf("%s: fields %v, want %v", name, got, c.want)
		}
	}
	_, err := desk.ForgiveStrikes(librarian, &dlsmsv1.ForgiveStrikesRequest{
		Branch: "nowhere", StartTime: stamp(0), EndTime: stamp(31 * 24), Reason: "x",
	})
	want(t, err, codes.NotFound, "BRANCH_NOT_FOUND")
}

func TestSetSuspensionCall(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	desk := dlsmsv1.NewDeskServiceClient(s.conn)
	user := s.register(t, "S2021001")
	student := bearing(t.Context(), s.login(t, "S2021001", testPassword))
	librarian := s.librarianOf(t, db, "L0001")
	until := time.Now().Add(48 * time.Hour).Truncate(time.Microsecond)

	request := &dlsmsv1.SetSuspensionRequest{UserId: user.GetId(), Until: timestamppb.New(until), Reason: "rude"}
	_, err := desk.SetSuspension(student, request)
	want(t, err, codes.PermissionDenied, "ROLE_REQUIRED")
	got, err := desk.SetSuspension(librarian, request)
	if err != nil {
		t.Fatal(err)
	}
	p := got.GetUser()
	if p.GetId() != user.GetId() || p.GetStudentId() != "S2021001" || p.GetName() != "Ada Lovelace" ||
		p.GetEmail() != "ada@university.example" || p.GetRole() != dlsmsv1.Role_ROLE_STUDENT ||
		!p.GetSuspendedUntil().AsTime().Equal(until) {
		t.Errorf("answer %v", p)
	}
	_, err = s.reservation.CreateReservation(student, &dlsmsv1.CreateReservationRequest{
		SeatId: db.Seats(t, 1)[0], EndTime: timestamppb.New(time.Now().Add(time.Hour)),
	})
	want(t, err, codes.FailedPrecondition, "SUSPENDED")
	standing, err := s.reservation.GetStanding(student, &dlsmsv1.GetStandingRequest{})
	if err != nil || !standing.GetSuspendedUntil().AsTime().Equal(until) || standing.GetAskAtBranch() != "" {
		t.Errorf("standing %v, %v", standing, err)
	}

	request.Until = nil
	if got, err := desk.SetSuspension(librarian, request); err != nil || got.GetUser().GetSuspendedUntil() != nil {
		t.Errorf("answer %v, %v", got, err)
	}
	_, err = desk.SetSuspension(librarian, &dlsmsv1.SetSuspensionRequest{})
	want(t, err, codes.InvalidArgument, "INVALID_FIELDS")
	if fields := fieldsOf(err); !slices.Equal(fields, []string{"reason", "user_id"}) {
		t.Errorf("fields %v", fields)
	}
	request.Until = timestamppb.New(time.Now().Add(367 * 24 * time.Hour))
	_, err = desk.SetSuspension(librarian, request)
	want(t, err, codes.InvalidArgument, "INVALID_FIELDS")
	request.UserId, request.Until = user.GetId()+1000, nil
	_, err = desk.SetSuspension(librarian, request)
	want(t, err, codes.NotFound, "PERSON_NOT_FOUND")
}
