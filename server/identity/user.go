package identity

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/dlsms/dlsms/library"
)

const (
	// maxKnown is how many users a replica remembers at least, and half of those that it remembers at most: about 20 MB.
	maxKnown = 50_000
	// maxRefused is the same for tokens of nobody's.
	maxRefused = 10_000
	// identityAge is how long a user is taken for known, and a token for refused, before Postgres is asked again. A deleted user's
	// token works for that long at most.
	identityAge = time.Minute
	// identitiesAtOnce is how many users one statement looks up.
	identitiesAtOnce = 1000
	// identityRetry is how long the look at the users of open streams waits after a failure.
	identityRetry = time.Second
	// lookupTimeout bounds a look-up: it is the budget of a statement in the store.
	lookupTimeout = 5 * time.Second
)

// UserStore is where users are looked up.
type UserStore interface {
	Identities(ctx context.Context, userIDs ...int64) ([]library.Identity, error)
}

// identities knows which users exist in the present database. A signature says that a token was issued by a replica with this secret, not that
// it was for the person who has the user id now: after a restore, or in a fresh database, ids are given again.
type Users struct {
	store   UserStore
	streams Streams
	log     *slog.Logger
	asking  chan struct{} // holds a value for each look-up under way
	wake    chan struct{}

	mu      sync.RWMutex
	users   RecentMap[int64, knownUser]
	refused RecentMap[tokenID, refusal] // so that a bad token is no way to keep Postgres busy
	lookups map[int64]*lookup
}

type knownUser struct {
	library.Identity // zero but for its id: there is no such user

	at time.Time // when Postgres was asked
}

type refusal struct {
	err error
	at  time.Time // when Postgres was asked
}

// lookup is a look at one user that all who ask at the same time share.
type lookup struct {
	done chan struct{}
	user knownUser
	err  error
}

func NewUsers(s UserStore, streams Streams, log *slog.Logger, atOnce int) *Users {
	return &Users{
		store: s, streams: streams, log: log,
		asking: make(chan struct{}, atOnce), wake: make(chan struct{}, 1), lookups: map[int64]*lookup{},
	}
}

// Check returns nil if the caller's token was issued for the user who has that id now. It asks Postgres when the user is not known, and when
// the token does not agree with what is known: another replica may have changed the password. Else it fails with ErrTokenRevoked for a token of
// an earlier generation, with ErrTokenInvalid for one of another person, and with ErrUnavailable where Postgres does not answer.
func (u *Users) Check(ctx context.Context, c Caller) error {
	u.mu.RLock()
	known, ok := u.users.young[c.UserID]
	u.mu.RUnlock()
	if ok && known.refuses(c) == nil && time.Since(known.at) < identityAge {
		return nil
	}
	return u.ask(ctx, c)
}

// refuses returns nil if the token is the user's.
func (k knownUser) refuses(c Caller) error {
	switch {
	case k.StudentID == "" || k.StudentID != c.StudentID || k.TokenGeneration < c.Generation:
		return library.ErrTokenInvalid
	case k.TokenGeneration > c.Generation:
		return library.ErrTokenRevoked
	}
	return nil
}

// Refusal returns why the token was refused before, nil if it was not, or not of late.
func (u *Users) Refusal(c Caller) error {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.refusal(tokenIDOf(c.JTI))
}

// refusal is Refusal for callers that hold the lock.
func (u *Users) refusal(token tokenID) error {
	if r, ok := u.refused.Peek(token); ok && time.Since(r.at) < identityAge {
		return r.err
	}
	return nil
}

// RecordRefusal remembers a token that a call which began at that time found not to be its user's.
func (u *Users) RecordRefusal(c Caller, err error, began time.Time) {
	if !errors.Is(err, library.ErrTokenInvalid) && !errors.Is(err, library.ErrTokenRevoked) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refused.Put(tokenIDOf(c.JTI), refusal{err, began}, maxRefused)
}

