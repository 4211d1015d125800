package main

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// visit is the current state of a client in one of the places.
type visit struct {
	reservation int64 // 0: none
	seat        int64
	end         time.Time
	checkedIn   bool
	comesAt     time.Time // the client checks in at this time or later
	waiting     bool      // the client may be on a waitlist
}

// checkInTime is the default time from a booking that starts now to its check-in deadline.
const checkInTime = 15 * time.Minute

// visitOnce makes one step of a visit. Some clients forget to check in, to check out, or to claim
// an offer.
func (l *load) visitOnce(ctx context.Context, c *client) {
	v := &c.visit
	now := c.system.clock.At(time.Now())
	if v.reservation != 0 && now.After(v.end) {
		*v = visit{waiting: v.waiting}
	}
	n := c.rng.IntN(100)
	switch {
	case v.reservation == 0 && v.waiting:
		l.checkWaitlist(ctx, c)
	case v.reservation == 0:
		l.startVisit(ctx, c, now)
	case n < 20, now.Before(v.comesAt): // the client waits
	case !v.checkedIn && n < 75:
		l.tryCodes(ctx, c)
	case !v.checkedIn && n < 85:
		l.step(ctx, c, op{Kind: cancel}, cancelCall)
	case v.checkedIn && n < 84: // the client stays
	case v.checkedIn && n < 88: // a repeated check-in has the first answer, also without codes
		l.checkIn(ctx, c, presented{})
	case v.checkedIn && n < 91:
		l.step(ctx, c, op{Kind: extend}, extendCall)
	case v.checkedIn && n < 98:
		l.step(ctx, c, op{Kind: checkOut}, func(ctx context.Context, api *e2e.Client, o *op) error {
			_, err := api.Reservations.CheckOut(ctx, &dlsmsv1.CheckOutRequest{ReservationId: o.Reservation})
			return err
		})
	default: // the client leaves and does not check out
		*v = visit{}
	}
}

// startVisit books a seat from now on, or joins the waitlist for it.
func (l *load) startVisit(ctx context.Context, c *client, now time.Time) {
	o := op{Kind: book, Seat: l.placeSeats[c.rng.IntN(len(l.placeSeats))], RequestID: c.requestID()}
	o.End = now.Add(time.Duration(16+c.rng.IntN(25)) * time.Minute).Truncate(time.Microsecond)
	o, done := c.attempt(ctx, o, func(ctx context.Context, api *e2e.Client, o *op) error {
		resp, err := api.Reservations.CreateReservation(ctx, &dlsmsv1.CreateReservationRequest{
			SeatId: o.Seat, EndTime: timestamppb.New(o.End), RequestId: o.RequestID,
		})
		o.Reservation = resp.GetReservation().GetId()
		return err
	})
	if done {
		c.visit = visit{reservation: o.Reservation, seat: o.Seat, end: o.End}
		if c.rng.IntN(4) == 0 { // close to the deadline, so that the check-in races with the no-show
			c.visit.comesAt = now.Add(checkInTime + time.Duration(c.rng.IntN(20)-10)*time.Second)
		}
		l.latest.Store(&owned{o.Reservation, o.User})
		return
	}
	if o.Reason != "SEAT_TAKEN" || c.rng.IntN(3) == 0 {
		return
	}
	o = op{
		Kind: join, Seat: o.Seat, RequestID: c.requestID(),
		Start: now.Add(time.Minute).Truncate(time.Microsecond), End: o.End.Add(20 * time.Minute),
	}
	_, done = c.attempt(ctx, o, func(ctx context.Context, api *e2e.Client, o *op) error {
		resp, err := api.Notify.JoinWaitlist(ctx, &dlsmsv1.JoinWaitlistRequest{
			SeatId: o.Seat, StartTime: timestamppb.New(o.Start), EndTime: timestamppb.New(o.End), RequestId: o.RequestID,
		})
		o.Reservation = resp.GetEntry().GetId()
		return err
	})
	c.visit.waiting = done
}

// checkWaitlist asks whether there is an offer, and claims it, declines it, or lets it expire.
func (l *load) checkWaitlist(ctx context.Context, c *client) {
	tryCtx, end := context.WithTimeout(ctx, tryTimeout)
	defer end()
	resp, err := c.WithConn(c.conns[c.number%len(c.conns)]).Notify.GetWaitlist(tryCtx, &dlsmsv1.GetWaitlistRequest{})
	if err != nil {
		return
	}
	c.visit.waiting = false
	for _, e := range resp.GetEntries() {
		o := op{Reservation: e.GetId(), Seat: e.GetSeat().GetId(), End: e.GetEndTime().AsTime()}
		n := c.rng.IntN(100)
		offered := e.GetStatus() == dlsmsv1.WaitlistStatus_WAITLIST_STATUS_OFFERED
		if !offered && e.GetStatus() != dlsmsv1.WaitlistStatus_WAITLIST_STATUS_WAITING {
			continue
		}
		switch {
		case offered && n < 70:
			var reservation int64
			o.Kind = claim
			o, done := c.attempt(ctx, o, func(ctx context.Context, api *e2e.Client, o *op) error {
				resp, err := api.Notify.ClaimOffer(ctx, &dlsmsv1.ClaimOfferRequest{EntryId: o.Reservation})
				reservation = resp.GetReservation().GetId()
				return err
			})
			if done {
				c.visit = visit{reservation: reservation, seat: o.Seat, end: o.End}
				return
			}
		case offered && n < 80, n < 3:
			o.Kind = leave
			c.attempt(ctx, o, func(ctx context.Context, api *e2e.Client, o *op) error {
				_, err := api.Notify.LeaveWaitlist(ctx, &dlsmsv1.LeaveWaitlistRequest{EntryId: o.Reservation})
				return err
			})
		default:
			c.visit.waiting = true
		}
	}
}

// step makes the operation o on the reservation of the visit.
func (l *load) step(ctx context.Context, c *client, o op, call func(context.Context, *e2e.Client, *op) error) op {
	v := &c.visit
	o.Reservation, o.Seat, o.End = v.reservation, v.seat, v.end
	if o.Kind == extend {
		o.End = v.end.Add(15 * time.Minute)
	}
	o, done := c.attempt(ctx, o, call)
	switch {
	case done && o.Kind == checkIn:
		v.checkedIn = true
	case done && o.Kind == extend:
		v.end = o.End
	case o.Reason == "SEAT_TAKEN", o.Reason == "OVERLOADED", o.Reason == "RATE_LIMITED",
		strings.HasPrefix(o.Reason, "PRESENCE_"): // the client tries again later
	default:
		*v = visit{waiting: v.waiting}
	}
	return o
}
