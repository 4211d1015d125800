package server

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
)

// identityStore is where users are looked up.
type identityStore interface {
	Identities(ctx context.Context, userIDs ...int64) ([]library.Identity, error)
}

// identities knows which users exist in the present database. A signature says that a token was issued by a replica with this secret, not that
// it was for the person who has the user id now: after a restore, or in a fresh database, ids are given again.
type identities struct {
	store   identityStore
	streams *streams
	slog    *slog.Logger
	asking  chan struct{} // holds a value for each look-up under way
	wake    chan struct{}

	mu      sync.RWMutex
	users   recent[int64, knownUser]
	refused recent[tokenID, refusal] // so that a bad token is no way to keep Postgres busy
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

func newIdentities(s identityStore, streams *streams, log *slog.Logger, atOnce int) *identities {
	return &identities{
		store: s, streams: streams, slog: log,
		asking: make(chan struct{}, atOnce), wake: make(chan struct{}, 1), lookups: map[int64]*lookup{},
	}
}

// check returns nil if the caller's token was issued for the user who has that id now. It asks Postgres when the user is not known, and when
// the token does not agree with what is known: another replica may have changed the password. Else it fails with ErrTokenRevoked for a token of
// an earlier generation, with ErrTokenInvalid for one of another person, and with ErrUnavailable where Postgres does not answer.
func (i *identities) check(ctx context.Context, c Caller) error {
	i.mu.RLock()
	known, ok := i.users.young[c.UserID]
	i.mu.RUnlock()
	if ok && known.refuses(c) == nil && time.Since(known.at) < identityAge {
		return nil
	}
	return i.ask(ctx, c)
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

// recall returns why the token was refused before, nil if it was not, or not of late.
func (i *identities) recall(c Caller) error {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.refusal(tokenIDOf(c.JTI))
}

// refusal is recall for callers that hold the lock.
func (i *identities) refusal(token tokenID) error {
	if r, ok := i.refused.peek(token); ok && time.Since(r.at) < identityAge {
		return r.err
	}
	return nil
}

// learn remembers a token that a call which began at that time found not to be its user's.
func (i *identities) learn(c Caller, err error, began time.Time) {
	if !errors.Is(err, library.ErrTokenInvalid) && !errors.Is(err, library.ErrTokenRevoked) {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refused.put(tokenIDOf(c.JTI), refusal{err, began}, maxRefused)
}

func (i *identities) ask(ctx context.Context, c Caller) error {
	token := tokenIDOf(c.JTI)
	for late := false; ; late = true {
		i.mu.Lock()
		if known, ok := i.users.get(c.UserID, maxKnown); ok && time.Since(known.at) < identityAge && known.refuses(c) == nil {
			i.mu.Unlock()
			return nil
		}
		if err := i.refusal(token); err != nil {
			i.mu.Unlock()
			return err
		}
		l, joined := i.join(ctx, c.UserID)
		i.mu.Unlock()

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
		i.mu.Lock()
		i.refused.put(token, refusal{err, l.user.at}, maxRefused)
		i.mu.Unlock()
		return err
	}
}

// join returns the look-up of a user that is under way, or begins one.
func (i *identities) join(ctx context.Context, userID int64) (l *lookup, joined bool) {
	if l := i.lookups[userID]; l != nil {
		return l, true
	}
	l = &lookup{done: make(chan struct{})}
	i.lookups[userID] = l
	go i.run(context.WithoutCancel(ctx), userID, l) // for all who join, also when this caller goes
	return l, false
}

// errForgotten says that what was read may be of the database before.
var errForgotten = errors.New("forgotten meanwhile")

// run looks a user up.
func (i *identities) run(ctx context.Context, userID int64, l *lookup) {
	defer close(l.done)
	found, err := i.look(ctx, userID)
	i.mu.Lock()
	defer i.mu.Unlock()
	l.user, l.err = found[userID], err
	if i.lookups[userID] != l {
		l.err = errForgotten
		return
	}
	delete(i.lookups, userID)
	if err == nil {
		i.users.put(userID, l.user, maxKnown)
	}
}

// look reads users from Postgres. Those that do not exist are in the answer without a student id.
func (i *identities) look(ctx context.Context, userIDs ...int64) (map[int64]knownUser, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultDeadline)
	defer cancel()
	select {
	case i.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, library.ErrUnavailable.WithCause(ctx.Err())
	}
	defer func() { <-i.asking }()
	at := time.Now()
	rows, err := i.store.Identities(ctx, userIDs...)
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

// forget drops all that is known, as the database may be another one, and has the users of open streams looked at. It does not wait.
func (i *identities) forget() {
	i.mu.Lock()
	i.users.clear()
	i.refused.clear()
	clear(i.lookups)
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// follow ends open streams whose token is no longer its user's, each minute and after forget, until ctx ends.
func (i *identities) follow(ctx context.Context) {
	next := time.NewTimer(identityAge)
	defer next.Stop()
	for up := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-i.wake:
		}
		err := i.checkStreams(ctx)
		if err != nil && up {
			i.slog.WarnContext(ctx, "the users of open streams can't be looked up; trying again", "cause", err)
		}
		up = err == nil
		if up {
			next.Reset(identityAge)
		} else {
			next.Reset(identityRetry)
		}
	}
}

func (i *identities) checkStreams(ctx context.Context) error {
	byUser := i.streams.callers()
	ids := make([]int64, 0, len(byUser))
	for id := range byUser {
		ids = append(ids, id)
	}
	refused := map[Caller]error{}
	for ; len(ids) > 0; ids = ids[min(identitiesAtOnce, len(ids)):] {
		found, err := i.look(ctx, ids[:min(identitiesAtOnce, len(ids))]...)
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
		i.streams.end(func(c Caller) error { return refused[c] })
	}
	return nil
}
