package server

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/dlsms/dlsms/store"
)

// received counts the hints that a replica received.
type received struct{ reservations, tokens atomic.Int64 }

func runHints(t *testing.T, client redis.UniversalClient) (*Hints, *received) {
	t.Helper()
	return runHintsOf(t, store.DefaultLibrary, client)
}

func runHintsOf(t *testing.T, library int64, client redis.UniversalClient) (*Hints, *received) {
	t.Helper()
	var got received
	h := newHints(client, library, slog.New(slog.DiscardHandler), func(hint Hint) {
		if hint&HintReservations != 0 {
			got.reservations.Add(1)
		}
		if hint&HintTokens != 0 {
			got.tokens.Add(1)
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { h.run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done }) // a subscriber that does not stop makes the test time out
	return h, &got
}

// TestHintsDoNotReachAnotherLibrary tests two libraries that share a Redis. A hint of one library
// does not reach the replicas of the other library.
func TestHintsDoNotReachAnotherLibrary(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	one, atOne := runHintsOf(t, 1, client)
	_, atTwo := runHintsOf(t, 2, slowClient(t, redisServer))
	_, alsoAtOne := runHintsOf(t, 1, slowClient(t, redisServer))
	eventually(t, "all replicas have subscribed", func() bool {
		return atOne.tokens.Load() == 1 && atTwo.tokens.Load() == 1 && alsoAtOne.tokens.Load() == 1
	})
	one.Send(HintTokens)
	eventually(t, "the other replica of library 1 has received the hint", func() bool {
		return alsoAtOne.tokens.Load() == 2
	})
	// Redis delivers in order. If the hint of library 1 went to library 2 as well, it would arrive
	// before the following hint.
	if err := client.Publish(t.Context(), "dlsms:2:hints", "test 1").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other library has received its hint", func() bool { return atTwo.reservations.Load() == 2 })
	if n := atTwo.tokens.Load(); n != 1 {
		t.Errorf("the other library received %d hints", n-1)
	}
}

func TestHintsReachEveryReplica(t *testing.T) {
	t.Parallel()
	client, redisServer := startRedis(t)
	one, atOne := runHints(t, client)
	_, atTwo := runHints(t, slowClient(t, redisServer))
	// Each replica receives all kinds of hints when it subscribes, since it may have missed hints.
	eventually(t, "both replicas have subscribed", func() bool {
		return atOne.tokens.Load() == 1 && atTwo.tokens.Load() == 1
	})

	one.Send(HintTokens)
	eventually(t, "both replicas have received the hint", func() bool {
		return atOne.tokens.Load() == 2 && atTwo.tokens.Load() == 2
	})
	if atOne.reservations.Load() != 1 || atTwo.reservations.Load() != 1 {
		t.Error("a hint arrived that was not sent")
	}

	// Many hints are merged into few, and the last hint is not lost.
	before := atTwo.reservations.Load()
	for range 10_000 {
		one.Send(HintReservations)
	}
	eventually(t, "the other replica has received one of many hints", func() bool {
		return atTwo.reservations.Load() > before
	})
	one.Send(HintTokens)
	eventually(t, "the other replica has received the last hint", func() bool { return atTwo.tokens.Load() == 3 })
	if n := atTwo.reservations.Load() - before; n > 100 {
		t.Errorf("10,000 hints became %d", n)
	}

	// Redis stops and starts again.
	if err := redisServer.Kill(); err != nil {
		t.Fatal(err)
	}
	local := atOne.reservations.Load()
	one.Send(HintReservations)
	eventually(t, "the replica has received its own hint without Redis", func() bool {
		return atOne.reservations.Load() > local
	})
	subscribed := atTwo.tokens.Load()
	if err := redisServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other replica has subscribed again", func() bool {
		return atTwo.tokens.Load() > subscribed
	})
	receivedBefore := atTwo.reservations.Load()
	eventually(t, "the other replica has received a hint again", func() bool {
		one.Send(HintReservations)
		return atTwo.reservations.Load() > receivedBefore
	})
}

func TestHintsWithoutRedis(t *testing.T) {
	t.Parallel()
	h, got := runHints(t, nil)
	h.Send(HintReservations | HintTokens)
	eventually(t, "the replica has received its own hints", func() bool {
		return got.reservations.Load() == 1 && got.tokens.Load() == 1
	})
}
