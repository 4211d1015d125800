package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// TestRightsOfFirstAdmin makes the first admin with the command dlsms grant, while replicas run. The
// admin then gives and takes a role. Each change ends the tokens with the old role on every replica.
func TestRightsOfFirstAdmin(t *testing.T) {
	t.Parallel()
	s := shared(t)
	branch := s.branch(t, 1)
	grant := func(want int, args ...string) string {
		t.Helper()
		p := launch(t, map[string]string{"DATABASE_URL": s.Postgres.DatabaseURL()}, append([]string{"grant"}, args...)...)
		if code := p.exit(); code != want {
			t.Fatalf("dlsms grant %v: exit %d, %s", args, code, p.stderr.String())
		}
		return p.stdout.String()
	}
	first := s.student(t)
	old := subscribeEverywhere(t, s, first.Client)
	id := first.User.GetStudentId()
	if out := grant(0, "--role", "admin", "--user", strings.ToLower(id), "--reason", "the first"); !strings.Contains(out,
		"("+id+") has the role ADMIN for all branches") {
		t.Errorf("dlsms grant said %q", out)
	}
	wantRevoked(t, s, first.Client, old)
	grant(1, "--role", "admin", "--user", "no-such-user")
	grant(1, "--role", "admin", "--user", id, "--branch", branch.code)
	grant(1, "--role", "staff", "--user", id, "--branch", "no-such-branch")
	grant(1, "--role", "king", "--user", id)
	admin := s.login(t, id, password)

	u := s.student(t)
	setRole := func(role dlsmsv1.Role, branches ...string) (*dlsmsv1.SetRoleResponse, error) {
		return admin.admin().SetRole(t.Context(), &dlsmsv1.SetRoleRequest{
			StudentId: u.User.GetStudentId(), Role: role, Branches: branches, Reason: "new job",
		})
	}
	for _, step := range []struct {
		role     dlsmsv1.Role
		branches []string
		find     string // the result of FindUsers
	}{
		{staffRole, []string{branch.code}, ok},
		{librarianRole, nil, ok},
		{dlsmsv1.Role_ROLE_STUDENT, nil, "ROLE_REQUIRED"},
	} {
		streams := subscribeEverywhere(t, s, u.Client)
		resp, err := setRole(step.role, step.branches...)
		if err != nil || resp.GetRole() != step.role || resp.GetUserId() != u.id() ||
			strings.Join(resp.GetBranches(), " ") != strings.Join(step.branches, " ") {
			t.Fatalf("%v: %v, %v", step.role, resp, err)
		}
		wantRevoked(t, s, u.Client, streams)
		u = s.login(t, u.User.GetStudentId(), password)
		if u.User.GetRole() != step.role {
			t.Errorf("the role is %v, want %v", u.User.GetRole(), step.role)
		}
		_, err = u.desk().FindUsers(t.Context(), &dlsmsv1.FindUsersRequest{StudentId: id})
		if step.find == ok && err != nil {
			t.Errorf("%v: %v", step.role, err)
		} else if step.find != ok {
			refused(t, err, step.find)
		}
	}
	_, err := admin.admin().SetRole(t.Context(), &dlsmsv1.SetRoleRequest{StudentId: id, Role: staffRole})
	refused(t, err, "OWN_ROLE")
	_, err = setRole(adminRole, branch.code)
	refused(t, err, "INVALID_FIELDS")
	_, err = setRole(staffRole, "no-such-branch")
	refused(t, err, "BRANCH_NOT_FOUND")
	audit, err := admin.admin().ListAudit(t.Context(), &dlsmsv1.ListAuditRequest{Object: fmt.Sprintf("user/%d", u.id())})
	if err != nil || len(audit.GetEntries()) != 3 || audit.GetEntries()[2].GetStudentId() != id ||
		audit.GetEntries()[2].GetAction() != "SetRole" || audit.GetEntries()[2].GetReason() != "new job" ||
		!strings.Contains(audit.GetEntries()[2].GetAfter(), branch.code) {
		t.Errorf("audit log: %v, %v", audit, err)
	}
}

