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

// countedStore counts the look-ups of a store; a test may hold them up.
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

func testIdentities(s UserStore) *Users {
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

// TestLookUpsAreShared: a user is looked up once, for all who ask at the same time, and a bad token once, however often it comes.
func TestLookUpsAreShared(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := &countedStore{Store: db.Open(t, library.DefaultPolicy())}
	i := testIdentities(s)
	c := callerOf(t, db, db.Users(t, 1)[0])
	all := func(c Caller, want error) {
		t.Helper()
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				if err := i.Check(t.Context(), c); !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
			})
		}
		callers.Wait()
	}
	all(c, nil)
	if n := s.asked.Load(); n != 1 {
		t.Errorf("a good token made %d look-ups", n)
	}
	older, newer, another, gone := c, c, c, c
	older.JTI, older.Generation = "older", c.Generation-1
	newer.JTI, newer.Generation = "newer", c.Generation+1
	another.JTI, another.StudentID = "another", "B"
	gone.JTI, gone.UserID = "gone", 1<<40
	for n, bad := range []struct {
		Caller
		want error
	}{{older, library.ErrTokenRevoked}, {newer, library.ErrTokenInvalid}, {another, library.ErrTokenInvalid}, {gone, library.ErrTokenInvalid}} {
		s.asked.Store(0)
		for range 100 {
			if err := i.Check(t.Context(), bad.Caller); !errors.Is(err, bad.want) {
				t.Fatalf("bad token %d: %v, want %v", n, err, bad.want)
			}
		}
		if asked := s.asked.Load(); asked != 1 {
			t.Errorf("bad token %d made %d look-ups", n, asked)
		}
	}
	s.asked.Store(0)
	all(c, nil)
	if n := s.asked.Load(); n != 0 {
		t.Errorf("after bad ones, the good token made %d look-ups", n)
	}
	db.Exec(t, `UPDATE users SET token_generation = token_generation + 5`)
	c.JTI, c.Generation = "changed", c.Generation+5
	all(c, nil)
	if n := s.asked.Load(); n > 2 { // one that had begun before may be joined first
		t.Errorf("after a change of the password, the new token made %d look-ups", n)
	}
}

// TestForgetDiscardsRunningLookUp: what was asked before the database changed is not believed after.
func TestForgetDiscardsRunningLookUp(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := &countedStore{Store: db.Open(t, library.DefaultPolicy())}
	i := testIdentities(s)
	c := callerOf(t, db, db.Users(t, 1)[0])
	hold := make(chan struct{})
	s.hold.Store(&hold)
	got := make(chan error, 1)
	go func() { got <- i.Check(t.Context(), c) }()
	storetest.Eventually(t, "a look-up", func() bool { return s.asked.Load() == 1 })
	db.Exec(t, `UPDATE users SET token_generation = token_generation + 5`)
	i.Forget()
	s.hold.Store(nil)
	close(hold)
	if err := <-got; !errors.Is(err, library.ErrTokenRevoked) {
		t.Errorf("a token of the database before: %v", err)
	}
}

// TestKnownUsersDuringOutage: those who are known are let in for as long as revocations are fresh enough; the others must wait.
func TestKnownUsersDuringOutage(t *testing.T) {
	t.Parallel()
	db, pg := storetest.NewCluster(t)
	i := testIdentities(db.Open(t, library.DefaultPolicy()))
	users := db.Users(t, 2)
	known, unknown := callerOf(t, db, users[0]), callerOf(t, db, users[1])
	if err := i.Check(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := i.Check(t.Context(), known); err != nil {
		t.Errorf("a known user: %v", err)
	}
	if err := i.Check(t.Context(), unknown); !errors.Is(err, library.ErrUnavailable) {
		t.Errorf("another one: %v", err)
	}
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	storetest.Eventually(t, "the other one is let in", func() bool { return i.Check(t.Context(), unknown) == nil })
}
