package edge

import (
	"errors"
	"maps"
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
	someLibrarian := identity.Caller{UserID: 2, Role: library.RoleLibrarian}
	desk, root := identity.Caller{UserID: 3, Role: library.RoleStaff}, identity.Caller{UserID: 4, Role: library.RoleAdmin}
	key := func(scope library.KeyScope) identity.Caller {
		return identity.Caller{Role: library.RoleKey, Key: &library.KeyRecord{ID: 1, Scopes: []library.KeyScope{scope}}}
	}
	needs := func(r library.Role) error { return library.RoleRequired(r) }
	gate, screen := key(library.ScopeArrivals), key(library.ScopeScreen)
	for name, test := range map[string]struct {
		rule   rule
		caller identity.Caller
		want   error
	}{
		"no rule":                  {rule{}, someLibrarian, library.ErrRoleRequired},
		"student, signed in":       {rule{access: signedIn}, student, nil},
		"librarian, signed in":     {rule{access: signedIn}, someLibrarian, nil},
		"student for librarians":   {rule{access: librarian}, student, needs(library.RoleLibrarian)},
		"librarian for librarians": {rule{access: librarian}, someLibrarian, nil},
		"staff for librarians":     {rule{access: librarian}, desk, needs(library.RoleLibrarian)},
		"admin for librarians":     {rule{access: librarian}, root, nil},
		"student for staff":        {rule{access: staff}, student, needs(library.RoleStaff)},
		"staff for staff":          {rule{access: staff}, desk, nil},
		"librarian for admins":     {rule{access: admin}, someLibrarian, needs(library.RoleAdmin)},
		"admin for admins":         {rule{access: admin}, root, nil},
		"admin for gates":          {rule{access: arrivals}, root, library.ScopeRequired(library.ScopeArrivals)},
		"gate for gates":           {rule{access: arrivals}, gate, nil},
		"screen for gates":         {rule{access: arrivals}, screen, library.ScopeRequired(library.ScopeArrivals)},
		"gate, signed in":          {rule{access: signedIn}, gate, needs(library.RoleStudent)},
		"gate for staff":           {rule{access: staff}, gate, needs(library.RoleStaff)},
		"librarian for reports":    {rule{access: reports}, someLibrarian, nil},
		"admin for reports":        {rule{access: reports}, root, nil},
		"staff for reports":        {rule{access: reports}, desk, needs(library.RoleLibrarian)},
		"key for reports":          {rule{access: reports}, key(library.ScopeReports), nil},
		"gate for reports":         {rule{access: reports}, gate, needs(library.RoleLibrarian)},
		"gate for admins":          {rule{access: admin}, gate, needs(library.RoleAdmin)},
	} {
		err := test.rule.allows(test.caller)
		got, _ := errors.AsType[*library.Error](err)
		want, _ := errors.AsType[*library.Error](test.want)
		if !errors.Is(err, test.want) || want != nil && !maps.Equal(got.Metadata, want.Metadata) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