// TestRightsOfKeys uses a service key on every replica, from its creation to its end.
func TestRightsOfKeys(t *testing.T) {
	t.Parallel()
	s := shared(t)
	here, there := s.branch(t, 2), s.branch(t, 1)
	admin, u := s.withRole(t, adminRole), s.student(t)
	arrive := func(ctx context.Context, replica int, key string) (*dlsmsv1.RecordArrivalResponse, error) {
		gate := e2e.Anonymous(conn(t, s, replica)).WithToken(key)
		return dlsmsv1.NewDeskServiceClient(gate.Conn()).RecordArrival(ctx,
			&dlsmsv1.RecordArrivalRequest{StudentId: u.User.GetStudentId()})
	}
	r := u.book(here.seats[0], fromNow(time.Hour))
	id, gate := admin.key(here.code, dlsmsv1.KeyScope_KEY_SCOPE_ARRIVALS)
	_, elsewhere := admin.key(there.code, dlsmsv1.KeyScope_KEY_SCOPE_ARRIVALS)
	resp, err := arrive(t.Context(), 0, elsewhere)
	if err != nil || len(resp.GetReservations()) > 0 {
		t.Errorf("a gate of another branch: %v, %v", resp, err)
	}
	for i := range s.copies() {
		resp, err := arrive(t.Context(), i, gate)
		if err != nil || len(resp.GetReservations()) != 1 || resp.GetReservations()[0].GetId() != r.GetId() ||
			resp.GetReservations()[0].GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CHECKED_IN {
			t.Errorf("replica %d: %v, %v", i, resp, err)
		}
	}
	_, err = admin.desk().RecordArrival(t.Context(), &dlsmsv1.RecordArrivalRequest{StudentId: u.User.GetStudentId()})
	refused(t, err, "ROLE_REQUIRED")
	program := u.WithToken(gate)
	_, err = program.Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{})
	refused(t, err, "ROLE_REQUIRED")
	_, err = program.Subscribe(t.Context(), 0)
	if err == nil {
		t.Log("the stream is refused with its first message")
	}
	_, err = program.Auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: gate})
	refused(t, err, "TOKEN_INVALID")

	if _, err := admin.admin().RevokeKey(t.Context(), &dlsmsv1.RevokeKeyRequest{KeyId: id}); err != nil {
		t.Fatal(err)
	}
	deadline := within(t, revocationDeadline)
	for i := range s.copies() {
		var err error
		for err == nil && deadline.Err() == nil {
			_, err = arrive(t.Context(), i, gate)
		}
		refused(t, err, "TOKEN_REVOKED")
	}
	list, err := admin.admin().ListKeys(t.Context(), &dlsmsv1.ListKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list.GetKeys() {
		if revoked := k.GetRevokedAt() != nil; k.GetId() == id && !revoked {
			t.Errorf("the list shows %v", k)
		}
	}
	for _, secret := range []string{gate[len(gate)-43:], elsewhere[len(elsewhere)-43:]} {
		if strings.Contains(s.log.Tail(2000), secret) || strings.Contains(list.String(), secret) {
			t.Error("a log or a list shows a secret")
		}
		if n := value[int](t, s, `SELECT count(*) FROM audit_log a WHERE strpos(a::text, $1) > 0`, secret); n > 0 {
			t.Error("the audit log shows a secret")
		}
	}
}

