package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

type exportUserCommand struct {
	StudentID string `arg:"" name:"student-id" help:"Student id of the user, in upper or lower case."`
	Reason    string `placeholder:"TEXT" help:"Reason for the audit log, at most 500 characters."`
}

// Run prints everything that the database has about a user, as a JSON document: see
// store.Store.ExportUser.
func (c *exportUserCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	if err := checkReason(c.Reason); err != nil {
		return err
	}
	db, err := s.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	order := library.Order{Actor: library.Host, Action: "export-user", Reason: c.Reason}
	_, err = db.ExportForOperator(ctx, order, c.StudentID, func(part []byte) error {
		_, err := out.Write(part)
		return err
	})
	if err != nil {
		return fmt.Errorf("export the user %q: %w", c.StudentID, err)
	}
	return nil
}

type closedCommand struct {
	List  closedListCommand  `cmd:"" help:"Print the closed and erased accounts, without personal data."`
	Apply closedApplyCommand `cmd:"" help:"After a restore: close and erase the accounts of such a list again."`
}

type closedListCommand struct{}

// closedPage is the number of accounts of one query.
const closedPage = 1000

// Run prints a line for each account: its user id, CLOSED or ERASED, and the time.
func (closedListCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	db, err := s.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	w := bufio.NewWriter(out)
	for after := int64(0); ; {
		page, err := db.ClosedAccounts(ctx, after, closedPage)
		if err != nil {
			return err
		}
		for _, a := range page {
			fmt.Fprintln(w, closedLine(a))
			after = a.UserID
		}
		if len(page) < closedPage {
			return w.Flush()
		}
	}
}

// The states of an account in a line of the list.
const (
	stateClosed = "CLOSED"
	stateErased = "ERASED"
)

func closedLine(a store.ClosedAccount) string {
	state := stateClosed
	if a.Erased {
		state = stateErased
	}
	return fmt.Sprintf("%d %s %s", a.UserID, state, a.ClosedAt.UTC().Format(time.RFC3339Nano))
}

func parseClosedLine(line string) (a store.ClosedAccount, err error) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[1] != stateClosed && fields[1] != stateErased {
		return a, fmt.Errorf("%q is not of the form: <user id> CLOSED|ERASED <time>", line)
	}
	if a.UserID, err = strconv.ParseInt(fields[0], 10, 64); err != nil {
		return a, fmt.Errorf("%q is not a user id", fields[0])
	}
	a.Erased = fields[1] == stateErased
	if a.ClosedAt, err = time.Parse(time.RFC3339, fields[2]); err != nil {
		return a, fmt.Errorf("%q is not a time in RFC 3339", fields[2])
	}
	return a, nil
}

type closedApplyCommand struct {
	File string `arg:"" help:"A list of dlsms closed list; - reads the standard input."`
}

// Run closes and erases the accounts of a list that are open. A second run finds nothing to do. An
// account that fails does not stop the others.
func (c *closedApplyCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	accounts, err := c.read()
	if err != nil {
		return err
	}
	db, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	applied, unknown := 0, 0
	var failed []error
	for _, a := range accounts {
		changed, err := db.CloseAgain(ctx, a)
		switch {
		case errors.Is(err, library.ErrUserNotFound):
			unknown++
		case err != nil:
			failed = append(failed, fmt.Errorf("user %d: %w", a.UserID, err))
		case changed:
			applied++
		}
	}
	fmt.Fprintf(out, "%d accounts were closed again, %d had nothing to do, %d are not in this database\n",
		applied, len(accounts)-applied-unknown-len(failed), unknown)
	return errors.Join(failed...)
}

// read reads and checks the whole file before the first change.
func (c *closedApplyCommand) read() (accounts []store.ClosedAccount, err error) {
	in := os.Stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		a, err := parseClosedLine(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", c.File, n, err)
		}
		accounts = append(accounts, a)
	}
	return accounts, lines.Err()
}
