package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store"
)

// The sizes of a page of notifications.
const (
	defaultNotifications = 100
	maxNotifications     = 500
)

// heartbeat is how long a stream may be silent: below the minute after which proxies in between take a connection for dead.
const heartbeat = 30 * time.Second

type notifyService struct {
	dlsmsv1.UnsafeNotifyServiceServer

	store   *store.Store
	hints   *Hints
	news    *News
	inForce func(context.Context, Caller) error
	reading chan struct{} // holds a value for each subscription that reads
}

// backgroundReads is how many subscriptions may read at once, of so many connections to Postgres. After an outage all that are open read
// anew, 10,000 at most, and those who book shall not stand in line behind them.
func backgroundReads(conns int) int { return max(1, conns/16) }

func (s *notifyService) JoinWaitlist(ctx context.Context, req *dlsmsv1.JoinWaitlistRequest) (*dlsmsv1.JoinWaitlistResponse, error) {
	var c check
	booking := store.Booking{
		UserID:    caller(ctx).UserID,
		SeatID:    c.id("seat_id", req.GetSeatId()),
		RequestID: c.requestID(req.GetRequestId()),
	}
	booking.StartTime, booking.EndTime = c.window(req.GetStartTime(), req.GetEndTime())
	if err := c.err(); err != nil {
		return nil, err
	}

	e, err := s.store.JoinWaitlist(ctx, booking)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.JoinWaitlistResponse{Entry: entryProto(e)}, nil
}

func (s *notifyService) GetWaitlist(ctx context.Context, _ *dlsmsv1.GetWaitlistRequest) (*dlsmsv1.GetWaitlistResponse, error) {
	entries, err := s.store.Waitlist(ctx, caller(ctx).UserID)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetWaitlistResponse{}
	for _, e := range entries {
		resp.Entries = append(resp.Entries, entryProto(e))
	}
	return resp, nil
}

func (s *notifyService) LeaveWaitlist(ctx context.Context, req *dlsmsv1.LeaveWaitlistRequest) (*dlsmsv1.LeaveWaitlistResponse, error) {
	var c check
	id := c.id("entry_id", req.GetEntryId())
	if err := c.err(); err != nil {
		return nil, err
	}

	e, err := s.store.LeaveWaitlist(ctx, caller(ctx).UserID, id)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.LeaveWaitlistResponse{Entry: entryProto(e)}, nil
}

func (s *notifyService) ClaimOffer(ctx context.Context, req *dlsmsv1.ClaimOfferRequest) (*dlsmsv1.ClaimOfferResponse, error) {
	var c check
	id := c.id("entry_id", req.GetEntryId())
	if err := c.err(); err != nil {
		return nil, err
	}

	e, r, err := s.store.ClaimOffer(ctx, caller(ctx).UserID, id)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.ClaimOfferResponse{Entry: entryProto(e), Reservation: reservationProto(r)}, nil
}

func (s *notifyService) GetNotifications(ctx context.Context, req *dlsmsv1.GetNotificationsRequest) (*dlsmsv1.GetNotificationsResponse, error) {
	var c check
	after := c.afterID("after_id", req.GetAfterId())
	size := c.pageSize(req.GetPageSize(), defaultNotifications, maxNotifications)
	if err := c.err(); err != nil {
		return nil, err
	}

	list, err := s.store.Notifications(ctx, caller(ctx).UserID, after, size)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetNotificationsResponse{}
	for _, n := range list {
		resp.Notifications = append(resp.Notifications, notificationProto(n))
	}
	return resp, nil
}

// readAgain is how long a subscription waits for news, after Postgres was out of its reach, before it reads again unasked.
const readAgain = 2 * time.Second

