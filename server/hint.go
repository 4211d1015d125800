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

	"github.com/dlsms/dlsms/server/edge"
)

// Hint is a set of flags that tells replicas what kind of data changed in Postgres, so that they
// read the change at once and not only at their next tick. A lost, duplicate or late hint does no
// harm.
type Hint uint32

// The flags of a Hint.
const (
	HintReservations Hint = 1 << iota
	HintTokens
)

const (
	// hintChannel is the Redis channel for the hints of a library. %d stands for the id of the
	// library.
	hintChannel = "dlsms:%d:hints"
	// hintInterval is the shortest time between two hints of a replica. Changes within this time
	// share a hint.
	hintInterval = 5 * time.Millisecond
	// hintIdle is how long a subscriber waits for a message before it pings Redis. If Redis does
	// not answer the ping within the same time, the subscriber reconnects.
	hintIdle = 5 * time.Second
	// hintReconnect is the delay before a subscriber reconnects to Redis.
	hintReconnect = time.Second
)

// Hints sends hints between the replicas through Redis. A replica also receives its own hints,
// without Redis.
type Hints struct {
	client  redis.UniversalClient // nil: no Redis
	log     *slog.Logger
	receive func(Hint)
	channel string
	id      string // of this replica, which ignores its own hints when Redis returns them

	pending atomic.Uint32
	wake    chan struct{}
	breaker edge.Breaker
}

func newHints(client redis.UniversalClient, library int64, log *slog.Logger, receive func(Hint)) *Hints {
	return &Hints{
		client: client, log: log, receive: receive, channel: fmt.Sprintf(hintChannel, library),
		id: strconv.FormatUint(rand.Uint64(), 36), wake: make(chan struct{}, 1),
	}
}

// Send announces a committed change. It never blocks and never fails.
func (h *Hints) Send(hint Hint) {
	h.pending.Or(uint32(hint))
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run sends and receives until ctx ends.
func (h *Hints) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { h.publish(ctx) })
	if h.client != nil {
		running.Go(func() { h.subscribe(ctx) })
		running.Go(func() { h.breaker.Probe(ctx, func(ctx context.Context) { h.tell(ctx, 0) }) })
	}
	running.Wait()
}

// publish sends the pending hints to this replica and to Redis until ctx ends.
func (h *Hints) publish(ctx context.Context) {
	interval := time.NewTicker(hintInterval)
	defer interval.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		}
		hint := Hint(h.pending.Swap(0))
		h.receive(hint)
		h.broadcast(ctx, hint)
		select {
		case <-ctx.Done():
			return
		case <-interval.C:
		}
	}
}

// BreakerOpen reports whether hints stay on this replica, because Redis failed.
func (h *Hints) BreakerOpen() bool { return h.breaker.Open() }

// broadcast publishes a hint on Redis as "<replica> <hint>".
func (h *Hints) broadcast(ctx context.Context, hint Hint) {
	if h.client != nil && h.breaker.Allow(edge.RedisTimeout) {
		h.tell(ctx, hint)
	}
}

// tell publishes a hint, and tells the breaker the result. The hint 0 has no effect on other replicas.
// subscribe logs that Redis fails.
func (h *Hints) tell(ctx context.Context, hint Hint) {
	ctx, cancel := context.WithTimeout(ctx, edge.RedisTimeout)
	defer cancel()
	h.breaker.Report(h.client.Publish(ctx, h.channel, h.id+" "+strconv.Itoa(int(hint))).Err() == nil)
}

// subscribe receives hints from Redis until ctx ends, and reconnects after errors.
func (h *Hints) subscribe(ctx context.Context) {
	connect := time.NewTimer(0)
	defer connect.Stop()
	var lost error
	for {
		select {
		case <-ctx.Done():
			return
		case <-connect.C:
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
		connect.Reset(hintReconnect)
	}
}

// listen receives hints until the connection to Redis fails or ctx ends. It calls onSubscribed when
// the subscription starts.
func (h *Hints) listen(ctx context.Context, onSubscribed func()) error {
	sub := h.client.Subscribe(ctx, h.channel)
	defer sub.Close()
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() }) // the only way to cancel a read
	defer stop()
	for pinged := false; ; {
		msg, err := sub.ReceiveTimeout(ctx, hintIdle)
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() && !pinged {
			if err = sub.Ping(ctx); err == nil {
				pinged = true
				continue
			}
		}
		if err != nil {
			return err
		}
		pinged = false
		switch msg := msg.(type) {
		case *redis.Subscription:
			onSubscribed()
			h.receive(HintReservations | HintTokens) // earlier hints may have been missed
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

// parse returns the hint of another replica; 0 for a hint of this replica.
func (h *Hints) parse(payload string) (Hint, error) {
	sender, bits, _ := strings.Cut(payload, " ")
	n, err := strconv.ParseUint(bits, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q on channel %s is not a hint", payload, h.channel)
	}
	if sender == h.id {
		return 0, nil
	}
	return Hint(n), nil
}
