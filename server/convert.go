package server

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/store"
)

// timestamp is t for the wire; nil, which is unset, for nil.
func timestamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

// setTimestamp is t for the wire; nil, which is unset, for the zero time.
func setTimestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func seatRefProto(s store.SeatRef) *dlsmsv1.SeatRef {
	return &dlsmsv1.SeatRef{Id: s.SeatID, Branch: s.Branch, Area: s.Area, Label: s.Label}
}

func reservationProto(r store.Reservation) *dlsmsv1.Reservation {
	return &dlsmsv1.Reservation{
		Id:              r.ID,
		Seat:            seatRefProto(r.SeatRef),
		UserId:          r.UserID,
		StartTime:       timestamppb.New(r.StartTime),
		EndTime:         timestamppb.New(r.EndTime),
		Status:          statusProto(r.Status),
		CheckInOpensAt:  timestamppb.New(r.CheckInOpensAt),
		CheckInDeadline: timestamp(r.CheckInDeadline),
		CreatedAt:       timestamppb.New(r.CreatedAt),
		CheckedInAt:     timestamp(r.CheckedInAt),
		EndedAt:         timestamp(r.EndedAt),
	}
}

func statusProto(s store.Status) dlsmsv1.ReservationStatus {
	return enumValue[dlsmsv1.ReservationStatus]("RESERVATION_STATUS_"+string(s), dlsmsv1.ReservationStatus_value)
}

func entryProto(e store.Entry) *dlsmsv1.WaitlistEntry {
	return &dlsmsv1.WaitlistEntry{
		Id:             e.ID,
		Seat:           seatRefProto(e.SeatRef),
		StartTime:      timestamppb.New(e.StartTime),
		EndTime:        timestamppb.New(e.EndTime),
		Status:         enumValue[dlsmsv1.WaitlistStatus]("WAITLIST_STATUS_"+string(e.Status), dlsmsv1.WaitlistStatus_value),
		Position:       e.Position,
		OfferExpiresAt: timestamp(e.OfferExpiresAt),
		CreatedAt:      timestamppb.New(e.CreatedAt),
		ReservationId:  e.ReservationID,
	}
}

// enumValue finds the value of an enum by its full name. The store's names are those of the enums, which a test holds them to.
func enumValue[E ~int32](name string, values map[string]int32) E { return E(values[name]) }