// Subscribe reads on from the last id that it sent, each time that there is news of the user: a notification can neither be missed, since its
// id is above all that were committed before, nor come twice. Once open, it outlives an outage of Postgres: the news that everybody gets
// when the log can be followed again has it read again.
func (s *notifyService) Subscribe(req *dlsmsv1.SubscribeRequest, stream grpc.ServerStreamingServer[dlsmsv1.SubscribeResponse]) error {
	var c check
	after := c.afterID("after_id", req.GetAfterId())
	if err := c.err(); err != nil {
		return err
	}

	ctx := stream.Context()
	news, stop := s.news.Of(caller(ctx).UserID) // before the first read, so that nothing falls between
	defer stop()
	if err := stream.SendHeader(nil); err != nil { // the client sees at once that it is subscribed
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for open := false; ; open = true {
		var again <-chan time.Time
		sent, err := s.sendAfter(ctx, stream, after)
		switch {
		case err == nil:
		case open && errors.Is(err, store.ErrUnavailable):
			again = time.After(readAgain)
		default:
			return err
		}
		if sent > after {
			after = sent
			beat.Reset(heartbeat)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-again:
		case <-beat.C:
			if err := stream.Send(&dlsmsv1.SubscribeResponse{Event: &dlsmsv1.SubscribeResponse_Heartbeat{Heartbeat: &dlsmsv1.Heartbeat{}}}); err != nil {
				return err
			}
		}
	}
}

// sendAfter sends all notifications of the caller with ids above after, and returns the last id that it sent, or after. A token that was ended
// while the replica was out of reach gets nothing: what was revoked is read before anything else is.
func (s *notifyService) sendAfter(ctx context.Context, stream grpc.ServerStreamingServer[dlsmsv1.SubscribeResponse], after int64) (int64, error) {
	if err := s.inForce(ctx, caller(ctx)); err != nil {
		return after, err
	}
	for {
		list, err := s.read(ctx, after)
		if err != nil {
			return after, err
		}
		for _, n := range list {
			if err := stream.Send(&dlsmsv1.SubscribeResponse{Event: &dlsmsv1.SubscribeResponse_Notification{Notification: notificationProto(n)}}); err != nil {
				return after, err
			}
			after = n.ID
		}
		if len(list) < maxNotifications {
			return after, nil
		}
	}
}

// read returns the caller's next notifications after an id, when it is their turn.
func (s *notifyService) read(ctx context.Context, after int64) ([]store.Notification, error) {
	select {
	case s.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.reading }()
	return s.store.Notifications(ctx, caller(ctx).UserID, after, maxNotifications)
}

// notificationKinds says what each notifying event is to a client.
var notificationKinds = map[store.EventKind]dlsmsv1.NotificationKind{
	store.EventOffered:      dlsmsv1.NotificationKind_NOTIFICATION_KIND_SEAT_OFFERED,
	store.EventOfferExpired: dlsmsv1.NotificationKind_NOTIFICATION_KIND_OFFER_EXPIRED,
	store.EventReminded:     dlsmsv1.NotificationKind_NOTIFICATION_KIND_CHECK_IN_REMINDER,
	store.EventNoShow:       dlsmsv1.NotificationKind_NOTIFICATION_KIND_NO_SHOW,
	store.EventCompleted:    dlsmsv1.NotificationKind_NOTIFICATION_KIND_COMPLETED,
	store.EventCheckedOut:   dlsmsv1.NotificationKind_NOTIFICATION_KIND_COMPLETED,
}

func notificationProto(n store.Notification) *dlsmsv1.Notification {
	return &dlsmsv1.Notification{
		Id:            n.ID,
		Kind:          notificationKinds[n.Kind],
		ReservationId: n.ReservationID,
		EntryId:       n.EntryID,
		Message:       notificationMessage(n),
		CreatedAt:     timestamppb.New(n.CreatedAt),
		Seat:          seatRefProto(n.SeatRef),
		StartTime:     timestamppb.New(n.StartTime),
		EndTime:       timestamppb.New(n.EndTime),
		Status:        statusProto(n.Status),

		CheckInDeadline: timestamp(n.CheckInDeadline),
		OfferExpiresAt:  timestamp(n.OfferExpiresAt),
	}
}

// notificationMessage says it to people, with times in the zone of the branch.
func notificationMessage(n store.Notification) string {
	zone, err := store.LoadZone(n.Timezone)
	layout := "15:04"
	if err != nil {
		zone, layout = time.UTC, "15:04 UTC"
	}
	clock := func(t time.Time) string { return t.In(zone).Format(layout) }
	seat := fmt.Sprintf("Seat %s in %s (%s)", n.Label, n.Area, n.Branch)
	span := n.StartTime.In(zone).Format("Mon 2 Jan "+layout) + " to " + clock(n.EndTime)
	switch n.Kind {
	case store.EventOffered:
		return fmt.Sprintf("%s is held for you from %s. Claim it before %s.", seat, span, clock(*n.OfferExpiresAt))
	case store.EventOfferExpired:
		return fmt.Sprintf("%s was held for you from %s. The offer has run out.", seat, span)
	case store.EventReminded:
		return fmt.Sprintf("%s is yours from %s. Check in before %s, or it goes to somebody else.", seat, span, clock(*n.CheckInDeadline))
	case store.EventNoShow:
		return fmt.Sprintf("%s was yours from %s. It was given up, as you had not checked in.", seat, span)
	case store.EventCompleted, store.EventCheckedOut:
		return fmt.Sprintf("%s was yours from %s. The reservation is over.", seat, span)
	case store.EventReserved, store.EventClaimed, store.EventCheckedIn, store.EventExtended, store.EventCancelled, store.EventDeclined:
	}
	return seat + ", " + span
}
