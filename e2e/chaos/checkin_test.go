package main

import (
	"testing"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// TestModelOfCheckIns checks the answers that the model allows to a check-in at seat 1, which may be
// judged at any time from 100 s to 110 s after the start of the day.
func TestModelOfCheckIns(t *testing.T) {
	t.Parallel()
	screen := &place{branch: screenBranch, rule: dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN}
	both := &place{branch: bothBranch, rule: dlsmsv1.CheckInRule_CHECK_IN_RULE_SEAT_AND_SCREEN}
	visits := &place{branch: visitsBranch, rule: dlsmsv1.CheckInRule_CHECK_IN_RULE_NONE}
	second := func(n int) time.Time { return day.Add(time.Duration(n) * time.Second) }
	code := func(of *place, from int) presented { return presented{Screen: of.branch, From: second(from)} }
	with := func(p presented, label int64) presented { p.Label = label; return p }
	digits := func(p presented) presented { p.Digits = true; return p }
	label := with(presented{}, 1)
	for _, test := range []struct {
		at     *place
		codes  presented
		answer string
		ok     bool
	}{
		{visits, presented{}, "NONE", true},
		{visits, label, "SEAT", true},
		{visits, label, "NONE", false},
		{visits, with(presented{}, 2), "PRESENCE_ELSEWHERE", true},
		{visits, code(screen, 90), "PRESENCE_ELSEWHERE", true},
		{visits, code(screen, 90), "NONE", false},
		{screen, presented{}, "PRESENCE_REQUIRED", true},
		{screen, presented{}, "NONE", false},
		{screen, label, "PRESENCE_REQUIRED", true},
		{screen, code(screen, 90), "SCREEN screen", true},
		{screen, code(screen, 90), "SCREEN both", false},
		{screen, code(screen, 90), "PRESENCE_EXPIRED", false},
		{screen, with(code(screen, 90), 1), "SEAT_AND_SCREEN screen", true},
		{screen, with(code(screen, 90), 2), "PRESENCE_ELSEWHERE", true},
		{screen, code(both, 90), "PRESENCE_ELSEWHERE", true},
		{screen, code(both, 90), "SCREEN both", false},
		{screen, digits(code(both, 90)), "PRESENCE_INVALID", true},
		{both, code(both, 90), "PRESENCE_REQUIRED", true},
		{both, code(both, 90), "SCREEN both", false},
		{both, with(code(both, 90), 1), "SEAT_AND_SCREEN both", true},
		// The code expires 32 s after its start, and is accepted from 2 s before it.
		{screen, code(screen, 68), "SCREEN screen", false},
		{screen, code(screen, 68), "PRESENCE_EXPIRED", true},
		{screen, code(screen, 69), "SCREEN screen", true},
		{screen, code(screen, 69), "PRESENCE_EXPIRED", true},
		{screen, code(screen, 78), "PRESENCE_EXPIRED", true},
		{screen, code(screen, 79), "PRESENCE_EXPIRED", false},
		{screen, code(screen, 112), "SCREEN screen", true},
		{screen, code(screen, 112), "PRESENCE_INVALID", true},
		{screen, code(screen, 113), "SCREEN screen", false},
		{screen, code(screen, 102), "PRESENCE_INVALID", false},
		{screen, digits(code(screen, 60)), "PRESENCE_EXPIRED", true},
		{screen, digits(code(screen, 60)), "PRESENCE_INVALID", true},
		{screen, code(screen, 60), "PRESENCE_INVALID", false},
	} {
		if got := test.codes.mayGet(test.answer, test.at, 1, second(100), second(110)); got != test.ok {
			t.Errorf("%s: %+v may get %s: %t", test.at.branch, test.codes, test.answer, got)
		}
	}
}