// TestRightsAtTheDesk acts for a student in one branch, and closes the account.
func TestRightsAtTheDesk(t *testing.T) {
	t.Parallel()
	s := shared(t)
	here, there := s.branch(t, 2), s.branch(t, 1)
	u := s.student(t)
	staff, admin := s.withRole(t, staffRole, here.code), s.withRole(t, adminRole)
	elsewhere := u.book(there.seats[0], tomorrow(4, 5))
	found, err := staff.desk().FindUsers(t.Context(), &dlsmsv1.FindUsersRequest{
		StudentId: strings.ToLower(u.User.GetStudentId()),
	})
	if err != nil || len(found.GetUsers()) != 1 || found.GetUsers()[0].GetId() != u.id() {
		t.Fatalf("%v, %v", found, err)
	}
	_, err = staff.desk().FindUsers(t.Context(), &dlsmsv1.FindUsersRequest{Name: "Student"})
	refused(t, err, "ROLE_REQUIRED")
	booked, err := staff.desk().BookFor(t.Context(), &dlsmsv1.BookForRequest{
		UserId: u.id(), SeatId: here.seats[0], EndTime: timestamppb.New(time.Now().Add(time.Hour)), Reason: "by phone",
	})
	if err != nil || booked.GetReservation().GetUserId() != u.id() {
		t.Fatalf("%v, %v", booked, err)
	}
	id := booked.GetReservation().GetId()
	watched := watch(t, s.anonymous(), &dlsmsv1.WatchSeatsRequest{Branch: here.code})
	watched.untilSeat(here.seats[0], false)
	arrivals, err := staff.desk().ListArrivals(t.Context(), &dlsmsv1.ListArrivalsRequest{Branch: here.code})
	if err != nil || len(arrivals.GetReservations()) != 1 ||
		arrivals.GetReservations()[0].GetStudentId() != u.User.GetStudentId() {
		t.Errorf("arrivals %v, %v", arrivals, err)
	}
	if _, err := staff.desk().CheckInFor(t.Context(), &dlsmsv1.CheckInForRequest{
		ReservationId: id, Reason: "no phone",
	}); err != nil {
		t.Error(err)
	}
	_, err = staff.desk().CancelFor(t.Context(), &dlsmsv1.CancelForRequest{
		ReservationId: elsewhere.GetId(), Reason: "not mine",
	})
	refused(t, err, "BRANCH_REQUIRED")
	overview, err := staff.desk().GetUserOverview(t.Context(), &dlsmsv1.GetUserOverviewRequest{UserId: u.id()})
	if err != nil || len(overview.GetReservations()) != 1 || overview.GetReservations()[0].GetId() != id {
		t.Errorf("overview %v, %v", overview, err)
	}
	if _, err := staff.desk().CheckOutFor(t.Context(), &dlsmsv1.CheckOutForRequest{
		ReservationId: id, Reason: "left",
	}); err != nil {
		t.Error(err)
	}
	watched.untilSeat(here.seats[0], true)
	_, err = staff.desk().CheckInFor(t.Context(), &dlsmsv1.CheckInForRequest{ReservationId: id})
	refused(t, err, "INVALID_FIELDS") // the reason is missing

	streams := subscribeEverywhere(t, s, u.Client)
	closed, err := admin.desk().CloseUser(t.Context(), &dlsmsv1.CloseUserRequest{UserId: u.id(), Reason: "left"})
	if err != nil || closed.GetReservations() != 1 {
		t.Errorf("%v, %v", closed, err)
	}
	wantRevoked(t, s, u.Client, streams)
	overview, err = admin.desk().GetUserOverview(t.Context(), &dlsmsv1.GetUserOverviewRequest{UserId: u.id()})
	if err != nil || overview.GetUser().GetClosedAt() == nil {
		t.Errorf("the overview does not show that the account is closed: %v, %v", overview, err)
	}
	_, err = s.anonymous().Login(t.Context(), u.User.GetStudentId(), password)
	refused(t, err, "BAD_CREDENTIALS")
	_, err = admin.desk().CloseUser(t.Context(), &dlsmsv1.CloseUserRequest{UserId: admin.id(), Reason: "left"})
	refused(t, err, "OWN_ROLE")
}

// TestRightsOfStudentsComeFromTheToken checks that no request of the services for students has the
// id of a user: these services know their user from the token only.
func TestRightsOfStudentsComeFromTheToken(t *testing.T) {
	t.Parallel()
	checked := 0
	for name, m := range methods(t) {
		if forStaff(name) ||
			name == dlsmsv1.AuthService_Register_FullMethodName || name == dlsmsv1.AuthService_Login_FullMethodName {
			continue
		}
		checked++
		for _, field := range []string{"user_id", "student_id", "card"} {
			fields := m.Input().Fields()
			for i := range fields.Len() {
				if string(fields.Get(i).Name()) == field {
					t.Errorf("%s takes %s", name, field)
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("%d methods were checked", checked)
	}
}
