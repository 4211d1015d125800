package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store"
)

// Page sizes of GetNotifications.
const (
	defaultNotifications = 100
	maxNotifications     = 500
)

// heartbeat is the longest time without a message on a stream. Many proxies close a connection
// after a minute without data, so heartbeat is shorter.
const heartbeat = 25 * time.Second

// subscribeRetry is the wait of an open subscription after a read that failed because Postgres was
// unavailable. A wakeup ends the wait early.
const subscribeRetry = 2 * time.Second

type notifyService struct {
	dlsmsv1.UnsafeNotifyServiceServer

	store   *store.Store
	hints   *Hints
	wakeups *Wakeups
	inForce func(context.Context, identity.Caller) error
	reading chan struct{} // semaphore: bounds the subscriptions that read at the same time
}

// backgroundReads returns how many subscriptions may read at the same time, given the number of
// connections to Postgres. After an outage all open subscriptions read again, up to 10,000 of them.
// Bookings must not queue behind these reads.
func backgroundReads(conns int) int { return max(1, conns/16) }

func (s *notifyService) JoinWaitlist(
	ctx context.Context, req *dlsmsv1.JoinWaitlistRequest,
) (*dlsmsv1.JoinWaitlistResponse, error) {
	var c check
	booking := library.Booking{
		UserID:    edge.Caller(ctx).UserID,
		SeatID:    c.id("seat_id", req.GetSeatId()),
		RequestID: c.requestID(req.GetRequestId()),
		Token:     edge.Caller(ctx).Identity(),
	}
	booking.StartTime, booking.EndTime = c.window(req.GetStartTime(), req.GetEndTime())
	if err := c.err(); err != nil {
		return nil, err
	}

	join := s.store.JoinWaitlist
	if req.GetValidateOnly() {
		join = s.store.ValidateJoin
	}
	e, err := join(ctx, booking)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.JoinWaitlistResponse{Entry: entryProto(e)}, nil
}

func (s *notifyService) GetWaitlist(
	ctx context.Context, _ *dlsmsv1.GetWaitlistRequest,
) (*dlsmsv1.GetWaitlistResponse, error) {
	entries, err := s.store.Waitlist(ctx, edge.Caller(ctx).UserID)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetWaitlistResponse{}
	for _, e := range entries {
		resp.Entries = append(resp.Entries, entryProto(e))
	}
	return resp, nil
}

func (s *notifyService) LeaveWaitlist(
	ctx context.Context, req *dlsmsv1.LeaveWaitlistRequest,
) (*dlsmsv1.LeaveWaitlistResponse, error) {
	var c check
	id := c.id("entry_id", req.GetEntryId())
	if err := c.err(); err != nil {
		return nil, err
	}

	e, err := s.store.LeaveWaitlist(ctx, edge.Caller(ctx).UserID, id)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.LeaveWaitlistResponse{Entry: entryProto(e)}, nil
}

func (s *notifyService) ClaimOffer(
	ctx context.Context, req *dlsmsv1.ClaimOfferRequest,
) (*dlsmsv1.ClaimOfferResponse, error) {
	var c check
	id := c.id("entry_id", req.GetEntryId())
	if err := c.err(); err != nil {
		return nil, err
	}

	e, r, err := s.store.ClaimOffer(ctx, edge.Caller(ctx).UserID, id)
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.ClaimOfferResponse{Entry: entryProto(e), Reservation: reservationProto(r)}, nil
}

func (s *notifyService) GetNotifications(
	ctx context.Context, req *dlsmsv1.GetNotificationsRequest,
) (*dlsmsv1.GetNotificationsResponse, error) {
	var c check
	after := c.afterID("after_id", req.GetAfterId())
	size := c.pageSize(req.GetPageSize(), defaultNotifications, maxNotifications)
	if err := c.err(); err != nil {
		return nil, err
	}

	list, err := s.store.Notifications(ctx, edge.Caller(ctx).UserID, after, size)
	if err != nil {
		return nil, err
	}

	resp := &dlsmsv1.GetNotificationsResponse{}
	for _, n := range list {
		resp.Notifications = append(resp.Notifications, notificationProto(n))
	}
	return resp, nil
}

// Subscribe streams the caller's notifications. It subscribes to wakeups before its first read, so
// that it misses no notification between the read and the subscription.
func (s *notifyService) Subscribe(
	req *dlsmsv1.SubscribeRequest, stream grpc.ServerStreamingServer[dlsmsv1.SubscribeResponse],
) error {
	var c check
	after := c.afterID("after_id", req.GetAfterId())
	if err := c.err(); err != nil {
		return err
	}

	wakeups, stop := s.wakeups.Subscribe(edge.Caller(stream.Context()).UserID)
	defer stop()
	if err := stream.SendHeader(nil); err != nil { // tells the client at once that it is subscribed
		return err
	}
	return s.deliver(stream, after, wakeups)
}

