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

func testRevocations(log RevocationList, now func() time.Time) *Revocations {
	return NewRevocations(log, noStreams{}, func() {}, slog.New(slog.DiscardHandler), now)
}

func TestRevocationsAreRead(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := db.Open(t, library.DefaultPolicy())
	users := db.Users(t, 2)
	clock := &testClock{}
	r := testRevocations(s, clock.now)
	one, other := Caller{UserID: users[0], JTI: "a"}, Caller{UserID: users[1], JTI: "b"}
	if err := r.Check(one); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("before the log was read: %v", err)
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
		t.Errorf("a token of after the change: %v", err)
	}

	// A replica that starts now knows as much.
	fresh := testRevocations(s, clock.now)
	if err := fresh.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Caller{one, other} {
		if err := fresh.Check(c); !errors.Is(err, library.ErrTokenRevoked) {
			t.Errorf("on a new replica: %v", err)
		}
	}

	// What has expired is forgotten.
	clock.advance(2 * time.Hour)
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.tokens) + len(r.users); n != 0 {
		t.Errorf("%d revocations of expired tokens are remembered", n)
	}
}

// scriptedLog is a log that says what a test wants: what Postgres says after a restore, or when it is gone, can't be had from a real one in time.
type scriptedLog struct {
	read func(since store.Snapshot) (store.RevocationPage, error)
}

func (l scriptedLog) Revocations(_ context.Context, since store.Snapshot) (store.RevocationPage, error) {
	return l.read(since)
}

func TestRevocationsAfterARestore(t *testing.T) {
	t.Parallel()
	log := store.RevocationPage{Snapshot: store.Snapshot{Xmax: 100}, Revocations: []store.Revocation{
		{UserID: 1, Generation: 5, ExpiresAt: time.Now().Add(time.Hour)}, {UserID: 2, JTI: "a", ExpiresAt: time.Now().Add(time.Hour)},
	}}
	var asked []uint64
	r := testRevocations(scriptedLog{func(since store.Snapshot) (store.RevocationPage, error) {
		asked = append(asked, since.Xmax)
		return log, nil
	}}, time.Now)
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	log = store.RevocationPage{Snapshot: store.Snapshot{Xmax: 50}, Revocations: []store.Revocation{{UserID: 1, Generation: 3, ExpiresAt: time.Now().Add(time.Hour)}}}
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 3 || asked[0] != 0 || asked[1] != 100 || asked[2] != 0 {
		t.Errorf("asked since %v", asked)
	}
	// Generation 3 is the newest again, so its tokens are good; what it revoked is not.
	if err := r.Check(Caller{UserID: 1, Generation: 3}); err != nil {
		t.Errorf("a good token after the restore: %v", err)
	}
	if err := r.Check(Caller{UserID: 1, Generation: 2}); !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("a revoked one: %v", err)
	}
	if err := r.Check(Caller{UserID: 2, JTI: "a"}); !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("a token that was ended before the restore: %v", err)
	}
}

// TestStaleRevocationListRefusesTokens: a replica that can't know of a revocation in time trusts no token.
func TestStaleRevocationListRefusesTokens(t *testing.T) {
	t.Parallel()
	gone := errors.New("no route to host")
	var fail error
	r := testRevocations(scriptedLog{func(store.Snapshot) (store.RevocationPage, error) { return store.RevocationPage{}, fail }}, time.Now)
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	fail = gone
	if err := r.Read(t.Context()); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if err := r.Check(Caller{UserID: 1}); err != nil {
		t.Errorf("right after the last read: %v", err)
	}
	r.asOf = r.asOf.Add(-maxRevocationAge)
	if err := r.Check(Caller{UserID: 1}); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("after %v without the log: %v", maxRevocationAge, err)
	}
	fail = nil
	if err := r.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Check(Caller{UserID: 1}); err != nil {
		t.Errorf("with the log back: %v", err)
	}
}
