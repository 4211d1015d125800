package e2e_test

import (
	"context"
	"fmt"
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

// errorCase is the setup of a function in errorTriggers: two students, two free seats and a window.
// s is a system with the default rules. strict is a system with short times and low limits (see
// strictSettings).
type errorCase struct {
	t          *testing.T
	s, strict  *system
	a, b       student
	seat, next int64
	w          window
}

// errorTriggers has a function for each reason of the enum ErrorReason. The function makes a call
// that fails with this reason, and returns the error. All other calls of the function must succeed.
var errorTriggers = map[string]func(c *errorCase) error{
	"INVALID_FIELDS": func(c *errorCase) error { return c.a.tryToBook(0, window{}) },
	"ROLE_REQUIRED": func(c *errorCase) error {
		_, err := c.a.desk().FindUsers(c.t.Context(), &dlsmsv1.FindUsersRequest{Card: "1"})
		return err
	},
	"BRANCH_REQUIRED": func(c *errorCase) error {
		staff, other := c.s.withRole(c.t, staffRole, c.s.branch(c.t, 1).code), c.s.branch(c.t, 1)
		_, err := staff.desk().ListArrivals(c.t.Context(), &dlsmsv1.ListArrivalsRequest{Branch: other.code})
		return err
	},
	"PERSON_NOT_FOUND": func(c *errorCase) error {
		staff := c.s.withRole(c.t, staffRole)
		_, err := staff.desk().GetUserOverview(c.t.Context(), &dlsmsv1.GetUserOverviewRequest{UserId: noSuchID})
		return err
	},
	"OWN_ROLE": func(c *errorCase) error {
		admin := c.s.withRole(c.t, adminRole)
		_, err := admin.admin().SetRole(c.t.Context(), &dlsmsv1.SetRoleRequest{
			StudentId: admin.User.GetStudentId(), Role: staffRole,
		})
		return err
	},
	"KEY_NOT_FOUND": func(c *errorCase) error {
		admin := c.s.withRole(c.t, adminRole)
		_, err := admin.admin().RevokeKey(c.t.Context(), &dlsmsv1.RevokeKeyRequest{KeyId: noSuchID})
		return err
	},
	"CARD_TAKEN": func(c *errorCase) error {
		admin, card := c.s.withRole(c.t, adminRole), fmt.Sprint("card ", c.s.names.Add(1))
		give := func(u student) error {
			_, err := admin.admin().UpsertUsers(c.t.Context(), &dlsmsv1.UpsertUsersRequest{
				Users: []*dlsmsv1.UserSpec{{StudentId: u.User.GetStudentId(), Card: &card}},
			})
			return err
		}
		if err := give(c.a); err != nil {
			return err
		}
		return give(c.b)
	},
	"BRANCH_CLOSED": func(c *errorCase) error {
		// The branch is open for one minute a week, outside the window.
		c.s.exec(c.t, `INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
			SELECT library_id, branch_id, extract(isodow FROM $2::timestamptz - interval '2 days')::int, '0:00', '0:01'
			FROM seats WHERE id = $1`, c.seat, c.w.start)
		return c.a.tryToBook(c.seat, c.w)
	},
	"WINDOW_NOT_ALLOWED": func(c *errorCase) error {
		err := c.a.tryToBook(c.seat, window{c.w.start, c.w.start.Add(14 * time.Minute)})
		rules := e2e.RefusalOf(err).Metadata
		if rules["min_reservation"] != "900" || rules["max_reservation"] != "43200" || rules["max_ahead"] != "1209600" ||
			rules["now"] == "" {
			c.t.Errorf("the rules in the metadata are %v", rules)
		}
		return err
	},
	"REQUEST_ID_REUSED": func(c *errorCase) error {
		req := c.w.booking(c.seat)
		req.RequestId = "once"
		c.a.request(req)
		req.SeatId = c.next
		_, err := c.a.Reservations.CreateReservation(c.t.Context(), req)
		return err
	},
	"TOKEN_MISSING": func(c *errorCase) error { return student{c.a.WithToken(""), c.t}.tryToBook(c.seat, c.w) },
	"TOKEN_INVALID": func(c *errorCase) error {
		return student{c.a.WithToken("x" + c.a.Token), c.t}.tryToBook(c.seat, c.w)
	},
	"TOKEN_EXPIRED": func(c *errorCase) error {
		return student{c.a.WithToken(c.s.expired(c.t, c.a.Token)), c.t}.tryToBook(c.seat, c.w)
	},
	"TOKEN_REVOKED": func(c *errorCase) error {
		if _, err := c.a.Auth.Logout(c.t.Context(), &dlsmsv1.LogoutRequest{}); err != nil {
			c.t.Fatal(err)
		}
		err := error(nil)
		eventually(c.t, "the token is revoked", func() bool {
			err = c.a.tryToBook(c.seat, c.w)
			return e2e.Reason(err) == "TOKEN_REVOKED"
		})
		return err
	},
	"BAD_CREDENTIALS": func(c *errorCase) error {
		_, err := c.a.Auth.Login(
			c.t.Context(), &dlsmsv1.LoginRequest{StudentId: c.a.User.GetStudentId(), Password: "not " + password},
		)
		_, unknown := c.a.Auth.Login(c.t.Context(), &dlsmsv1.LoginRequest{StudentId: "no-such-student", Password: password})
		if diff := cmp.Diff(e2e.RefusalOf(err), e2e.RefusalOf(unknown)); diff != "" {
			c.t.Errorf("the answers to a wrong password and an unknown id differ (-wrong +unknown):\n%s", diff)
		}
		return err
	},
	"SEAT_NOT_FOUND": func(c *errorCase) error { return c.a.tryToBook(noSuchID, c.w) },
	"RESERVATION_NOT_FOUND": func(c *errorCase) error {
		_, err := c.a.Reservations.GetReservation(c.t.Context(), &dlsmsv1.GetReservationRequest{ReservationId: noSuchID})
		return err
	},
	"ENTRY_NOT_FOUND": func(c *errorCase) error {
		_, err := c.a.Notify.ClaimOffer(c.t.Context(), &dlsmsv1.ClaimOfferRequest{EntryId: noSuchID})
		return err
	},
	"BRANCH_NOT_FOUND": func(c *errorCase) error {
		_, err := c.a.Seats.GetSeats(c.t.Context(), &dlsmsv1.GetSeatsRequest{Branch: "atlantis"})
		return err
	},
	"SEAT_TAKEN": func(c *errorCase) error { c.a.book(c.seat, c.w); return c.b.tryToBook(c.seat, c.w) },
	"USER_BUSY":  func(c *errorCase) error { c.a.book(c.seat, c.w); return c.a.tryToBook(c.next, c.w) },
	"STUDENT_ID_TAKEN": func(c *errorCase) error {
		_, err := c.a.Auth.Register(c.t.Context(), &dlsmsv1.RegisterRequest{
			StudentId: strings.ToLower(c.a.User.GetStudentId()),
			Name:      "Another",
			Email:     "another@university.example",
			Password:  password,
		})
		return err
	},
	"ALREADY_WAITING": func(c *errorCase) error {
		c.a.book(c.seat, c.w)
		c.b.wait(c.seat, c.w)
		return c.b.tryToWait(c.seat, c.w)
	},
	"CHECK_IN_TOO_EARLY": func(c *errorCase) error { return c.a.tryToCheckIn(c.a.book(c.seat, c.w).GetId()) },
	"CHECK_IN_TOO_LATE": func(c *errorCase) error {
		u := c.strict.student(c.t)
		r := u.book(c.strict.branch(c.t, 1).seats[0], fromNow(time.Hour))
		eventually(c.t, "the reservation is a no-show", func() bool {
			return value[string](c.t, c.strict, `SELECT status FROM reservations WHERE id = $1`, r.GetId()) == "NO_SHOW"
		})
		return u.tryToCheckIn(r.GetId())
	},
	"NOT_CONFIRMED": func(c *errorCase) error {
		r := c.a.book(c.seat, c.w)
		c.a.cancel(r.GetId())
		err := c.a.tryToCheckIn(r.GetId())
		if e2e.RefusalOf(err).Metadata["status"] != "CANCELLED" {
			c.t.Errorf("the metadata lacks the status: %v", e2e.RefusalOf(err))
		}
		return err
	},
	"NOT_CHECKED_IN": func(c *errorCase) error {
		_, err := c.a.Reservations.CheckOut(
			c.t.Context(), &dlsmsv1.CheckOutRequest{ReservationId: c.a.book(c.seat, c.w).GetId()},
		)
		return err
	},
	"SEAT_AVAILABLE": func(c *errorCase) error { return c.a.tryToWait(c.seat, c.w) },
	"SEAT_OUT_OF_SERVICE": func(c *errorCase) error {
		c.s.exec(c.t, `UPDATE seats SET out_of_service = true WHERE library_id = 1 AND id = $1`, c.seat)
		return c.a.tryToBook(c.seat, c.w)
	},
	"OFFER_EXPIRED": func(c *errorCase) error {
		a, b, seat := c.strict.student(c.t), c.strict.student(c.t), c.strict.branch(c.t, 1).seats[0]
		r := a.book(seat, c.w)
		e := b.wait(seat, c.w)
		a.cancel(r.GetId())
		eventually(c.t, "the offer expires", func() bool {
			return value[string](c.t, c.strict, `SELECT status FROM waitlist_entries WHERE id = $1`, e.GetId()) == "EXPIRED"
		})
		return b.tryToClaim(e.GetId())
	},
	"NOT_OFFERED": func(c *errorCase) error {
		c.a.book(c.seat, c.w)
		return c.b.tryToClaim(c.b.wait(c.seat, c.w).GetId())
	},
	"RATE_LIMITED": func(c *errorCase) error {
		u := c.strict.student(c.t)
		var err error
		for i := 0; err == nil && i < 20; i++ {
			_, err = u.Reservations.GetReservations(c.t.Context(), &dlsmsv1.GetReservationsRequest{})
		}
		return err
	},
	"TOO_MANY_RESERVATIONS": func(c *errorCase) error {
		for i := range 10 {
			c.a.book(c.seat, tomorrow(float64(i), float64(i+1)))
		}
		return c.a.tryToBook(c.seat, tomorrow(10, 11))
	},
	"WAITLIST_FULL": func(c *errorCase) error {
		owner, first, second := c.strict.student(c.t), c.strict.student(c.t), c.strict.student(c.t)
		seat := c.strict.branch(c.t, 1).seats[0]
		owner.book(seat, c.w)
		first.wait(seat, c.w)
		err := second.tryToWait(seat, c.w)
		if e2e.RefusalOf(err).Metadata["limit"] != "1" {
			c.t.Errorf("the metadata lacks the limit: %v", e2e.RefusalOf(err))
		}
		return err
	},
	"OVERLOADED": func(c *errorCase) error { // opens more streams than a user may have
		u := c.a.WithConn(conn(c.t, c.s, 0))
		for range 20 {
			stream, err := u.Subscribe(c.t.Context(), 0)
			if err != nil {
				c.t.Fatal(err)
			}
			c.t.Cleanup(stream.Close)
			// The error of a refused stream may arrive a moment after its headers, so wait 50 ms
			// for it.
			if why, err := stream.End(within(c.t, 50*time.Millisecond)); err == nil {
				return why
			}
		}
		return nil
	},
	"UNAVAILABLE": func(c *errorCase) error { // calls an nginx that has no running replica
		n, err := stack.StartNginx(c.t.Context(), stack.NginxConfig{
			Backends: []string{"127.0.0.1:1"}, HTTPBackends: []string{"127.0.0.1:1"}, Log: c.t.Output(),
		})
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() {
			if err := n.Stop(context.Background()); err != nil {
				c.t.Error(err)
			}
		})
		proxied, err := c.s.protocol.dial(n.Addr(), n.HTTPAddr(), "")
		if err != nil {
			c.t.Fatal(err)
		}
		hangUpAtEnd(c.t, proxied)
		_, err = e2e.Anonymous(proxied).Seats.GetSeats(c.t.Context(), &dlsmsv1.GetSeatsRequest{})
		return err
	},
}