// deliver sends notifications until the stream ends. After each wakeup it reads the notifications
// after the last id that it sent. Ids increase in the order of commits, so deliver misses no
// notification and sends none twice.
//
// After the first read, the stream survives an outage of Postgres: deliver reads again after
// subscribeRetry, or after the wakeup that all subscribers get when Postgres is reachable again.
func (s *notifyService) deliver(
	stream grpc.ServerStreamingServer[dlsmsv1.SubscribeResponse], after int64, wakeups <-chan struct{},
) error {
	ctx := stream.Context()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for first := true; ; first = false {
		var retry <-chan time.Time
		last, err := s.sendAfter(ctx, stream, after)
		switch {
		case err == nil:
		case !first && errors.Is(err, library.ErrUnavailable):
			retry = time.After(subscribeRetry)
		default:
			return err
		}
		if last > after {
			after = last
			beat.Reset(heartbeat)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wakeups:
		case <-retry:
		case <-beat.C:
			event := &dlsmsv1.SubscribeResponse_Heartbeat{Heartbeat: &dlsmsv1.Heartbeat{}}
			if err := stream.Send(&dlsmsv1.SubscribeResponse{Event: event}); err != nil {
				return err
			}
		}
	}
}

// sendAfter sends all notifications of the caller with an id above after. It returns the last id
// that it sent, or after if it sent none.
//
// sendAfter first checks that the token is still valid. While this replica could not reach
// Postgres, another replica may have revoked the token.
func (s *notifyService) sendAfter(
	ctx context.Context, stream grpc.ServerStreamingServer[dlsmsv1.SubscribeResponse], after int64,
) (int64, error) {
	if err := s.inForce(ctx, edge.Caller(ctx)); err != nil {
		return after, err
	}
	for {
		list, err := s.readAfter(ctx, after)
		if err != nil {
			return after, err
		}
		for _, n := range list { // canary: skip-notification
			event := &dlsmsv1.SubscribeResponse_Notification{Notification: notificationProto(n)}
			if err := stream.Send(&dlsmsv1.SubscribeResponse{Event: event}); err != nil {
				return after, err
			}
			after = n.ID
		}
		if len(list) < maxNotifications {
			return after, nil
		}
	}
}

// readAfter waits for a slot and returns the next page of the caller's notifications after an id.
func (s *notifyService) readAfter(ctx context.Context, after int64) ([]library.Notification, error) {
	select {
	case s.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.reading }()
	return s.store.Notifications(ctx, edge.Caller(ctx).UserID, after, maxNotifications)
}

// notificationKinds maps each event that notifies its user to the kind that clients see.
var notificationKinds = map[library.EventKind]dlsmsv1.NotificationKind{
	library.EventOffered:      dlsmsv1.NotificationKind_NOTIFICATION_KIND_SEAT_OFFERED,
	library.EventOfferExpired: dlsmsv1.NotificationKind_NOTIFICATION_KIND_OFFER_EXPIRED,
	library.EventReminded:     dlsmsv1.NotificationKind_NOTIFICATION_KIND_CHECK_IN_REMINDER,
	library.EventNoShow:       dlsmsv1.NotificationKind_NOTIFICATION_KIND_NO_SHOW,
	library.EventCompleted:    dlsmsv1.NotificationKind_NOTIFICATION_KIND_COMPLETED,
	library.EventCheckedOut:   dlsmsv1.NotificationKind_NOTIFICATION_KIND_COMPLETED,
	library.EventShortened:    dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY,
	library.EventRescheduled:  dlsmsv1.NotificationKind_NOTIFICATION_KIND_DEADLINE_MOVED,
}

// kindsByLibrary maps each event that staff or a sweep makes to the kind that clients see.
var kindsByLibrary = map[library.EventKind]dlsmsv1.NotificationKind{
	library.EventCancelled:   dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY,
	library.EventDeclined:    dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY,
	library.EventShortened:   dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY,
	library.EventCompleted:   dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY,
	library.EventCheckedOut:  dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY,
	library.EventReserved:    dlsmsv1.NotificationKind_NOTIFICATION_KIND_RESERVED_BY_LIBRARY,
	library.EventCheckedIn:   dlsmsv1.NotificationKind_NOTIFICATION_KIND_CHECKED_IN_BY_LIBRARY,
	library.EventRescheduled: dlsmsv1.NotificationKind_NOTIFICATION_KIND_DEADLINE_MOVED,
}

