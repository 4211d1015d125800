package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// One seat on one day is a register of windows: what is booked on it does not touch any other. So each is checked by itself.

// taken is a window of a seat that a reservation takes.
type takenWindow struct {
	reservation int64
	start, end  int64 // both by one clock, in one unit
}

// seatDay is the state of the model: what is taken, in the order of start. It is never changed, only replaced.
type seatDay []takenWindow

func (s seatDay) free(start, end, but int64) bool {
	return !slices.ContainsFunc(s, func(t takenWindow) bool { return t.reservation != but && t.start < end && start < t.end })
}

func (s seatDay) with(t takenWindow) seatDay {
	out := append(slices.Clone(s), t)
	slices.SortFunc(out, func(a, b takenWindow) int { return cmp.Compare(a.start, b.start) })
	return out
}

func (s seatDay) without(reservation int64) seatDay {
	return slices.DeleteFunc(slices.Clone(s), func(t takenWindow) bool { return t.reservation == reservation })
}

// apply is the contract of a seat: whether the act can have had this answer now, and what is taken after it.
func (s seatDay) apply(o *op) (legal bool, after seatDay) {
	start, end := o.Start.Unix(), o.End.Unix()
	switch o.Kind {
	case read:
		return s.free(start, end, 0) == o.Free, s
	case book:
		free := s.free(start, end, 0)
		if o.Reason != "" {
			return !free, s // only those refused for the seat's sake are checked
		}
		return free, s.with(takenWindow{o.Reservation, start, end})
	case cancel:
		after = s.without(o.Reservation)
		return len(after) < len(s), after
	case extend:
		free := s.free(start, end, o.Reservation)
		if o.Reason != "" {
			return !free, s
		}
		after = s.without(o.Reservation)
		return free && len(after) < len(s), after.with(takenWindow{o.Reservation, start, end})
	case checkIn, checkOut, join, claim, leave:
	}
	return false, s
}

// aboutSeat reports whether a seat's state says what the answer has to be: a booking may be refused for many reasons, of which most are the user's.
func aboutSeat(o *op) bool {
	switch o.Kind {
	case read, cancel:
		return o.done()
	case book, extend:
		return o.done() || o.Reason == "SEAT_TAKEN"
	case checkIn, checkOut, join, claim, leave:
	}
	return false
}

// linear is the verdict on a history.
type linear struct {
	partitions, operations int
	broken                 []string
	failing                []op // of the first broken part
}

// chunk is how many operations are checked together at least: a history is cut where nothing is under way, since what is taken is known there.
const chunk = 300

// checkTime is how long one chunk may take. None that passes takes long; one that takes longer fails.
const checkTime = time.Minute

// checkLinear checks that there is an order of all acts, each between its call and its return, in which each has the answer that it got.
func checkLinear(ops []op) linear {
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
				v.broken = append(v.broken, fmt.Sprintf("seat %d on day %d: the %d acts between %s and %s are not linearizable (%s)",
					k.seat, k.day, n, part[0].Call, part[n-1].Return, result))
				if v.failing == nil {
					v.failing = part[:n]
				}
				break // what is taken after it is not known
			}
			state = fold(state, part[:n])
			part = part[n:]
		}
	}
	slices.Sort(v.broken)
	return v
}

// quiet returns how many of the operations, in the order of their calls, to check together: at least a chunk, up to where nothing is under way.
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

// fold returns what is taken after all of them. Each reservation has one user, who does one thing after the other.
func fold(s seatDay, ops []op) seatDay {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b op) int { return cmp.Compare(a.Call, b.Call) })
	for _, o := range ops {
		switch {
		case o.Reason != "" || o.Kind == read:
		case o.Kind == book:
			s = s.with(takenWindow{o.Reservation, o.Start.Unix(), o.End.Unix()})
		case o.Kind == cancel:
			s = s.without(o.Reservation)
		case o.Kind == extend && slices.ContainsFunc(s, func(t takenWindow) bool { return t.reservation == o.Reservation }):
			s = s.without(o.Reservation).with(takenWindow{o.Reservation, o.Start.Unix(), o.End.Unix()})
		}
	}
	return s
}

func operations(ops []op) []porcupine.Operation {
	out := make([]porcupine.Operation, len(ops))
	for i := range ops {
		out[i] = porcupine.Operation{ClientId: ops[i].Client, Input: &ops[i], Call: int64(ops[i].Call), Return: int64(ops[i].Return)}
	}
	return out
}

func model(from seatDay) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return from },
		Step: func(state, input, _ any) (bool, any) {
			return state.(seatDay).apply(input.(*op)) //nolint:forcetypeassert // they are what is put in
		},
		Equal: func(a, b any) bool { return slices.Equal(a.(seatDay), b.(seatDay)) }, //nolint:forcetypeassert // the same
	}
}
