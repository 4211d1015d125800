package e2e_test

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// staffAccess is a row of staffTable: which callers may make a call, and a valid request.
type staffAccess struct {
	// least is the lowest role that may make the call. It is ROLE_UNSPECIFIED if no user may make
	// it. A service key with the scope may make it, too.
	least dlsmsv1.Role
	scope dlsmsv1.KeyScope
	// scoped says that the request is about the branch, so a caller of another branch is refused.
	scoped  bool
	request func(f *staffFixture) proto.Message
}

const (
	staffRole     = dlsmsv1.Role_ROLE_STAFF
	librarianRole = dlsmsv1.Role_ROLE_LIBRARIAN
	adminRole     = dlsmsv1.Role_ROLE_ADMIN
)

// staffTable has a row for each RPC of AdminService, DeskService, ReportService and ScreenService.
var staffTable = map[string]staffAccess{
	dlsmsv1.AdminService_ListBranches_FullMethodName: {least: librarianRole, request: func(*staffFixture) proto.Message {
		return &dlsmsv1.ListBranchesRequest{}
	}},
	dlsmsv1.AdminService_UpsertBranch_FullMethodName: {least: adminRole, request: func(f *staffFixture) proto.Message {
		return &dlsmsv1.UpsertBranchRequest{Code: f.branch.code, Name: "Renamed", Timezone: "Europe/Berlin"}
	}},
	dlsmsv1.AdminService_UpsertArea_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.UpsertAreaRequest{Branch: f.branch.code, Name: "Area", Floor: "1"}
		},
	},
	dlsmsv1.AdminService_UpsertSeats_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.UpsertSeatsRequest{
				Branch: f.branch.code, Seats: []*dlsmsv1.SeatSpec{{Label: "A-1", Area: "Area", Desk: "D"}},
			}
		},
	},
	dlsmsv1.AdminService_RetireSeats_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.RetireSeatsRequest{Branch: f.branch.code, SeatIds: f.branch.seats[1:2]}
		},
	},
	dlsmsv1.AdminService_ImportSeats_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			file := "branch,area,label\n" + f.branch.code + ",Area,A-9\n"
			return &dlsmsv1.ImportSeatsRequest{Content: []byte(file), DryRun: true}
		},
	},
	dlsmsv1.AdminService_ExportSeats_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.ExportSeatsRequest{Branch: f.branch.code}
		},
	},
	dlsmsv1.AdminService_SetWeeklyHours_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.SetWeeklyHoursRequest{Branch: f.branch.code, AlwaysOpen: true}
		},
	},
	dlsmsv1.AdminService_SetDays_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.SetDaysRequest{
				Branch: f.branch.code, FirstDay: time.Now().AddDate(0, 0, 30).Format(time.DateOnly),
			}
		},
	},
	dlsmsv1.AdminService_CreateClosure_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.CreateClosureRequest{Branch: f.branch.code, SeatIds: f.branch.seats[1:2]}
		},
	},
	dlsmsv1.AdminService_UpdateClosure_FullMethodName: {least: librarianRole, request: func(*staffFixture) proto.Message {
		return &dlsmsv1.UpdateClosureRequest{ClosureId: noSuchID, Lift: true}
	}},
	dlsmsv1.AdminService_ListClosures_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.ListClosuresRequest{Branch: f.branch.code}
		},
	},
	dlsmsv1.AdminService_ListPolicies_FullMethodName: {least: librarianRole, request: func(*staffFixture) proto.Message {
		return &dlsmsv1.ListPoliciesRequest{}
	}},
	dlsmsv1.AdminService_SetPolicy_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			most := int32(3)
			return &dlsmsv1.SetPolicyRequest{Policy: &dlsmsv1.Policy{
				Branch: f.branch.code, Rules: &dlsmsv1.PolicyRules{MaxUpcoming: &most},
			}}
		},
	},
	dlsmsv1.AdminService_SetAnnouncement_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.SetAnnouncementRequest{Branch: f.branch.code, Text: map[string]string{"en": "Quiet, please"}}
		},
	},
	dlsmsv1.AdminService_SetRole_FullMethodName: {least: adminRole, request: func(f *staffFixture) proto.Message {
		return &dlsmsv1.SetRoleRequest{StudentId: f.target.User.GetStudentId(), Role: staffRole}
	}},
	dlsmsv1.AdminService_UpsertUsers_FullMethodName: {least: adminRole, request: func(f *staffFixture) proto.Message {
		name := "Renamed"
		return &dlsmsv1.UpsertUsersRequest{Users: []*dlsmsv1.UserSpec{
			{StudentId: f.target.User.GetStudentId(), Name: &name},
		}}
	}},
	dlsmsv1.AdminService_CreateKey_FullMethodName: {least: adminRole, request: func(f *staffFixture) proto.Message {
		return &dlsmsv1.CreateKeyRequest{
			Name: "Gate " + rand.Text(), Branch: f.branch.code,
			Scopes: []dlsmsv1.KeyScope{dlsmsv1.KeyScope_KEY_SCOPE_REPORTS},
		}
	}},
	dlsmsv1.AdminService_RevokeKey_FullMethodName: {least: adminRole, request: func(*staffFixture) proto.Message {
		return &dlsmsv1.RevokeKeyRequest{KeyId: noSuchID}
	}},
	dlsmsv1.AdminService_ListKeys_FullMethodName: {least: adminRole, request: func(*staffFixture) proto.Message {
		return &dlsmsv1.ListKeysRequest{}
	}},
	dlsmsv1.AdminService_UpsertScreen_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.UpsertScreenRequest{Branch: f.branch.code, Name: "Entrance"}
		},
	},
	dlsmsv1.AdminService_ListScreens_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.ListScreensRequest{Branch: f.branch.code}
		},
	},
	dlsmsv1.AdminService_MakeLabels_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.MakeLabelsRequest{Branch: f.branch.code}
		},
	},
	dlsmsv1.AdminService_ListAudit_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.ListAuditRequest{Branch: f.branch.code}
		},
	},

	dlsmsv1.DeskService_FindUsers_FullMethodName: {least: staffRole, request: func(f *staffFixture) proto.Message {
		return &dlsmsv1.FindUsersRequest{StudentId: f.target.User.GetStudentId()}
	}},
	dlsmsv1.DeskService_GetUserOverview_FullMethodName: {least: staffRole, request: func(f *staffFixture) proto.Message {
		return &dlsmsv1.GetUserOverviewRequest{UserId: f.target.id()}
	}},
	dlsmsv1.DeskService_WatchArrivals_FullMethodName: {
		least: staffRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.WatchArrivalsRequest{Branch: f.branch.code}
		},
	},
	dlsmsv1.DeskService_ListArrivals_FullMethodName: {
		least: staffRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.ListArrivalsRequest{Branch: f.branch.code}
		},
	},
	dlsmsv1.DeskService_BookFor_FullMethodName: {
		least: staffRole, scoped: true, request: func(f *staffFixture) proto.Message {
			w := tomorrow(0, 1)
			return &dlsmsv1.BookForRequest{
				UserId: f.target.id(), SeatId: f.branch.seats[1], StartTime: timestamppb.New(w.start),
				EndTime: timestamppb.New(w.end), Reason: "by phone", RequestId: "desk",
			}
		},
	},
	dlsmsv1.DeskService_CancelFor_FullMethodName: {
		least: staffRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.CancelForRequest{ReservationId: f.reservation, Reason: "by phone"}
		},
	},
	dlsmsv1.DeskService_CheckInFor_FullMethodName: {
		least: staffRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.CheckInForRequest{ReservationId: f.reservation, Reason: "at the desk"}
		},
	},
	dlsmsv1.DeskService_CheckOutFor_FullMethodName: {
		least: staffRole, scoped: true, request: func(f *staffFixture) proto.Message {
			f.target.checkIn(f.reservation) // changes nothing if it is repeated
			return &dlsmsv1.CheckOutForRequest{ReservationId: f.reservation, Reason: "at the desk"}
		},
	},
	dlsmsv1.DeskService_ForgiveStrikes_FullMethodName: {
		least: librarianRole, scoped: true, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.ForgiveStrikesRequest{
				Branch: f.branch.code, StartTime: timestamppb.New(time.Now().Add(-time.Hour)),
				EndTime: timestamppb.Now(), Reason: "the scanner was down",
			}
		},
	},
	dlsmsv1.DeskService_SetSuspension_FullMethodName: {least: librarianRole, request: func(f *staffFixture) proto.Message {
		return &dlsmsv1.SetSuspensionRequest{
			UserId: f.target.id(), Until: timestamppb.New(time.Now().Add(time.Hour)), Reason: "noise",
		}
	}},
	dlsmsv1.DeskService_RecordArrival_FullMethodName: {
		scope: dlsmsv1.KeyScope_KEY_SCOPE_ARRIVALS, request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.RecordArrivalRequest{StudentId: f.target.User.GetStudentId()}
		},
	},
	dlsmsv1.ReportService_GetUsage_FullMethodName: {
		least: librarianRole, scope: dlsmsv1.KeyScope_KEY_SCOPE_REPORTS, scoped: true,
		request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.GetUsageRequest{
				From: "2026-03-01", To: "2026-03-31", Branch: f.branch.code, By: dlsmsv1.UsageBy_USAGE_BY_DAY,
			}
		},
	},
	dlsmsv1.ReportService_ExportReservations_FullMethodName: {
		least: librarianRole, scope: dlsmsv1.KeyScope_KEY_SCOPE_REPORTS, scoped: true,
		request: func(f *staffFixture) proto.Message {
			return &dlsmsv1.ExportReservationsRequest{From: "2026-03-01", To: "2026-03-02", Branch: f.branch.code}
		},
	},
	dlsmsv1.DeskService_CloseUser_FullMethodName: {least: adminRole, request: func(f *staffFixture) proto.Message {
		return &dlsmsv1.CloseUserRequest{UserId: f.target.id(), Reason: "left the university"}
	}},

	dlsmsv1.ScreenService_WatchScreen_FullMethodName: {
		scope: screenScope, request: func(*staffFixture) proto.Message { return &dlsmsv1.WatchScreenRequest{} },
	},
}

