package main

import "sync"

// tagged is an answer of GetSeats with its ETag.
type tagged struct {
	etag  string
	seats map[int64]bool
}

// tags keeps the last answer for each URL, as the cache of a browser does.
type tags struct {
	mu   sync.Mutex
	last map[string]tagged
}

func (t *tags) of(url string) tagged {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last[url]
}

func (t *tags) keep(url string, answer tagged) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last = map[string]tagged{}
	}
	t.last[url] = answer
}
