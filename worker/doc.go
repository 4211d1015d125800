// Package worker runs the transitions that come due with time: no-shows, completions, expired
// offers, expired waitlist entries and reminders. It offers free seats to users who wait for them,
// and deletes expired revocations.
//
// Each replica runs a Worker, without a leader. Each step is a loop of its own, with its own timer,
// errors and retries, so a step that fails does not delay the others. The store decides which rows
// make a transition: a step of store/due.go is one guarded, bounded transaction that skips rows
// locked by another replica. So each transition happens exactly once, in whichever replica. The
// worker decides only when a step runs: when the next row is due by Postgres's clock, when the
// change log shows a reservation that comes due earlier, and at least once in Config.Interval.
//
// If a transaction for several seats fails, the step splits it. It skips a seat that fails alone
// for a while, and logs it, so one bad row does not delay other seats.
//
//	worker.go       New, configuration, the steps, what is due when
//	step.go         the loop of a step: timer, retries, the log
//	seat_step.go    the pass of a step of store/due.go, and of the offers of free seats
//	revocation.go   the pass of forget_revocation
package worker
