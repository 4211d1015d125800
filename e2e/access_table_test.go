package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// accessTable has a row for each RPC. A row has the expected result of a call about an object of
// the caller, an object of another user, and an object that does not exist.
var accessTable = map[string]access{
	dlsmsv1.AuthService_Register_FullMethodName: {
		public: true, want: []string{ok, "STUDENT_ID_TAKEN", "INVALID_FIELDS"},
		request: func(c *fixture, user int, target object) proto.Message {
			req := &dlsmsv1.RegisterRequest{Name: "New Student", Email: "new.student@university.example", Password: password}
			switch target {
			case own:
				req.StudentId = fmt.Sprintf("NEW-%d", c.s.names.Add(1))
			case others:
				req.StudentId = c.users[user].User.GetStudentId()
			case missing:
			}
			return req
		},
	},
	dlsmsv1.AuthService_Login_FullMethodName: {
		public: true, want: []string{ok, "BAD_CREDENTIALS", "BAD_CREDENTIALS"},
		request: func(c *fixture, user int, target object) proto.Message {
			u := c.users[user]
			return map[object]*dlsmsv1.LoginRequest{
				own:     {StudentId: u.User.GetStudentId(), Password: u.Password},
				others:  {StudentId: u.User.GetStudentId(), Password: "not " + u.Password},
				missing: {StudentId: fmt.Sprintf("MISSING-%d", c.s.names.Add(1)), Password: u.Password},
			}[target]
		},
	},
	dlsmsv1.AuthService_VerifyToken_FullMethodName: {
		public: true, want: []string{ok, ok, "INVALID_FIELDS"},
		request: func(c *fixture, user int, target object) proto.Message {
			return map[object]*dlsmsv1.VerifyTokenRequest{
				own: {Token: c.users[user].Token}, others: {Token: c.users[(user+1)%3].Token}, missing: {},
			}[target]
		},
		check: func(c *fixture, user int, answer proto.Message) error {
			return same(answer.(*dlsmsv1.VerifyTokenResponse).GetUserId(), c.users[user].id())
		},
	},
	dlsmsv1.AuthService_GetAccount_FullMethodName: {
		want:    []string{ok},
		request: func(*fixture, int, object) proto.Message { return &dlsmsv1.GetAccountRequest{} },
		check: func(c *fixture, user int, answer proto.Message) error {
			return same(answer.(*dlsmsv1.GetAccountResponse).GetUser().GetId(), c.users[user].id())
		},
	},
	dlsmsv1.AuthService_ChangePassword_FullMethodName: {
		want: []string{ok, "BAD_CREDENTIALS", "INVALID_FIELDS"},
		request: func(c *fixture, user int, target object) proto.Message {
			u := c.users[user]
			return map[object]*dlsmsv1.ChangePasswordRequest{
				own:     {CurrentPassword: u.Password, NewPassword: "newer " + u.Password},
				others:  {CurrentPassword: "not " + u.Password, NewPassword: "newer " + u.Password},
				missing: {},
			}[target]
		},
	},
	dlsmsv1.AuthService_Logout_FullMethodName: {
		want:    []string{ok},
		request: func(*fixture, int, object) proto.Message { return &dlsmsv1.LogoutRequest{} },
	},
	dlsmsv1.AuthService_ExportMyData_FullMethodName: {
		want:    []string{ok},
		request: func(*fixture, int, object) proto.Message { return &dlsmsv1.ExportMyDataRequest{} },
		check: func(c *fixture, user int, answer proto.Message) error {
			text := answer.(*dlsmsv1.ExportMyDataResponse).GetContent()
			for i, u := range c.users {
				if has := bytes.Contains(text, []byte(u.User.GetStudentId())); has != (i == user) {
					return fmt.Errorf("the export has the student id of user %d: %v", i, has)
				}
			}
			return nil
		},
	},
	dlsmsv1.AuthService_CloseMyAccount_FullMethodName: {
		want: []string{ok, "BAD_CREDENTIALS", "INVALID_FIELDS"},
		request: func(c *fixture, user int, target object) proto.Message {
			u := c.users[user]
			return map[object]*dlsmsv1.CloseMyAccountRequest{
				own: {Password: u.Password}, others: {Password: "not " + u.Password}, missing: {},
			}[target]
		},
	},

	dlsmsv1.SeatService_GetBranches_FullMethodName: {
		public: true, want: []string{ok},
		request: func(*fixture, int, object) proto.Message { return &dlsmsv1.GetBranchesRequest{} },
	},
	dlsmsv1.SeatService_GetFloorPlan_FullMethodName: {
		public: true, want: []string{ok, ok, "BRANCH_NOT_FOUND"},
		request: func(c *fixture, _ int, target object) proto.Message {
			return &dlsmsv1.GetFloorPlanRequest{Branch: branchOf(c, target)}
		},
	},
	dlsmsv1.SeatService_GetSeats_FullMethodName: {
		public: true, want: []string{ok, ok, "BRANCH_NOT_FOUND"},
		request: func(c *fixture, _ int, target object) proto.Message {
			return &dlsmsv1.GetSeatsRequest{Branch: branchOf(c, target)}
		},
	},
	dlsmsv1.SeatService_GetSeat_FullMethodName: {
		public: true, want: []string{ok, ok, "SEAT_NOT_FOUND"}, prepare: takeSeats,
		request: func(c *fixture, user int, target object) proto.Message {
			return &dlsmsv1.GetSeatRequest{SeatId: pick(c.seats, user, target)}
		},
	},
	dlsmsv1.SeatService_GetSeatByLabel_FullMethodName: {
		public: true, want: []string{"PRESENCE_INVALID"},
		request: func(*fixture, int, object) proto.Message { return &dlsmsv1.GetSeatByLabelRequest{Code: "none"} },
	},
	dlsmsv1.SeatService_WatchSeats_FullMethodName: {
		public: true, want: []string{ok, ok, "BRANCH_NOT_FOUND"},
		request: func(c *fixture, _ int, target object) proto.Message {
			return &dlsmsv1.WatchSeatsRequest{Branch: branchOf(c, target)}
		},
	},

	dlsmsv1.ReservationService_CreateReservation_FullMethodName: {
		want: []string{ok, "SEAT_TAKEN", "SEAT_NOT_FOUND"}, prepare: takeSeats, seats: 6,
		request: func(c *fixture, user int, target object) proto.Message {
			if target == own { // a free seat, in a window in which the caller has no reservation
				return tomorrow(0, 1).booking(c.branch.seats[3+user])
			}
			return fromNow(time.Hour).booking(pick(c.seats, user, target))
		},
		check: func(c *fixture, user int, answer proto.Message) error {
			return same(answer.(*dlsmsv1.CreateReservationResponse).GetReservation().GetUserId(), c.users[user].id())
		},
	},
	dlsmsv1.ReservationService_GetReservation_FullMethodName: {
		want: []string{ok, "RESERVATION_NOT_FOUND", "RESERVATION_NOT_FOUND"}, prepare: takeSeats,
		request: func(c *fixture, user int, target object) proto.Message {
			return &dlsmsv1.GetReservationRequest{ReservationId: pick(c.reservations, user, target)}
		},
		check: func(c *fixture, user int, answer proto.Message) error {
			return same(answer.(*dlsmsv1.GetReservationResponse).GetReservation().GetUserId(), c.users[user].id())
		},
	},
	dlsmsv1.ReservationService_CheckReservation_FullMethodName: {
		want: []string{ok, ok, "SEAT_NOT_FOUND"}, prepare: takeSeats,
		request: func(c *fixture, user int, target object) proto.Message {
			w := fromNow(time.Hour)
			return &dlsmsv1.CheckReservationRequest{
				SeatId:    pick(c.seats, user, target),
				StartTime: timestamppb.New(w.start), EndTime: timestamppb.New(w.end),
			}
		},
		check: func(_ *fixture, _ int, answer proto.Message) error {
			broken := answer.(*dlsmsv1.CheckReservationResponse).GetBroken()
			if len(broken) == 0 || broken[0].GetReason() != "SEAT_TAKEN" {
				return fmt.Errorf("the broken rules are %v, want SEAT_TAKEN first", broken)
			}
			return nil
		},
	},
	dlsmsv1.ReservationService_GetStanding_FullMethodName: {
		want:    []string{ok},
		request: func(*fixture, int, object) proto.Message { return &dlsmsv1.GetStandingRequest{} },
	},
	dlsmsv1.ReservationService_GetReservations_FullMethodName: {
		want: []string{ok}, prepare: takeSeats,
		request: func(*fixture, int, object) proto.Message {
			return &dlsmsv1.GetReservationsRequest{View: dlsmsv1.ReservationView_RESERVATION_VIEW_ALL}
		},
		check: func(c *fixture, user int, answer proto.Message) error {
			list := answer.(*dlsmsv1.GetReservationsResponse).GetReservations()
			if len(list) != 1 {
				return fmt.Errorf("%d reservations, want 1", len(list))
			}
			return errors.Join(same(list[0].GetId(), c.reservations[user]), same(list[0].GetUserId(), c.users[user].id()))
		},
	},
	dlsmsv1.ReservationService_CancelReservation_FullMethodName: {
		want: []string{ok, "RESERVATION_NOT_FOUND", "RESERVATION_NOT_FOUND"}, prepare: takeSeats,
		request: func(c *fixture, user int, target object) proto.Message {
			return &dlsmsv1.CancelReservationRequest{ReservationId: pick(c.reservations, user, target)}
		},
	},
	dlsmsv1.ReservationService_RecordScan_FullMethodName: {
		public: true, want: []string{ok, "PRESENCE_EXPIRED", "PRESENCE_INVALID"}, prepare: addScreen,
		request: func(c *fixture, _ int, target object) proto.Message {
			codes := c.s.presence(c.t)
			return map[object]*dlsmsv1.RecordScanRequest{
				own:     {Code: codes.Show(c.screen, time.Now(), 0)[0].Code},
				others:  {Code: codes.Show(c.screen, time.Now().Add(-time.Hour), 0)[0].Code}, // an old one
				missing: {Code: "none"},
			}[target]
		},
		check: func(c *fixture, _ int, answer proto.Message) error {
			if got := answer.(*dlsmsv1.RecordScanResponse).GetBranch(); got != c.branch.code {
				return fmt.Errorf("the branch is %q, want %q", got, c.branch.code)
			}
			return nil
		},
	},
	dlsmsv1.ReservationService_CheckIn_FullMethodName: {
		want: []string{ok, "RESERVATION_NOT_FOUND", "RESERVATION_NOT_FOUND"}, prepare: takeSeats,
		request: func(c *fixture, user int, target object) proto.Message {
			return &dlsmsv1.CheckInRequest{ReservationId: pick(c.reservations, user, target)}
		},
	},
	dlsmsv1.ReservationService_CheckOut_FullMethodName: {
		want: []string{ok, "RESERVATION_NOT_FOUND", "RESERVATION_NOT_FOUND"}, prepare: checkInAll,
		request: func(c *fixture, user int, target object) proto.Message {
			return &dlsmsv1.CheckOutRequest{ReservationId: pick(c.reservations, user, target)}
		},
	},
	dlsmsv1.ReservationService_ExtendReservation_FullMethodName: {
		want: []string{ok, "RESERVATION_NOT_FOUND", "RESERVATION_NOT_FOUND"}, prepare: takeSeats,
		request: func(c *fixture, user int, target object) proto.Message {
			return &dlsmsv1.ExtendReservationRequest{
				ReservationId: pick(c.reservations, user, target), EndTime: timestamppb.New(time.Now().Add(3 * time.Hour)),
			}
		},
	},

	dlsmsv1.NotifyService_JoinWaitlist_FullMethodName: {
		want: []string{"USER_BUSY", ok, "SEAT_NOT_FOUND"}, prepare: takeSeats,
		request: func(c *fixture, user int, target object) proto.Message {
			return fromNow(time.Hour).waiting(pick(c.seats, user, target))
		},
	},
	dlsmsv1.NotifyService_GetWaitlist_FullMethodName: {
		want: []string{ok}, prepare: joinWaitlist,
		request: func(*fixture, int, object) proto.Message { return &dlsmsv1.GetWaitlistRequest{} },
		check: func(c *fixture, user int, answer proto.Message) error {
			list := answer.(*dlsmsv1.GetWaitlistResponse).GetEntries()
			if len(list) != 1 {
				return fmt.Errorf("%d entries, want 1", len(list))
			}
			return same(list[0].GetId(), c.entries[user])
		},
	},
	dlsmsv1.NotifyService_LeaveWaitlist_FullMethodName: {
		want: []string{ok, "ENTRY_NOT_FOUND", "ENTRY_NOT_FOUND"}, prepare: joinWaitlist,
		request: func(c *fixture, user int, target object) proto.Message {
			return &dlsmsv1.LeaveWaitlistRequest{EntryId: pick(c.entries, user, target)}
		},
	},
	dlsmsv1.NotifyService_ClaimOffer_FullMethodName: {
		want: []string{ok, "ENTRY_NOT_FOUND", "ENTRY_NOT_FOUND"}, prepare: getOffers,
		request: func(c *fixture, user int, target object) proto.Message {
			return &dlsmsv1.ClaimOfferRequest{EntryId: pick(c.entries, user, target)}
		},
	},
	dlsmsv1.NotifyService_GetNotifications_FullMethodName: {
		want: []string{ok}, prepare: getOffers,
		request: func(*fixture, int, object) proto.Message { return &dlsmsv1.GetNotificationsRequest{} },
		check: func(c *fixture, user int, answer proto.Message) error {
			list := answer.(*dlsmsv1.GetNotificationsResponse).GetNotifications()
			if len(list) != 1 {
				return fmt.Errorf("%d notifications, want 1", len(list))
			}
			return same(list[0].GetEntryId(), c.entries[user])
		},
	},
	dlsmsv1.NotifyService_Subscribe_FullMethodName: {
		want: []string{ok}, prepare: getOffers,
		request: func(*fixture, int, object) proto.Message { return &dlsmsv1.SubscribeRequest{} },
		check: func(c *fixture, user int, answer proto.Message) error {
			return same(answer.(*dlsmsv1.SubscribeResponse).GetNotification().GetEntryId(), c.entries[user])
		},
	},
}

