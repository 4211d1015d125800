package e2e_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// TestUserJourney makes the calls of four users on a day at the library. The system has the demo
// data and the default settings, except that check-in closes six seconds after the start.
func TestUserJourney(t *testing.T) {
	t.Parallel()
	cfg := stack.Config{Seed: true, Env: map[string]string{"GRACE_MINUTES": "0.1"}}
	startEverywhere(t, cfg, userJourney)
}

func userJourney(t *testing.T, s *system) {
	t.Helper()
	shown := watch(t, s.anonymous(), &dlsmsv1.WatchSeatsRequest{})

	if _, err := s.anonymous().Auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
		StudentId: "S2024123", Name: "Zoë Müller", Email: "zoe@university.example", Password: "eine Bibliothek",
	}); err != nil {
		t.Fatal(err)
	}
	zoe := s.login(t, "s2024123", "eine Bibliothek") // student ids are not case-sensitive
	if zoe.User.GetName() != "Zoë Müller" || zoe.User.GetRole() != dlsmsv1.Role_ROLE_STUDENT ||
		zoe.User.GetStudentId() != "S2024123" {
		t.Errorf("the user is %v", zoe.User)
	}
	ada := s.login(t, "S2021001", "password123")
	ben := s.login(t, "S2021002", "password123")
	chiara := s.login(t, "S2021003", "password123")

	checkDemoData(t, s)
	seat := seats(t, s, &dlsmsv1.GetSeatsRequest{Branch: "main", AvailableOnly: true})[6].GetId()
	visit(t, s, zoe, ben, seat, shown)
	last := offerAndClaim(t, s, ada, ben, chiara, seat, shown)
	noShow(t, s, ben, chiara, seat, last, shown)

	// The waitlist passed the seat from Ada to Ben, and from Ben to Chiara. In between, no watch
	// showed it as free.
	if got, want := availability(shown, seat), []bool{true, false, true, false, true}; !slices.Equal(got, want) {
		t.Errorf("the availability shown was %v, want %v", got, want)
	}
}

// availability returns whether the seat was available, in each state that the watch has shown, in
// order. It leaves out repetitions.
func availability(shown seatWatch, seat int64) []bool {
	var out []bool
	for _, m := range shown.Messages() {
		for _, s := range append(m.GetSnapshot().GetSeats(), m.GetChange()) {
			if s.GetId() == seat {
				out = append(out, s.GetAvailable())
			}
		}
	}
	return slices.Compact(out)
}

