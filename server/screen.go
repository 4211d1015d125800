package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/availability"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/labels"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/presence"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

const (
	// screenInterval is how often a stream reads its screen. It is below the 5 s in which a revoked key
	// and a screen that was switched off end or empty the stream.
	screenInterval = 3 * time.Second
	// codesAhead is how far ahead a screen has codes, so that it can show them while the network is
	// down.
	codesAhead = 5 * time.Minute
	// codesRenewal is the longest time without new codes.
	codesRenewal = time.Minute
)

// screenService is for the screens in a branch.
type screenService struct {
	dlsmsv1.UnsafeScreenServiceServer

	store *store.Store
	seats *availability.Model
	codes *presence.Codes
}

// WatchScreen streams what a screen shows. If the read of its state fails, the stream ends, and the
// client calls again.
func (s *screenService) WatchScreen(
	req *dlsmsv1.WatchScreenRequest, stream grpc.ServerStreamingServer[dlsmsv1.WatchScreenResponse],
) error {
	var c check
	name, link := c.text("screen", req.GetScreen(), 0, 100), c.link("link", req.GetLink())
	if err := c.err(); err != nil {
		return err
	}
	if !s.codes.Enabled() {
		return library.ErrPresenceOff
	}

	ctx := stream.Context()
	key := edge.Caller(ctx).Actor()
	poll := time.NewTicker(screenInterval)
	defer poll.Stop()
	var last screenWatch
	var id int64 // known after the first state: a stream stays with its screen when that is renamed
	for {
		screen, err := s.store.ScreenOf(ctx, key, id, name)
		if err != nil {
			return err
		}
		id = screen.ID
		state, err := s.state(ctx, screen)
		if err != nil {
			return err
		}
		if message := last.next(state, screen.Now, time.Now()); message != nil {
			if err := addQRCodes(message.GetState().GetCodes(), link); err != nil {
				return err
			}
			if err := stream.Send(message); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
}

// state returns what a screen shows.
func (s *screenService) state(ctx context.Context, screen library.ScreenNow) (*dlsmsv1.ScreenState, error) {
	branches, _, err := s.seats.Branches(ctx)
	if err != nil {
		return nil, err
	}
	state := &dlsmsv1.ScreenState{Name: screen.Name}
	for _, b := range branches {
		if b.Code == screen.Branch {
			state.Branch = branchProto(b)
		}
	}
	if screen.Off {
		return state, nil
	}
	for _, shown := range s.codes.Show(screen.ID, screen.Now, codesAhead) {
		state.Codes = append(state.Codes, &dlsmsv1.ScreenCode{
			Code: shown.Code, Digits: shown.Digits,
			ValidFrom: timestamppb.New(shown.From), ValidUntil: timestamppb.New(shown.Until),
		})
	}
	return state, nil
}

// addQRCodes adds QR codes with a link to the codes of a screen. If the link is empty, it does nothing.
func addQRCodes(shown []*dlsmsv1.ScreenCode, link string) error {
	if link == "" {
		return nil
	}
	for _, code := range shown {
		qr, err := labels.Encode(link + code.GetCode())
		if err != nil {
			return err
		}
		code.QrPath, code.QrSize = qr.Path, count(qr.Size)
	}
	return nil
}

// screenWatch is what a stream has sent.
type screenWatch struct {
	state *dlsmsv1.ScreenState // nil: nothing
	codes time.Time            // when codes were sent, by the clock of the process
	sent  time.Time            // when any message was sent, by the same clock
}

// next returns the next message of the stream, or nil if the client has what it needs.
func (w *screenWatch) next(state *dlsmsv1.ScreenState, now, at time.Time) *dlsmsv1.WatchScreenResponse {
	switch {
	case w.state == nil || !sameScreen(w.state, state) || at.Sub(w.codes) >= codesRenewal:
		w.state, w.codes, w.sent = state, at, at
		return &dlsmsv1.WatchScreenResponse{
			Event: &dlsmsv1.WatchScreenResponse_State{State: state}, ServerTime: timestamppb.New(now),
		}
	case at.Sub(w.sent) >= heartbeat:
		w.sent = at
		return &dlsmsv1.WatchScreenResponse{
			Event: &dlsmsv1.WatchScreenResponse_Heartbeat{Heartbeat: &dlsmsv1.Heartbeat{}},
		}
	}
	return nil
}

// sameScreen reports whether two states differ at most in their codes.
func sameScreen(a, b *dlsmsv1.ScreenState) bool {
	return a.GetName() == b.GetName() && (len(a.GetCodes()) == 0) == (len(b.GetCodes()) == 0) &&
		proto.Equal(a.GetBranch(), b.GetBranch())
}
