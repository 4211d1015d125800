package e2e_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/presence"
)

// admin returns a user with the role ADMIN.
func (c *errorCase) admin() student { return c.s.withRole(c.t, adminRole) }

// branch returns the code of the branch of the two seats.
func (c *errorCase) branch() string {
	c.t.Helper()
	return value[string](c.t, c.s, `
		SELECT code FROM branches b JOIN seats s ON s.library_id = b.library_id AND s.branch_id = b.id
		WHERE s.id = $1`, c.seat)
}

// policy sets the rules of the branch.
func (c *errorCase) policy(rules *dlsmsv1.PolicyRules) {
	c.t.Helper()
	a := c.admin()
	set, err := a.Admin.SetPolicy(c.t.Context(), &dlsmsv1.SetPolicyRequest{
		Policy: &dlsmsv1.Policy{Branch: c.branch(), Rules: rules},
	})
	need(a, "policy", set, err)
}

// closure closes the first seat in the window of the case.
func (c *errorCase) closure(a student) (*dlsmsv1.CreateClosureResponse, error) {
	return a.Admin.CreateClosure(c.t.Context(), &dlsmsv1.CreateClosureRequest{
		Branch: c.branch(), SeatIds: []int64{c.seat},
		StartTime: timestamppb.New(c.w.start), EndTime: timestamppb.New(c.w.end),
		OnBookings: dlsmsv1.BookingAction_BOOKING_ACTION_CANCEL,
	})
}

// metadata checks that an error has this key in its metadata.
func (c *errorCase) metadata(err error, key string) error {
	c.t.Helper()
	if e2e.RefusalOf(err).Metadata[key] == "" {
		c.t.Errorf("the metadata lacks %s: %v", key, e2e.RefusalOf(err))
	}
	return err
}

// checkInWith checks in the first student at the first seat with a code.
func (c *errorCase) checkInWith(code string) error {
	c.t.Helper()
	r := c.a.book(c.seat, fromNow(time.Hour))
	_, err := c.a.tryCodes(r.GetId(), code, "")
	return err
}