// seats returns the answer of GetSeats.
func seats(t *testing.T, s *system, req *dlsmsv1.GetSeatsRequest) []*dlsmsv1.Seat {
	t.Helper()
	resp, err := s.anonymous().Seats.GetSeats(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetSeats()
}

func checkDemoData(t *testing.T, s *system) {
	t.Helper()
	all := seats(t, s, &dlsmsv1.GetSeatsRequest{AvailableOnly: true})
	if len(all) != 49 || !slices.IsSortedFunc(all, func(a, b *dlsmsv1.Seat) int { return int(a.GetId() - b.GetId()) }) {
		t.Errorf("%d seats are free, want 49, in the order of their ids", len(all))
	}
	for req, want := range map[*dlsmsv1.GetSeatsRequest]int{
		{Branch: "main"}:        25,
		{Branch: "science"}:     12,
		{Branch: "engineering"}: 12,
		{Amenities: []dlsmsv1.Amenity{dlsmsv1.Amenity_AMENITY_POWER_OUTLET}}: 18,
	} {
		if got := len(seats(t, s, req)); got != want {
			t.Errorf("%v: %d seats, want %d", req, got, want)
		}
	}
	branches, err := s.anonymous().Seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int32{}
	for _, b := range branches.GetBranches() {
		counts[b.GetCode()] = b.GetSeatCount()
		if b.GetAvailableCount() != b.GetSeatCount() || len(b.GetAreas()) < 2 || b.GetTimezone() == "" {
			t.Errorf("the branch is %v", b)
		}
	}
	if len(counts) != 3 || counts["main"] != 25 || counts["science"] != 12 || counts["engineering"] != 12 {
		t.Errorf("the branches are %v", counts)
	}
}

// visit books a seat from now on, tries two bookings that conflict, checks in and checks out. It
// checks what reads and the watch show after these calls.
func visit(t *testing.T, s *system, zoe, ben student, seat int64, shown seatWatch) {
	t.Helper()
	now := time.Now()
	booked := zoe.request(
		&dlsmsv1.CreateReservationRequest{
			SeatId:    seat,
			EndTime:   timestamppb.New(now.Add(2 * time.Hour)),
			RequestId: "walk-1",
		},
	)
	if booked.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED || booked.GetUserId() != zoe.id() ||
		booked.GetSeat().GetId() != seat || booked.GetSeat().GetBranch() != "main" {
		t.Errorf("the reservation is %v", booked)
	}
	if grace := booked.GetCheckInDeadline().AsTime().Sub(booked.GetStartTime().AsTime()); grace != 6*time.Second {
		t.Errorf("check-in is open for %s, want 6s", grace)
	}
	if free := seats(t, s, &dlsmsv1.GetSeatsRequest{AvailableOnly: true}); len(free) != 48 || has(free, seat) {
		t.Errorf("%d seats are free, the booked one among them: %t", len(free), has(free, seat))
	}
	shown.untilSeat(seat, false)
	refused(t, ben.tryToBook(seat, fromNow(time.Hour)), "SEAT_TAKEN")
	refused(t, zoe.tryToBook(seat+1, fromNow(time.Hour)), "USER_BUSY")
	if list := zoe.reservations(dlsmsv1.ReservationView_RESERVATION_VIEW_UPCOMING); len(list) != 1 ||
		list[0].GetId() != booked.GetId() {
		t.Errorf("upcoming: %v", list)
	}

	in := zoe.checkIn(booked.GetId())
	if in.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CHECKED_IN || in.GetCheckedInAt() == nil {
		t.Errorf("checked in: %v", in)
	}
	out := zoe.checkOut(booked.GetId())
	if out.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_COMPLETED || out.GetEndedAt() == nil {
		t.Errorf("checked out: %v", out)
	}
	shown.untilSeat(seat, true)
	if list := zoe.reservations(dlsmsv1.ReservationView_RESERVATION_VIEW_UPCOMING); len(list) != 0 {
		t.Errorf("upcoming after the check-out: %v", list)
	}
	if list := zoe.reservations(dlsmsv1.ReservationView_RESERVATION_VIEW_HISTORY); len(list) != 1 ||
		list[0].GetId() != booked.GetId() {
		t.Errorf("history: %v", list)
	}
	kinds := []dlsmsv1.NotificationKind{}
	for _, n := range zoe.notifications(0) {
		kinds = append(kinds, n.GetKind())
	}
	// The last notification must be COMPLETED. A reminder may come before it: the check-in deadline
	// is within REMINDER_LEAD, so the worker may send a reminder before the check-in.
	if len(kinds) == 0 || kinds[len(kinds)-1] != dlsmsv1.NotificationKind_NOTIFICATION_KIND_COMPLETED {
		t.Errorf("the notifications are %v", kinds)
	}
}

func has(list []*dlsmsv1.Seat, id int64) bool {
	return slices.ContainsFunc(list, func(s *dlsmsv1.Seat) bool { return s.GetId() == id })
}

// offerAndClaim cancels the reservation of Ada. Ben and Chiara are on the waitlist of the seat. Ben
// is the first, so he gets the offer and claims it. offerAndClaim returns his reservation.
func offerAndClaim(
	t *testing.T, s *system, ada, ben, chiara student, seat int64, shown seatWatch,
) *dlsmsv1.Reservation {
	t.Helper()
	w := fromNow(2 * time.Hour)
	booked := ada.book(seat, w)
	shown.untilSeat(seat, false)
	subscription := ben.subscribe()
	entry := ben.wait(seat, w)
	if entry.GetStatus() != dlsmsv1.WaitlistStatus_WAITLIST_STATUS_WAITING || entry.GetPosition() != 1 {
		t.Errorf("the entry is %v", entry)
	}
	if e := chiara.wait(seat, w); e.GetPosition() != 2 {
		t.Errorf("the second in line is %v", e)
	}
	if len(e2e.Notifications(subscription.Messages())) != 0 {
		t.Errorf("notifications before the offer: %v", subscription.Messages())
	}

	if c := ada.cancel(booked.GetId()); c.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED ||
		c.GetEndedAt() == nil {
		t.Errorf("cancelled: %v", c)
	}
	offer := subscription.next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_SEAT_OFFERED)
	if offer.GetEntryId() != entry.GetId() || offer.GetReservationId() == 0 || offer.GetMessage() == "" {
		t.Errorf("the offer is %v", offer)
	}
	held := ben.reservation(offer.GetReservationId())
	if held.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_HELD {
		t.Errorf("held: %v", held)
	}
	e := ben.entry(entry.GetId())
	if e.GetStatus() != dlsmsv1.WaitlistStatus_WAITLIST_STATUS_OFFERED || e.GetOfferExpiresAt() == nil ||
		e.GetReservationId() != held.GetId() {
		t.Errorf("the entry with an offer is %v", e)
	}
	if !describes(offer, held) || !proto.Equal(offer.GetOfferExpiresAt(), e.GetOfferExpiresAt()) ||
		offer.GetCheckInDeadline() != nil {
		t.Errorf("the offer %v does not describe %v", offer, held)
	}
	refused(t, ada.tryToBook(seat, fromNow(time.Hour)), "SEAT_TAKEN") // the hold is for Ben only
	if free := seats(t, s, &dlsmsv1.GetSeatsRequest{AvailableOnly: true}); len(free) != 48 || has(free, seat) {
		t.Errorf("%d seats are free, the held one among them: %t", len(free), has(free, seat))
	}

	claimed := ben.claim(entry.GetId())
	if claimed.GetEntry().GetStatus() != dlsmsv1.WaitlistStatus_WAITLIST_STATUS_CLAIMED ||
		claimed.GetReservation().GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CONFIRMED ||
		claimed.GetReservation().GetId() != held.GetId() {
		t.Errorf("claimed: %v", claimed)
	}
	return claimed.GetReservation()
}

