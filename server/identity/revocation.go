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

// A revocation is a row in Postgres. Every replica reads the revocation list once a second, and at
// once after a hint.
const (
	revocationInterval = time.Second
	// maxRevocationAge is the time within which every replica refuses a revoked token, as
	// auth.proto promises. A replica that has not read the revocation list for longer accepts no
	// token.
	maxRevocationAge = 5 * time.Second
)

// RevocationList reads the revocation list.
type RevocationList interface {
	// Revocations returns one page of the revocations since a snapshot. store.Store implements it.
	Revocations(ctx context.Context, since store.Snapshot) (store.RevocationPage, error)
}

// Revocations knows the tokens that were revoked before they expired. Follow keeps it current.
type Revocations struct {
	list    RevocationList
	streams Streams
	log     *slog.Logger
	now     func() time.Time
	wake    chan struct{}

	// onRestart is called when the last snapshot may be invalid: the database may have been
	// restored or replaced, or the connection to Postgres was lost. See Snapshot.After in package
	// store.
	onRestart func()

	reading  sync.Mutex // held during Read; guards the fields up to mu
	snapshot store.Snapshot
	more     bool      // more pages follow the last one
	began    time.Time // start of the query for the first of these pages

	mu     sync.RWMutex
	tokens map[tokenID]int64 // Unix time of the expiry; no pointers, to spare the garbage collector
	users  map[int64]generation
	fresh  map[int64]generation // replaces users after Read has read the whole list again; or nil
	asOf   time.Time            // the list was read at this time or later; zero: never
	swept  time.Time
}

// tokenID is a jti in 16 bytes. It is short because memory holds a tokenID for each logout until
// the token expires.
type tokenID [16]byte

// tokenIDOf returns the tokenID of a jti. A jti that Tokens.Issue creates encodes 16 bytes. For any
// other jti, the tokenID is 16 bytes of its hash.
func tokenIDOf(jti string) (id tokenID) {
	if len(jti) == base64.RawURLEncoding.EncodedLen(len(id)) {
		if _, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(jti)); err == nil {
			return id
		}
	}
	sum := sha256.Sum256([]byte(jti))
	return tokenID(sum[:])
}

// generation revokes the tokens of a user with a generation below least.
type generation struct {
	least     int64
	expiresAt time.Time
}

// NewRevocations returns Revocations that accept no token before the first Read. now is the wall
// clock, by which revocations expire. onRestart is called when the database may have been restored
// or replaced.
func NewRevocations(
	list RevocationList, streams Streams, onRestart func(), logger *slog.Logger, now func() time.Time,
) *Revocations {
	return &Revocations{
		list: list, streams: streams, onRestart: onRestart, log: logger, now: now, wake: make(chan struct{}, 1),
		tokens: map[tokenID]int64{}, users: map[int64]generation{},
	}
}

// Check returns ErrTokenRevoked if a revocation covers the caller's token, and ErrUnavailable if
// the replica has not read the list for maxRevocationAge. Otherwise it returns nil.
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

// Apply revokes tokens on this replica, and ends the streams that were opened with them.
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

// Wake makes Follow read the list now instead of at the next tick. It does not block.
func (r *Revocations) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Follow reads the list once a second and after Wake, until ctx ends. After each read it calls
// health and passes whether Postgres answered.
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
			r.log.WarnContext(ctx, "the revocation list cannot be read: past the maximum age, no token is accepted",
				"cause", err, "age", maxRevocationAge)
		case err == nil && !up:
			r.log.InfoContext(ctx, "the revocation list is read again")
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

// Read applies the revocations since the last Read, page by page. After an error, the next Read
// continues after the last page.
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
	restarted := err == nil && !page.Snapshot.After(r.snapshot)
	if restarted {
		r.onRestart()
		page, err = r.list.Revocations(ctx, store.Snapshot{})
	}
	if err != nil {
		return err
	}
	if restarted || !r.more {
		r.began = began
	}
	r.snapshot, r.more = page.Snapshot, page.More
	r.mu.Lock()
	if restarted {
		// The database may have been restored from a backup, so users may have lower generations
		// than before. The generations in r.users would then refuse valid tokens. r.fresh replaces
		// them when the whole list has been read again.
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

// sweepInterval is the interval at which expired revocations are dropped.
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