// staffFixture has a branch, a student with a reservation in it, and a caller of each kind.
type staffFixture struct {
	t           *testing.T
	s           *system
	branch      branch
	target      student
	reservation int64
	callers     []staffCaller
}

// staffCaller is a caller of a call of staff.
type staffCaller struct {
	name  string
	token string
	// role is the role of a user, and ROLE_UNSPECIFIED for other callers.
	role dlsmsv1.Role
	// elsewhere says that the role or key holds for another branch.
	elsewhere bool
	scope     dlsmsv1.KeyScope // of a valid service key
	refusal   string           // the expected reason for the token or key, empty for a valid one
}

// withRole returns a user with a role for branches; without branches, for all.
func (s *system) withRole(t *testing.T, role dlsmsv1.Role, codes ...string) student {
	t.Helper()
	u := s.student(t)
	s.exec(t, `UPDATE users SET role = $2, branches = (SELECT array_agg(id) FROM branches WHERE code = ANY($3))
		WHERE library_id = 1 AND id = $1`, u.id(), strings.TrimPrefix(role.String(), "ROLE_"), codes)
	return s.login(t, u.User.GetStudentId(), password)
}

// admin and desk return clients of the services for staff.
func (s student) admin() dlsmsv1.AdminServiceClient { return dlsmsv1.NewAdminServiceClient(s.Conn()) }
func (s student) desk() dlsmsv1.DeskServiceClient   { return dlsmsv1.NewDeskServiceClient(s.Conn()) }