// TestEveryErrorReason makes a call fail with every reason of the enum, and checks the code and
// details of each error. It also exhausts every rate limit.
func TestEveryErrorReason(t *testing.T) {
	t.Parallel()
	strict := start(t, stack.Config{Env: strictSettings()})
	t.Run("rate limit of a user", func(t *testing.T) { t.Parallel(); limitsCallsOfUser(t, strict) })
	t.Run("rate limit of failed logins", func(t *testing.T) { t.Parallel(); limitsFailedLogins(t, strict) })
	t.Run("rate limit of an address", func(t *testing.T) { t.Parallel(); limitsLoginsOfAddress(t, strict) })
	// The users of one protocol use up most of the limit of an address.
	addresses := map[protocol]string{overGRPC: "127.0.0.9", overHTTP: "127.0.0.10"}
	overBoth(t, func(t *testing.T, s *system) {
		everyErrorReason(t, s, strict.view(t, s.protocol, addresses[s.protocol]))
	})
}

func everyErrorReason(t *testing.T, s, strict *system) {
	t.Helper()
	for _, name := range dlsmsv1.ErrorReason_name {
		reason := strings.TrimPrefix(name, "ERROR_REASON_")
		if reason == "UNSPECIFIED" {
			continue
		}
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			trigger, ok := errorTriggers[reason]
			if !ok {
				trigger, ok = staffErrorTriggers[reason]
			}
			if !ok {
				t.Fatal("errorTriggers and staffErrorTriggers have no function for this reason")
			}
			seats := s.branch(t, 2).seats
			refused(t, trigger(&errorCase{t, s, strict, s.student(t), s.student(t), seats[0], seats[1], tomorrow(0, 1)}), reason)
		})
	}
}

