package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"sync"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// How revocations travel: a row in Postgres, which every replica reads each second, and at once on a hint.
const (
	revocationInterval = time.Second
	// maxRevocationAge is what the contract promises: past it, a replica that could not read the log trusts no token any more.
	maxRevocationAge = 5 * time.Second
)

// RevocationList is where revocations are kept.
type RevocationList interface {
	// Revocations returns a page, as store.Store does.
	Revocations(ctx context.Context, since store.Snapshot) (store.RevocationPage, error)
}

// revocations knows which tokens were ended before their expiry.
type Revocations struct {
	list    RevocationList
	streams Streams
	log     *slog.Logger
	now     func() time.Time
	wake    chan struct{}

	// onRestart is called when the log can't be followed from where it was read last: the database may be another one.
	onRestart func()

	reading  sync.Mutex // one reader at a time; it alone uses the fields up to mu
	snapshot store.Snapshot
	more     bool      // the pages since the snapshot before are not all read
	began    time.Time // when the first of those pages was asked for

	mu     sync.RWMutex
	tokens map[tokenID]int64 // the second when it may be forgotten; without a pointer, for the garbage collector
	users  map[int64]generation
	fresh  map[int64]generation // while the whole log is read anew: what users will be
	asOf   time.Time            // the log was read at this time, or later, by the monotonic clock; zero: never
	swept  time.Time
}

// tokenID is a jti in few bytes: a flood of logouts fills the memory with them.
type tokenID [16]byte

// tokenIDOf returns the 16 bytes that a jti is made of, or 16 bytes of the hash of one that was not made here.
func tokenIDOf(jti string) (id tokenID) {
	if len(jti) == base64.RawURLEncoding.EncodedLen(len(id)) {
		if _, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(jti)); err == nil {
			return id
		}
	}
	sum := sha256.Sum256([]byte(jti))
	return tokenID(sum[:])
}

// generation revokes a user's tokens of all generations below least.
type generation struct {
	least     int64
	expiresAt time.Time
}

func NewRevocations(list RevocationList, streams Streams, onRestart func(), logger *slog.Logger, now func() time.Time) *Revocations {
	return &Revocations{
		list: list, streams: streams, onRestart: onRestart, log: logger, now: now, wake: make(chan struct{}, 1),
		tokens: map[tokenID]int64{}, users: map[int64]generation{},
	}
}

// Check returns nil if the caller's token is in force, ErrTokenRevoked if not, and ErrUnavailable while this replica can't know.
func (r *Revocations) Check(c Caller) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if time.Since(r.asOf) > maxRevocationAge {
		return library.ErrUnavailable
	}
	return r.revoked(c)
}

func (r *Revocations) revoked(c Caller) error {
	if _, ok := r.tokens[tokenIDOf(c.JTI)]; ok || c.Generation < r.users[c.UserID].least {
		return library.ErrTokenRevoked
	}
	return nil
}

// Apply ends tokens, and the streams that were opened with them, on this replica.
func (r *Revocations) Apply(revoked ...store.Revocation) {
	if len(revoked) == 0 {
		return
	}
	r.mu.Lock()
	r.add(revoked)
	r.mu.Unlock()
	r.endStreams()
}

func (r *Revocations) endStreams() {
	r.streams.End(func(c Caller) error {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return r.revoked(c)
	})
}

func (r *Revocations) add(revoked []store.Revocation) {
	for _, v := range revoked {
		switch {
		case v.JTI != "":
			r.tokens[tokenIDOf(v.JTI)] = v.ExpiresAt.Unix() + 1
		default:
			raise(r.users, v)
			if r.fresh != nil {
				raise(r.fresh, v)
			}
		}
	}
}

func raise(users map[int64]generation, v store.Revocation) {
	if v.Generation > users[v.UserID].least {
		users[v.UserID] = generation{v.Generation, v.ExpiresAt}
	}
}

// Wake has the log read now instead of at the next tick. It doesn't wait.
func (r *Revocations) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Follow keeps the revocations current until ctx ends. health is told after each read whether Postgres answered.
func (r *Revocations) Follow(ctx context.Context, health func(up bool)) {
	tick := time.NewTicker(revocationInterval)
	defer tick.Stop()
	for up := true; ; {
		err := r.Read(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil && up:
			r.log.WarnContext(ctx, "revocations can't be read: past the age that they may have, no token is trusted", "cause", err, "age", maxRevocationAge)
		case err == nil && !up:
			r.log.InfoContext(ctx, "revocations are read again")
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

// Read applies what the log has got since the last read, page by page. After an error, the next read goes on where this one stopped.
func (r *Revocations) Read(ctx context.Context) error {
	r.reading.Lock()
	defer r.reading.Unlock()
	for {
		if err := r.readPage(ctx); err != nil {
			return err
		}
		if !r.more {
			return nil
		}
	}
}

func (r *Revocations) readPage(ctx context.Context) error {
	began := time.Now()
	page, err := r.list.Revocations(ctx, r.snapshot)
	anew := err == nil && !page.Snapshot.After(r.snapshot)
	if anew {
		r.onRestart()
		page, err = r.list.Revocations(ctx, store.Snapshot{})
	}
	if err != nil {
		return err
	}
	if anew || !r.more {
		r.began = began
	}
	r.snapshot, r.more = page.Snapshot, page.More
	r.mu.Lock()
	if anew {
		// Should the database have gone back, to a backup say, then generations have gone back with it, and knowing later ones would refuse
		// good tokens.
		r.fresh = map[int64]generation{}
	}
	r.add(page.Revocations)
	if !r.more {
		if r.fresh != nil {
			r.users, r.fresh = r.fresh, nil
		}
		r.asOf = r.began
		r.sweep()
	}
	r.mu.Unlock()
	if len(page.Revocations) > 0 {
		r.endStreams()
	}
	return nil
}

// sweepInterval is how often what has expired is dropped.
const sweepInterval = time.Minute

func (r *Revocations) sweep() {
	now := r.now()
	if now.Sub(r.swept) < sweepInterval && now.After(r.swept) {
		return
	}
	r.swept = now
	for id, at := range r.tokens {
		if now.Unix() > at {
			delete(r.tokens, id)
		}
	}
	for user, g := range r.users {
		if now.After(g.expiresAt) {
			delete(r.users, user)
		}
	}
}
