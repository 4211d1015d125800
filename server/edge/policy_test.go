package edge

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
)

func TestPolicyDeniesByDefault(t *testing.T) {
	t.Parallel()
	services := map[string]grpc.ServiceInfo{
		"dlsms.v1.SeatService": {Methods: []grpc.MethodInfo{{Name: "GetSeats"}, {Name: "MoveSeats"}}},
	}
	err := CheckPolicy(services)
	if err == nil || !strings.Contains(err.Error(), "/dlsms.v1.SeatService/MoveSeats") ||
		strings.Contains(err.Error(), "GetSeats") {
		t.Errorf("a method without a rule: %v", err)
	}
	student := identity.Caller{UserID: 1, Role: library.RoleStudent}
	staff := identity.Caller{UserID: 2, Role: library.RoleLibrarian}
	for name, test := range map[string]struct {
		rule   rule
		caller identity.Caller
		want   error
	}{
		"no rule":                  {rule{}, staff, library.ErrRoleRequired},
		"student, signed in":       {rule{access: signedIn}, student, nil},
		"librarian, signed in":     {rule{access: signedIn}, staff, nil},
		"student for librarians":   {rule{access: librarian}, student, library.ErrRoleRequired},
		"librarian for librarians": {rule{access: librarian}, staff, nil},
	} {
		if err := test.rule.allows(test.caller); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