// TestInvalidFieldsListsEveryField sends requests with several invalid fields, and checks that the
// error lists all of them.
func TestInvalidFieldsListsEveryField(t *testing.T) {
	t.Parallel()
	overBoth(t, invalidFieldsListsEveryField)
}

func invalidFieldsListsEveryField(t *testing.T, s *system) {
	t.Helper()
	u, seat := s.student(t), s.branch(t, 1).seats[0]
	year := timestamppb.New(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC))
	long := strings.Repeat("x", 300)
	far := time.Now().Add(15 * 24 * time.Hour)
	for _, call := range []struct {
		method string
		req    proto.Message
		fields []string
	}{
		{
			dlsmsv1.AuthService_Register_FullMethodName, &dlsmsv1.RegisterRequest{},
			[]string{"student_id", "name", "email", "password"},
		},
		{
			dlsmsv1.AuthService_Register_FullMethodName,
			&dlsmsv1.RegisterRequest{StudentId: "a b", Name: "\x01", Email: "nowhere", Password: long},
			[]string{"student_id", "name", "email", "password"},
		},
		{
			dlsmsv1.AuthService_Login_FullMethodName, &dlsmsv1.LoginRequest{StudentId: "é", Password: "short"},
			[]string{"student_id", "password"},
		},
		{dlsmsv1.AuthService_VerifyToken_FullMethodName, &dlsmsv1.VerifyTokenRequest{}, []string{"token"}},
		{
			dlsmsv1.AuthService_ChangePassword_FullMethodName, &dlsmsv1.ChangePasswordRequest{NewPassword: "seven 7"},
			[]string{"current_password", "new_password"},
		},
		{dlsmsv1.SeatService_GetSeats_FullMethodName, &dlsmsv1.GetSeatsRequest{
			Branch: long, Area: long, Amenities: []dlsmsv1.Amenity{1, 0, 99}, StartTime: year, PageSize: -1, PageToken: "?",
		}, []string{"branch", "area", "amenities[1]", "amenities[2]", "end_time", "start_time", "page_size", "page_token"}},
		{
			dlsmsv1.SeatService_GetSeat_FullMethodName, &dlsmsv1.GetSeatRequest{SeatId: -1, EndTime: year},
			[]string{"seat_id", "start_time", "end_time"},
		},
		{
			dlsmsv1.SeatService_WatchSeats_FullMethodName,
			&dlsmsv1.WatchSeatsRequest{Amenities: []dlsmsv1.Amenity{-1}, EndTime: year},
			[]string{"amenities[0]", "start_time", "end_time"},
		},
		{
			dlsmsv1.ReservationService_CreateReservation_FullMethodName,
			&dlsmsv1.CreateReservationRequest{StartTime: year, RequestId: long},
			[]string{"seat_id", "request_id", "start_time", "end_time"},
		},
		{
			dlsmsv1.ReservationService_GetReservation_FullMethodName, &dlsmsv1.GetReservationRequest{},
			[]string{"reservation_id"},
		},
		{
			dlsmsv1.ReservationService_GetReservations_FullMethodName,
			&dlsmsv1.GetReservationsRequest{View: 9, PageSize: 501, PageToken: "?"},
			[]string{"view", "page_size", "page_token"},
		},
		{
			dlsmsv1.ReservationService_CancelReservation_FullMethodName, &dlsmsv1.CancelReservationRequest{ReservationId: -5},
			[]string{"reservation_id"},
		},
		{dlsmsv1.ReservationService_CheckIn_FullMethodName, &dlsmsv1.CheckInRequest{}, []string{"reservation_id"}},
		{dlsmsv1.ReservationService_CheckOut_FullMethodName, &dlsmsv1.CheckOutRequest{}, []string{"reservation_id"}},
		{
			dlsmsv1.ReservationService_ExtendReservation_FullMethodName, &dlsmsv1.ExtendReservationRequest{},
			[]string{"reservation_id", "end_time"},
		},
		{
			dlsmsv1.NotifyService_JoinWaitlist_FullMethodName, &dlsmsv1.JoinWaitlistRequest{RequestId: "a\x00b"},
			[]string{"seat_id", "request_id", "start_time", "end_time"},
		},
		{dlsmsv1.NotifyService_LeaveWaitlist_FullMethodName, &dlsmsv1.LeaveWaitlistRequest{}, []string{"entry_id"}},
		{dlsmsv1.NotifyService_ClaimOffer_FullMethodName, &dlsmsv1.ClaimOfferRequest{}, []string{"entry_id"}},
		{
			dlsmsv1.NotifyService_GetNotifications_FullMethodName, &dlsmsv1.GetNotificationsRequest{AfterId: -1, PageSize: -1},
			[]string{"after_id", "page_size"},
		},
		{dlsmsv1.NotifyService_Subscribe_FullMethodName, &dlsmsv1.SubscribeRequest{AfterId: -1}, []string{"after_id"}},
	} {
		_, err := invoke(t, u.Conn(), call.method, methods(t)[call.method], call.req)
		refused(t, err, "INVALID_FIELDS")
		got := slices.Sorted(slices.Values(e2e.RefusalOf(err).Fields))
		if want := slices.Sorted(slices.Values(call.fields)); !slices.Equal(got, want) {
			t.Errorf("%s: the invalid fields are %q, want %q", call.method, got, want)
		}
	}
	// The transaction checks two rules that depend on the time. This window breaks both: it is too
	// far ahead and too short.
	err := u.tryToBook(seat, window{far, far.Add(time.Minute)})
	refused(t, err, "WINDOW_NOT_ALLOWED")
	if got, want := e2e.RefusalOf(err).Fields, []string{"start_time", "end_time"}; !slices.Equal(got, want) {
		t.Errorf("a window that breaks two rules: the invalid fields are %q, want %q", got, want)
	}
}
