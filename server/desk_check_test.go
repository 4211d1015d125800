package server

import (
	"slices"
	"strings"
	"testing"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// TestCheckOfStaffRequests checks which fields of the requests about people and keys are refused.
func TestCheckOfStaffRequests(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	for name, tc := range map[string]struct {
		check func(c *check)
		want  []string // the fields with an error
	}{
		"a student id": {func(c *check) { c.personQuery(&dlsmsv1.FindUsersRequest{StudentId: "x"}) }, nil},
		"a name":       {func(c *check) { c.personQuery(&dlsmsv1.FindUsersRequest{Name: "Id"}) }, nil},
		"a short name": {func(c *check) { c.personQuery(&dlsmsv1.FindUsersRequest{Name: "I"}) }, []string{"name"}},
		"no search":    {func(c *check) { c.personQuery(&dlsmsv1.FindUsersRequest{}) }, []string{"student_id"}},
		"two searches": {func(c *check) {
			c.personQuery(&dlsmsv1.FindUsersRequest{Card: "1", Email: "x"})
		}, []string{"student_id"}},
		"a broken card": {func(c *check) { c.personQuery(&dlsmsv1.FindUsersRequest{Card: "\x00"}) }, []string{"card"}},
		"no reason":     {func(c *check) { c.deskOrder(t.Context(), "x", &dlsmsv1.CloseUserRequest{}) }, []string{"reason"}},
		"a long reason": {func(c *check) {
			c.deskOrder(t.Context(), "x", &dlsmsv1.CloseUserRequest{Reason: strings.Repeat("ü", store.MaxReason+1)})
		}, []string{"reason"}},
		"a reason": {func(c *check) {
			c.deskOrder(t.Context(), "x", &dlsmsv1.CloseUserRequest{Reason: strings.Repeat("ü", store.MaxReason)})
		}, nil},
		"a day":          {func(c *check) { c.optionalDay("day", "2028-02-29") }, nil},
		"no day":         {func(c *check) { c.optionalDay("day", "") }, nil},
		"no such day":    {func(c *check) { c.optionalDay("day", "2027-02-29") }, []string{"day"}},
		"a day long ago": {func(c *check) { c.optionalDay("day", "1999-12-31") }, []string{"day"}},
		"no role":        {func(c *check) { c.role("role", dlsmsv1.Role_ROLE_UNSPECIFIED) }, []string{"role"}},
		"another role":   {func(c *check) { c.role("role", 99) }, []string{"role"}},
		"no scope":       {func(c *check) { c.keyScopes("scopes", nil) }, []string{"scopes"}},
		"unknown scopes": {func(c *check) {
			c.keyScopes("scopes", []dlsmsv1.KeyScope{1, 0, 99})
		}, []string{"scopes[1]", "scopes[2]"}},
		"many scopes": {func(c *check) { c.keyScopes("scopes", make([]dlsmsv1.KeyScope, 5)) }, []string{"scopes"}},
		"no users":    {func(c *check) { c.people(nil) }, []string{"users"}},
		"many users":  {func(c *check) { c.people(make([]*dlsmsv1.UserSpec, maxPeople+1)) }, []string{"users"}},
		"users with faults": {func(c *check) {
			c.people([]*dlsmsv1.UserSpec{
				{StudentId: "S-1", Card: text("1"), Group: text("")},
				{StudentId: "s-1", Name: text(""), Email: text("x")},
				{StudentId: "?", Card: text("1"), Group: text(strings.Repeat("g", maxGroup+1))},
				{StudentId: "S-3", Card: text("")},
				{StudentId: "S-4", Card: text("")},
			})
		}, []string{"users[1].name", "users[1].email", "users[1].student_id", "users[2].student_id", "users[2].group",
			"users[2].card"}},
	} {
		var c check
		tc.check(&c)
		if got := invalidFields(&c); !slices.Equal(got, tc.want) {
			t.Errorf("%s: faults %v, want %v", name, got, tc.want)
		}
	}
}

func TestConversionsOfStaffRequests(t *testing.T) {
	t.Parallel()
	var c check
	if day := c.optionalDay("day", "2026-03-02"); !day.Equal(time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("day %v", day)
	}
	for name, number := range dlsmsv1.Role_value {
		role := dlsmsv1.Role(number)
		if role != 0 && roleProto(c.role("role", role)) != role {
			t.Errorf("%s becomes %v", name, roleProto(c.role("role", role)))
		}
	}
	all := []dlsmsv1.KeyScope{
		dlsmsv1.KeyScope_KEY_SCOPE_SCREEN, dlsmsv1.KeyScope_KEY_SCOPE_ARRIVALS, dlsmsv1.KeyScope_KEY_SCOPE_REPORTS,
	}
	scopes := c.keyScopes("scopes", append(all, all[0]))
	if want := []library.KeyScope{"screen", "arrivals", "reports"}; !slices.Equal(scopes, want) {
		t.Errorf("scopes %v", scopes)
	}
	if back := keyProto(library.ServiceKey{Scopes: scopes}).GetScopes(); !slices.Equal(back, all) {
		t.Errorf("scopes %v", back)
	}
	if err := c.err(); err != nil {
		t.Error(err)
	}
}
