package server

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
)

// maxCode is the maximum length of a code of presence, with the address of a page before it.
const maxCode = 300

// RecordScan checks the signature of the code before it reads the screen. So only a client that has
// the code of a screen, new or old, causes a query.
func (s *reservationService) RecordScan(
	ctx context.Context, req *dlsmsv1.RecordScanRequest,
) (*dlsmsv1.RecordScanResponse, error) {
	var c check
	code := c.text("code", req.GetCode(), 1, maxCode)
	if err := c.err(); err != nil {
		return nil, err
	}

	id, err := s.codes.ScannedScreen(code)
	if err != nil {
		return nil, err
	}
	screen, err := s.store.ScreenNow(ctx, id)
	if err != nil {
		return nil, err
	}
	scan, err := s.codes.Scan(screen, code)
	if err != nil {
		return nil, err
	}

	return &dlsmsv1.RecordScanResponse{
		ScanCode: scan.Code, ValidUntil: timestamppb.New(scan.Until), Branch: screen.Branch, Screen: screen.Name,
	}, nil
}

func (s *reservationService) CheckIn(
	ctx context.Context, req *dlsmsv1.CheckInRequest,
) (*dlsmsv1.CheckInResponse, error) {
	var c check
	id := c.id("reservation_id", req.GetReservationId())
	code := c.text("presence_code", req.GetPresenceCode(), 0, maxCode)
	label := c.text("label_code", req.GetLabelCode(), 0, maxCode)
	if err := c.err(); err != nil {
		return nil, err
	}

	userID := edge.Caller(ctx).UserID
	coded := code+label != ""
	if coded {
		if err := s.limits.CodeTried(ctx, userID); err != nil {
			return nil, err
		}
	}
	r, err := s.store.CheckIn(ctx, userID, id, func(f library.CheckInFacts) (library.Presence, error) {
		return s.codes.Judge(f, code, label)
	})
	if coded && !wrongCode(err) {
		s.limits.CodeNotWrong(ctx, userID)
	}
	if err != nil {
		return nil, err
	}
	s.hints.Send(HintReservations)

	return &dlsmsv1.CheckInResponse{Reservation: reservationProto(r)}, nil
}

// wrongCode reports whether a check-in was refused because of a code that it had.
func wrongCode(err error) bool {
	return errors.Is(err, library.ErrPresenceInvalid) || errors.Is(err, library.ErrPresenceExpired) ||
		errors.Is(err, library.ErrPresenceElsewhere)
}
