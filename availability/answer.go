package availability

import (
	"sync"
	"sync/atomic"
)

// question is everything that an answer depends on, except the world. It is comparable, because it
// is a key of the cache.
type question struct {
	filter
	window
	availableOnly bool
	after         int64
	limit         int
	watched       bool // for the snapshot of a watch
	branches      bool // asks about branches, not seats
}

// answer is the answer to a question in one world.
type answer struct {
	page     Page
	branches []BranchView
	until    int64 // the answer is true until this time, unless a booking or the catalog changes
}

// maxAnswers is the largest number of answers in a cache. maxCachedSeats is the largest number of
// seats in all of these answers: they take 40 MB, because a seat takes about 400 bytes. Many
// clients ask the same few questions, so the cache is seldom full. When the cache is full, the
// answer to any other question is computed for each reader.
const (
	maxAnswers     = 256
	maxCachedSeats = 100_000
)

// answers is the cache of answers that all worlds of one generation share: see world.generation.
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

// cached returns the answer to q in the world whose time is now. If the cache has no answer that is
// true at that time, cached computes it.
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

// replace puts a new, empty entry for the question q into the cache, in the place of the entry old,
// and returns the new entry. If another reader has replaced old already, replace returns the entry
// of that reader. If the cache is full, it returns nil.
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
