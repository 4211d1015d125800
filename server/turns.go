package server

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dlsms/dlsms/library"
)

// turns are slots that are shared out fairly: by address in turn, and within an address, which a campus may share, by student id in turn. So
// however many calls one address makes, a call from another one waits for one of them and for the one that runs.
type turns struct {
	patience time.Duration // how long a call waits at most

	mu        sync.Mutex
	free      int
	round     uint64 // counts arrivals and turns
	waiting   []*waiter
	addresses map[addressKey]*share
	students  map[turn]*share
}

// turn says for whom a call asks.
type turn struct {
	address addressKey
	student string // in lower case
}

// share is an address, or a student id at an address, that has calls waiting.
type share struct {
	round   uint64 // of its last turn, or of its first call: the lowest is next
	waiting int
}

type waiter struct {
	turn

	round uint64
	ready chan struct{} // closed with the lock held
}

func newTurns(n int, patience time.Duration) *turns {
	return &turns{patience: patience, free: max(1, n), addresses: map[addressKey]*share{}, students: map[turn]*share{}}
}

// take waits for a turn, after which release must be called. It fails with ErrOverloaded when there is none in time, or with ctx's error.
func (t *turns) take(ctx context.Context, who turn) error {
	t.mu.Lock()
	if t.free > 0 { // then nobody waits
		t.free--
		t.mu.Unlock()
		return nil
	}
	w := t.join(who)
	t.mu.Unlock()

	timer := time.NewTimer(t.patience)
	defer timer.Stop()
	var err error
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = library.ErrOverloaded
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, w); i >= 0 {
		t.remove(i)
		return err
	}
	if ctx.Err() != nil { // its turn came just now, too late
		t.next()
		return err
	}
	return nil
}

func (t *turns) join(who turn) *waiter {
	t.round++
	for _, s := range []*share{shareOf(t.addresses, who.address, t.round), shareOf(t.students, who, t.round)} {
		s.waiting++
	}
	w := &waiter{turn: who, round: t.round, ready: make(chan struct{})}
	t.waiting = append(t.waiting, w)
	return w
}

func shareOf[K comparable](shares map[K]*share, key K, round uint64) *share {
	if shares[key] == nil {
		shares[key] = &share{round: round}
	}
	return shares[key]
}

// release gives the slot to the next in turn.
func (t *turns) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

func (t *turns) next() {
	if len(t.waiting) == 0 {
		t.free++
		return
	}
	first := slices.MinFunc(t.waiting, func(a, b *waiter) int {
		return cmp.Or(
			cmp.Compare(t.addresses[a.address].round, t.addresses[b.address].round),
			cmp.Compare(t.students[a.turn].round, t.students[b.turn].round),
			cmp.Compare(a.round, b.round),
		)
	})
	t.round++
	t.addresses[first.address].round, t.students[first.turn].round = t.round, t.round
	t.remove(slices.Index(t.waiting, first))
	close(first.ready)
}

// remove takes a call out of those that wait, and forgets shares that have none left.
func (t *turns) remove(i int) {
	w := t.waiting[i]
	t.waiting = slices.Delete(t.waiting, i, i+1)
	if s := t.addresses[w.address]; s.waiting == 1 {
		delete(t.addresses, w.address)
	} else {
		s.waiting--
	}
	if s := t.students[w.turn]; s.waiting == 1 {
		delete(t.students, w.turn)
	} else {
		s.waiting--
	}
}
