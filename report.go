package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/reportfile"
)

// reportDays are the flags for the days of a report.
type reportDays struct {
	From   string `required:"" placeholder:"DATE" help:"First day, such as 2026-03-01, in the time zone of each branch."`
	To     string `required:"" placeholder:"DATE" help:"Last day."`
	Branch string `placeholder:"CODE" help:"Code of a branch. Default: all branches."`
}

func (d *reportDays) days() (first, last time.Time, err error) {
	if first, err = time.Parse(time.DateOnly, d.From); err != nil {
		return first, last, fmt.Errorf("--from: %q is not a date such as 2026-03-01", d.From)
	}
	if last, err = time.Parse(time.DateOnly, d.To); err != nil {
		return first, last, fmt.Errorf("--to: %q is not a date such as 2026-03-31", d.To)
	}
	if last.Before(first) {
		return first, last, fmt.Errorf("--to: %s is before %s", d.To, d.From)
	}
	return first, last, nil
}

type usageCommand struct {
	reportDays

	Area string `placeholder:"NAME" help:"Name of an area. Default: all areas."`
	By   string `enum:"hour,day,weekday-hour,area,group" default:"day" help:"How the figures are grouped: ${enum}."`
}

// usageColumns are the names of the figures in the output.
var usageColumns = []string{
	"open_minutes", "reserved_minutes", "used_minutes", "reservations", "check_ins", "check_ins_seat", "check_ins_screen",
	"check_ins_seat_and_screen", "check_ins_desk", "check_ins_arrival", "no_shows", "cancelled", "cancelled_by_library",
	"refused_taken", "waitlist_joins", "offers", "claims", "median_wait_minutes",
}

// Run prints a report as CSV.
func (c *usageCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	q := library.UsageQuery{
		Branch: c.Branch, Area: c.Area, By: library.UsageBy(strings.ReplaceAll(strings.ToUpper(c.By), "-", "_")),
	}
	var err error
	if q.FirstDay, q.LastDay, err = c.days(); err != nil {
		return err
	}
	db, err := s.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	report, err := db.Usage(ctx, library.Host, q)
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	w, err := reportfile.NewCSV(out)
	if err != nil {
		return err
	}
	names, _ := usageKey(q.By, library.UsageKey{})
	lines := [][]string{append(names, usageColumns...)}
	for i := range report.Rows {
		_, key := usageKey(q.By, report.Rows[i].UsageKey)
		lines = append(lines, append(key, usageFigures(&report.Rows[i].UsageFigures)...))
	}
	return w.WriteAll(lines)
}

// usageKey returns the names and the values of the fields of a key.
func usageKey(by library.UsageBy, k library.UsageKey) (names, values []string) {
	switch by {
	case library.UsageByHour:
		return []string{"start"}, []string{k.StartTime.Format(time.RFC3339)}
	case library.UsageByDay:
		return []string{"day"}, []string{k.Day.Format(time.DateOnly)}
	case library.UsageByWeekdayHour:
		return []string{"weekday", "hour"}, []string{strconv.Itoa(k.Weekday), strconv.Itoa(k.Hour)}
	case library.UsageByArea:
		return []string{"branch", "area"}, []string{k.Branch, reportfile.Plain(k.Area)}
	case library.UsageByGroup:
	}
	return []string{"group"}, []string{reportfile.Plain(k.Group)}
}

func usageFigures(f *library.UsageFigures) []string {
	numbers := []int64{
		f.OpenSeconds / 60, f.ReservedSeconds / 60, f.UsedSeconds / 60, f.Reservations, f.CheckIns, f.CheckInsSeat,
		f.CheckInsScreen, f.CheckInsBoth, f.CheckInsDesk, f.CheckInsArrival, f.NoShows, f.Cancelled, f.CancelledByLibrary,
		f.RefusedTaken, f.Joins, f.Offers, f.Claims,
	}
	cells := make([]string, 0, len(usageColumns))
	for _, n := range numbers {
		cells = append(cells, strconv.FormatInt(n, 10))
	}
	median := ""
	if f.MedianWait != nil {
		median = strconv.Itoa(int(f.MedianWait.Minutes()))
	}
	return append(cells, median)
}

type rowsCommand struct {
	reportDays
}

// Run prints reservations as CSV, with pseudonyms.
func (c *rowsCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	q := library.ExportQuery{Branch: c.Branch}
	var err error
	if q.FirstDay, q.LastDay, err = c.days(); err != nil {
		return err
	}
	db, err := s.openStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	buffer := bufio.NewWriterSize(out, 64<<10)
	file := reportfile.NewWriter(buffer)
	if err := file.WriteHeader(); err != nil {
		return err
	}
	if err := db.ExportReservations(ctx, library.Host, q, file.Write); err != nil {
		return fmt.Errorf("export: the output is not complete: %w", err)
	}
	return buffer.Flush()
}
