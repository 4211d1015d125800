package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// staff registers a user with a role and returns a context that carries its token.
func (s *testServer) staff(t *testing.T, db *storetest.DB, studentID, role string) context.Context {
	t.Helper()
	s.register(t, studentID)
	db.Exec(t, `UPDATE users SET role = $2 WHERE student_id = $1`, studentID, role)
	return bearing(t.Context(), s.login(t, studentID, testPassword))
}

// TestAdminRequestsAreChecked makes calls with invalid fields. All fields must be reported.
func TestAdminRequestsAreChecked(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seats := db.Seats(t, 2)
	s := startOn(t, db, nil, nil)
	admin := dlsmsv1.NewAdminServiceClient(s.conn)
	ctx := s.staff(t, db, "A0001", "ADMIN")
	place := int32(5)
	long := strings.Repeat("x", 501)
	for name, c := range map[string]struct {
		call   func() error
		fields []string
	}{
		"UpsertBranch": {func() error {
			_, err := admin.UpsertBranch(ctx, &dlsmsv1.UpsertBranchRequest{
				Code: "Main", Name: " x", Timezone: "Berlin", Reason: long})
			return err
		}, []string{"reason", "code", "name", "timezone"}},
		"UpsertBranch with nothing": {func() error {
			_, err := admin.UpsertBranch(ctx, &dlsmsv1.UpsertBranchRequest{})
			return err
		}, []string{"code", "name", "timezone"}},
		"UpsertBranch with a zone that Postgres writes otherwise": {func() error {
			_, err := admin.UpsertBranch(ctx, &dlsmsv1.UpsertBranchRequest{Code: "main", Name: "x", Timezone: "CET"})
			return err
		}, []string{"timezone"}},
		"UpsertArea": {func() error {
			_, err := admin.UpsertArea(ctx, &dlsmsv1.UpsertAreaRequest{NewName: "\t", Floor: long})
			return err
		}, []string{"branch", "name", "new_name", "floor"}},
		"UpsertSeats": {func() error {
			_, err := admin.UpsertSeats(ctx, &dlsmsv1.UpsertSeatsRequest{
				Branch: "branch-0", OnBookings: 9, ExpectedReservations: -1, Note: map[string]string{"?": "x", "en": " "},
				Seats: []*dlsmsv1.SeatSpec{
					{Label: "A", Area: "B", XCm: &place},
					{Label: "A", Area: "B", Amenities: []dlsmsv1.Amenity{99}},
				},
			})
			return err
		}, []string{
			"seats[0].y_cm", "seats[1].label", "seats[1].amenities[0]", "on_bookings", "expected_reservations",
			"note", "note[en]",
		}},
		"UpsertSeats with none": {func() error {
			_, err := admin.UpsertSeats(ctx, &dlsmsv1.UpsertSeatsRequest{Branch: "branch-0"})
			return err
		}, []string{"seats"}},
		"UpsertSeats with 501": {func() error {
			_, err := admin.UpsertSeats(ctx, &dlsmsv1.UpsertSeatsRequest{
				Branch: "branch-0", Seats: make([]*dlsmsv1.SeatSpec, 501)})
			return err
		}, []string{"seats"}},
		"RetireSeats": {func() error {
			_, err := admin.RetireSeats(ctx, &dlsmsv1.RetireSeatsRequest{
				Branch: "branch-0", SeatIds: []int64{seats[0], 0}, ExpectedReservations: -1})
			return err
		}, []string{"seat_ids[1]", "expected_reservations"}},
		"SetAnnouncement": {func() error {
			_, err := admin.SetAnnouncement(ctx, &dlsmsv1.SetAnnouncementRequest{
				Branch: "branch-0", Text: map[string]string{"en": long}})
			return err
		}, []string{"text[en]"}},
		"ImportSeats": {func() error {
			_, err := admin.ImportSeats(ctx, &dlsmsv1.ImportSeatsRequest{Content: []byte("branch,label\n,\nx,\n")})
			return err
		}, []string{"fingerprint", "line 3, column label", "line 3, column branch"}},
		"ImportSeats without a file": {func() error {
			_, err := admin.ImportSeats(ctx, &dlsmsv1.ImportSeatsRequest{DryRun: true})
			return err
		}, []string{"content"}},
		"ExportSeats": {func() error {
			_, err := admin.ExportSeats(ctx, &dlsmsv1.ExportSeatsRequest{Branch: "?"})
			return err
		}, []string{"branch"}},
	} {
		err := c.call()
		want(t, err, codes.InvalidArgument, "INVALID_FIELDS")
		if got := fieldsOf(err); !slices.Equal(got, c.fields) {
			t.Errorf("%s: %v, want %v", name, got, c.fields)
		}
	}
}

