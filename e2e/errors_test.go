package e2e_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// stage is where errors are provoked: two students, and a branch of two seats. The hasty system is impatient and has narrow limits.
type stage struct {
	t          *testing.T
	s, hasty   *system
	a, b       student
	seat, next int64
	w          window
}

// unreachable are the reasons that no call can have yet, and why.
var unreachable = map[string]string{"ROLE_REQUIRED": "no RPC asks for a role"}

// provocations says for each reason of the enum how to get it. Each returns the error of the call; what else it does has to succeed.
var provocations = map[string]func(g *stage) error{
	"INVALID_FIELDS": func(g *stage) error { return g.a.tryToBook(0, window{}) },
	"BRANCH_CLOSED": func(g *stage) error { // it has hours, and none of them in the window
		g.s.exec(g.t, `INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
			SELECT library_id, branch_id, extract(isodow FROM $2::timestamptz - interval '2 days')::int, '0:00', '0:01' FROM seats WHERE id = $1`, g.seat, g.w.start)
		return g.a.tryToBook(g.seat, g.w)
	},
	"WINDOW_NOT_ALLOWED": func(g *stage) error {
		err := g.a.tryToBook(g.seat, window{g.w.start, g.w.start.Add(14 * time.Minute)})
		rules := e2e.RefusalOf(err).Metadata
		if rules["min_reservation"] != "900" || rules["max_reservation"] != "43200" || rules["max_ahead"] != "1209600" || rules["now"] == "" {
			g.t.Errorf("the rules are told as %v", rules)
		}
		return err
	},
	"REQUEST_ID_REUSED": func(g *stage) error {
		req := g.w.booking(g.seat)
		req.RequestId = "once"
		g.a.request(req)
		req.SeatId = g.next
		_, err := g.a.Reservations.CreateReservation(g.t.Context(), req)
		return err
	},
	"TOKEN_MISSING": func(g *stage) error { return student{g.a.WithToken(""), g.t}.tryToBook(g.seat, g.w) },
	"TOKEN_INVALID": func(g *stage) error { return student{g.a.WithToken("x" + g.a.Token), g.t}.tryToBook(g.seat, g.w) },
	"TOKEN_EXPIRED": func(g *stage) error {
		return student{g.a.WithToken(g.s.expired(g.t, g.a.Token)), g.t}.tryToBook(g.seat, g.w)
	},
	"TOKEN_REVOKED": func(g *stage) error {
		if _, err := g.a.Auth.Logout(g.t.Context(), &dlsmsv1.LogoutRequest{}); err != nil {
			g.t.Fatal(err)
		}
		err := error(nil)
		eventually(g.t, "the token ends everywhere", func() bool {
			err = g.a.tryToBook(g.seat, g.w)
			return e2e.Reason(err) == "TOKEN_REVOKED"
		})
		return err
	},
	"BAD_CREDENTIALS": func(g *stage) error {
		_, err := g.a.Auth.Login(g.t.Context(), &dlsmsv1.LoginRequest{StudentId: g.a.User.GetStudentId(), Password: "not " + password})
		_, unknown := g.a.Auth.Login(g.t.Context(), &dlsmsv1.LoginRequest{StudentId: "nobody-at-all", Password: password})
		if diff := cmp.Diff(e2e.RefusalOf(err), e2e.RefusalOf(unknown)); diff != "" {
			g.t.Errorf("an unknown student id is told from a wrong password (-wrong +unknown):\n%s", diff)
		}
		return err
	},
	"SEAT_NOT_FOUND": func(g *stage) error { return g.a.tryToBook(noSuchID, g.w) },
	"RESERVATION_NOT_FOUND": func(g *stage) error {
		_, err := g.a.Reservations.GetReservation(g.t.Context(), &dlsmsv1.GetReservationRequest{ReservationId: noSuchID})
		return err
	},
	"ENTRY_NOT_FOUND": func(g *stage) error {
		_, err := g.a.Notify.ClaimOffer(g.t.Context(), &dlsmsv1.ClaimOfferRequest{EntryId: noSuchID})
		return err
	},
	"BRANCH_NOT_FOUND": func(g *stage) error {
		_, err := g.a.Seats.GetSeats(g.t.Context(), &dlsmsv1.GetSeatsRequest{Branch: "atlantis"})
		return err
	},
	"SEAT_TAKEN": func(g *stage) error { g.a.book(g.seat, g.w); return g.b.tryToBook(g.seat, g.w) },
	"USER_BUSY":  func(g *stage) error { g.a.book(g.seat, g.w); return g.a.tryToBook(g.next, g.w) },
	"STUDENT_ID_TAKEN": func(g *stage) error {
		_, err := g.a.Auth.Register(g.t.Context(), &dlsmsv1.RegisterRequest{
			StudentId: strings.ToLower(g.a.User.GetStudentId()), Name: "Another", Email: "another@university.example", Password: password,
		})
		return err
	},
	"ALREADY_WAITING":    func(g *stage) error { g.a.book(g.seat, g.w); g.b.wait(g.seat, g.w); return g.b.tryToWait(g.seat, g.w) },
	"CHECK_IN_TOO_EARLY": func(g *stage) error { return g.a.tryToCheckIn(g.a.book(g.seat, g.w).GetId()) },
	"CHECK_IN_TOO_LATE": func(g *stage) error {
		u := g.hasty.student(g.t)
		r := u.book(g.hasty.branch(g.t, 1).seats[0], fromNow(time.Hour))
		eventually(g.t, "it is a no-show", func() bool {
			return value[string](g.t, g.hasty, `SELECT status FROM reservations WHERE id = $1`, r.GetId()) == "NO_SHOW"
		})
		return u.tryToCheckIn(r.GetId())
	},
	"NOT_CONFIRMED": func(g *stage) error {
		r := g.a.book(g.seat, g.w)
		g.a.cancel(r.GetId())
		err := g.a.tryToCheckIn(r.GetId())
		if e2e.RefusalOf(err).Metadata["status"] != "CANCELLED" {
			g.t.Errorf("the state that it is in is not told: %v", e2e.RefusalOf(err))
		}
		return err
	},
	"NOT_CHECKED_IN": func(g *stage) error {
		_, err := g.a.Reservations.CheckOut(g.t.Context(), &dlsmsv1.CheckOutRequest{ReservationId: g.a.book(g.seat, g.w).GetId()})
		return err
	},
	"SEAT_AVAILABLE": func(g *stage) error { return g.a.tryToWait(g.seat, g.w) },
	"SEAT_OUT_OF_SERVICE": func(g *stage) error {
		g.s.exec(g.t, `UPDATE seats SET out_of_service = true WHERE library_id = 1 AND id = $1`, g.seat)
		return g.a.tryToBook(g.seat, g.w)
	},
	"OFFER_EXPIRED": func(g *stage) error {
		a, b, seat := g.hasty.student(g.t), g.hasty.student(g.t), g.hasty.branch(g.t, 1).seats[0]
		r := a.book(seat, g.w)
		e := b.wait(seat, g.w)
		a.cancel(r.GetId())
		eventually(g.t, "the offer runs out", func() bool {
			return value[string](g.t, g.hasty, `SELECT status FROM waitlist_entries WHERE id = $1`, e.GetId()) == "EXPIRED"
		})
		return b.tryToClaim(e.GetId())
	},
	"NOT_OFFERED": func(g *stage) error { g.a.book(g.seat, g.w); return g.b.tryToClaim(g.b.wait(g.seat, g.w).GetId()) },
	"RATE_LIMITED": func(g *stage) error {
		u := g.hasty.student(g.t)
		var err error
		for i := 0; err == nil && i < 20; i++ {
			_, err = u.Reservations.GetReservations(g.t.Context(), &dlsmsv1.GetReservationsRequest{})
		}
		return err
	},
	"TOO_MANY_RESERVATIONS": func(g *stage) error {
		for i := range 10 {
			g.a.book(g.seat, tomorrow(float64(i), float64(i+1)))
		}
		return g.a.tryToBook(g.seat, tomorrow(10, 11))
	},
	"WAITLIST_FULL": func(g *stage) error {
		a, b, c, seat := g.hasty.student(g.t), g.hasty.student(g.t), g.hasty.student(g.t), g.hasty.branch(g.t, 1).seats[0]
		a.book(seat, g.w)
		b.wait(seat, g.w)
		err := c.tryToWait(seat, g.w)
		if e2e.RefusalOf(err).Metadata["limit"] != "1" {
			g.t.Errorf("the limit is not told: %v", e2e.RefusalOf(err))
		}
		return err
	},
	"OVERLOADED": func(g *stage) error { // by streams: more than anybody needs
		c := g.a.WithConn(conn(g.t, g.s, 0))
		for range 20 {
			tap, err := c.Subscribe(g.t.Context(), 0)
			if err != nil {
				g.t.Fatal(err)
			}
			g.t.Cleanup(tap.Close)
			// One that was refused has ended when its headers are there, or a moment later.
			if why, err := tap.End(within(g.t, 50*time.Millisecond)); err == nil {
				return why
			}
		}
		return nil
	},
	"UNAVAILABLE": func(g *stage) error { // by a proxy that finds no replica
		n, err := stack.StartNginx(g.t.Context(), stack.NginxConfig{Backends: []string{"127.0.0.1:1"}, Log: g.t.Output()})
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() {
			if err := n.Stop(context.Background()); err != nil {
				g.t.Error(err)
			}
		})
		proxied, err := e2e.Dial(n.Addr())
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { _ = proxied.Close() })
		_, err = e2e.Anonymous(proxied).Seats.GetSeats(g.t.Context(), &dlsmsv1.GetSeatsRequest{})
		return err
	},
}

