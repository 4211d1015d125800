package main

import (
	"fmt"
	"sync"
)

// check is the name of a check. It is part of the output.
type check string

const (
	checkStart           check = "startup"
	checkAnswers         check = "answers"
	checkDurability      check = "durability"
	checkLinearizability check = "linearizability"
	checkFreshness       check = "freshness of reads"
	checkInvariants      check = "invariants"
	checkStreams         check = "streams"
	checkLiveness        check = "liveness"
	checkRestarts        check = "restarts"
	checkActivity        check = "activity"
	checkLog             check = "log"
)

// violation is one broken guarantee, and the check that found it.
type violation struct {
	check check
	text  string
}

func (v violation) String() string { return string(v.check) + ": " + v.text }

// maxPerCheck bounds the number of violations that are kept for each check. One violation is enough
// to fail a run.
const maxPerCheck = 10

// violations collects the violations of a run. Its methods are safe for concurrent use.
type violations struct {
	mu  sync.Mutex
	all []violation
	by  map[check]int // number of violations, including those that are not kept
}

func (v *violations) add(by check, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.by == nil {
		v.by = map[check]int{}
	}
	if v.by[by]++; v.by[by] <= maxPerCheck {
		v.all = append(v.all, violation{by, fmt.Sprintf(format, args...)})
	}
}

// count returns the number of violations, including those that are not kept.
func (v *violations) count() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, found := range v.by {
		n += found
	}
	return n
}

func (v *violations) list() []violation {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.all
}
