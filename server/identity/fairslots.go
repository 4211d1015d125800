package identity

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dlsms/dlsms/library"
)

// fairSlots are slots that are shared out fairly: by address in turn, and within an address, which a campus may share, by student id in turn. So
// however many calls one address makes, a call from another one waits for one of them and for the one that runs.
type fairSlots struct {
	maxWait time.Duration // how long a call waits at most

	mu        sync.Mutex
	free      int
	round     uint64 // counts arrivals and turns
	waiting   []*waiter
	addresses map[string]*share
	students  map[requester]*share
}

// requester says for whom a call asks.
type requester struct {
	address string // the key by which limits count the client
	student string // in lower case
}

// share is an address, or a student id at an address, that has calls waiting.
type share struct {
	round   uint64 // of its last turn, or of its first call: the lowest is next
	waiting int
}

type waiter struct {
	requester

	round uint64
	ready chan struct{} // closed with the lock held
}

func newFairSlots(n int, maxWait time.Duration) *fairSlots {
	return &fairSlots{maxWait: maxWait, free: max(1, n), addresses: map[string]*share{}, students: map[requester]*share{}}
}

// take waits for a turn, after which release must be called. It fails with ErrOverloaded when there is none in time, or with ctx's error.
func (s *fairSlots) take(ctx context.Context, r requester) error {
	s.mu.Lock()
	if s.free > 0 { // then nobody waits
		s.free--
		s.mu.Unlock()
		return nil
	}
	w := s.join(r)
	s.mu.Unlock()

	timer := time.NewTimer(s.maxWait)
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, w); i >= 0 {
		s.remove(i)
		return err
	}
	if ctx.Err() != nil { // its turn came just now, too late
		s.next()
		return err
	}
	return nil
}

func (s *fairSlots) join(r requester) *waiter {
	s.round++
	for _, s := range []*share{shareOf(s.addresses, r.address, s.round), shareOf(s.students, r, s.round)} {
		s.waiting++
	}
	w := &waiter{requester: r, round: s.round, ready: make(chan struct{})}
	s.waiting = append(s.waiting, w)
	return w
}

func shareOf[K comparable](shares map[K]*share, key K, round uint64) *share {
	if shares[key] == nil {
		shares[key] = &share{round: round}
	}
	return shares[key]
}

// release gives the slot to the next in turn.
func (s *fairSlots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next()
}

func (s *fairSlots) next() {
	if len(s.waiting) == 0 {
		s.free++
		return
	}
	first := slices.MinFunc(s.waiting, func(a, b *waiter) int {
		return cmp.Or(
			cmp.Compare(s.addresses[a.address].round, s.addresses[b.address].round),
			cmp.Compare(s.students[a.requester].round, s.students[b.requester].round),
			cmp.Compare(a.round, b.round),
		)
	})
	s.round++
	s.addresses[first.address].round, s.students[first.requester].round = s.round, s.round
	s.remove(slices.Index(s.waiting, first))
	close(first.ready)
}

// remove takes a call out of those that wait, and forgets shares that have none left.
func (s *fairSlots) remove(i int) {
	w := s.waiting[i]
	s.waiting = slices.Delete(s.waiting, i, i+1)
	if a := s.addresses[w.address]; a.waiting == 1 {
		delete(s.addresses, w.address)
	} else {
		a.waiting--
	}
	if st := s.students[w.requester]; st.waiting == 1 {
		delete(s.students, w.requester)
	} else {
		st.waiting--
	}
}