// key creates a service key and returns its id and its text.
func (s student) key(branch string, scopes ...dlsmsv1.KeyScope) (id int64, text string) {
	s.t.Helper()
	resp, err := s.admin().CreateKey(s.t.Context(), &dlsmsv1.CreateKeyRequest{
		Name: "Gate " + rand.Text(), Branch: branch, Scopes: scopes, Reason: "a new gate",
	})
	made := need(s, "key", resp, err)
	return made.GetKey().GetId(), made.GetSecret()
}

func newStaffFixture(t *testing.T, s *system, keys []staffCaller) *staffFixture {
	t.Helper()
	f := &staffFixture{t: t, s: s, branch: s.branch(t, 2), target: s.student(t), callers: slices.Clone(keys)}
	other := s.branch(t, 1).code
	f.reservation = f.target.book(f.branch.seats[0], fromNow(time.Hour)).GetId()
	user := func(name string, u student, role dlsmsv1.Role, elsewhere bool) {
		f.callers = append(f.callers, staffCaller{name: name, token: u.Token, role: role, elsewhere: elsewhere})
	}
	user("a student", s.student(t), dlsmsv1.Role_ROLE_STUDENT, false)
	user("staff", s.withRole(t, staffRole, f.branch.code), staffRole, false)
	user("staff of another branch", s.withRole(t, staffRole, other), staffRole, true)
	user("a librarian", s.withRole(t, librarianRole, other, f.branch.code), librarianRole, false)
	user("a librarian of another branch", s.withRole(t, librarianRole, other), librarianRole, true)
	user("a librarian of all branches", s.withRole(t, librarianRole), librarianRole, false)
	user("an admin", s.withRole(t, adminRole), adminRole, false)
	return f
}

