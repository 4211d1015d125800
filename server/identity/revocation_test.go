package identity

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

func testRevocations(list RevocationList, now func() time.Time) *Revocations {
	return NewRevocations(list, noStreams{}, func() {}, slog.New(slog.DiscardHandler), now)
}

func TestRevocationsRefuseRevokedTokens(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := db.Open(t, library.DefaultPolicy())
	users := db.Users(t, 2)
	clock := &testClock{}
	r := testRevocations(s, clock.now)
	one, other := Caller{UserID: users[0], JTI: "a"}, Caller{UserID: users[1], JTI: "b"}
	if err := r.Check(one); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("before the revocation list was read: %v", err)
	}
	expires := time.Now().Add(time.Hour)
	if err := s.RevokeToken(t.Context(), users[0], "a", expires); err != nil {
		t.Fatal(err)
	}
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Check(one); !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("after Logout: %v", err)
	}
	if err := r.Check(other); err != nil {
		t.Errorf("another token: %v", err)
	}
	db.Exec(t, `UPDATE users SET password_hash = 'old'`)
	generation, err := s.ChangePassword(t.Context(), users[1], "old", "new", expires)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Check(other); !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("after ChangePassword: %v", err)
	}
	later := Caller{UserID: users[1], JTI: "c", Generation: generation}
	if err := r.Check(later); err != nil {
		t.Errorf("a token that was issued after the change: %v", err)
	}

	// A replica that starts now reads the same list.
	fresh := testRevocations(s, clock.now)
	if err := fresh.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Caller{one, other} {
		if err := fresh.Check(c); !errors.Is(err, library.ErrTokenRevoked) {
			t.Errorf("on a new replica: %v", err)
		}
	}

	// Revocations of expired tokens are deleted.
	clock.advance(2 * time.Hour)
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.tokens) + len(r.users); n != 0 {
		t.Errorf("%d revocations of expired tokens are kept", n)
	}
}

// scriptedList is a revocation list that a test controls.
// A real Postgres can't be restored, or become unreachable, in the time of a test.
type scriptedList struct {
	read func(since store.Snapshot) (store.RevocationPage, error)
}

func (l scriptedList) Revocations(_ context.Context, since store.Snapshot) (store.RevocationPage, error) {
	return l.read(since)
}

func TestRevocationsAfterRestore(t *testing.T) {
	t.Parallel()
	expires := time.Now().Add(time.Hour)
	page := store.RevocationPage{Snapshot: store.Snapshot{Xmax: 100}, Revocations: []store.Revocation{
		{UserID: 1, Generation: 5, ExpiresAt: expires}, {UserID: 2, JTI: "a", ExpiresAt: expires},
	}}
	var asked []uint64
	r := testRevocations(scriptedList{func(since store.Snapshot) (store.RevocationPage, error) {
		asked = append(asked, since.Xmax)
		return page, nil
	}}, time.Now)
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	page = store.RevocationPage{Snapshot: store.Snapshot{Xmax: 50}, Revocations: []store.Revocation{
		{UserID: 1, Generation: 3, ExpiresAt: expires},
	}}
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 3 || asked[0] != 0 || asked[1] != 100 || asked[2] != 0 {
		t.Errorf("asked since %v", asked)
	}
	// Generation 3 is the newest again, so its tokens are valid. Tokens of older generations are
	// not.
	if err := r.Check(Caller{UserID: 1, Generation: 3}); err != nil {
		t.Errorf("a valid token after the restore: %v", err)
	}
	if err := r.Check(Caller{UserID: 1, Generation: 2}); !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("a revoked token: %v", err)
	}
	if err := r.Check(Caller{UserID: 2, JTI: "a"}); !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("a token that was revoked before the restore: %v", err)
	}
}

// TestStaleRevocationListRefusesTokens: a replica that has not read the revocation list for
// maxRevocationAge accepts no token.
func TestStaleRevocationListRefusesTokens(t *testing.T) {
	t.Parallel()
	unreachable := errors.New("no route to host")
	var fail error
	r := testRevocations(scriptedList{func(store.Snapshot) (store.RevocationPage, error) {
		return store.RevocationPage{}, fail
	}}, time.Now)
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	fail = unreachable
	if err := r.Read(t.Context()); !errors.Is(err, unreachable) {
		t.Fatal(err)
	}
	if err := r.Check(Caller{UserID: 1}); err != nil {
		t.Errorf("right after the last read: %v", err)
	}
	r.asOf = r.asOf.Add(-maxRevocationAge)
	if err := r.Check(Caller{UserID: 1}); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("after %v without the revocation list: %v", maxRevocationAge, err)
	}
	fail = nil
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Check(Caller{UserID: 1}); err != nil {
		t.Errorf("after the next read: %v", err)
	}
}
