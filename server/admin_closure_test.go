package server

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store/storetest"
)

// librarian registers a librarian of all branches and returns a context with their token, and a client
// of AdminService.
func (s *testServer) librarian(t *testing.T, db *storetest.DB) (context.Context, dlsmsv1.AdminServiceClient) {
	t.Helper()
	id := fmt.Sprintf("L%05d", students.Add(1))
	s.register(t, id)
	db.Exec(t, `UPDATE users SET role = 'LIBRARIAN' WHERE student_id = $1`, id)
	return bearing(t.Context(), s.login(t, id, testPassword)), dlsmsv1.NewAdminServiceClient(s.conn)
}

// sweep runs all open sweeps.
func (s *testServer) sweep(t *testing.T) {
	t.Helper()
	for {
		r, err := s.config.Store.SweepNext(t.Context(), 100, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.SweepID == 0 {
			return
		}
	}
}

// TestClosureFromStartToEnd makes a closure, and looks at what the librarian, the user of a lost
// reservation and the readers of seats see.
func TestClosureFromStartToEnd(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, tuesday)
	seats := db.Seats(t, 3)
	s := startOn(t, db, nil, nil)
	staff, admin := s.librarian(t, db)
	student := s.student(t)
	booked, err := s.reservation.CreateReservation(student, &dlsmsv1.CreateReservationRequest{
		SeatId: seats[0], StartTime: stamp(time.Hour), EndTime: stamp(2 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	req := &dlsmsv1.CreateClosureRequest{
		Branch: "branch-0", SeatIds: seats[:1], StartTime: stamp(30 * time.Minute), EndTime: stamp(5 * time.Hour),
		Note:       map[string]string{"en": "The roof leaks.", "de": "Das Dach ist undicht."},
		OnBookings: dlsmsv1.BookingAction_BOOKING_ACTION_CANCEL, RequestId: "r", ValidateOnly: true,
	}
	checked, err := admin.CreateClosure(staff, req)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&dlsmsv1.CreateClosureResponse{
		Closure: &dlsmsv1.Closure{
			Branch: "branch-0", SeatIds: seats[:1], StartTime: req.GetStartTime(), EndTime: req.GetEndTime(),
			Note: req.GetNote(), OnBookings: req.GetOnBookings(), CreatedAt: stamp(0),
			Sweep: &dlsmsv1.SweepProgress{Left: 1},
		},
		Impact: &dlsmsv1.Impact{
			Reservations: 1, Days: []*dlsmsv1.DayCount{{Day: "2027-03-02", Reservations: 1}},
			First: []*dlsmsv1.AffectedReservation{{
				Reservation: booked.GetReservation(), Name: "Ada Lovelace",
				StudentId: checked.GetImpact().GetFirst()[0].GetStudentId(),
			}},
		},
	}, checked, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	req.ValidateOnly = false
	_, err = admin.CreateClosure(staff, req)
	want(t, err, codes.FailedPrecondition, "CHANGED_SINCE_CHECK")
	req.ExpectedReservations = 1
	made, err := admin.CreateClosure(staff, req)
	if err != nil {
		t.Fatal(err)
	}
	s.sweep(t)

	notice := []*dlsmsv1.ClosureNotice{{
		Id: made.GetClosure().GetId(), SeatIds: seats[:1], StartTime: req.GetStartTime(), EndTime: req.GetEndTime(),
		Note: req.GetNote(),
	}}
	one, err := s.seats.GetSeat(t.Context(), &dlsmsv1.GetSeatRequest{SeatId: seats[0]})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(notice, one.GetClosures(), protocmp.Transform()); diff != "" {
		t.Error("GetSeat:", diff)
	}
	until := one.GetSeat().GetAvailableUntil().AsTime()
	if until != req.GetStartTime().AsTime() || len(one.GetBusy()) > 0 {
		t.Errorf("GetSeat: %v", one)
	}
	branches, err := s.seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(notice, branches.GetBranches()[0].GetClosures(), protocmp.Transform()); diff != "" {
		t.Error("GetBranches:", diff)
	}
	window := &dlsmsv1.GetSeatsRequest{StartTime: stamp(time.Hour), EndTime: stamp(2 * time.Hour)}
	all, err := s.seats.GetSeats(t.Context(), window)
	if err != nil || all.GetAvailableCount() != 2 || all.GetSeats()[0].GetAvailable() ||
		all.GetSeats()[0].GetNextAvailableAt().AsTime() != req.GetEndTime().AsTime() {
		t.Errorf("GetSeats: %v, %v", all, err)
	}
	_, err = s.reservation.CreateReservation(student, &dlsmsv1.CreateReservationRequest{
		SeatId: seats[0], StartTime: stamp(time.Hour), EndTime: stamp(2 * time.Hour),
	})
	want(t, err, codes.FailedPrecondition, "SEAT_CLOSED")

	told, err := s.notify.GetNotifications(student, &dlsmsv1.GetNotificationsRequest{})
	if err != nil || len(told.GetNotifications()) != 1 {
		t.Fatal(told, err)
	}
	n := told.GetNotifications()[0]
	if n.GetKind() != dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY ||
		n.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED ||
		n.GetNote()["de"] != "Das Dach ist undicht." || n.GetSuggestedSeat().GetId() != seats[1] {
		t.Errorf("the notification is %v", n)
	}
	const message = "Seat A-1 in Area (branch-0) was yours from Tue 2 Mar 14:00 to 15:00. The library has cancelled the " +
		"reservation. The roof leaks. Seat A-2 in Area (branch-0) was free at that time."
	if n.GetMessage() != message {
		t.Errorf("the message is %q", n.GetMessage())
	}

	list, err := admin.ListClosures(staff, &dlsmsv1.ListClosuresRequest{Branch: "branch-0"})
	if err != nil || len(list.GetClosures()) != 1 || !list.GetClosures()[0].GetSweep().GetDone() ||
		list.GetClosures()[0].GetSweep().GetEnded() != 1 {
		t.Errorf("ListClosures: %v, %v", list, err)
	}
	id := made.GetClosure().GetId()
	lifted, err := admin.UpdateClosure(staff, &dlsmsv1.UpdateClosureRequest{ClosureId: id, Lift: true})
	if err != nil || lifted.GetClosure().GetLiftedAt().AsTime() != tuesday {
		t.Errorf("UpdateClosure: %v, %v", lifted, err)
	}
	all, err = s.seats.GetSeats(t.Context(), window)
	if err != nil || all.GetAvailableCount() != 3 {
		t.Errorf("GetSeats after the closure: %v, %v", all, err)
	}
	_, err = admin.UpdateClosure(staff, &dlsmsv1.UpdateClosureRequest{ClosureId: id, NoEnd: true})
	want(t, err, codes.FailedPrecondition, "CLOSURE_ENDED")
	_, err = admin.CreateClosure(student, req)
	want(t, err, codes.PermissionDenied, "ROLE_REQUIRED")
}

// TestWatchSeesClosure makes a closure while a client watches its seats.
func TestWatchSeesClosure(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, tuesday)
	seats := db.Seats(t, 2)
	s := startOn(t, db, nil, nil)
	staff, admin := s.librarian(t, db)
	watch, err := s.seats.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || len(m.GetSnapshot().GetSeats()) != 2 {
		t.Fatal(m, err)
	}
	_, err = admin.CreateClosure(staff, &dlsmsv1.CreateClosureRequest{Branch: "branch-0", SeatIds: seats[1:]})
	if err != nil {
		t.Fatal(err)
	}
	m, err := watch.Recv()
	if err != nil || m.GetChange().GetId() != seats[1] || m.GetChange().GetAvailable() ||
		m.GetChange().GetNextAvailableAt() != nil {
		t.Errorf("the change is %v, %v", m, err)
	}
}

func TestListClosuresHasPages(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, tuesday)
	db.Seats(t, 1)
	s := startOn(t, db, nil, nil)
	staff, admin := s.librarian(t, db)
	for i := range 5 {
		_, err := admin.CreateClosure(staff, &dlsmsv1.CreateClosureRequest{
			Branch: "branch-0", EndTime: stamp(time.Duration(i+1) * time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var ids []int64
	req := &dlsmsv1.ListClosuresRequest{PageSize: 2}
	for pages := 1; ; pages++ {
		page, err := admin.ListClosures(staff, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page.GetClosures() {
			ids = append(ids, c.GetId())
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			if pages != 3 || len(ids) != 5 || ids[0] < ids[4] {
				t.Errorf("%d pages with the closures %v", pages, ids)
			}
			return
		}
	}
}

// TestAdminRequestsReportAllInvalidFields sends malformed requests about closures and hours.
func TestAdminRequestsReportAllInvalidFields(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Seats(t, 1)
	s := startOn(t, db, nil, nil)
	staff, admin := s.librarian(t, db)
	span := func(opens, closes string) *dlsmsv1.TimeSpan { return &dlsmsv1.TimeSpan{Opens: opens, Closes: closes} }
	weekly := func(day int32, opens, closes string) *dlsmsv1.OpeningHours {
		return &dlsmsv1.OpeningHours{Weekday: day, Opens: opens, Closes: closes}
	}
	setDays := func(req *dlsmsv1.SetDaysRequest) error { _, err := admin.SetDays(staff, req); return err }
	setHours := func(hours ...*dlsmsv1.OpeningHours) error {
		_, err := admin.SetWeeklyHours(staff, &dlsmsv1.SetWeeklyHoursRequest{Branch: "branch-0", Hours: hours})
		return err
	}
	alwaysOpen := func(hours ...*dlsmsv1.OpeningHours) error {
		_, err := admin.SetWeeklyHours(staff, &dlsmsv1.SetWeeklyHoursRequest{
			Branch: "branch-0", Hours: hours, AlwaysOpen: true,
		})
		return err
	}
	create := func(req *dlsmsv1.CreateClosureRequest) error { _, err := admin.CreateClosure(staff, req); return err }
	update := func(req *dlsmsv1.UpdateClosureRequest) error { _, err := admin.UpdateClosure(staff, req); return err }
	long := strings.Repeat("x", 501)
	for i, c := range []struct {
		err  error
		want string
	}{
		{create(&dlsmsv1.CreateClosureRequest{
			Area: "A", SeatIds: []int64{1, 0}, StartTime: stamp(1), EndTime: timestamppb.New(tuesday.Add(-time.Hour)),
			Note: map[string]string{"en": "", "de": long, "x y": "z"}, OnBookings: 9, ExpectedReservations: -1, Reason: long,
		}), "[reason branch seat_ids[1] on_bookings expected_reservations note[de] note[en] note seat_ids end_time]"},
		{create(&dlsmsv1.CreateClosureRequest{Branch: "branch-0", SeatIds: make([]int64, 501)}), "[seat_ids]"},
		{update(&dlsmsv1.UpdateClosureRequest{NoEnd: true, EndTime: stamp(0), Lift: true}), "[closure_id end_time lift]"},
		{setHours(), "[hours]"},
		{alwaysOpen(weekly(1, "08:00", "12:00")), "[hours]"},
		{alwaysOpen(), "[]"},
		{setHours(weekly(0, "8:00", "24:01"), weekly(8, "24:00", "")),
			"[hours[0].weekday hours[0].opens hours[0].closes hours[1].weekday hours[1].opens hours[1].closes]"},
		{setHours(weekly(1, "08:00", "12:00"), weekly(1, "11:59", "13:00")), "[hours[1]]"},
		{setHours(weekly(7, "20:00", "02:00"), weekly(1, "01:00", "05:00")), "[hours[1]]"},
		{setHours(weekly(1, "08:00", "12:00"), weekly(1, "12:00", "08:00")), "[]"},
		{setDays(&dlsmsv1.SetDaysRequest{
			Branch: "branch-0", FirstDay: "2027-02-29", LastDay: "1999-01-01", Weekdays: []int32{8},
		}), "[first_day last_day weekdays[0]]"},
		{setDays(&dlsmsv1.SetDaysRequest{Branch: "branch-0", FirstDay: "2027-03-02", LastDay: "2027-03-01"}), "[last_day]"},
		{setDays(&dlsmsv1.SetDaysRequest{Branch: "branch-0", FirstDay: "2027-03-02", LastDay: "2028-03-03"}), "[last_day]"},
		{setDays(&dlsmsv1.SetDaysRequest{Branch: "branch-0", FirstDay: "2027-03-02", Weekdays: []int32{1}}), "[weekdays]"},
		{setDays(&dlsmsv1.SetDaysRequest{
			Branch: "branch-0", FirstDay: "2027-03-02", Remove: true, Open: []*dlsmsv1.TimeSpan{span("08:00", "09:00")},
		}), "[open]"},
		{setDays(&dlsmsv1.SetDaysRequest{
			Branch: "branch-0", FirstDay: "2027-03-02", LastDay: "2027-03-03",
			Open: []*dlsmsv1.TimeSpan{span("01:00", "05:00"), span("20:00", "02:00")},
		}), "[open[1]]"},
		{setDays(&dlsmsv1.SetDaysRequest{ // the two dates do not follow each other
			Branch: "branch-0", FirstDay: "2027-03-01", LastDay: "2027-03-03", Weekdays: []int32{1, 3},
			Open: []*dlsmsv1.TimeSpan{span("01:00", "05:00"), span("20:00", "02:00")},
		}), "[]"},
	} {
		if got := fmt.Sprint(fieldsOf(c.err)); got != c.want {
			t.Errorf("request %d: invalid fields %s, want %s (%v)", i, got, c.want, c.err)
		}
		if c.want == "[]" && c.err != nil {
			t.Errorf("request %d: %v", i, c.err)
		}
	}
}

// TestSetHoursAndDays sets weekly hours and exceptional days, and reads them as a student.
func TestSetHoursAndDays(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, tuesday)
	db.Seats(t, 1)
	s := startOn(t, db, nil, nil)
	staff, admin := s.librarian(t, db)
	hours := []*dlsmsv1.OpeningHours{
		{Weekday: 2, Opens: "08:00", Closes: "24:00"}, {Weekday: 7, Opens: "22:30:15", Closes: "02:00"},
	}
	set, err := admin.SetWeeklyHours(staff, &dlsmsv1.SetWeeklyHoursRequest{
		Branch: "branch-0", Hours: []*dlsmsv1.OpeningHours{hours[1], hours[0]},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(hours, set.GetHours(), protocmp.Transform()); diff != "" {
		t.Error("SetWeeklyHours:", diff)
	}
	spans := []*dlsmsv1.TimeSpan{{Opens: "00:00", Closes: "12:30"}, {Opens: "14:00", Closes: "24:00"}}
	days, err := admin.SetDays(staff, &dlsmsv1.SetDaysRequest{
		Branch: "branch-0", FirstDay: "2027-03-01", LastDay: "2027-03-14", Weekdays: []int32{1, 2}, Open: spans,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.SetDays(staff, &dlsmsv1.SetDaysRequest{Branch: "branch-0", FirstDay: "2027-03-08"}); err != nil {
		t.Fatal(err)
	}
	var want []*dlsmsv1.DayHours
	for _, day := range []string{"2027-03-02", "2027-03-08", "2027-03-09"} { // from today on
		want = append(want, &dlsmsv1.DayHours{Day: day, Open: spans})
	}
	if diff := cmp.Diff(want, days.GetDays(), protocmp.Transform()); diff != "" {
		t.Error("SetDays:", diff)
	}
	branches, err := s.seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	b := branches.GetBranches()[0]
	if diff := cmp.Diff(hours, b.GetHours(), protocmp.Transform()); diff != "" {
		t.Error("GetBranches:", diff)
	}
	special := func(day string, weekday int32, open bool) *dlsmsv1.SpecialDay {
		d := &dlsmsv1.SpecialDay{Day: day}
		for _, span := range spans {
			if open {
				d.Hours = append(d.Hours, &dlsmsv1.OpeningHours{Weekday: weekday, Opens: span.GetOpens(), Closes: span.GetCloses()})
			}
		}
		return d
	}
	if diff := cmp.Diff([]*dlsmsv1.SpecialDay{
		special("2027-03-02", 2, true), special("2027-03-08", 1, false), special("2027-03-09", 2, true),
	}, b.GetSpecialDays(), protocmp.Transform()); diff != "" {
		t.Error("GetBranches:", diff)
	}
	// It is 13:00 in Berlin, between the two spans of today.
	if b.GetOpen() || b.GetOpensAt().AsTime() != tuesday.Add(time.Hour) {
		t.Errorf("the branch is %v", b)
	}
}
