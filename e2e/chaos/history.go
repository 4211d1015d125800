package main

import (
	"sync/atomic"
	"time"
)

// act is what a client wants.
type opKind string

// The acts. A look is at all seats of the plan's days at once, and is kept as one read of each.
const (
	book     opKind = "book"
	cancel   opKind = "cancel"
	extend   opKind = "extend"
	read     opKind = "read"
	checkIn  opKind = "check in"
	checkOut opKind = "check out"
	join     opKind = "join"
	claim    opKind = "claim"
	leave    opKind = "leave"
)

// op is one thing that a client did, from before its first try until after its last.
type op struct {
	Client    int
	Kind      opKind
	Call      time.Duration // since the beginning of the run
	LastCall  time.Duration // of its last try
	Return    time.Duration
	User      int64
	Seat      int64
	Start     time.Time
	End       time.Time
	RequestID string `json:",omitempty"`
	// Reservation is what it was about, or what came of it; of a waitlist act it is the entry.
	Reservation int64 `json:",omitempty"`

	// Reason is why it was refused; empty: it was done.
	Reason string `json:",omitempty"`
	// Unknown says that the last try got no answer; Unsure that one of those before it got none, and may still have been done.
	Unknown, Unsure bool

	// Free and AsOf are what a read saw.
	Free bool
	AsOf time.Duration
}

// done reports whether the system has acknowledged it.
func (o *op) done() bool { return !o.Unknown && o.Reason == "" }

// history is what all clients did. Each has a part of its own, so that they don't wait for each other.
type history struct {
	began   time.Time
	parts   []part
	ops     atomic.Int64 // that got an answer, each read once
	reads   atomic.Int64 // of one seat
	refused atomic.Int64
	tries   atomic.Int64
	// unknown is how many acts were left without an answer, unsure how many got one after a try that had none.
	unknown, unsure atomic.Int64

	found *violations
}

type part struct {
	ops    []op
	served atomic.Int64 // when the last act had an answer that Postgres stood behind, since the beginning of the run
}

func newHistory(clients int, found *violations) *history {
	return &history{began: time.Now(), parts: make([]part, clients), found: found}
}

// all is what each client did.
func (h *history) all() (all [][]op) {
	for i := range h.parts {
		all = append(all, h.parts[i].ops)
	}
	return all
}

func (h *history) since() time.Duration { return time.Since(h.began) }

// allServed reports whether each client has had an answer since a time.
func (h *history) allServed(since time.Duration) bool {
	for i := range h.parts {
		if time.Duration(h.parts[i].served.Load()) < since {
			return false
		}
	}
	return true
}
