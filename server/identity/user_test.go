package identity

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// countedStore counts the look-ups of a store. A test can block them.
type countedStore struct {
	*store.Store

	asked atomic.Int64
	hold  atomic.Pointer[chan struct{}]
}

func (c *countedStore) Identities(ctx context.Context, ids ...int64) ([]library.Identity, error) {
	c.asked.Add(1)
	found, err := c.Store.Identities(ctx, ids...)
	if hold := c.hold.Load(); hold != nil {
		<-*hold
	}
	return found, err
}

func testUsers(s UserStore) *Users {
	return NewUsers(s, noStreams{}, slog.New(slog.DiscardHandler), 2)
}

func callerOf(t *testing.T, db *storetest.DB, id int64) Caller {
	t.Helper()
	return Caller{
		UserID: id, JTI: "a",
		StudentID:  storetest.Value[string](t, db, `SELECT student_id FROM users WHERE id = $1`, id),
		Generation: storetest.Value[int64](t, db, `SELECT token_generation FROM users WHERE id = $1`, id),
	}
}

// TestConcurrentChecksShareOneLookUp: concurrent checks of a good token share one look-up of its
// user. A bad token that is checked many times in a row causes one look-up, too.
func TestConcurrentChecksShareOneLookUp(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := &countedStore{Store: db.Open(t, library.DefaultPolicy())}
	u := testUsers(s)
	c := callerOf(t, db, db.Users(t, 1)[0])
	all := func(c Caller, want error) {
		t.Helper()
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				if err := u.Check(t.Context(), c); !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
			})
		}
		callers.Wait()
	}
	all(c, nil)
	if n := s.asked.Load(); n != 1 {
		t.Errorf("a good token caused %d look-ups", n)
	}
	older, newer, another, unknown := c, c, c, c
	older.JTI, older.Generation = "older", c.Generation-1
	newer.JTI, newer.Generation = "newer", c.Generation+1
	another.JTI, another.StudentID = "another", "B"
	unknown.JTI, unknown.UserID = "unknown", 1<<40
	for n, bad := range []struct {
		Caller
		want error
	}{
		{older, library.ErrTokenRevoked}, {newer, library.ErrTokenInvalid},
		{another, library.ErrTokenInvalid}, {unknown, library.ErrTokenInvalid},
	} {
		s.asked.Store(0)
		for range 100 {
			if err := u.Check(t.Context(), bad.Caller); !errors.Is(err, bad.want) {
				t.Fatalf("bad token %d: %v, want %v", n, err, bad.want)
			}
		}
		if asked := s.asked.Load(); asked != 1 {
			t.Errorf("bad token %d caused %d look-ups", n, asked)
		}
	}
	s.asked.Store(0)
	all(c, nil)
	if n := s.asked.Load(); n != 0 {
		t.Errorf("after bad tokens, the good token caused %d look-ups", n)
	}
	db.Exec(t, `UPDATE users SET token_generation = token_generation + 5`)
	c.JTI, c.Generation = "changed", c.Generation+5
	all(c, nil)
	if n := s.asked.Load(); n > 2 { // some calls may join a look-up that began before the change
		t.Errorf("after a change of the password, the new token caused %d look-ups", n)
	}
}

// TestForgetDiscardsRunningLookUp: after Forget, Check does not use the result of a look-up that
// began before Forget.
func TestForgetDiscardsRunningLookUp(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := &countedStore{Store: db.Open(t, library.DefaultPolicy())}
	u := testUsers(s)
	c := callerOf(t, db, db.Users(t, 1)[0])
	hold := make(chan struct{})
	s.hold.Store(&hold)
	got := make(chan error, 1)
	go func() { got <- u.Check(t.Context(), c) }()
	storetest.Eventually(t, "the look-up has begun", func() bool { return s.asked.Load() == 1 })
	db.Exec(t, `UPDATE users SET token_generation = token_generation + 5`)
	u.Forget()
	s.hold.Store(nil)
	close(hold)
	if err := <-got; !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("a token from before the change: %v", err)
	}
}

// TestReasonsOfRefusals: closing an account changes the student id and ends all tokens, so the reason
// is the end of the tokens. The other cases are those after a restore: the id may belong to another
// user, with any generation, or the database may be older than the token.
func TestReasonsOfRefusals(t *testing.T) {
	t.Parallel()
	known := knownUser{Identity: library.Identity{StudentID: "S1", TokenGeneration: 2}}
	for _, tc := range []struct {
		studentID  string
		generation int64
		want       error
	}{
		{"S1", 2, nil},
		{"S1", 1, library.ErrTokenRevoked},
		{"S1", 3, library.ErrTokenInvalid},
		{"S2", 1, library.ErrTokenInvalid},
		{"S2", 2, library.ErrTokenInvalid},
		{"S2", 3, library.ErrTokenInvalid},
	} {
		if err := known.refuses(Caller{StudentID: tc.studentID, Generation: tc.generation}); !errors.Is(err, tc.want) {
			t.Errorf("a token of %s, generation %d: %v, want %v", tc.studentID, tc.generation, err, tc.want)
		}
	}
	known.StudentID, known.Closed = "gone-1", true
	for generation := int64(1); generation <= 3; generation++ {
		if err := known.refuses(Caller{StudentID: "S1", Generation: generation}); !errors.Is(err, library.ErrTokenRevoked) {
			t.Errorf("a closed account, generation %d: %v", generation, err)
		}
	}
	if err := (knownUser{}).refuses(Caller{}); !errors.Is(err, library.ErrTokenInvalid) {
		t.Errorf("no user: %v", err)
	}
}

// TestCheckAcceptsKnownUsersDuringOutage: while Postgres is down, Check accepts known users and
// returns ErrUnavailable for all other users.
func TestCheckAcceptsKnownUsersDuringOutage(t *testing.T) {
	t.Parallel()
	db, pg := storetest.NewCluster(t)
	u := testUsers(db.Open(t, library.DefaultPolicy()))
	users := db.Users(t, 2)
	known, unknown := callerOf(t, db, users[0]), callerOf(t, db, users[1])
	if err := u.Check(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := u.Check(t.Context(), known); err != nil {
		t.Errorf("a known user: %v", err)
	}
	if err := u.Check(t.Context(), unknown); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("an unknown user: %v", err)
	}
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	storetest.Eventually(t, "the unknown user is accepted", func() bool { return u.Check(t.Context(), unknown) == nil })
}
