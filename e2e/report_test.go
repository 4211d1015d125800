package e2e_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// TestReports reads a report and exports reservations, as a librarian over gRPC and as a program over
// HTTP.
func TestReports(t *testing.T) {
	t.Parallel()
	s := shared(t)
	here, there := s.branch(t, 2), s.branch(t, 1)
	visitor, late := s.student(t), s.student(t)
	r := visitor.book(here.seats[0], fromNow(time.Hour))
	visitor.checkIn(r.GetId())
	other := visitor.book(here.seats[1], tomorrow(3, 4))
	visitor.cancel(other.GetId())
	if err := late.tryToBook(here.seats[0], fromNow(time.Hour)); e2e.Reason(err) != "SEAT_TAKEN" {
		t.Fatalf("a taken seat was booked: %v", err)
	}
	late.wait(here.seats[0], fromNow(time.Hour))
	librarian := s.withRole(t, librarianRole, here.code)
	_, key := s.withRole(t, adminRole).key(here.code, dlsmsv1.KeyScope_KEY_SCOPE_REPORTS)
	// The test may begin before midnight, and the days of the report are those in Berlin.
	from := time.Now().AddDate(0, 0, -1).Format(time.DateOnly)
	to := time.Now().AddDate(0, 0, 2).Format(time.DateOnly)

	var usage *dlsmsv1.GetUsageResponse
	eventually(t, "a replica has written the refusal", func() bool {
		var err error
		usage, err = librarian.Report.GetUsage(t.Context(), &dlsmsv1.GetUsageRequest{
			From: from, To: to, By: dlsmsv1.UsageBy_USAGE_BY_AREA,
		})
		if err != nil {
			t.Fatal(err)
		}
		return len(usage.GetRows()) == 1 && usage.GetRows()[0].GetRefusedTaken() == 1
	})
	row := usage.GetRows()[0]
	if row.GetBranch() != here.code || row.GetReservations() != 2 || row.GetCheckIns().GetTotal() != 1 ||
		row.GetCancelled() != 1 || row.GetWaitlistJoins() != 1 || row.GetNoShows() != 0 || row.GetOpenMinutes() == 0 ||
		time.Since(usage.GetCountedUntil().AsTime()) > time.Minute {
		t.Errorf("usage %v", usage)
	}
	_, err := librarian.Report.GetUsage(t.Context(), &dlsmsv1.GetUsageRequest{
		From: from, To: to, By: dlsmsv1.UsageBy_USAGE_BY_DAY, Branch: there.code,
	})
	refused(t, err, "BRANCH_REQUIRED")
	_, err = librarian.Report.GetUsage(t.Context(), &dlsmsv1.GetUsageRequest{From: "2026-13-01", To: to})
	refused(t, err, "INVALID_FIELDS")

	program := []string{"Authorization", "Bearer " + key}
	overHTTP := &dlsmsv1.GetUsageResponse{}
	s.send(t, http.MethodGet, "/v1/reports/usage?by=USAGE_BY_AREA&from="+from+"&to="+to, "", program...).
		message(http.StatusOK, overHTTP)
	if len(overHTTP.GetRows()) != 1 || overHTTP.GetRows()[0].GetReservations() != 2 {
		t.Errorf("usage over HTTP %v", overHTTP)
	}
	s.send(t, http.MethodGet, "/v1/reports/usage?by=USAGE_BY_HOUR&from=2025-01-01&to=2025-03-01", "", program...).
		problem(http.StatusBadRequest, "INVALID_FIELDS")

	files := [2][]byte{export(t, librarian, from, to), nil}
	answer := s.send(t, http.MethodGet, "/v1/reports/reservations:export?from="+from+"&to="+to, "", program...)
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Errorf("%s %v", answer.Status, answer.Header)
	}
	files[1] = answer.body
	var people []string
	for _, file := range files {
		lines, err := csv.NewReader(bytes.NewReader(file)).ReadAll()
		if err != nil || len(lines) != 3 || lines[0][0] != "\ufeffperson" || lines[1][0] != lines[2][0] ||
			lines[1][2] != here.code || lines[1][7] != "CHECKED_IN" || lines[1][10] != "NONE" || lines[2][7] != "CANCELLED" {
			t.Fatalf("%v, %v", lines, err)
		}
		if bytes.Contains(file, []byte(visitor.User.GetStudentId())) {
			t.Errorf("the file names a person:\n%s", file)
		}
		people = append(people, lines[1][0])
	}
	if people[0] == people[1] {
		t.Error("two exports have the same pseudonym")
	}
	elsewhere := "/v1/reports/reservations:export?from=" + from + "&to=" + to + "&branch=" + there.code
	s.send(t, http.MethodGet, elsewhere, "", program...).
		problem(http.StatusForbidden, "BRANCH_REQUIRED")
}

// export returns the file of an export over gRPC.
func export(t *testing.T, u student, from, to string) []byte {
	t.Helper()
	req := &dlsmsv1.ExportReservationsRequest{From: from, To: to}
	stream, err := u.Report.ExportReservations(within(t, waitTimeout), req)
	if err != nil {
		t.Fatal(err)
	}
	var parts [][]byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return slices.Concat(parts...)
		}
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part.GetContent())
	}
}