func notificationKind(n library.Notification) dlsmsv1.NotificationKind {
	if kind, ok := kindsByLibrary[n.Kind]; ok && n.ByLibrary {
		return kind
	}
	return notificationKinds[n.Kind]
}

func notificationProto(n library.Notification) *dlsmsv1.Notification {
	out := &dlsmsv1.Notification{
		Id:            n.ID,
		Kind:          notificationKind(n),
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
		Note:            n.Note,
		Reason:          n.Reason,
	}
	if n.Suggested != nil {
		out.SuggestedSeat = seatRefProto(*n.Suggested)
	}
	return out
}

// notificationMessage returns the text for people. Times are in the time zone of the branch, or in
// UTC if that zone is unknown.
func notificationMessage(n library.Notification) string {
	zone, err := library.LoadZone(n.Timezone)
	layout := "15:04"
	if err != nil {
		zone, layout = time.UTC, "15:04 UTC"
	}
	clock := func(t time.Time) string { return t.In(zone).Format(layout) }
	seat := seatName(n.SeatRef)
	span := n.StartTime.In(zone).Format("Mon 2 Jan "+layout) + " to " + clock(n.EndTime)
	if n.ByLibrary {
		return libraryMessage(n, seat, span, clock)
	}
	switch n.Kind {
	case library.EventOffered:
		return fmt.Sprintf("%s is held for you from %s. Claim it before %s.", seat, span, clock(*n.OfferExpiresAt))
	case library.EventOfferExpired:
		return fmt.Sprintf("%s was held for you from %s. The offer has expired.", seat, span)
	case library.EventReminded:
		return fmt.Sprintf("%s is yours from %s. Check in before %s, or you lose it.",
			seat, span, clock(*n.CheckInDeadline))
	case library.EventNoShow:
		return fmt.Sprintf("%s was yours from %s. It was released because you did not check in.", seat, span)
	case library.EventCompleted, library.EventCheckedOut:
		return fmt.Sprintf("%s was yours from %s. The reservation is over.", seat, span)
	case library.EventShortened, library.EventRescheduled: // always by the library
		return libraryMessage(n, seat, span, clock)
	case library.EventReserved, library.EventClaimed, library.EventCheckedIn,
		library.EventExtended, library.EventCancelled, library.EventDeclined: // no notification
	}
	return seat + ", " + span
}

func seatName(s library.SeatRef) string {
	return fmt.Sprintf("Seat %s in %s (%s)", s.Label, s.Area, s.Branch)
}

// libraryMessage returns the text for people about a transition that staff or a sweep made.
func libraryMessage(n library.Notification, seat, span string, clock func(time.Time) string) string {
	out := seat + ", " + span + "."
	switch n.Kind {
	case library.EventCancelled:
		out = fmt.Sprintf("%s was yours from %s. The library has cancelled the reservation.", seat, span)
	case library.EventDeclined:
		out = fmt.Sprintf("%s was held for you from %s. The library has withdrawn the offer.", seat, span)
	case library.EventShortened:
		out = fmt.Sprintf("%s is yours from %s. The library ends the reservation then.", seat, span)
	case library.EventCompleted, library.EventCheckedOut:
		out = fmt.Sprintf("%s was yours from %s. The library has ended the reservation.", seat, span)
	case library.EventReserved:
		out = fmt.Sprintf("%s is yours from %s. Staff have reserved it for you.", seat, span)
	case library.EventCheckedIn:
		out = fmt.Sprintf("%s is yours from %s. You were checked in by the library.", seat, span)
	case library.EventRescheduled:
		out = fmt.Sprintf("%s is yours from %s. The check-in deadline has moved, because the system was out of order.",
			seat, span)
		if n.CheckInDeadline != nil {
			out = fmt.Sprintf("%s is yours from %s. You can now check in until %s, because the system was out of order.",
				seat, span, clock(*n.CheckInDeadline))
		}
	case library.EventOffered, library.EventClaimed, library.EventExtended, library.EventReminded,
		library.EventOfferExpired, library.EventNoShow: // staff do not make these
	}
	if text := n.Note["en"]; text != "" {
		out += " " + text
	}
	if n.Reason != "" {
		out += " Reason: " + n.Reason
	}
	if n.Suggested != nil {
		out += " " + seatName(*n.Suggested) + " was free at that time."
	}
	return out
}
