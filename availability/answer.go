package availability

import (
	"sync"
	"sync/atomic"
)

// question is everything that an answer depends on, except the world. It is comparable.
type question struct {
	filter
	window
	availableOnly bool
	after         int64
	limit         int
	watched       bool // asked for the snapshot of a watch
	branches      bool // asks about branches, not seats
}

// answer is the answer to a question in one world.
type answer struct {
	page     Page
	branches []BranchView
	until    int64 // the time from which on it is no longer true, if nothing changes before
}

// maxAnswers bounds the cached answers of a generation, and maxCachedSeats the seats in them, of
// some 400 bytes each. There are far fewer common questions. A client that asks thousands of
// different ones gets each answer computed.
const (
	maxAnswers     = 256
	maxCachedSeats = 100_000
)

// answers caches the answers in the worlds of one generation.
type answers struct {
	mu    sync.RWMutex
	asked map[question]*cachedAnswer
	size  atomic.Int64 // seats in the answers
}

// cachedAnswer is an answer that its first reader computes, while the other readers wait.
type cachedAnswer struct {
	once sync.Once
	// once sets these: the answer, and the time of its world.
	answer *answer
	since  int64
}

func newAnswers() *answers { return &answers{asked: map[question]*cachedAnswer{}} }

// cached returns the answer to q in the world of the time now. It computes the answer if the cache
// has none that holds at that time.
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
		case now < e.since: // this reader has an older world
			return compute()
		case now < e.answer.until:
			return e.answer
		}
		e = a.replace(q, e)
	}
}

// replace puts a new entry in the place of old, unless another reader did, and returns the entry
// that is there. It returns nil if the cache is full.
func (a *answers) replace(q question, old *cachedAnswer) *cachedAnswer {
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
	e := new(cachedAnswer)
	a.asked[q] = e
	return e
}

// Encoding is an encoding of answers for clients.
type Encoding int

// The encodings.
const (
	Protobuf Encoding = iota
	JSON

	encodings = iota
)

// memo holds a value for each encoding, such as an encoded answer. Each is computed once.
type memo [encodings]struct {
	once  sync.Once
	value any
}

func (m *memo) get(e Encoding, compute func() any) any {
	slot := &m[e]
	slot.once.Do(func() { slot.value = compute() })
	return slot.value
}