func same(got, want int64) error {
	if got != want {
		return fmt.Errorf("the answer is about %d, want %d", got, want)
	}
	return nil
}

func branchOf(c *fixture, target object) string {
	if target == missing {
		return "no-such-branch"
	}
	return c.branch.code
}

// takeSeats gives each user of the fixture a reservation that begins now.
func takeSeats(c *fixture) {
	for i, u := range c.users {
		c.seats[i] = c.branch.seats[i]
		c.reservations[i] = u.book(c.seats[i], fromNow(time.Hour)).GetId()
	}
}

// addScreen adds a screen to the branch.
func addScreen(c *fixture) {
	c.screen = c.s.withRole(c.t, adminRole).setScreen(c.branch.code, "Entrance", false).GetId()
}

// checkInAll gives each user a reservation, and checks the user in.
func checkInAll(c *fixture) {
	takeSeats(c)
	for i, u := range c.users {
		u.checkIn(c.reservations[i])
	}
}

// joinWaitlist gives each user a waitlist entry.
func joinWaitlist(c *fixture) { c.queue(false) }

// getOffers gives each user a waitlist entry with an offer.
func getOffers(c *fixture) { c.queue(true) }

func (c *fixture) queue(offered bool) {
	holder := c.s.student(c.t)
	for i, u := range c.users {
		w := tomorrow(float64(i), float64(i+1))
		booked := holder.book(c.branch.seats[i], w)
		c.entries[i] = u.wait(c.branch.seats[i], w).GetId()
		if !offered {
			continue
		}
		holder.cancel(booked.GetId())
		eventually(c.t, "the offer is there", func() bool { return len(u.notifications(0)) == 1 })
	}
}