// TestRefusals provokes every reason of the enum, and looks at all that a program gets to see of it; and it uses up every rate limit.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := shared(t)
	hasty := start(t, stack.Config{Env: narrow()})
	t.Run("rate limit of a user", func(t *testing.T) { t.Parallel(); limitsOfAUser(t, hasty) })
	t.Run("rate limit of failed logins", func(t *testing.T) { t.Parallel(); limitsOfFailedLogins(t, hasty) })
	t.Run("rate limit of an address", func(t *testing.T) { t.Parallel(); limitsOfAnAddress(t, hasty) })
	for _, name := range dlsmsv1.ErrorReason_name {
		reason := strings.TrimPrefix(name, "ERROR_REASON_")
		if reason == "UNSPECIFIED" || unreachable[reason] != "" {
			continue
		}
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			provoke, ok := provocations[reason]
			if !ok {
				t.Fatal("nobody knows how to provoke it")
			}
			seats := s.branch(t, 2).seats
			refused(t, provoke(&stage{t, s, hasty, s.student(t), s.student(t), seats[0], seats[1], tomorrow(0, 1)}), reason)
		})
	}
}

// TestAllFaultyFieldsAtOnce sends requests of which everything is wrong that can be.
func TestAllFaultyFieldsAtOnce(t *testing.T) {
	t.Parallel()
	s := shared(t)
	u, seat := s.student(t), s.branch(t, 1).seats[0]
	year := timestamppb.New(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC))
	long := strings.Repeat("x", 300)
	far := time.Now().Add(15 * 24 * time.Hour)
	for _, call := range []struct {
		method string
		req    proto.Message
		fields []string
	}{
		{dlsmsv1.AuthService_Register_FullMethodName, &dlsmsv1.RegisterRequest{}, []string{"student_id", "name", "email", "password"}},
		{dlsmsv1.AuthService_Register_FullMethodName, &dlsmsv1.RegisterRequest{StudentId: "a b", Name: "\x01", Email: "nowhere", Password: long}, []string{"student_id", "name", "email", "password"}},
		{dlsmsv1.AuthService_Login_FullMethodName, &dlsmsv1.LoginRequest{StudentId: "é", Password: "short"}, []string{"student_id", "password"}},
		{dlsmsv1.AuthService_VerifyToken_FullMethodName, &dlsmsv1.VerifyTokenRequest{}, []string{"token"}},
		{dlsmsv1.AuthService_ChangePassword_FullMethodName, &dlsmsv1.ChangePasswordRequest{NewPassword: "seven 7"}, []string{"current_password", "new_password"}},
		{dlsmsv1.SeatService_GetSeats_FullMethodName, &dlsmsv1.GetSeatsRequest{
			Branch: long, Area: long, Amenities: []dlsmsv1.Amenity{1, 0, 99}, StartTime: year, PageSize: -1, PageToken: "?",
		}, []string{"branch", "area", "amenities[1]", "amenities[2]", "end_time", "start_time", "page_size", "page_token"}},
		{dlsmsv1.SeatService_GetSeat_FullMethodName, &dlsmsv1.GetSeatRequest{SeatId: -1, EndTime: year}, []string{"seat_id", "start_time", "end_time"}},
		{dlsmsv1.SeatService_WatchSeats_FullMethodName, &dlsmsv1.WatchSeatsRequest{Amenities: []dlsmsv1.Amenity{-1}, EndTime: year}, []string{"amenities[0]", "start_time", "end_time"}},
		{dlsmsv1.ReservationService_CreateReservation_FullMethodName, &dlsmsv1.CreateReservationRequest{StartTime: year, RequestId: long}, []string{"seat_id", "request_id", "start_time", "end_time"}},
		{dlsmsv1.ReservationService_GetReservation_FullMethodName, &dlsmsv1.GetReservationRequest{}, []string{"reservation_id"}},
		{dlsmsv1.ReservationService_GetReservations_FullMethodName, &dlsmsv1.GetReservationsRequest{View: 9, PageSize: 501, PageToken: "?"}, []string{"view", "page_size", "page_token"}},
		{dlsmsv1.ReservationService_CancelReservation_FullMethodName, &dlsmsv1.CancelReservationRequest{ReservationId: -5}, []string{"reservation_id"}},
		{dlsmsv1.ReservationService_CheckIn_FullMethodName, &dlsmsv1.CheckInRequest{}, []string{"reservation_id"}},
		{dlsmsv1.ReservationService_CheckOut_FullMethodName, &dlsmsv1.CheckOutRequest{}, []string{"reservation_id"}},
		{dlsmsv1.ReservationService_ExtendReservation_FullMethodName, &dlsmsv1.ExtendReservationRequest{}, []string{"reservation_id", "end_time"}},
		{dlsmsv1.NotifyService_JoinWaitlist_FullMethodName, &dlsmsv1.JoinWaitlistRequest{RequestId: "a\x00b"}, []string{"seat_id", "request_id", "start_time", "end_time"}},
		{dlsmsv1.NotifyService_LeaveWaitlist_FullMethodName, &dlsmsv1.LeaveWaitlistRequest{}, []string{"entry_id"}},
		{dlsmsv1.NotifyService_ClaimOffer_FullMethodName, &dlsmsv1.ClaimOfferRequest{}, []string{"entry_id"}},
		{dlsmsv1.NotifyService_GetNotifications_FullMethodName, &dlsmsv1.GetNotificationsRequest{AfterId: -1, PageSize: -1}, []string{"after_id", "page_size"}},
		{dlsmsv1.NotifyService_Subscribe_FullMethodName, &dlsmsv1.SubscribeRequest{AfterId: -1}, []string{"after_id"}},
	} {
		_, err := invoke(t, u.Conn(), call.method, methods(t)[call.method], call.req)
		refused(t, err, "INVALID_FIELDS")
		got := slices.Sorted(slices.Values(e2e.RefusalOf(err).Fields))
		if want := slices.Sorted(slices.Values(call.fields)); !slices.Equal(got, want) {
			t.Errorf("%s: the faulty fields are %q, want %q", call.method, got, want)
		}
	}
	// What only the time of the transaction can tell: too far ahead, and too short.
	err := u.tryToBook(seat, window{far, far.Add(time.Minute)})
	refused(t, err, "WINDOW_NOT_ALLOWED")
	if got, want := e2e.RefusalOf(err).Fields, []string{"start_time", "end_time"}; !slices.Equal(got, want) {
		t.Errorf("a window against two rules: the faulty fields are %q, want %q", got, want)
	}
}
