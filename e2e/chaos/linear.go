package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkLinear compares the answers of the system with a model. The model of one seat on one day is
// the set of windows that reservations and closures take. Operations on other seats and days do not
// change this set, so the operations on each seat and day are checked separately.

// takenWindow is a window of a seat that cannot be reserved.
type takenWindow struct {
	reservation int64 // 0 for a closure
	start, end  int64 // in the same unit in all windows of a seatDay
	closure     int64 // its id; 0 for a reservation
	// swept says that a sweep has ended the reservation. A call of its user that ends it succeeds
	// nevertheless.
	swept bool
}

func (t takenWindow) overlaps(start, end int64) bool { return t.start < end && start < t.end }

// seatDay is the state of the model: the windows of a seat in the order of their starts. It is
// immutable.
type seatDay []takenWindow

// free reports whether no reservation and no closure takes a part of the window. It ignores one
// reservation, whose id is the parameter except.
func (s seatDay) free(start, end, except int64) bool {
	return !s.taken(start, end, except) && !s.closed(start, end)
}

// taken reports whether a reservation takes a part of the window, apart from the reservation except.
func (s seatDay) taken(start, end, except int64) bool {
	return slices.ContainsFunc(s, func(t takenWindow) bool {
		return t.closure == 0 && !t.swept && t.reservation != except && t.overlaps(start, end)
	})
}

func (s seatDay) closed(start, end int64) bool {
	return slices.ContainsFunc(s, func(t takenWindow) bool { return t.closure != 0 && t.overlaps(start, end) })
}

// endOf returns the end of a reservation, 0 if there is none. The time that an extension adds begins
// there, and only this time must be outside of closures.
func (s seatDay) endOf(reservation int64) int64 {
	for _, t := range s {
		if t.closure == 0 && t.reservation == reservation {
			return t.end
		}
	}
	return 0
}

func (s seatDay) swept(reservation int64) bool {
	return slices.ContainsFunc(s, func(t takenWindow) bool { return t.reservation == reservation && t.swept })
}

func (s seatDay) with(t takenWindow) seatDay {
	out := append(slices.Clone(s), t)
	slices.SortFunc(out, func(a, b takenWindow) int {
		return cmp.Or(cmp.Compare(a.start, b.start),
			cmp.Compare(a.reservation, b.reservation), cmp.Compare(a.closure, b.closure))
	})
	return out
}

func (s seatDay) without(reservation int64) seatDay {
	return slices.DeleteFunc(slices.Clone(s), func(t takenWindow) bool {
		return t.closure == 0 && t.reservation == reservation
	})
}

// sweep returns the state after the sweep of a closure, which ends the reservations inside. All those
// of one seat end in one transaction.
func (s seatDay) sweep(start, end int64) seatDay {
	out := slices.Clone(s)
	for i := range out {
		if out[i].closure == 0 && out[i].overlaps(start, end) {
			out[i].swept = true
		}
	}
	return out
}

func (s seatDay) lift(closure int64) seatDay {
	return slices.DeleteFunc(slices.Clone(s), func(t takenWindow) bool { return t.closure == closure })
}

// apply is the model of one operation at a time. It reports whether the operation can have the
// answer in o if the seat is in state s, and returns the state after the operation.
func (s seatDay) apply(o *op) (legal bool, after seatDay) {
	start, end := o.Start.Unix(), o.End.Unix()
	switch o.Kind {
	case read:
		return s.free(start, end, 0) == o.Free, s
	case book:
		switch o.Reason {
		case "SEAT_CLOSED":
			return s.closed(start, end), s
		case "SEAT_TAKEN": // a closure comes first
			return s.taken(start, end, 0) && !s.closed(start, end), s
		}
		return s.free(start, end, 0), s.with(takenWindow{reservation: o.Reservation, start: start, end: end})
	case cancel:
		after = s.without(o.Reservation)
		return len(after) < len(s), after
	case extend:
		taken, closed := s.taken(start, end, o.Reservation), s.closed(s.endOf(o.Reservation), end)
		switch {
		case s.swept(o.Reservation):
			return !o.done(), s
		case o.Reason == "SEAT_CLOSED":
			return closed, s
		case o.Reason == "SEAT_TAKEN":
			return taken && !closed, s
		}
		after = s.without(o.Reservation)
		return !taken && !closed && len(after) < len(s),
			after.with(takenWindow{reservation: o.Reservation, start: start, end: end})
	case closeSeat:
		return true, s.with(takenWindow{closure: o.Reservation, start: start, end: end})
	case sweepSeat:
		return s.closed(start, end), s.sweep(start, end)
	case liftSeat:
		after = s.lift(o.Reservation)
		return len(after) < len(s), after
	case checkIn, checkOut, join, claim, leave:
	}
	return false, s
}

