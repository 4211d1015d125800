package server

import (
	"context"
	"fmt"
	"strings"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
)

// Limits of the requests about people.
const (
	maxPeople   = 500
	maxBranches = 500 // of one role
	maxCard     = 64
	maxGroup    = 64 // characters of the name of a group
)

func (s *adminService) SetRole(ctx context.Context, req *dlsmsv1.SetRoleRequest) (*dlsmsv1.SetRoleResponse, error) {
	var c check
	order := c.order(ctx, "SetRole", req)
	grant := library.Grant{
		StudentID: c.studentID("student_id", req.GetStudentId()),
		Role:      c.role("role", req.GetRole()),
		Branches:  req.GetBranches(),
	}
	if len(grant.Branches) > maxBranches {
		c.fault("branches", fmt.Sprintf("must be at most %d", maxBranches))
	}
	for i, code := range grant.Branches {
		c.text(fmt.Sprintf("branches[%d]", i), code, 1, 32)
	}
	if len(grant.Branches) > 0 && grant.Role != library.RoleStaff && grant.Role != library.RoleLibrarian {
		c.fault("branches", "must be empty: the role holds for all branches")
	}
	if err := c.err(); err != nil {
		return nil, err
	}

	grant, err := s.store.SetRole(ctx, order, grant)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintTokens)

	return &dlsmsv1.SetRoleResponse{
		UserId: grant.UserID, Role: roleProto(grant.Role), Branches: grant.Branches,
	}, nil
}

// role checks a required role.
func (c *check) role(field string, v dlsmsv1.Role) library.Role {
	if v == dlsmsv1.Role_ROLE_UNSPECIFIED {
		c.fault(field, "is missing")
	}
	return library.Role(strings.TrimPrefix(enum(c, field, v).String(), "ROLE_"))
}

func (s *adminService) UpsertUsers(
	ctx context.Context, req *dlsmsv1.UpsertUsersRequest,
) (*dlsmsv1.UpsertUsersResponse, error) {
	var c check
	order := c.order(ctx, "UpsertUsers", req)
	changes := c.people(req.GetUsers())
	if err := c.err(); err != nil {
		return nil, err
	}

	changed, err := s.store.UpsertPeople(ctx, order, changes)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.UpsertUsersResponse{Changed: count(changed)}, nil
}

// people checks the users of UpsertUsers.
func (c *check) people(specs []*dlsmsv1.UserSpec) []library.PersonChange {
	if len(specs) == 0 || len(specs) > maxPeople {
		c.fault("users", fmt.Sprintf("must be 1 to %d", maxPeople))
		return nil
	}
	changes := make([]library.PersonChange, len(specs))
	ids, cards := map[string]bool{}, map[string]bool{}
	for i, spec := range specs {
		at := fmt.Sprintf("users[%d].", i)
		changes[i] = c.person(at, spec)
		if id := strings.ToLower(spec.GetStudentId()); ids[id] {
			c.fault(at+"student_id", "is there twice")
		} else {
			ids[id] = true
		}
		if card := spec.GetCard(); card != "" && cards[card] {
			c.fault(at+"card", "is there twice")
		} else {
			cards[card] = true
		}
	}
	return changes
}

func (c *check) person(at string, spec *dlsmsv1.UserSpec) library.PersonChange {
	p := library.PersonChange{StudentID: c.studentID(at+"student_id", spec.GetStudentId())}
	if spec.Name != nil {
		name := c.name(at+"name", spec.GetName())
		p.Name = &name
	}
	if spec.Email != nil {
		email := c.email(at+"email", spec.GetEmail())
		p.Email = &email
	}
	if spec.Group != nil {
		group := c.text(at+"group", spec.GetGroup(), 0, maxGroup)
		p.Group = &group
	}
	if spec.Card != nil {
		card := c.text(at+"card", spec.GetCard(), 0, maxCard)
		p.Card = &card
	}
	return p
}
