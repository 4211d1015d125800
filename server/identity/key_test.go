package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// countedKeys counts the reads of the service keys. A test can make them fail.
type countedKeys struct {
	*store.Store

	reads atomic.Int64
	down  atomic.Bool
}

func (c *countedKeys) KeyRecords(ctx context.Context) ([]library.KeyRecord, error) {
	c.reads.Add(1)
	if c.down.Load() {
		return nil, library.ErrUnavailable
	}
	return c.Store.KeyRecords(ctx)
}

func newKey(t *testing.T, s *store.Store) (id int64, text string) {
	t.Helper()
	secret, hash := NewKeySecret()
	k, err := s.CreateKey(t.Context(), library.Order{Actor: library.Host, Action: "test"}, library.ServiceKey{
		Name: "Gate " + rand.Text(), Branch: "branch-0", Scopes: []library.KeyScope{library.ScopeArrivals},
	}, hash)
	if err != nil {
		t.Fatal(err)
	}
	return k.ID, KeyText(k.ID, secret)
}

func testKeys(t *testing.T) *countedKeys {
	t.Helper()
	db := storetest.NewDB(t)
	db.Seats(t, 1)
	return &countedKeys{Store: db.Open(t, library.DefaultPolicy())}
}

func TestKeysVerify(t *testing.T) {
	t.Parallel()
	s := testKeys(t)
	keys := NewKeys(s)
	id, text := newKey(t, s.Store)
	c, err := keys.Verify(t.Context(), text)
	if err != nil || c.Key == nil || c.Key.ID != id || c.UserID != 0 || c.Role != library.RoleKey ||
		!c.Allows(library.ScopeArrivals) || c.Allows(library.ScopeScreen) {
		t.Fatalf("%+v, %v", c, err)
	}
	if a := c.Actor(); a.KeyID != id || a.Token != nil || a.Role != library.RoleKey {
		t.Errorf("actor %+v", a)
	}
	if (Caller{UserID: 1}).Allows(library.ScopeArrivals) {
		t.Error("a user has the scope of a key")
	}
	secret := text[len(text)-keySecretLen:]
	_, other := newKey(t, s.Store) // known at once, although the replica has just read the keys
	if _, err := keys.Verify(t.Context(), other); err != nil {
		t.Errorf("a new key: %v", err)
	}
	for _, wrong := range []string{
		KeyText(id, other[len(other)-keySecretLen:]), KeyText(id+1000, secret), KeyText(-id, secret), KeyText(0, secret),
		text + "A", text[:len(text)-1], strings.TrimSuffix(text, secret), keyPrefix, keyPrefix + secret,
		keyPrefix + "99999999999999999999-" + secret, keyPrefix + "x-" + secret, KeyText(id, strings.ToUpper(secret)),
	} {
		if _, err := keys.Verify(t.Context(), wrong); !errors.Is(err, library.ErrTokenInvalid) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// TestKeysEnd checks that a revoked key is refused within the time that admin.proto promises, and
// that valid keys are not read again for each call.
func TestKeysEnd(t *testing.T) {
	t.Parallel()
	s := testKeys(t)
	keys := NewKeys(s)
	id, text := newKey(t, s.Store)
	for range 100 {
		if _, err := keys.Verify(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.reads.Load(); n > 3 { // one, if the calls take less than keyAge
		t.Errorf("100 calls caused %d reads", n)
	}
	if _, err := s.RevokeKey(t.Context(), library.Order{Actor: library.Host, Action: "test"}, id); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	storetest.Eventually(t, "the key is refused", func() bool {
		_, err := keys.Verify(t.Context(), text)
		return errors.Is(err, library.ErrTokenRevoked)
	})
	if took := time.Since(revoked); took > 5*time.Second {
		t.Errorf("the key was accepted for %v", took)
	}
}

// TestUnknownKeysAreCheap makes many calls with unknown keys at once. They share a few reads, and
// leave nothing in memory.
func TestUnknownKeysAreCheap(t *testing.T) {
	t.Parallel()
	s := testKeys(t)
	keys := NewKeys(s)
	_, text := newKey(t, s.Store)
	secret := text[len(text)-keySecretLen:]
	began := time.Now()
	var g sync.WaitGroup
	for i := range 2000 {
		g.Go(func() {
			if _, err := keys.Verify(t.Context(), KeyText(int64(1000+i), secret)); !errors.Is(err, library.ErrTokenInvalid) {
				t.Error(err)
			}
		})
	}
	g.Wait()
	if most := int64(time.Since(began)/keyInterval) + 2; s.reads.Load() > most {
		t.Errorf("%d reads, want at most %d", s.reads.Load(), most)
	}
	if len(keys.keys) != 1 {
		t.Errorf("%d keys in memory", len(keys.keys))
	}
}

// TestKeysWithoutPostgres checks that no call hangs while the keys cannot be read.
func TestKeysWithoutPostgres(t *testing.T) {
	t.Parallel()
	s := testKeys(t)
	keys := NewKeys(s)
	_, text := newKey(t, s.Store)
	s.down.Store(true)
	if _, err := keys.Verify(t.Context(), text); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("without Postgres: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := keys.Verify(cancelled, text); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("a cancelled call: %v", err)
	}
	s.down.Store(false)
	if _, err := keys.Verify(t.Context(), text); err != nil {
		t.Errorf("when Postgres is back: %v", err)
	}
}
