package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

var day = time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)

// at makes an act on seat 1 between two o'clocks, that lasted from one millisecond of the run to another.
func at(what opKind, from, until, call, ret int) *op {
	return &op{
		Kind: what, Seat: 1, Start: day.Add(time.Duration(from) * time.Hour), End: day.Add(time.Duration(until) * time.Hour),
		Call: time.Duration(call) * time.Millisecond, Return: time.Duration(ret) * time.Millisecond,
	}
}

func (o *op) of(reservation int64) *op { o.Reservation = reservation; return o }
func (o *op) refused() *op             { o.Reason = "SEAT_TAKEN"; return o }
func (o *op) free() *op                { o.Free = true; return o }

func values(ops []*op) (out []op) {
	for _, o := range ops {
		out = append(out, *o)
	}
	return out
}

func TestLinear(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ops []*op
		ok  bool
	}{
		"nothing":                        {nil, true},
		"windows that touch":             {[]*op{at(book, 8, 9, 0, 1).of(1), at(book, 9, 10, 2, 3).of(2)}, true},
		"a double booking":               {[]*op{at(book, 8, 10, 0, 1).of(1), at(book, 9, 11, 2, 3).of(2)}, false},
		"refused, and rightly":           {[]*op{at(book, 8, 10, 0, 1).of(1), at(book, 9, 11, 2, 3).refused()}, true},
		"refused, and it was free":       {[]*op{at(book, 8, 9, 0, 1).of(1), at(book, 9, 11, 2, 3).refused()}, false},
		"refused by one under way":       {[]*op{at(book, 8, 10, 0, 9).of(1), at(book, 9, 11, 2, 3).refused()}, true},
		"cancelled, and booked again":    {[]*op{at(book, 8, 9, 0, 1).of(1), at(cancel, 8, 9, 2, 3).of(1), at(book, 8, 9, 4, 5).of(2)}, true},
		"cancelled twice":                {[]*op{at(book, 8, 9, 0, 1).of(1), at(cancel, 8, 9, 2, 3).of(1), at(cancel, 8, 9, 4, 5).of(1)}, false},
		"extended into another":          {[]*op{at(book, 8, 9, 0, 1).of(1), at(book, 9, 10, 2, 3).of(2), at(extend, 8, 10, 4, 5).of(1)}, false},
		"extended, and in the way":       {[]*op{at(book, 8, 9, 0, 1).of(1), at(extend, 8, 10, 2, 3).of(1), at(book, 9, 10, 4, 5).refused()}, true},
		"a stale read":                   {[]*op{at(book, 8, 9, 0, 1).of(1), at(read, 8, 9, 2, 3).free()}, false},
		"a read of the other":            {[]*op{at(book, 8, 9, 0, 1).of(1), at(read, 9, 10, 2, 3).free()}, true},
		"a read beside a booking":        {[]*op{at(book, 8, 9, 0, 9).of(1), at(read, 8, 9, 2, 3).free(), at(read, 8, 9, 4, 5)}, true},
		"back to before, within one act": {[]*op{at(book, 8, 9, 0, 9).of(1), at(read, 8, 9, 2, 3), at(read, 8, 9, 4, 5).free()}, false},
	} {
		if got := checkLinear(values(test.ops)); (len(got.broken) == 0) != test.ok {
			t.Errorf("%s: %v", name, got.broken)
		}
	}
}

// TestLinearIsCut: a history longer than a chunk is checked in parts, each from what the one before left.
func TestLinearIsCut(t *testing.T) {
	t.Parallel()
	var all []*op
	for i := range 3 * chunk {
		id := int64(i) + 1
		all = append(all, at(book, 8, 9, 10*i, 10*i+1).of(id), at(read, 8, 9, 10*i+2, 10*i+3), at(cancel, 8, 9, 10*i+4, 10*i+5).of(id), at(read, 8, 9, 10*i+6, 10*i+7).free())
	}
	ops := values(all)
	if got := checkLinear(ops); len(got.broken) > 0 || got.operations != len(ops) || got.partitions != 1 {
		t.Fatal(got)
	}
	for _, i := range []int{0, len(ops) / 2, len(ops) - 1} {
		broken := slices.Clone(ops)
		for i%2 == 0 {
			i++
		}
		broken[i].Free = !broken[i].Free
		if got := checkLinear(broken); len(got.broken) != 1 {
			t.Error(fmt.Sprint("the read ", i, " was wrong: "), got.broken)
		}
	}
}
