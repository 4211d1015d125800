package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/dlsms/dlsms/library"
)

type grantCommand struct {
	Role   string   `required:"" enum:"student,staff,librarian,admin" help:"The role: ${enum}."`
	User   string   `required:"" placeholder:"STUDENT-ID" help:"Student id of the user, in upper or lower case."`
	Branch []string `placeholder:"CODE" help:"Code of a branch for which the role holds; may be repeated. Default: all."`
	Reason string   `placeholder:"TEXT" help:"Reason for the audit log, at most 500 characters."`
}

// Run sets the role of a user.
func (c *grantCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	role := library.Role(strings.ToUpper(c.Role))
	if len(c.Branch) > 0 && role != library.RoleStaff && role != library.RoleLibrarian {
		return fmt.Errorf("--branch: the role %s holds for all branches", c.Role)
	}
	if err := checkReason(c.Reason); err != nil {
		return err
	}
	db, err := s.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	g, err := db.SetRole(ctx, library.Order{Actor: library.Host, Action: "grant", Reason: c.Reason},
		library.Grant{StudentID: c.User, Role: role, Branches: c.Branch})
	if err != nil {
		return fmt.Errorf("grant the role %s to %q: %w", c.Role, c.User, err)
	}
	where := ""
	switch {
	case len(g.Branches) > 0:
		where = " for " + strings.Join(g.Branches, ", ")
	case g.Role.StaffRole():
		where = " for all branches"
	}
	fmt.Fprintf(out, "user %d (%s) has the role %s%s; tokens with another role end within 5 s\n",
		g.UserID, g.StudentID, g.Role, where)
	return nil
}
