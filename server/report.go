package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/reportfile"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

// reportService reports how seats are used.
type reportService struct {
	dlsmsv1.UnsafeReportServiceServer

	store *store.Store
}

// Limits of the days of a report. A report by hour has a row for each hour.
const (
	maxReportDays = 1100
	maxHourlyDays = 31
)

func (s *reportService) GetUsage(ctx context.Context, req *dlsmsv1.GetUsageRequest) (*dlsmsv1.GetUsageResponse, error) {
	var c check
	query := library.UsageQuery{
		Branch: c.optionalBranch("branch", req.GetBranch()), Area: c.text("area", req.GetArea(), 0, 100),
		By: c.usageBy(req.GetBy()),
	}
	longest := maxReportDays
	if query.By == library.UsageByHour {
		longest = maxHourlyDays
	}
	query.FirstDay, query.LastDay = c.days(req, longest)
	if err := c.err(); err != nil {
		return nil, err
	}

	report, err := s.store.Usage(ctx, edge.Caller(ctx).Actor(), query)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetUsageResponse{CountedUntil: timestamppb.New(report.CountedUntil)}
	for i := range report.Rows {
		resp.Rows = append(resp.Rows, usageRowProto(&report.Rows[i]))
	}
	return resp, nil
}

// optionalBranch checks the code of a branch that may be empty.
func (c *check) optionalBranch(field, code string) string {
	if code != "" {
		c.branchCode(field, code)
	}
	return code
}

// usageBy checks the grouping of a report.
func (c *check) usageBy(v dlsmsv1.UsageBy) library.UsageBy {
	if v == dlsmsv1.UsageBy_USAGE_BY_UNSPECIFIED {
		c.fault("by", "is missing")
	}
	enum(c, "by", v)
	return library.UsageBy(strings.TrimPrefix(v.String(), "USAGE_BY_"))
}

// days checks the first and last day of a report, which has at most longest days.
func (c *check) days(req interface {
	GetFrom() string
	GetTo() string
}, longest int,
) (first, last time.Time) {
	before := len(c.faults)
	first, last = c.day("from", req.GetFrom()), c.day("to", req.GetTo())
	switch {
	case len(c.faults) > before:
	case last.Before(first):
		c.fault("to", "must not be before from")
	case last.Sub(first) >= time.Duration(longest)*24*time.Hour:
		c.fault("to", fmt.Sprintf("must be less than %d days after from", longest))
	}
	return first, last
}

func usageRowProto(r *library.UsageRow) *dlsmsv1.UsageRow {
	out := &dlsmsv1.UsageRow{
		StartTime: setTimestamp(r.StartTime), Weekday: count(r.Weekday), Hour: count(r.Hour),
		Branch: r.Branch, Area: r.Area, Group: r.Group,
		OpenMinutes: r.OpenSeconds / 60, ReservedMinutes: r.ReservedSeconds / 60, UsedMinutes: r.UsedSeconds / 60,
		Reservations: count(int(r.Reservations)),
		CheckIns: &dlsmsv1.CheckInCounts{
			Total: count(int(r.CheckIns)), Seat: count(int(r.CheckInsSeat)), Screen: count(int(r.CheckInsScreen)),
			SeatAndScreen: count(int(r.CheckInsBoth)), Desk: count(int(r.CheckInsDesk)), Arrival: count(int(r.CheckInsArrival)),
		},
		NoShows: count(int(r.NoShows)), Cancelled: count(int(r.Cancelled)),
		CancelledByLibrary: count(int(r.CancelledByLibrary)), RefusedTaken: count(int(r.RefusedTaken)),
		WaitlistJoins: count(int(r.Joins)), Offers: count(int(r.Offers)), Claims: count(int(r.Claims)),
	}
	if !r.Day.IsZero() {
		out.Day = r.Day.Format(time.DateOnly)
	}
	if r.MedianWait != nil {
		minutes := count(int(r.MedianWait.Minutes()))
		out.MedianWaitMinutes = &minutes
	}
	return out
}

func (s *reportService) ExportReservations(
	req *dlsmsv1.ExportReservationsRequest, stream grpc.ServerStreamingServer[dlsmsv1.ExportReservationsResponse],
) error {
	var c check
	query := library.ExportQuery{Branch: c.optionalBranch("branch", req.GetBranch())}
	query.FirstDay, query.LastDay = c.days(req, maxReportDays)
	if err := c.err(); err != nil {
		return err
	}

	ctx := stream.Context()
	parts := &partWriter{send: func(part []byte) error {
		return stream.Send(&dlsmsv1.ExportReservationsResponse{Content: part})
	}}
	file := reportfile.NewWriter(parts)
	if err := file.WriteHeader(); err != nil {
		return err
	}
	if err := s.store.ExportReservations(ctx, edge.Caller(ctx).Actor(), query, file.Write); err != nil {
		return err
	}
	return parts.flush()
}

// exportPart is the size of a message of an export in bytes, which is below the limit of 64 KiB that
// clients may have.
const exportPart = 32 << 10

// partWriter sends what is written to it in parts of exportPart bytes.
type partWriter struct {
	send func(part []byte) error
	part []byte
}

// Write implements io.Writer.
func (w *partWriter) Write(b []byte) (int, error) {
	written := len(b)
	for len(b) > 0 {
		n := min(exportPart-len(w.part), len(b))
		w.part = append(w.part, b[:n]...)
		b = b[n:]
		if len(w.part) == exportPart {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (w *partWriter) flush() error {
	if len(w.part) == 0 {
		return nil
	}
	err := w.send(w.part)
	w.part = make([]byte, 0, exportPart) // the message may be encoded after the call
	return err
}
