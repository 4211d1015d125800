package main

import (
	"context"
	"sync"
	"time"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// display is the screen of a branch. It has the codes of the streams that it has read.
type display struct {
	key string // service key; empty: there is no screen

	mu    sync.Mutex
	codes []*dlsmsv1.ScreenCode // the newest last
}

const (
	// keptCodes is the number of codes that a display keeps: those of five minutes ahead, and of
	// twelve minutes before.
	keptCodes = 68
	// screenTime is how long a display reads a stream, by the system's clock. A stream begins with
	// the codes of five minutes. It sends codes again after a minute of real time, which may be hours
	// of the system's clock.
	screenTime = 4 * time.Minute
)

// watchScreen reads streams with the codes of a display until ctx ends.
func (l *load) watchScreen(ctx context.Context, d *display) {
	conns := l.system.librarian.conns
	for n := 0; ctx.Err() == nil; n++ {
		reading, stop := context.WithTimeout(ctx, screenTime/time.Duration(l.system.clock.Speed))
		api := e2e.Anonymous(conns[n%len(conns)]).WithToken(d.key)
		stream, err := dlsmsv1.NewScreenServiceClient(api.Conn()).WatchScreen(reading, &dlsmsv1.WatchScreenRequest{})
		for err == nil {
			var got *dlsmsv1.WatchScreenResponse
			if got, err = stream.Recv(); err == nil {
				d.add(got.GetState().GetCodes())
			}
		}
		if reading.Err() == nil {
			sleep(ctx, retryAfter)
		}
		stop()
		if r := e2e.RefusalOf(err); !noAnswer(r) && r.Reason != "OVERLOADED" {
			l.history.found.add(checkAnswers, "WatchScreen ended with an answer that is not in the contract: %v", err)
		}
	}
}

// add adds the codes that the display does not have yet.
func (d *display) add(codes []*dlsmsv1.ScreenCode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range codes {
		if n := len(d.codes); n == 0 || c.GetValidFrom().AsTime().After(d.codes[n-1].GetValidFrom().AsTime()) {
			d.codes = append(d.codes, c)
		}
	}
	d.codes = d.codes[max(0, len(d.codes)-keptCodes):]
}

// shows returns the code or the digits that the display of a branch shows at a time of the system's
// clock. If the display does not have them, the result is zero.
func (d *display) shows(branch string, now time.Time, digits bool) presented {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.codes {
		from := c.GetValidFrom().AsTime()
		if now.Before(from) || !now.Before(from.Add(codeStep)) {
			continue
		}
		if digits {
			return presented{Screen: branch, From: from, Digits: true, Code: c.GetDigits()}
		}
		return presented{Screen: branch, From: from, Code: c.GetCode()}
	}
	return presented{}
}