func (u *Users) ask(ctx context.Context, c Caller) error {
	token := tokenIDOf(c.JTI)
	for late := false; ; late = true {
		u.mu.Lock()
		if known, ok := u.users.Get(c.UserID, maxKnown); ok && time.Since(known.at) < identityAge && known.refuses(c) == nil {
			u.mu.Unlock()
			return nil
		}
		if err := u.refusal(token); err != nil {
			u.mu.Unlock()
			return err
		}
		l, joined := u.join(ctx, c.UserID)
		u.mu.Unlock()

		select {
		case <-l.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if errors.Is(l.err, errForgotten) {
			continue
		}
		if l.err != nil {
			return l.err
		}
		err := l.user.refuses(c)
		if err == nil {
			return nil
		}
		if joined && !late { // that look-up may have begun before the login that this token is of
			continue
		}
		u.mu.Lock()
		u.refused.Put(token, refusal{err, l.user.at}, maxRefused)
		u.mu.Unlock()
		return err
	}
}

// join returns the look-up of a user that is under way, or begins one.
func (u *Users) join(ctx context.Context, userID int64) (l *lookup, joined bool) {
	if l := u.lookups[userID]; l != nil {
		return l, true
	}
	l = &lookup{done: make(chan struct{})}
	u.lookups[userID] = l
	go u.run(context.WithoutCancel(ctx), userID, l) // for all who join, also when this caller goes
	return l, false
}

// errForgotten says that what was read may be of the database before.
var errForgotten = errors.New("forgotten meanwhile")

// run looks a user up.
func (u *Users) run(ctx context.Context, userID int64, l *lookup) {
	defer close(l.done)
	found, err := u.look(ctx, userID)
	u.mu.Lock()
	defer u.mu.Unlock()
	l.user, l.err = found[userID], err
	if u.lookups[userID] != l {
		l.err = errForgotten
		return
	}
	delete(u.lookups, userID)
	if err == nil {
		u.users.Put(userID, l.user, maxKnown)
	}
}

// look reads users from Postgres. Those that do not exist are in the answer without a student id.
func (u *Users) look(ctx context.Context, userIDs ...int64) (map[int64]knownUser, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	select {
	case u.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, library.ErrUnavailable.WithCause(ctx.Err())
	}
	defer func() { <-u.asking }()
	at := time.Now()
	rows, err := u.store.Identities(ctx, userIDs...)
	if err != nil {
		return nil, err
	}
	found := make(map[int64]knownUser, len(userIDs))
	for _, id := range userIDs {
		found[id] = knownUser{Identity: library.Identity{ID: id}, at: at}
	}
	for _, row := range rows {
		found[row.ID] = knownUser{Identity: row, at: at}
	}
	return found, nil
}

// Forget drops all that is known, as the database may be another one, and has the users of open streams looked at. It does not wait.
func (u *Users) Forget() {
	u.mu.Lock()
	u.users.Clear()
	u.refused.Clear()
	clear(u.lookups)
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// Follow ends open streams whose token is no longer its user's, each minute and after Forget, until ctx ends.
func (u *Users) Follow(ctx context.Context) {
	next := time.NewTimer(identityAge)
	defer next.Stop()
	for up := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-u.wake:
		}
		err := u.checkStreams(ctx)
		if err != nil && up {
			u.log.WarnContext(ctx, "the users of open streams can't be looked up; trying again", "cause", err)
		}
		up = err == nil
		if up {
			next.Reset(identityAge)
		} else {
			next.Reset(identityRetry)
		}
	}
}

func (u *Users) checkStreams(ctx context.Context) error {
	byUser := u.streams.Callers()
	ids := make([]int64, 0, len(byUser))
	for id := range byUser {
		ids = append(ids, id)
	}
	refused := map[Caller]error{}
	for ; len(ids) > 0; ids = ids[min(identitiesAtOnce, len(ids)):] {
		found, err := u.look(ctx, ids[:min(identitiesAtOnce, len(ids))]...)
		if err != nil {
			return err
		}
		for id, user := range found {
			for _, c := range byUser[id] {
				if err := user.refuses(c); err != nil {
					refused[c] = err
				}
			}
		}
	}
	if len(refused) > 0 {
		u.streams.End(func(c Caller) error { return refused[c] })
	}
	return nil
}