// keyCallers returns a caller for each kind of service key, valid or not.
func keyCallers(t *testing.T, s *system) []staffCaller {
	t.Helper()
	admin, home := s.withRole(t, adminRole), s.branch(t, 1).code
	id, revoked := admin.key(home, dlsmsv1.KeyScope_KEY_SCOPE_ARRIVALS)
	_, gate := admin.key(home, dlsmsv1.KeyScope_KEY_SCOPE_ARRIVALS)
	_, screen := admin.key(home, dlsmsv1.KeyScope_KEY_SCOPE_SCREEN)
	_, reports := admin.key(home, dlsmsv1.KeyScope_KEY_SCOPE_REPORTS)
	if _, err := admin.admin().RevokeKey(t.Context(), &dlsmsv1.RevokeKeyRequest{KeyId: id}); err != nil {
		t.Fatal(err)
	}
	for i := range s.copies() {
		gate := student{e2e.Anonymous(conn(t, s, i)).WithToken(revoked), t}
		eventually(t, "the replica refuses the revoked key", func() bool {
			_, err := gate.desk().RecordArrival(t.Context(), &dlsmsv1.RecordArrivalRequest{Card: "none"})
			return e2e.Reason(err) == "TOKEN_REVOKED"
		})
	}
	return []staffCaller{
		{name: "a key of a gate", token: gate, scope: dlsmsv1.KeyScope_KEY_SCOPE_ARRIVALS},
		{name: "a key of a screen", token: screen, scope: dlsmsv1.KeyScope_KEY_SCOPE_SCREEN},
		{name: "a key for reports", token: reports, scope: dlsmsv1.KeyScope_KEY_SCOPE_REPORTS, elsewhere: true},
		{name: "no token", refusal: "TOKEN_MISSING"},
		{name: "a revoked key", token: revoked, refusal: "TOKEN_REVOKED"},
		{name: "a changed key", token: changedKey(gate), refusal: "TOKEN_INVALID"},
		{name: "a key without a secret", token: gate[:len(gate)-43], refusal: "TOKEN_INVALID"},
		{
			name: "a key that does not exist", refusal: "TOKEN_INVALID",
			token: fmt.Sprintf("dlsms-key-%d-%s", int64(noSuchID), gate[len(gate)-43:]),
		},
	}
}

// changedKey returns a service key with another secret.
func changedKey(text string) string {
	at := len(text) - 20
	c := byte('A')
	if text[at] == c {
		c = 'B'
	}
	return text[:at] + string(c) + text[at+1:]
}