// presence returns the codes of the system.
func (s *system) presence(t *testing.T) *presence.Codes {
	t.Helper()
	codes, err := presence.New([]string{s.codes}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return codes
}

// staffErrorTriggers has the functions of errorTriggers for the reasons that concern staff, and for
// the rules that staff set.
var staffErrorTriggers = map[string]func(c *errorCase) error{
	"SEAT_CLOSED": func(c *errorCase) error {
		a := c.admin()
		made, err := c.closure(a)
		need(a, "closure", made, err)
		return c.metadata(c.metadata(c.a.tryToBook(c.seat, c.w), "closed_from"), "closure_id")
	},
	"SUSPENDED": func(c *errorCase) error {
		a := c.admin()
		set, err := a.Desk.SetSuspension(c.t.Context(), &dlsmsv1.SetSuspensionRequest{
			UserId: c.a.id(), Until: timestamppb.New(time.Now().Add(24 * time.Hour)), Reason: "test",
		})
		need(a, "suspension", set, err)
		return c.metadata(c.a.tryToBook(c.seat, c.w), "suspended_until")
	},
	"BOOKING_NOT_ALLOWED": func(c *errorCase) error {
		c.policy(&dlsmsv1.PolicyRules{MayBook: proto.Bool(false)})
		return c.a.tryToBook(c.seat, c.w)
	},
	"QUOTA_EXHAUSTED": func(c *errorCase) error {
		c.policy(&dlsmsv1.PolicyRules{MaxReservationsPerDay: proto.Int32(1)})
		c.a.book(c.seat, c.w)
		after := window{c.w.end, c.w.end.Add(20 * time.Minute)}
		if local := c.w.start.In(berlin(c.t)).Day(); after.start.In(berlin(c.t)).Day() != local {
			after = window{c.w.start.Add(-20 * time.Minute), c.w.start}
		}
		return c.metadata(c.metadata(c.a.tryToBook(c.next, after), "rule"), "limit")
	},
	"CANCEL_TOO_LATE": func(c *errorCase) error {
		c.policy(&dlsmsv1.PolicyRules{LatestCancellation: durationpb.New(7 * 24 * time.Hour)})
		r := c.a.book(c.seat, c.w)
		cancel := &dlsmsv1.CancelReservationRequest{ReservationId: r.GetId()}
		_, err := c.a.Reservations.CancelReservation(c.t.Context(), cancel)
		return c.metadata(err, "latest")
	},
	"KEY_EXISTS": func(c *errorCase) error {
		admin, branch := c.admin(), c.branch()
		create := func() error {
			_, err := admin.admin().CreateKey(c.t.Context(), &dlsmsv1.CreateKeyRequest{
				Name: "Gate", Branch: branch, Scopes: []dlsmsv1.KeyScope{dlsmsv1.KeyScope_KEY_SCOPE_REPORTS},
			})
			return err
		}
		if err := create(); err != nil {
			return err
		}
		return c.metadata(create(), "key_id")
	},
	"CHANGED_SINCE_CHECK": func(c *errorCase) error {
		c.a.book(c.seat, c.w)
		_, err := c.closure(c.admin())
		if got := e2e.RefusalOf(err).Metadata["reservations"]; got != "1" {
			c.t.Errorf("the number of reservations is %q, want 1", got)
		}
		return err
	},
	"CLOSURE_ENDED": func(c *errorCase) error {
		a := c.admin()
		made, err := c.closure(a)
		lift := &dlsmsv1.UpdateClosureRequest{ClosureId: need(a, "closure", made, err).GetClosure().GetId(), Lift: true}
		lifted, err := a.Admin.UpdateClosure(c.t.Context(), lift)
		need(a, "lift", lifted, err)
		_, err = a.Admin.UpdateClosure(c.t.Context(), &dlsmsv1.UpdateClosureRequest{
			ClosureId: lift.GetClosureId(), EndTime: timestamppb.New(c.w.end.Add(time.Hour)),
		})
		return err
	},
	"PRESENCE_REQUIRED": func(c *errorCase) error {
		c.admin().setScreen(c.branch(), "Entrance", false)
		c.policy(&dlsmsv1.PolicyRules{CheckIn: dlsmsv1.CheckInRule_CHECK_IN_RULE_SEAT_AND_SCREEN})
		return c.metadata(c.checkInWith(c.s.presence(c.t).Label(c.seat)), "check_in")
	},
	"PRESENCE_INVALID": func(c *errorCase) error { return c.checkInWith("12345678") },
	"PRESENCE_EXPIRED": func(c *errorCase) error {
		screen := c.admin().setScreen(c.branch(), "Entrance", false)
		return c.checkInWith(c.s.presence(c.t).Show(screen.GetId(), time.Now().Add(-time.Hour), 0)[0].Code)
	},
	"PRESENCE_ELSEWHERE": func(c *errorCase) error { return c.checkInWith(c.s.presence(c.t).Label(c.next)) },
	"PRESENCE_OFF": func(c *errorCase) error {
		_, err := c.strict.withRole(c.t, adminRole).admin().MakeLabels(c.t.Context(), &dlsmsv1.MakeLabelsRequest{
			Branch: c.branch(),
		})
		return err
	},
	"SCREEN_NOT_FOUND": func(c *errorCase) error {
		_, err := c.admin().admin().UpsertScreen(c.t.Context(), &dlsmsv1.UpsertScreenRequest{
			Branch: c.branch(), Name: "Nowhere", NewName: "Somewhere",
		})
		return err
	},
	"AREA_NOT_FOUND": func(c *errorCase) error {
		_, err := c.admin().Admin.UpsertArea(c.t.Context(), &dlsmsv1.UpsertAreaRequest{Branch: c.branch(), Name: "Attic"})
		return err
	},
	"CLOSURE_NOT_FOUND": func(c *errorCase) error {
		_, err := c.admin().Admin.UpdateClosure(c.t.Context(), &dlsmsv1.UpdateClosureRequest{ClosureId: noSuchID, Lift: true})
		return err
	},
	"STRIKE_NOT_FOUND": func(c *errorCase) error {
		forgive := &dlsmsv1.ForgiveStrikesRequest{StrikeId: noSuchID, Reason: "test"}
		_, err := c.admin().Desk.ForgiveStrikes(c.t.Context(), forgive)
		return err
	},
}
