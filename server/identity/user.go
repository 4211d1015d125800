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
	// maxKnown is the number of recently used users that a replica remembers. It may remember up to
	// twice as many, about 20 MB.
	maxKnown = 50_000
	// maxRefused is the number of refused tokens that a replica remembers. It may remember up to
	// twice as many.
	maxRefused = 10_000
	// identityAge is how long a replica remembers a user or a refused token before it queries
	// Postgres again. A token of a deleted user is therefore accepted for up to identityAge.
	identityAge = time.Minute
	// usersPerQuery is the number of users that one statement looks up.
	usersPerQuery = 1000
	// checkRetry is the wait after a failed check of the users of open streams.
	checkRetry = time.Second
	// lookupTimeout bounds a look-up. It equals the time limit of a statement in the store.
	lookupTimeout = 5 * time.Second
)

// UserStore looks up users.
type UserStore interface {
	// Identities returns the users with these ids that exist. store.Store implements it.
	Identities(ctx context.Context, userIDs ...int64) ([]library.Identity, error)
}

// Users knows the users of the present database.
//
// The signature of a token proves that a replica with this secret issued the token. It does not
// prove that the token belongs to the user that has this id now: after a restore, or in a new
// database, ids are assigned again.
type Users struct {
	store   UserStore
	streams Streams
	log     *slog.Logger
	running chan struct{} // holds one value for each running query
	wake    chan struct{}

	mu      sync.RWMutex
	users   RecentMap[int64, knownUser]
	refused RecentMap[tokenID, refusal] // an invalid token causes one query a minute
	lookups map[int64]*lookup
}

type knownUser struct {
	library.Identity // if the user does not exist, only the id is set

	at time.Time // start of the query
}

type refusal struct {
	err error
	at  time.Time // start of the query
}

// lookup is one query for one user, shared by all concurrent calls for that user.
type lookup struct {
	done chan struct{}
	user knownUser
	err  error
}

// NewUsers returns Users that run at most concurrency queries at the same time.
func NewUsers(s UserStore, streams Streams, log *slog.Logger, concurrency int) *Users {
	return &Users{
		store: s, streams: streams, log: log,
		running: make(chan struct{}, concurrency), wake: make(chan struct{}, 1), lookups: map[int64]*lookup{},
	}
}

// Check returns nil if the caller's token belongs to the user that now has the user id of the
// token. It queries Postgres in two cases: the replica does not know the user, or the token does
// not match the known user. In the second case, another replica may have changed the password.
//
// Check fails with
//
//   - ErrTokenRevoked for a token of an earlier generation
//   - ErrTokenInvalid for a token of another user
//   - ErrUnavailable if Postgres does not answer
func (u *Users) Check(ctx context.Context, c Caller) error {
	u.mu.RLock()
	known, ok := u.users.young[c.UserID]
	u.mu.RUnlock()
	if ok && known.refuses(c) == nil && time.Since(known.at) < identityAge {
		return nil
	}
	return u.query(ctx, c)
}

// refuses returns nil if the token belongs to the user, and the reason of the refusal otherwise.
func (k knownUser) refuses(c Caller) error { // canary: generation
	switch {
	case k.Closed:
		return library.ErrTokenRevoked
	case k.StudentID == "" || k.StudentID != c.StudentID || k.TokenGeneration < c.Generation:
		return library.ErrTokenInvalid
	case k.TokenGeneration > c.Generation:
		return library.ErrTokenRevoked
	}
	return nil
}

// Refusal returns the error with which the caller's token was refused less than identityAge ago, or
// nil.
func (u *Users) Refusal(c Caller) error {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.refusal(tokenIDOf(c.JTI))
}

// refusal is Refusal for a caller that holds the lock.
func (u *Users) refusal(token tokenID) error {
	if r, ok := u.refused.Peek(token); ok && time.Since(r.at) < identityAge {
		return r.err
	}
	return nil
}

// RecordRefusal remembers that a call refused the caller's token with err. It ignores all errors
// except ErrTokenInvalid and ErrTokenRevoked. began is the start of the call: Refusal returns err
// until identityAge after it.
func (u *Users) RecordRefusal(c Caller, err error, began time.Time) {
	if !errors.Is(err, library.ErrTokenInvalid) && !errors.Is(err, library.ErrTokenRevoked) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refused.Put(tokenIDOf(c.JTI), refusal{err, began}, maxRefused)
}

// query is the part of Check that queries Postgres.
func (u *Users) query(ctx context.Context, c Caller) error {
	token := tokenIDOf(c.JTI)
	for retried := false; ; retried = true {
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
		// The joined look-up may have begun before the login that issued this token.
		if joined && !retried {
			continue
		}
		u.mu.Lock()
		u.refused.Put(token, refusal{err, l.user.at}, maxRefused)
		u.mu.Unlock()
		return err
	}
}

// join returns the running look-up of a user, with joined true. If none is running, it starts one.
func (u *Users) join(ctx context.Context, userID int64) (l *lookup, joined bool) {
	if l := u.lookups[userID]; l != nil {
		return l, true
	}
	l = &lookup{done: make(chan struct{})}
	u.lookups[userID] = l
	// Other calls may join the look-up, so the end of this call must not cancel it.
	go u.run(context.WithoutCancel(ctx), userID, l)
	return l, false
}

// errForgotten is the error of a look-up during which Forget was called: it may have read the
// previous database.
var errForgotten = errors.New("the database changed during the look-up")

// run runs a look-up.
func (u *Users) run(ctx context.Context, userID int64, l *lookup) {
	defer close(l.done)
	found, err := u.read(ctx, userID)
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

// read reads users from Postgres. The result has an entry without a student id for each user that
// does not exist.
func (u *Users) read(ctx context.Context, userIDs ...int64) (map[int64]knownUser, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	select {
	case u.running <- struct{}{}:
	case <-ctx.Done():
		return nil, library.ErrUnavailable.WithCause(ctx.Err())
	}
	defer func() { <-u.running }()
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

// Forget drops all known users and refusals, because the database may have been restored or
// replaced. It makes Follow check the users of open streams. It does not block.
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

// Follow ends the open streams whose token does not belong to its user any longer. It checks the
// streams once a minute and after Forget, until ctx ends.
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
			u.log.WarnContext(ctx, "the look-up of the users of open streams failed; trying again", "cause", err)
		}
		up = err == nil
		if up {
			next.Reset(identityAge)
		} else {
			next.Reset(checkRetry)
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
	for ; len(ids) > 0; ids = ids[min(usersPerQuery, len(ids)):] {
		found, err := u.read(ctx, ids[:min(usersPerQuery, len(ids))]...)
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
