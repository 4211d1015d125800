package main

import (
	"slices"
	"testing"
	"time"
)

var day = time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)

// at returns an operation on seat 1. from and until are hours of the day, call and ret are
// milliseconds of the run.
func at(kind opKind, from, until, call, ret int) *op {
	return &op{
		Kind: kind, Seat: 1, Start: day.Add(time.Duration(from) * time.Hour), End: day.Add(time.Duration(until) * time.Hour),
		Call: time.Duration(call) * time.Millisecond, Return: time.Duration(ret) * time.Millisecond,
	}
}

func (o *op) of(reservation int64) *op { o.Reservation = reservation; return o }
func (o *op) refused() *op             { o.Reason = "SEAT_TAKEN"; return o }
func (o *op) closed() *op              { o.Reason = "SEAT_CLOSED"; return o }
func (o *op) free() *op                { o.Free = true; return o }

func values(ops []*op) (out []op) {
	for _, o := range ops {
		out = append(out, *o)
	}
	return out
}

func TestCheckLinear(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ops []*op
		ok  bool
	}{
		"empty":               {nil, true},
		"adjacent windows":    {[]*op{at(book, 8, 9, 0, 1).of(1), at(book, 9, 10, 2, 3).of(2)}, true},
		"a double booking":    {[]*op{at(book, 8, 10, 0, 1).of(1), at(book, 9, 11, 2, 3).of(2)}, false},
		"refused, seat taken": {[]*op{at(book, 8, 10, 0, 1).of(1), at(book, 9, 11, 2, 3).refused()}, true},
		"refused, seat free":  {[]*op{at(book, 8, 9, 0, 1).of(1), at(book, 9, 11, 2, 3).refused()}, false},
		"refused because of a booking in progress": {
			[]*op{at(book, 8, 10, 0, 9).of(1), at(book, 9, 11, 2, 3).refused()}, true,
		},
		"cancelled and booked again": {
			[]*op{at(book, 8, 9, 0, 1).of(1), at(cancel, 8, 9, 2, 3).of(1), at(book, 8, 9, 4, 5).of(2)}, true,
		},
		"cancelled twice": {
			[]*op{at(book, 8, 9, 0, 1).of(1), at(cancel, 8, 9, 2, 3).of(1), at(cancel, 8, 9, 4, 5).of(1)}, false,
		},
		"extended into another booking": {
			[]*op{at(book, 8, 9, 0, 1).of(1), at(book, 9, 10, 2, 3).of(2), at(extend, 8, 10, 4, 5).of(1)}, false,
		},
		"booking of an extended window refused": {
			[]*op{at(book, 8, 9, 0, 1).of(1), at(extend, 8, 10, 2, 3).of(1), at(book, 9, 10, 4, 5).refused()}, true,
		},
		"a stale read":             {[]*op{at(book, 8, 9, 0, 1).of(1), at(read, 8, 9, 2, 3).free()}, false},
		"a read of another window": {[]*op{at(book, 8, 9, 0, 1).of(1), at(read, 9, 10, 2, 3).free()}, true},
		"reads during a booking": {
			[]*op{at(book, 8, 9, 0, 9).of(1), at(read, 8, 9, 2, 3).free(), at(read, 8, 9, 4, 5)}, true,
		},
		"taken, then free, during one booking": {
			[]*op{at(book, 8, 9, 0, 9).of(1), at(read, 8, 9, 2, 3), at(read, 8, 9, 4, 5).free()}, false,
		},
		"booked into a closure": {[]*op{at(closeSeat, 8, 10, 0, 1).of(7), at(book, 9, 11, 2, 3).of(1)}, false},
		"refused, closed":       {[]*op{at(closeSeat, 8, 10, 0, 1).of(7), at(book, 9, 11, 2, 3).closed()}, true},
		"refused, not closed":   {[]*op{at(closeSeat, 8, 10, 0, 1).of(7), at(book, 10, 11, 2, 3).closed()}, false},
		"taken, in a closure": {
			[]*op{at(book, 8, 9, 0, 1).of(1), at(closeSeat, 8, 10, 2, 3).of(7), at(book, 8, 9, 4, 5).refused()}, false,
		},
		"a closed seat is shown free": {[]*op{at(closeSeat, 8, 10, 0, 1).of(7), at(read, 9, 10, 2, 3).free()}, false},
		"lifted, and free": {
			[]*op{at(closeSeat, 8, 10, 0, 1).of(7), at(liftSeat, 8, 10, 2, 3).of(7), at(read, 9, 10, 4, 5).free()}, true,
		},
		"swept, lifted and booked again": {
			[]*op{
				at(book, 8, 9, 0, 1).of(1), at(closeSeat, 8, 10, 2, 3).of(7), at(sweepSeat, 8, 10, 2, 5).of(7),
				at(liftSeat, 8, 10, 6, 7).of(7), at(book, 8, 9, 8, 9).of(2),
			}, true,
		},
		"taken outside of the closure, until the sweep": {
			[]*op{
				at(book, 8, 10, 0, 1).of(1), at(closeSeat, 9, 11, 2, 3).of(7), at(sweepSeat, 9, 11, 2, 9).of(7),
				at(read, 8, 9, 4, 5), at(book, 7, 9, 6, 7).refused(), at(read, 8, 9, 8, 10).free(), at(cancel, 8, 10, 11, 12).of(1),
			}, true,
		},
		"taken outside of the closure, after the sweep": {
			[]*op{
				at(book, 8, 10, 0, 1).of(1), at(closeSeat, 9, 11, 2, 3).of(7), at(sweepSeat, 9, 11, 2, 5).of(7),
				at(read, 8, 9, 6, 7),
			}, false,
		},
		"extended after the sweep": {
			[]*op{
				at(book, 8, 9, 0, 1).of(1), at(closeSeat, 8, 9, 2, 3).of(7), at(sweepSeat, 8, 9, 2, 5).of(7),
				at(extend, 8, 10, 6, 7).of(1),
			}, false,
		},
		"extended in a closure, before the sweep": {
			[]*op{at(book, 8, 9, 0, 1).of(1), at(closeSeat, 7, 9, 2, 3).of(7), at(extend, 8, 10, 4, 5).of(1)}, true,
		},
		"extended into a closure": {
			[]*op{at(book, 8, 9, 0, 1).of(1), at(closeSeat, 9, 10, 2, 3).of(7), at(extend, 8, 10, 4, 5).of(1)}, false,
		},
		"cancelled before the sweep": {
			[]*op{at(book, 8, 9, 0, 1).of(1), at(closeSeat, 8, 10, 2, 3).of(7), at(cancel, 8, 9, 4, 5).of(1)}, true,
		},
	} {
		if got := checkLinear(values(test.ops), nil); (len(got.broken) == 0) != test.ok {
			t.Errorf("%s: %v", name, got.broken)
		}
	}
}

