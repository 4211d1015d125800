package main

import (
	"sync/atomic"
	"time"
)

// opKind is the kind of an operation.
type opKind string

// The kinds of operations. A GetSeats call reads all seats of the plans branch in one window. The
// history records it as several reads: one for each seat.
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
	// closeSeat and liftSeat are operations of the librarian: see librarian. sweepSeat is the sweep of
	// a closure. It lasts from the call that makes the closure until the system says that the sweep is
	// done. A closure of several seats is recorded once for each seat.
	closeSeat opKind = "close"
	sweepSeat opKind = "sweep"
	liftSeat  opKind = "lift"
)

// op is one operation of a client, with the times of its call, its last try and its return.
type op struct {
	Client    int
	Kind      opKind
	Call      time.Duration // since the start of the run
	LastCall  time.Duration // start of the last try
	Return    time.Duration
	User      int64
	Seat      int64
	Start     time.Time
	End       time.Time
	RequestID string `json:",omitempty"`
	// Reservation is the id of the reservation that the operation made or is about. In operations
	// of the waitlist it is the id of the entry, and in those of the librarian the id of the closure.
	Reservation int64 `json:",omitempty"`

	// Reason is the reason of the refusal. It is empty if the operation was done.
	Reason string `json:",omitempty"`
	// Unknown reports that the last try had no answer. Unsure reports that an earlier try had no
	// answer. In both cases the system may have done the operation.
	Unknown, Unsure bool

	// Free and AsOf are the result of a read: whether the seat was free, and at which time.
	Free bool
	AsOf time.Duration

	// Codes are those of a check-in. Proof is the proof in the answer, and the name of the screen.
	Codes presented `json:",omitzero"`
	Proof string    `json:",omitempty"`

	// HTTP reports that the call was made over HTTP. NotModified reports that the answer was 304, so
	// that Free and AsOf are those of the answer before.
	HTTP        bool `json:",omitempty"`
	NotModified bool `json:",omitempty"`
}

// done reports whether the system acknowledged the operation.
func (o *op) done() bool { return !o.Unknown && o.Reason == "" }

// history has the operations of all clients. Each client writes its own part, so that clients do
// not wait for each other.
type history struct {
	began   time.Time
	parts   []part
	ops     atomic.Int64 // answered operations; one GetSeats counts once
	reads   atomic.Int64 // reads of one seat
	refused atomic.Int64
	tries   atomic.Int64
	// overHTTP counts the answered operations over HTTP. notModified counts those with a 304.
	overHTTP, notModified atomic.Int64
	// unknown counts the operations without an answer. unsure counts the operations whose answer
	// came after a try without an answer.
	unknown, unsure atomic.Int64

	found *violations
}

type part struct {
	ops []op
	// served is the time of the last answer that shows that the system works (see attempt), since
	// the start of the run.
	served atomic.Int64
}

func newHistory(clients int, found *violations) *history {
	return &history{began: time.Now(), parts: make([]part, clients), found: found}
}

// all returns the operations of each client.
func (h *history) all() (all [][]op) {
	for i := range h.parts {
		all = append(all, h.parts[i].ops)
	}
	return all
}

func (h *history) since() time.Duration { return time.Since(h.began) }

// allServed reports whether each client has been served at or after the time since.
func (h *history) allServed(since time.Duration) bool {
	for i := range h.parts {
		if time.Duration(h.parts[i].served.Load()) < since {
			return false
		}
	}
	return true
}
