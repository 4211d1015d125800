package edge

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlsms/dlsms/library"
)

// slots bounds how many do something at once. The others wait in line, bounded by time and not by the length of the line: a short rush is
// absorbed. But once somebody has waited in vain, there is more work than can be done, and waiting would only make everybody late: for the
// next second, newcomers are told so within the shorter patience.
type slots struct {
	taken    chan struct{}
	patience time.Duration // in a rush
	crowded  time.Duration // in an overload
	refused  atomic.Int64  // when somebody last waited in vain, since processStart; 0: never
}

// overloadMemory is how long after a refusal the line counts as overloaded.
const overloadMemory = time.Second

func newSlots(n int, patience, crowded time.Duration) *slots {
	return &slots{taken: make(chan struct{}, max(1, n)), patience: patience, crowded: crowded}
}

// take waits for a slot, which must be released. It fails with ErrOverloaded when there is none in time, or with ctx's error.
func (s *slots) take(ctx context.Context) error {
	select {
	case s.taken <- struct{}{}:
		return nil
	default:
	}
	patience := s.patience
	if at := s.refused.Load(); at != 0 && time.Since(processStart)-time.Duration(at) < overloadMemory {
		patience = s.crowded
	}
	timer := time.NewTimer(patience)
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

// inUse returns how many slots are taken.
func (s *slots) inUse() int { return len(s.taken) }

// admission bounds the calls that use Postgres, each class by itself, so that a rush of one leaves room for the others, and the pool of
// connections has no line of its own to speak of. Logins have a narrower bound than a connection: see passwords.
type admission struct {
	classes map[class]*slots
	bookers *bookers
}

// newAdmission shares out the connections: one half each for those who write and those who read, but for an eighth that is left to logins
// and browsing.
func newAdmission(conns int) *admission {
	n := max(1, conns*7/16)
	return &admission{
		classes: map[class]*slots{
			book: newSlots(n, rushPatience, crowdedPatience),
			read: newSlots(n, rushPatience, crowdedPatience),
		},
		bookers: &bookers{each: min(slotsOfUser, max(1, n/2)), now: map[int64]*ownSlots{}},
	}
}

const (
	rushPatience    = 500 * time.Millisecond
	crowdedPatience = 10 * time.Millisecond
	ownPatience     = DefaultDeadline / 2
)

// enter waits for the call's turn; its slots are given back when the call is finished.
func (a *admission) enter(ctx context.Context, c *call) error {
	s, ok := a.classes[c.rule.class]
	if !ok {
		return nil
	}
	if c.rule.class == book {
		if err := a.bookers.enter(ctx, c); err != nil {
			return err
		}
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	c.onFinish(s.release)
	return nil
}

// slotsOfUser is how many calls of one user may wait for a slot of those who book, or hold one, at most. Most of what one user writes Postgres
// does one after the other: more of them would get little done, and keep the slots from others. Who waits for themselves keeps nothing from
// anybody, and may do so for longer.
const slotsOfUser = 4

// bookers are the slots of each user who has a call of that class under way.
type bookers struct {
	each int // user

	mu  sync.Mutex
	now map[int64]*ownSlots
}

type ownSlots struct {
	*slots

	calls int // that have them
}

// enter waits until the caller has few enough calls under way.
func (b *bookers) enter(ctx context.Context, c *call) error {
	user := c.caller.UserID
	b.mu.Lock()
	own := b.now[user]
	if own == nil {
		own = &ownSlots{slots: newSlots(b.each, ownPatience, rushPatience)}
		b.now[user] = own
	}
	own.calls++
	b.mu.Unlock()
	c.onFinish(func() { b.leave(user, own) })
	if err := own.take(ctx); err != nil {
		return err
	}
	c.onFinish(own.release)
	return nil
}

func (b *bookers) leave(user int64, own *ownSlots) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if own.calls--; own.calls == 0 {
		delete(b.now, user)
	}
}

// OccupyBookSlots takes every slot of the calls that write, for tests of an overload. release gives them back.
func (e *Edge) OccupyBookSlots(ctx context.Context) (release func(), err error) {
	s := e.admission.classes[book]
	for range cap(s.taken) {
		if err := s.take(ctx); err != nil {
			return nil, err
		}
	}
	return func() {
		for range cap(s.taken) {
			s.release()
		}
	}, nil
}
