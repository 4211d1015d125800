package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Hint says what has changed in Postgres, so that replicas look at once and not only at their next tick. Hints may be lost, doubled or late
// without harm.
type Hint uint32

// The hints, which can be added up.
const (
	HintReservations Hint = 1 << iota
	HintTokens
)

const (
	// hintChannel is where replicas of a library hint to each other, by its id.
	hintChannel = "dlsms:%d:hints"
	// hintGap bounds how often a replica hints: what happens within it goes into one hint.
	hintGap = 5 * time.Millisecond
	// hintSilence is after how much of it a subscriber asks whether Redis is still there, and twice as much is too long.
	hintSilence = 5 * time.Second
	// hintReconnect is how long a subscriber that lost Redis waits before it tries again.
	hintReconnect = time.Second
)

// Hints carries hints between the replicas through Redis, and from a replica to itself without it.
type Hints struct {
	client  redis.UniversalClient // nil: no Redis
	log     *slog.Logger
	receive func(Hint)
	channel string
	id      string // of this replica, which has had its own hints already when they come back

	pending atomic.Uint32
	wake    chan struct{}
	breaker breaker
}

func newHints(client redis.UniversalClient, library int64, log *slog.Logger, receive func(Hint)) *Hints {
	return &Hints{
		client: client, log: log, receive: receive, channel: fmt.Sprintf(hintChannel, library),
		id: strconv.FormatUint(rand.Uint64(), 36), wake: make(chan struct{}, 1),
	}
}

// Send hints at a change that was committed. It never waits and never fails.
func (h *Hints) Send(hint Hint) {
	h.pending.Or(uint32(hint))
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run sends and receives until ctx ends.
func (h *Hints) run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { h.publish(ctx) })
	if h.client != nil {
		both.Go(func() { h.subscribe(ctx) })
	}
	both.Wait()
}

func (h *Hints) publish(ctx context.Context) {
	gap := time.NewTicker(hintGap)
	defer gap.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		}
		hint := Hint(h.pending.Swap(0))
		h.receive(hint)
		h.tell(ctx, hint)
		select {
		case <-ctx.Done():
			return
		case <-gap.C:
		}
	}
}

// tell publishes a hint as "<replica> <hint>".
func (h *Hints) tell(ctx context.Context, hint Hint) {
	if h.client == nil || !h.breaker.allow(redisTimeout) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	h.breaker.report(h.client.Publish(ctx, h.channel, h.id+" "+strconv.Itoa(int(hint))).Err() == nil)
}

func (h *Hints) subscribe(ctx context.Context) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	var lost error
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		err := h.listen(ctx, func() {
			if lost != nil {
				h.log.InfoContext(ctx, "Redis is back")
				lost = nil
			}
		})
		if ctx.Err() == nil && lost == nil {
			h.log.WarnContext(ctx, "Redis can't be reached: hints are late, rate limits count by replica", "cause", err)
			lost = err
		}
		wait.Reset(hintReconnect)
	}
}

// listen receives hints until Redis is gone or ctx ends. It calls up when it is subscribed.
func (h *Hints) listen(ctx context.Context, up func()) error {
	sub := h.client.Subscribe(ctx, h.channel)
	defer sub.Close()
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() }) // a read can't be cancelled otherwise
	defer stop()
	for silent := false; ; {
		msg, err := sub.ReceiveTimeout(ctx, hintSilence)
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() && !silent {
			if err = sub.Ping(ctx); err == nil {
				silent = true
				continue
			}
		}
		if err != nil {
			return err
		}
		silent = false
		switch msg := msg.(type) {
		case *redis.Subscription:
			up()
			h.receive(HintReservations | HintTokens) // what was hinted at until now, nobody heard
		case *redis.Message:
			hint, err := h.parse(msg.Payload)
			if err != nil {
				return err
			}
			if hint != 0 {
				h.receive(hint)
			}
		}
	}
}

// parse returns the hint of another replica, 0 for one's own.
func (h *Hints) parse(payload string) (Hint, error) {
	from, bits, _ := strings.Cut(payload, " ")
	n, err := strconv.ParseUint(bits, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q on channel %s is not a hint", payload, h.channel)
	}
	if from == h.id {
		return 0, nil
	}
	return Hint(n), nil
}