// roleRank orders the roles.
func roleRank(r dlsmsv1.Role) int {
	return slices.Index([]dlsmsv1.Role{dlsmsv1.Role_ROLE_STUDENT, staffRole, librarianRole, adminRole}, r)
}

// want returns the reason with which a call is refused, or ok.
func (row staffAccess) want(c staffCaller) string {
	switch {
	case c.refusal != "":
		return c.refusal
	case c.scope != dlsmsv1.KeyScope_KEY_SCOPE_UNSPECIFIED:
		if c.scope != row.scope {
			return "ROLE_REQUIRED"
		}
	case row.least == dlsmsv1.Role_ROLE_UNSPECIFIED, roleRank(c.role) < roleRank(row.least):
		return "ROLE_REQUIRED"
	}
	switch {
	case row.scoped && c.elsewhere:
		return "BRANCH_REQUIRED"
	}
	return ok
}

// TestAccessOfStaff makes every call of AdminService, DeskService, ReportService and ScreenService as a
// caller of each role, with each kind of service key, and without a token. An RPC without a row in
// staffTable fails the test.
func TestAccessOfStaff(t *testing.T) {
	t.Parallel()
	s := shared(t)
	all, keys := methods(t), keyCallers(t, s)
	for name := range staffTable {
		if all[name] == nil {
			t.Errorf("the table has %s, which is not in the API", name)
		}
	}
	for name := range all {
		if !forStaff(name) {
			continue
		}
		t.Run(name[strings.LastIndex(name, "/")+1:], func(t *testing.T) {
			t.Parallel()
			row, ok := staffTable[name]
			if !ok {
				t.Fatalf("the table has no row for %s", name)
			}
			checkStaffRow(t, s, name, row, keys)
		})
	}
}

// checkStaffRow makes all calls of a row. First it makes the calls that must be refused: they must
// not change any data.
func checkStaffRow(t *testing.T, s *system, name string, row staffAccess, keys []staffCaller) {
	t.Helper()
	m, f := methods(t)[name], newStaffFixture(t, s, keys)
	call := func(c staffCaller) error {
		_, err := invoke(t, f.target.WithToken(c.token).Conn(), name, m, row.request(f))
		return err
	}
	row.request(f) // may prepare rows
	before := f.state()
	for _, c := range f.callers {
		want := row.want(c)
		if want == ok {
			continue
		}
		if err := e2e.CheckRefusal(call(c), want); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if after := f.state(); after != before {
		t.Errorf("refused calls changed\n%s\nto\n%s", before, after)
	}
	admitted := 0
	for _, c := range f.callers {
		if row.want(c) != ok {
			continue
		}
		err := call(c)
		admitted++
		switch reason := e2e.Reason(err); {
		case strings.HasPrefix(reason, "TOKEN_"), strings.HasSuffix(reason, "_REQUIRED"), reason == "INVALID_FIELDS",
			err != nil && reason == "":
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if admitted == 0 {
		t.Error("no caller may make the call")
	}
}

// state returns the rows of the target and the branch, and the number of changes in the audit log.
func (f *staffFixture) state() string {
	f.t.Helper()
	return value[string](f.t, f.s, `
		SELECT COALESCE(string_agg(line, E'\n' ORDER BY line), '') FROM (
			SELECT to_json(u)::text AS line FROM users u WHERE id = $1
			UNION ALL SELECT to_json(r)::text FROM reservations r WHERE user_id = $1
			UNION ALL SELECT to_json(v)::text FROM revocations v WHERE user_id = $1
			UNION ALL SELECT to_json(b)::text FROM branches b WHERE code = $2
			UNION ALL SELECT to_json(s)::text FROM seats s WHERE id = ANY($3)
			UNION ALL SELECT to_json(k)::text FROM service_keys k JOIN branches b ON b.id = k.branch_id AND b.code = $2
			UNION ALL SELECT to_json(a)::text FROM audit_log a JOIN branches b ON b.id = a.branch_id AND b.code = $2
		) state`, f.target.id(), f.branch.code, f.branch.seats)
}
