package server

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
)

// timestamp converts t to a protobuf timestamp. It returns nil, which means unset, for nil.
func timestamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

// setTimestamp converts t to a protobuf timestamp. It returns nil, which means unset, for the zero
// time.
func setTimestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func seatRefProto(s library.SeatRef) *dlsmsv1.SeatRef {
	return &dlsmsv1.SeatRef{Id: s.SeatID, Branch: s.Branch, Area: s.Area, Label: s.Label}
}

func reservationProto(r library.Reservation) *dlsmsv1.Reservation {
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
		CheckIn:         checkInRuleProto(r.CheckInRule),
		Proof:           enumValue[dlsmsv1.Proof]("PROOF_"+string(r.Proof), dlsmsv1.Proof_value),
		Screen:          r.Screen,
		EndedByLibrary:  r.EndedByLibrary,
	}
}

func checkInRuleProto(r library.CheckInRule) dlsmsv1.CheckInRule {
	return enumValue[dlsmsv1.CheckInRule]("CHECK_IN_RULE_"+string(r), dlsmsv1.CheckInRule_value)
}

func statusProto(s library.ReservationStatus) dlsmsv1.ReservationStatus {
	return enumValue[dlsmsv1.ReservationStatus]("RESERVATION_STATUS_"+string(s), dlsmsv1.ReservationStatus_value)
}

func entryProto(e library.WaitlistEntry) *dlsmsv1.WaitlistEntry {
	return &dlsmsv1.WaitlistEntry{
		Id:             e.ID,
		Seat:           seatRefProto(e.SeatRef),
		StartTime:      timestamppb.New(e.StartTime),
		EndTime:        timestamppb.New(e.EndTime),
		Status:         waitlistStatusProto(e.Status),
		Position:       e.Position,
		OfferExpiresAt: timestamp(e.OfferExpiresAt),
		CreatedAt:      timestamppb.New(e.CreatedAt),
		ReservationId:  e.ReservationID,
	}
}

func waitlistStatusProto(s library.WaitlistStatus) dlsmsv1.WaitlistStatus {
	return enumValue[dlsmsv1.WaitlistStatus]("WAITLIST_STATUS_"+string(s), dlsmsv1.WaitlistStatus_value)
}

// enumValue returns the value of an enum by its full name, such as "ROLE_STUDENT". The store has
// the same names without the prefix, such as "STUDENT".
func enumValue[E ~int32](name string, values map[string]int32) E { return E(values[name]) }
