package main

import (
	"fmt"
	"sync"
)

// check is what found something.
type check string

// The checks.
const (
	checkStart     check = "the start"
	checkAnswers   check = "answers"
	checkKept      check = "what was acknowledged"
	checkLinearity check = "linearizability"
	checkReads     check = "freshness of reads"
	checkRules     check = "rules of the database"
	checkStreams   check = "streams"
	checkLiveness  check = "liveness"
	checkActivity  check = "activity"
	checkLog       check = "the log"
)

// violation is something that must not be.
type violation struct {
	check check
	text  string
}

func (v violation) String() string { return string(v.check) + ": " + v.text }

// mostOfACheck are kept of what a check finds: one is enough to fail a run.
const mostOfACheck = 10

// violations are what was found. Its methods may be called from any goroutine.
type violations struct {
	mu  sync.Mutex
	all []violation
	by  map[check]int // how many each check found
}

func (v *violations) add(by check, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.by == nil {
		v.by = map[check]int{}
	}
	if v.by[by]++; v.by[by] <= mostOfACheck {
		v.all = append(v.all, violation{by, fmt.Sprintf(format, args...)})
	}
}

// count is how many there were.
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
