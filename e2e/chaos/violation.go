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

// mostViolations are kept of a run: one is enough to fail it.
const mostViolations = 60

// violations are what was found. Its methods may be called from any goroutine.
type violations struct {
	mu  sync.Mutex
	all []violation
}

func (v *violations) add(by check, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.all) < mostViolations {
		v.all = append(v.all, violation{by, fmt.Sprintf(format, args...)})
	}
}

func (v *violations) list() []violation {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.all
}