// describes reports whether a notification has the seat, the window and the status of a
// reservation.
func describes(n *dlsmsv1.Notification, r *dlsmsv1.Reservation) bool {
	return proto.Equal(n.GetSeat(), r.GetSeat()) && n.GetStatus() == r.GetStatus() &&
		proto.Equal(n.GetStartTime(), r.GetStartTime()) && proto.Equal(n.GetEndTime(), r.GetEndTime())
}

// noShow waits until the reservation of Ben becomes a no-show. Chiara, who is next on the waitlist,
// gets the seat.
func noShow(t *testing.T, s *system, ben, chiara student, seat int64, booked *dlsmsv1.Reservation, shown seatWatch) {
	t.Helper()
	subscription, next := ben.subscribe(), chiara.subscribe()
	missed := subscription.next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_NO_SHOW)
	if missed.GetReservationId() != booked.GetId() {
		t.Errorf("the no-show is %v", missed)
	}
	// A new subscription delivers all notifications of the user: first the offer, then the check-in
	// reminder.
	subscription.next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_SEAT_OFFERED)
	subscription.next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_CHECK_IN_REMINDER)
	ended := ben.reservation(booked.GetId())
	if ended.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_NO_SHOW ||
		ended.GetEndedAt().AsTime().Before(ended.GetCheckInDeadline().AsTime()) {
		t.Errorf("the reservation is %v", ended)
	}
	if !describes(missed, ended) || !proto.Equal(missed.GetCheckInDeadline(), ended.GetCheckInDeadline()) ||
		missed.GetOfferExpiresAt() != nil {
		t.Errorf("the no-show %v does not describe %v", missed, ended)
	}
	refused(t, ben.tryToCheckIn(booked.GetId()), "CHECK_IN_TOO_LATE")

	offer := next.next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_SEAT_OFFERED)
	claimed := chiara.claim(offer.GetEntryId()).GetReservation()
	chiara.checkIn(claimed.GetId())
	if free := seats(t, s, &dlsmsv1.GetSeatsRequest{AvailableOnly: true}); len(free) != 48 || has(free, seat) {
		t.Errorf("%d seats are free, the claimed one among them: %t", len(free), has(free, seat))
	}
	chiara.checkOut(claimed.GetId())
	shown.untilSeat(seat, true)
	if list := chiara.reservations(dlsmsv1.ReservationView_RESERVATION_VIEW_ALL); len(list) != 1 ||
		list[0].GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_COMPLETED {
		t.Errorf("all reservations: %v", list)
	}
	if free := seats(t, s, &dlsmsv1.GetSeatsRequest{AvailableOnly: true}); len(free) != 49 {
		t.Errorf("%d seats are free in the end, want 49", len(free))
	}
}
