package identity

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dlsms/dlsms/library"
)

// fairSlots grants slots to waiting calls in turn: round-robin by address, and among the calls of
// one address, round-robin by student id. The second round-robin exists because all students of a
// campus may share an address.
//
// If one address has many waiting calls, a call from another address waits only until a running
// call ends and at most one call of the busy address has run.
type fairSlots struct {
	maxWait time.Duration

	mu        sync.Mutex
	free      int
	round     uint64 // increases with each call that waits and each slot that is granted
	waiting   []*waiter
	addresses map[string]*share
	students  map[requester]*share
}

// requester identifies the client and the student of a call.
type requester struct {
	address string // the key by which limits count the client
	student string // in lower case
}

// share is the state of an address, or of a student id at an address, that has waiting calls. The
// share with the lowest round gets the next slot. Its round is the round of the last slot that it
// got, or of its first waiting call if it got none.
type share struct {
	round   uint64
	waiting int // calls
}

type waiter struct {
	requester

	round uint64
	ready chan struct{} // closed, with the lock held, when the slot is granted
}

func newFairSlots(n int, maxWait time.Duration) *fairSlots {
	return &fairSlots{
		maxWait: maxWait, free: max(1, n),
		addresses: map[string]*share{}, students: map[requester]*share{},
	}
}

// acquire waits for a slot. The caller must release it. acquire fails with ErrOverloaded after
// maxWait, or with the error of ctx.
func (s *fairSlots) acquire(ctx context.Context, r requester) error {
	s.mu.Lock()
	if s.free > 0 { // then no call waits
		s.free--
		s.mu.Unlock()
		return nil
	}
	w := s.enqueue(r)
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
	if ctx.Err() != nil { // the slot was granted after ctx had ended
		s.grantNext()
		return err
	}
	return nil
}

func (s *fairSlots) enqueue(r requester) *waiter {
	s.round++
	shareOf(s.addresses, r.address, s.round).waiting++
	shareOf(s.students, r, s.round).waiting++
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

// release passes the slot to the next call.
func (s *fairSlots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grantNext()
}

func (s *fairSlots) grantNext() {
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

// remove removes the waiting call at index i, and the shares that have no waiting calls left.
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
