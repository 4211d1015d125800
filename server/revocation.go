package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/dlsms/dlsms/store"
)

// How revocations travel: a row in Postgres, which every replica reads each second, and at once on a hint.
const (
	revocationInterval = time.Second
	// maxRevocationAge is what the contract promises: past it, a replica that could not read the log trusts no token any more.
	maxRevocationAge = 5 * time.Second
)

// revocationLog is where revocations are kept.
type revocationLog interface {
	Revocations(ctx context.Context, since store.Snapshot) (store.RevocationLog, error)
}

// revocations knows which tokens were ended before their expiry.
type revocations struct {
	log     revocationLog
	streams *streams
	slog    *slog.Logger
	now     func() time.Time
	wake    chan struct{}

	mu       sync.RWMutex
	tokens   map[string]time.Time // jti → when it may be forgotten
	users    map[int64]generation
	snapshot store.Snapshot
	asOf     time.Time // the log was read at this time, or later, by the monotonic clock; zero: never
	swept    time.Time
}

// generation revokes a user's tokens of all generations below least.
type generation struct {
	least     int64
	expiresAt time.Time
}

func newRevocations(log revocationLog, streams *streams, logger *slog.Logger, now func() time.Time) *revocations {
	return &revocations{
		log: log, streams: streams, slog: logger, now: now, wake: make(chan struct{}, 1),
		tokens: map[string]time.Time{}, users: map[int64]generation{},
	}
}

// check returns nil if the caller's token is in force, ErrTokenRevoked if not, and ErrUnavailable while this replica can't know.
func (r *revocations) check(c Caller) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if time.Since(r.asOf) > maxRevocationAge {
		return store.ErrUnavailable
	}
	return r.revoked(c)
}

func (r *revocations) revoked(c Caller) error {
	if _, ok := r.tokens[c.JTI]; ok || c.Generation < r.users[c.UserID].least {
		return store.ErrTokenRevoked
	}
	return nil
}

// apply ends tokens, and the streams that were opened with them, on this replica.
func (r *revocations) apply(revoked ...store.Revocation) {
	if len(revoked) == 0 {
		return
	}
	r.mu.Lock()
	r.add(revoked)
	r.mu.Unlock()
	r.endStreams()
}

func (r *revocations) endStreams() {
	r.streams.end(func(c Caller) error {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return r.revoked(c)
	})
}

func (r *revocations) add(revoked []store.Revocation) {
	for _, v := range revoked {
		switch {
		case v.JTI != "":
			r.tokens[v.JTI] = v.ExpiresAt
		case v.Generation > r.users[v.UserID].least:
			r.users[v.UserID] = generation{v.Generation, v.ExpiresAt}
		}
	}
}

// refresh has the log read now instead of at the next tick. It doesn't wait.
func (r *revocations) refresh() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// follow keeps the revocations current until ctx ends. health is told after each read whether Postgres answered.
func (r *revocations) follow(ctx context.Context, health func(up bool)) {
	tick := time.NewTicker(revocationInterval)
	defer tick.Stop()
	for up := true; ; {
		err := r.read(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil && up:
			r.slog.WarnContext(ctx, "revocations can't be read: past the age that they may have, no token is trusted", "cause", err, "age", maxRevocationAge)
		case err == nil && !up:
			r.slog.InfoContext(ctx, "revocations are read again")
		}
		up = err == nil
		health(up)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.wake:
		}
	}
}

// read applies what the log has got since the last read.
func (r *revocations) read(ctx context.Context) error {
	began := time.Now()
	r.mu.RLock()
	since := r.snapshot
	r.mu.RUnlock()
	log, err := r.log.Revocations(ctx, since)
	anew := err == nil && !log.Snapshot.After(since)
	if anew {
		log, err = r.log.Revocations(ctx, store.Snapshot{})
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	if anew {
		// Should the database have gone back, to a backup say, then generations have gone back with it, and knowing later ones would refuse
		// good tokens.
		clear(r.users)
	}
	r.add(log.Revocations)
	r.snapshot, r.asOf = log.Snapshot, began
	r.sweep()
	r.mu.Unlock()
	if len(log.Revocations) > 0 {
		r.endStreams()
	}
	return nil
}

// sweepInterval is how often what has expired is dropped.
const sweepInterval = time.Minute

func (r *revocations) sweep() {
	now := r.now()
	if now.Sub(r.swept) < sweepInterval && now.After(r.swept) {
		return
	}
	r.swept = now
	for jti, at := range r.tokens {
		if now.After(at) {
			delete(r.tokens, jti)
		}
	}
	for user, g := range r.users {
		if now.After(g.expiresAt) {
			delete(r.users, user)
		}
	}
}