// aboutSeat reports whether the answer shows something about the state of the seat. The model
// checks only such operations. Most refusals of a booking have a reason that concerns the user, so
// they are not checked.
func aboutSeat(o *op) bool {
	switch o.Kind {
	case read, cancel, closeSeat, sweepSeat, liftSeat:
		return o.done()
	case book, extend:
		return o.done() || o.Reason == "SEAT_TAKEN" || o.Reason == "SEAT_CLOSED"
	case checkIn, checkOut, join, claim, leave:
	}
	return false
}

// linear is the result of checkLinear.
type linear struct {
	partitions, operations int
	broken                 []string
	failing                []op // of the first chunk that is not linearizable
}

// chunk is the least number of operations that are checked together. checkLinear cuts the
// operations on a seat and day into chunks. It cuts only at a time at which no operation is in
// progress, because then the state of the seat is known.
const chunk = 300

// checkTime bounds the check of one chunk. The check of a correct chunk takes much less. A timeout
// is a violation.
const checkTime = time.Minute

// checkLinear checks that the operations are linearizable: there is an order in which each
// operation takes effect between its call and its return, and in which the model gives the same
// answers. swept has the reservations that a sweep ended, each with the closure of the sweep.
func checkLinear(ops []op, swept map[int64]int64) linear {
	type key struct{ seat, day int64 }
	parts := map[key][]op{}
	for _, o := range ops {
		if aboutSeat(&o) {
			k := key{o.Seat, o.Start.Unix() / (24 * 60 * 60)}
			parts[k] = append(parts[k], o)
		}
	}
	v := linear{partitions: len(parts)}
	for k, part := range parts {
		v.operations += len(part)
		slices.SortFunc(part, func(a, b op) int { return cmp.Compare(a.Call, b.Call) })
		state := seatDay{}
		for len(part) > 0 {
			n := quiescent(part)
			result := porcupine.CheckOperationsTimeout(model(state), operations(part[:n]), checkTime)
			if result != porcupine.Ok {
				v.broken = append(v.broken, fmt.Sprintf(
					"seat %d on day %d: %d operations between %s and %s are not linearizable (%s)",
					k.seat, k.day, n, part[0].Call, part[n-1].Return, result))
				if v.failing == nil {
					v.failing = part[:n]
				}
				break // the state after this chunk is unknown
			}
			state = fold(state, part[:n], swept)
			part = part[n:]
		}
	}
	slices.Sort(v.broken)
	return v
}

// quiescent returns how many operations form the next chunk: at least chunk, up to a time at which
// no operation is in progress. The operations are in the order of their calls.
func quiescent(ops []op) int {
	var until time.Duration
	for i, o := range ops {
		if i >= chunk && o.Call > until {
			return i
		}
		until = max(until, o.Return)
	}
	return len(ops)
}

// fold returns the state of a seat that was in state s, after all operations. A reservation belongs
// to one user, and a user makes one call at a time. So the calls about a reservation take effect in
// the order in which they began. A closure and a booking may have been made at the same time. Then
// swept tells which one came first: it has the closures whose sweeps ended the reservations.
func fold(s seatDay, ops []op, swept map[int64]int64) seatDay {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b op) int { return cmp.Compare(a.Call, b.Call) })
	var closed []takenWindow
	booked := map[int64]bool{}
	for _, o := range ops {
		start, end := o.Start.Unix(), o.End.Unix()
		switch {
		case o.Reason != "" || o.Kind == read:
		case o.Kind == book:
			booked[o.Reservation] = true
			s = s.with(takenWindow{reservation: o.Reservation, start: start, end: end})
		case o.Kind == cancel:
			s = s.without(o.Reservation)
		case o.Kind == closeSeat:
			closed = append(closed, takenWindow{closure: o.Reservation, start: start, end: end})
			s = s.with(closed[len(closed)-1])
		case o.Kind == sweepSeat:
			s = s.sweep(start, end)
		case o.Kind == liftSeat:
			s = s.lift(o.Reservation)
		case o.Kind == extend && slices.ContainsFunc(s, func(t takenWindow) bool { return t.reservation == o.Reservation }):
			was := s.swept(o.Reservation)
			s = s.without(o.Reservation).with(takenWindow{reservation: o.Reservation, start: start, end: end, swept: was})
		}
	}
	for i, t := range s {
		inside := slices.ContainsFunc(closed, func(c takenWindow) bool { return c.closure == swept[t.reservation] })
		s[i].swept = inside || t.swept && !booked[t.reservation]
	}
	return s
}

func operations(ops []op) []porcupine.Operation {
	out := make([]porcupine.Operation, len(ops))
	for i := range ops {
		out[i] = porcupine.Operation{
			ClientId: ops[i].Client, Input: &ops[i], Call: int64(ops[i].Call), Return: int64(ops[i].Return),
		}
	}
	return out
}

func model(from seatDay) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return from },
		Step: func(state, input, _ any) (bool, any) {
			return state.(seatDay).apply(input.(*op)) // see Init and operations
		},
		Equal: func(a, b any) bool {
			return slices.Equal(a.(seatDay), b.(seatDay)) // see Init and Step
		},
	}
}
