package main

import (
	"testing"
	"time"
)

func TestFreshnessFindsStaleAnswers(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	f := newFreshness([]int64{1, 2})
	read := func(sent int, counted bool, available ...int64) bool {
		shown := map[int64]bool{}
		for _, id := range available {
			shown[id] = true
		}
		return f.judge(f.look(), shown, at(sent), counted)
	}

	if read(0, true, 1, 2) {
		t.Error("the first answer counts as stale")
	}
	f.change(1)
	f.acknowledge(1, false, at(1))
	if !read(4, true, 1, 2) {
		t.Error("an answer without an acknowledged booking counts as right")
	}
	if !read(9, false, 1, 2) { // it repeats the read above
		t.Error("an answer that is not counted counts as right")
	}
	if read(10, true, 2) {
		t.Error("an answer with the booking counts as stale")
	}
	f.change(1)
	f.acknowledge(1, true, at(11))
	if !read(12, true, 2) {
		t.Error("an answer without an acknowledged cancellation counts as right")
	}
	if f.checked != 4 || f.stale != 2 || f.greatest != 8*time.Second {
		t.Errorf("%d of %d answers are stale, the oldest by %s; want 2 of 4, 8s", f.stale, f.checked, f.greatest)
	}
}

// TestFreshnessIgnoresChangesInFlight checks that an answer may show either state of a seat while
// a change is in flight, and that the other seats still count.
func TestFreshnessIgnoresChangesInFlight(t *testing.T) {
	t.Parallel()
	f := newFreshness([]int64{1, 2})
	now := time.Now()

	f.change(1)
	during := f.look()
	for _, answer := range []map[int64]bool{{1: true, 2: true}, {2: true}} {
		if f.judge(during, answer, now, true) {
			t.Errorf("%v counts as stale while seat 1 changes", answer)
		}
	}
	if !f.judge(during, map[int64]bool{1: true}, now, true) {
		t.Error("seat 2 does not count while seat 1 changes")
	}
	f.acknowledge(1, false, now)
	if f.judge(during, map[int64]bool{1: true, 2: true}, now, true) {
		t.Error("a read that began before the acknowledgement counts as stale")
	}

	before := f.look()
	f.change(1)
	if f.judge(before, map[int64]bool{1: true, 2: true}, now, true) {
		t.Error("a read during which a change began counts as stale")
	}
	f.acknowledge(1, true, now)
	if f.judge(before, map[int64]bool{2: true}, now, true) {
		t.Error("a read during which a change was made counts as stale")
	}
}