// TestStaffEditCatalog makes the calls of a librarian in order, and reads the result.
func TestStaffEditCatalog(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seats := db.Seats(t, 3)
	s := startOn(t, db, nil, nil)
	admin := dlsmsv1.NewAdminServiceClient(s.conn)
	ctx := s.staff(t, db, "L0001", "LIBRARIAN")
	_, err := admin.UpsertBranch(ctx, &dlsmsv1.UpsertBranchRequest{Code: "law", Name: "Law", Timezone: "UTC"})
	want(t, err, codes.PermissionDenied, "ROLE_REQUIRED")
	if _, err := admin.UpsertArea(ctx, &dlsmsv1.UpsertAreaRequest{
		Branch: "branch-0", Name: "Area", NewName: "Hall", Floor: "2"}); err != nil {
		t.Error(err)
	}
	upserted, err := admin.UpsertSeats(ctx, &dlsmsv1.UpsertSeatsRequest{Branch: "branch-0", Seats: []*dlsmsv1.SeatSpec{
		{Label: "A-1", Area: "Hall", OutOfService: true}, {Label: "B-1", Area: "Attic", Amenities: []dlsmsv1.Amenity{1}},
	}})
	if err != nil || upserted.GetChanges()[0].GetAction() != "UPDATE" || upserted.GetChanges()[1].GetSeatId() == 0 {
		t.Errorf("%v, %v", upserted, err)
	}
	retired, err := admin.RetireSeats(ctx, &dlsmsv1.RetireSeatsRequest{Branch: "branch-0", SeatIds: seats[1:2]})
	if err != nil || retired.GetRetired() != 1 {
		t.Errorf("%v, %v", retired, err)
	}
	if _, err := admin.SetAnnouncement(ctx, &dlsmsv1.SetAnnouncementRequest{
		Branch: "branch-0", Text: map[string]string{"en": "Hello"}}); err != nil {
		t.Error(err)
	}
	listed, err := admin.ListBranches(ctx, &dlsmsv1.ListBranchesRequest{})
	if err != nil || len(listed.GetBranches()) != 1 {
		t.Fatalf("%v, %v", listed, err)
	}
	b := listed.GetBranches()[0]
	if b.GetSeatCount() != 3 || b.GetOutOfServiceCount() != 1 || b.GetAnnouncement()["en"] != "Hello" ||
		len(b.GetAreas()) != 2 || b.GetAreas()[1].GetName() != "Hall" || b.GetAreas()[1].GetFloor() != "2" {
		t.Errorf("%v", b)
	}
	exported, err := admin.ExportSeats(ctx, &dlsmsv1.ExportSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	imported, err := admin.ImportSeats(ctx, &dlsmsv1.ImportSeatsRequest{Content: exported.GetContent(), DryRun: true})
	if err != nil || imported.GetSame() != 3 || len(imported.GetChanges()) != 3 || imported.GetFingerprint() == "" {
		t.Errorf("%v, %v", imported, err)
	}
	rows := storetest.Rows[string](t, db,
		`SELECT concat_ws(' ', role, action, object, request_id <> '') FROM audit_log ORDER BY id`)
	if strings.Join(rows, ", ") != "LIBRARIAN UpsertArea branch/branch-0 t, LIBRARIAN UpsertSeats branch/branch-0 t, "+
		"LIBRARIAN RetireSeats branch/branch-0 t, LIBRARIAN SetAnnouncement branch/branch-0 t" {
		t.Errorf("audit log %v", rows)
	}
}

// TestManyFaultsOverGRPC imports a file with many faults. The status must be small enough for nginx,
// and tell how many faults there are.
func TestManyFaultsOverGRPC(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	admin := dlsmsv1.NewAdminServiceClient(s.conn)
	ctx := s.staff(t, db, "L0001", "LIBRARIAN")
	// The parser finds a fault in each row of the first file, and the store in each row of both.
	for label, more := range map[string]int{"%d ": 990, "%d": 490} {
		file := "branch,label\n"
		for i := range 500 {
			file += fmt.Sprintf("none,"+label+"\n", i)
		}
		_, err := admin.ImportSeats(ctx, &dlsmsv1.ImportSeatsRequest{Content: []byte(file), DryRun: true})
		want(t, err, codes.InvalidArgument, "INVALID_FIELDS")
		violations := detail[*errdetails.BadRequest](err).GetFieldViolations()
		if len(violations) != 11 || violations[10].GetDescription() != fmt.Sprintf("has %d more faults", more) {
			t.Errorf("%v", violations)
		}
	}
}
