package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dlsms/dlsms/library"
)

// A service key is the text
//
//	dlsms-key-<id>-<secret>
//
// where the secret is 32 random bytes in base64url. Only the SHA-256 of the secret is stored: a
// secret of 256 bits needs no slow hash.
const (
	keyPrefix    = "dlsms-key-"
	keySecretLen = 43
)

const (
	// keyAge is how long a replica uses the service keys that it has read. It is below the 5 s in
	// which, by admin.proto, every replica refuses a revoked key.
	keyAge = 4 * time.Second
	// keyInterval is the shortest time between two reads of the service keys. It bounds the reads
	// that calls with unknown keys cause. Such a call waits for a read that begins after it, so that
	// a new key is valid at once.
	keyInterval = 200 * time.Millisecond
)

// NewKeySecret returns the secret of a new service key, and its hash.
func NewKeySecret() (secret string, hash []byte) {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails: the runtime crashes the process instead
	secret = base64.RawURLEncoding.EncodeToString(random[:])
	return secret, hashSecret(secret)
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// KeyText returns the text of a service key, which a program sends as its token.
func KeyText(id int64, secret string) string {
	return keyPrefix + strconv.FormatInt(id, 10) + "-" + secret
}

// IsKey reports whether a token is a service key, valid or not.
func IsKey(token string) bool { return strings.HasPrefix(token, keyPrefix) }

// parseKey returns the parts of a service key.
func parseKey(text string) (id int64, secret string, ok bool) {
	number, secret, ok := strings.Cut(strings.TrimPrefix(text, keyPrefix), "-")
	if !ok || len(secret) != keySecretLen || len(number) > 19 {
		return 0, "", false
	}
	id, err := strconv.ParseInt(number, 10, 64)
	return id, secret, err == nil && id > 0
}

// KeyStore reads the service keys.
type KeyStore interface {
	// KeyRecords returns all service keys. store.Store implements it.
	KeyRecords(ctx context.Context) ([]library.KeyRecord, error)
}

// Keys verifies service keys. It reads all of them at once, because a library has few: so a call
// with an unknown id costs neither a query of its own nor memory.
type Keys struct {
	store KeyStore

	mu    sync.Mutex
	keys  map[int64]*library.KeyRecord
	asOf  time.Time // start of the read of keys; zero: never read
	next  time.Time // earliest start of the next read
	reads *keyRead  // the running read, or nil
}

// keyRead is one read of the keys, shared by all calls that wait for it.
type keyRead struct {
	done  chan struct{}
	err   error
	began time.Time // valid after done
}

// NewKeys returns Keys that are read at the first use.
func NewKeys(s KeyStore) *Keys { return &Keys{store: s} }

// Verify returns the caller of a service key. It fails with ErrTokenInvalid, ErrTokenRevoked, or
// ErrUnavailable if Postgres does not answer.
func (k *Keys) Verify(ctx context.Context, text string) (Caller, error) {
	id, secret, ok := parseKey(text)
	if !ok {
		return Caller{}, library.ErrTokenInvalid
	}
	key, err := k.find(ctx, id)
	switch {
	case err != nil:
		return Caller{}, err
	case key == nil || subtle.ConstantTimeCompare(hashSecret(secret), key.Hash) != 1:
		return Caller{}, library.ErrTokenInvalid
	case key.Revoked:
		return Caller{}, library.ErrTokenRevoked
	}
	return Caller{Role: library.RoleKey, Key: key}, nil
}

// find returns the key with an id. It returns nil if a read that began after the call has no such
// key.
func (k *Keys) find(ctx context.Context, id int64) (*library.KeyRecord, error) {
	called := time.Now()
	for {
		k.mu.Lock()
		key := k.keys[id]
		if k.asOf.After(called) || key != nil && time.Since(k.asOf) < keyAge {
			k.mu.Unlock()
			return key, nil
		}
		r := k.join(ctx)
		k.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, library.ErrUnavailable.WithCause(ctx.Err())
		}
		if r.err != nil && r.began.After(called) {
			return nil, r.err
		}
	}
}

// join returns the running read. If none is running, it starts one. The caller holds the lock.
func (k *Keys) join(ctx context.Context) *keyRead {
	if k.reads == nil {
		k.reads = &keyRead{done: make(chan struct{})}
		// Other calls may join the read, so the end of this call must not cancel it.
		go k.read(context.WithoutCancel(ctx), k.reads, time.Until(k.next))
	}
	return k.reads
}

// read reads the keys after a delay.
func (k *Keys) read(ctx context.Context, r *keyRead, delay time.Duration) {
	defer close(r.done)
	<-time.After(delay)
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	r.began = time.Now()
	records, err := k.store.KeyRecords(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads, r.err, k.next = nil, err, r.began.Add(keyInterval)
	if err != nil {
		return
	}
	k.keys, k.asOf = make(map[int64]*library.KeyRecord, len(records)), r.began
	for i := range records {
		k.keys[records[i].ID] = &records[i]
	}
}

// Allows reports whether the caller is a program whose key has a scope.
func (c Caller) Allows(scope library.KeyScope) bool {
	return c.Key != nil && slices.Contains(c.Key.Scopes, scope)
}
