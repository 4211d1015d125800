package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/seatfile"
)

type seatsCommand struct {
	Import importCommand `cmd:"" help:"Create, change and retire seats as a file says. Begin with --dry-run."`
	Export exportCommand `cmd:"" help:"Print the seats as a file that the import accepts."`
}

type importCommand struct {
	File           string            `arg:"" help:"CSV file in UTF-8; - reads the standard input."`
	DryRun         bool              `help:"Print what would change, and a fingerprint. Change nothing."`
	RetireMissing  bool              `help:"Retire the seats that the file lacks, in the branches that it names."`
	Fingerprint    string            `placeholder:"F" help:"Fingerprint of the dry run. Without --dry-run it is required."`
	CancelBookings bool              `help:"Cancel the reservations of seats that go out of service. Default: they stay."`
	Note           map[string]string `placeholder:"LANGUAGE=TEXT" help:"Text for the users of cancelled reservations."`
	Reason         string            `placeholder:"TEXT" help:"Reason for the audit log, at most 500 characters."`
}

// Limits of a note, in characters.
const (
	maxLanguage = 35 // the longest language tag that RFC 5646 asks for
	maxNote     = 500
)

// Run imports a seat file.
func (c *importCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	if err := checkReason(c.Reason); err != nil {
		return err
	}
	if c.DryRun == (c.Fingerprint != "") {
		return errors.New("set either --dry-run, or --fingerprint with the fingerprint of the dry run")
	}
	for language, text := range c.Note {
		if fault := cmp.Or(library.PlainFault(language, maxLanguage), library.PlainFault(text, maxNote)); fault != "" {
			return fmt.Errorf("--note: %s %s", language, fault)
		}
	}
	content, err := readFile(c.File)
	if err != nil {
		return err
	}
	file, faults := seatfile.Read(content)
	if len(faults) > 0 && len(file.Rows) == 0 {
		return faultsError(c.File, faults)
	}
	db, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	order := library.Order{
		Actor: library.Host, Action: "dlsms seats import", Reason: c.Reason, ValidateOnly: c.DryRun,
	}
	in := library.SeatImport{
		File: file, Faults: faults, Hash: sha256.Sum256(content), RetireMissing: c.RetireMissing, Fingerprint: c.Fingerprint,
		OnBookings: library.KeepBookings, Note: c.Note,
	}
	if c.CancelBookings {
		in.OnBookings = library.CancelBookings
	}
	plan, err := db.ImportSeats(ctx, order, in)
	if invalid, ok := errors.AsType[*library.Error](err); ok && len(invalid.Fields) > 0 {
		return faultsError(c.File, invalid.Fields)
	}
	if err != nil {
		return fmt.Errorf("import %s: %w", c.File, err)
	}
	c.print(out, plan)
	return nil
}

// readFile reads a seat file, but not more than one byte above the limit.
func readFile(name string) ([]byte, error) {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, seatfile.MaxSize+1))
	if err == nil && len(content) > seatfile.MaxSize {
		err = fmt.Errorf("%s has more than %d MiB", name, seatfile.MaxSize>>20)
	}
	return content, err
}

func faultsError(file string, faults []library.FieldViolation) error {
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = fmt.Sprintf("%s: %s %s", file, f.Field, f.Message)
	}
	return fmt.Errorf("nothing was changed:\n%s", strings.Join(lines, "\n"))
}

// print prints the changes of a plan, without the seats that stay as they are.
func (c *importCommand) print(out io.Writer, plan library.SeatPlan) {
	for _, change := range plan.Changes {
		if change.Action == library.SameSeat {
			continue
		}
		var fields []string
		for _, f := range change.Fields {
			fields = append(fields, fmt.Sprintf("%s %q -> %q", f.Field, f.From, f.To))
		}
		line := fmt.Sprintf("%s %s %s", change.Action, change.Branch, change.Label)
		if change.Line > 0 {
			line = fmt.Sprintf("line %d: %s", change.Line, line)
		}
		fmt.Fprintln(out, strings.TrimSuffix(line+": "+strings.Join(fields, ", "), ": "))
	}
	fmt.Fprintf(out, "%d to create, %d to update, %d the same, %d to retire\n", plan.Count(library.CreateSeat),
		plan.Count(library.UpdateSeat), plan.Count(library.SameSeat), plan.Count(library.RetireSeat))
	if n := plan.Impact.Reservations; n > 0 {
		fmt.Fprintf(out, "affected reservations: %d, of which %d are checked in; waitlist entries: %d\n",
			n, plan.Impact.CheckedIn, plan.Impact.Entries)
		for _, d := range plan.Impact.Days {
			fmt.Fprintf(out, "  %s: %d\n", d.Day.Format(time.DateOnly), d.Reservations)
		}
	}
	if c.DryRun {
		fmt.Fprintf(out, "nothing was changed; to make the change, replace --dry-run by\n  --fingerprint=%s\n",
			plan.Fingerprint)
		return
	}
	fmt.Fprintln(out, "done")
}

type exportCommand struct {
	Branch string `placeholder:"CODE" help:"Code of a branch. Default: all branches."`
}

// Run prints a seat file.
func (c *exportCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	db, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.ExportSeats(ctx, library.Host, c.Branch)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	content, err := seatfile.Write(rows)
	if err != nil {
		return err
	}
	_, err = out.Write(content)
	return err
}
