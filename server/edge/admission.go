package edge

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/library"
)

// slots bounds how many calls of one kind run at the same time: each of them holds a slot. A call
// that finds no free slot waits for one, for at most maxWait. The number of waiting calls is not
// bounded, so a short burst of calls is delayed and not refused.
//
// A call that gets no slot in time is refused. The refusal shows that there is more work than the
// replica can do. A long wait would then only delay every call. So calls that arrive during the
// next second (overloadPeriod) wait for at most overloadWait.
type slots struct {
	taken        chan struct{}
	maxWait      time.Duration
	overloadWait time.Duration // replaces maxWait during an overload
	refused      atomic.Int64  // time from processStart to the last refusal; 0: no call was refused
}

// overloadPeriod is the time after a refusal during which slots count as overloaded.
const overloadPeriod = time.Second

func newSlots(n int, maxWait, overloadWait time.Duration) *slots {
	return &slots{taken: make(chan struct{}, max(1, n)), maxWait: maxWait, overloadWait: overloadWait}
}

// acquire waits for a slot. The caller must release it. acquire fails with ErrOverloaded if no slot
// is free in time, or with the error of ctx.
func (s *slots) acquire(ctx context.Context) error {
	select {
	case s.taken <- struct{}{}:
		return nil
	default:
	}
	wait := s.maxWait
	if at := s.refused.Load(); at != 0 && time.Since(processStart)-time.Duration(at) < overloadPeriod {
		wait = s.overloadWait
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case s.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		s.refused.Store(int64(time.Since(processStart)))
		return library.ErrOverloaded
	}
}

func (s *slots) release() { <-s.taken }

// inUse returns the number of slots in use.
func (s *slots) inUse() int { return len(s.taken) }

// admission bounds the calls that use Postgres. Each class of calls has its own slots, so that many
// calls of one class do not delay calls of another class. There are fewer slots than connections,
// so a call seldom waits for a connection. Logins have no slots here: identity.Passwords bounds
// them.
type admission struct {
	classes map[class]*slots
	users   *userSlots
}

// newAdmission divides the connections of the pool: 7/16 for calls that write, 7/16 for calls that
// read, 1/16 for scans, and the rest for logins and public reads. Clients that scan have no token, so
// they get slots of their own, and too many of them delay no other call.
func newAdmission(conns int) *admission {
	n := max(1, conns*7/16)
	return &admission{
		classes: map[class]*slots{
			book: newSlots(n, admissionWait, admissionOverloadWait),
			read: newSlots(n, admissionWait, admissionOverloadWait),
			scan: newSlots(conns/16, admissionWait, admissionOverloadWait),
			bulk: newSlots(1, bulkWait, bulkWait), // the store has one connection for them
			// The store has one connection for each of these.
			report: newSlots(1, userWait, userWait),
			export: newSlots(1, admissionWait, admissionWait),
		},
		users: &userSlots{each: min(slotsPerUser, max(1, n/2)), open: map[int64]*ownSlots{}},
	}
}

const (
	admissionWait         = 500 * time.Millisecond // for a slot of the class
	admissionOverloadWait = 10 * time.Millisecond  // for a slot of the class, during an overload
	userWait              = DefaultDeadline / 2    // for a slot of the user
	bulkWait              = BulkDeadline / 2       // for the slot of class bulk, which is often held for seconds
)

// enter waits for the slots that a call needs. c.finish releases them.
func (a *admission) enter(ctx context.Context, c *call) error {
	s, ok := a.classes[c.rule.class]
	if !ok {
		return nil
	}
	if c.rule.class == book && c.caller.Key == nil { // a turnstile serves many users
		if err := a.users.enter(ctx, c); err != nil {
			return err
		}
	}
	if err := s.acquire(ctx); err != nil {
		return err
	}
	c.onFinish(s.release)
	return nil
}

// slotsPerUser is how many slots of its own a user has for calls of class book, which write. With a
// small connection pool a user has fewer: see newAdmission. A call of class book waits twice:
//  1. It waits for one of the slots of its user, for at most userWait.
//  2. It then waits for one of the slots of class book, which all users share, for at most
//     admissionWait.
//
// So the calls of one user hold at most slotsPerUser slots of class book. More would achieve
// little, because Postgres runs most writes of one user one after another, and would delay the
// other users. The first wait may be longer than the second, because a call that still waits for a
// slot of its user delays no other user.
const slotsPerUser = 4

// userSlots holds the slots of each user with running calls of class book.
type userSlots struct {
	each int // slots of one user

	mu   sync.Mutex
	open map[int64]*ownSlots
}

type ownSlots struct {
	*slots

	calls int // calls that hold a slot of the user or wait for one
}

// enter waits for one of the slots of the caller: the first wait of slotsPerUser.
func (u *userSlots) enter(ctx context.Context, c *call) error {
	user := c.caller.UserID
	u.mu.Lock()
	own := u.open[user]
	if own == nil {
		own = &ownSlots{slots: newSlots(u.each, userWait, admissionWait)}
		u.open[user] = own
	}
	own.calls++
	u.mu.Unlock()
	c.onFinish(func() { u.leave(user, own) })
	if err := own.acquire(ctx); err != nil {
		return err
	}
	c.onFinish(own.release)
	return nil
}

func (u *userSlots) leave(user int64, own *ownSlots) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if own.calls--; own.calls == 0 {
		delete(u.open, user)
	}
}

// OccupyBookSlots acquires every slot of class book, for tests of an overload. release releases
// them.
func (e *Edge) OccupyBookSlots(ctx context.Context) (release func(), err error) {
	s := e.admission.classes[book]
	for range cap(s.taken) {
		if err := s.acquire(ctx); err != nil {
			return nil, err
		}
	}
	return func() {
		for range cap(s.taken) {
			s.release()
		}
	}, nil
}
