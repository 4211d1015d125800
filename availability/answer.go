package availability

import (
	"sync"
	"sync/atomic"
)

// question is all that an answer depends on, but for the world. It is comparable.
type question struct {
	filter
	window
	availableOnly bool
	after         int64
	limit         int
	watched       bool // for the snapshot of a watch
	branches      bool // about branches, not seats
}

// answer is what a question got.
type answer struct {
	page     Page
	branches []BranchView
	until    int64 // when it stops being true, if nothing happens before
}

// maxAnswers bounds the answers kept of a generation, and maxCachedSeats the seats in them, of some 400 bytes each. There are far fewer common
// questions; whoever thinks up thousands gets each computed.
const (
	maxAnswers     = 256
	maxCachedSeats = 100_000
)

// answers keeps what was asked about the worlds of one generation.
type answers struct {
	mu    sync.RWMutex
	asked map[question]*asked
	size  atomic.Int64 // seats in the answers
}

// asked is a question whose answer the first one who needs it computes, while others who ask wait for that.
type asked struct {
	once sync.Once
	// Set by once: the answer, and the time of the world that it was found in.
	answer *answer
	since  int64
}

func newAnswers() *answers { return &answers{asked: map[question]*asked{}} }

// kept returns the answer to q in the world of the time now, computing it if none is at hand that holds then.
func (a *answers) cached(q question, now int64, compute func() *answer) *answer {
	a.mu.RLock()
	e := a.asked[q]
	a.mu.RUnlock()
	for {
		if e == nil {
			if e = a.replace(q, nil); e == nil {
				return compute()
			}
		}
		e.once.Do(func() {
			e.answer, e.since = compute(), now
			a.size.Add(int64(len(e.answer.page.Seats)))
		})
		switch {
		case now < e.since: // this reader still has an earlier world
			return compute()
		case now < e.answer.until:
			return e.answer
		}
		e = a.replace(q, e)
	}
}

// replace puts an empty answer in the place of the old one, unless somebody else did, and returns what is there; nil: there is no room.
func (a *answers) replace(q question, old *asked) *asked {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.asked[q]; e != old {
		return e
	}
	switch {
	case old != nil:
		a.size.Add(-int64(len(old.answer.page.Seats)))
	case len(a.asked) == maxAnswers, a.size.Load() >= maxCachedSeats:
		return nil
	}
	e := new(asked)
	a.asked[q] = e
	return e
}

// memo is a place for what is derived from an answer, once.
type memo struct {
	once  sync.Once
	value any
}

func (m *memo) get(compute func() any) any {
	m.once.Do(func() { m.value = compute() })
	return m.value
}