// TestCheckLinearChecksEachChunk checks a history of several chunks. checkLinear must find a wrong
// read in the first, a middle and the last chunk.
func TestCheckLinearChecksEachChunk(t *testing.T) {
	t.Parallel()
	var all []*op
	for i := range 3 * chunk {
		id := int64(i) + 1
		all = append(all,
			at(book, 8, 9, 10*i, 10*i+1).of(id), at(read, 8, 9, 10*i+2, 10*i+3),
			at(cancel, 8, 9, 10*i+4, 10*i+5).of(id), at(read, 8, 9, 10*i+6, 10*i+7).free())
	}
	ops := values(all)
	if got := checkLinear(ops, nil); len(got.broken) > 0 || got.operations != len(ops) || got.partitions != 1 {
		t.Fatal(got)
	}
	for _, i := range []int{0, len(ops) / 2, len(ops) - 1} {
		broken := slices.Clone(ops)
		for i%2 == 0 {
			i++
		}
		broken[i].Free = !broken[i].Free
		if got := checkLinear(broken, nil); len(got.broken) != 1 {
			t.Errorf("read %d was wrong: %v", i, got.broken)
		}
	}
}

// TestFoldKnowsTheClosure checks the state after a chunk with a closure and a later booking. The sweep
// of another closure, in a later chunk, ends the booking.
func TestFoldKnowsTheClosure(t *testing.T) {
	t.Parallel()
	ops := values([]*op{
		at(closeSeat, 8, 20, 0, 1).of(7), at(sweepSeat, 8, 20, 0, 2).of(7), at(liftSeat, 8, 20, 3, 4).of(7),
		at(book, 8, 9, 5, 6).of(1),
	})
	for closure, want := range map[int64]bool{7: true, 8: false} {
		if got := fold(seatDay{}, ops, map[int64]int64{1: closure}); got.swept(1) != want {
			t.Errorf("swept by closure %d: %v", closure, got)
		}
	}
}
