// Package worker runs the transitions that come due with time: no-shows, completions, expired
// offers, expired waitlist entries and reminders. It offers free seats to users who wait for them,
// suspends users with too many strikes, moves check-in deadlines after an outage, runs the sweeps of
// closures and other changes by staff, writes the sums of reports, deletes expired revocations, and
// removes people from old rows.
//
// Each replica runs a Worker. There is no leader. A step makes one kind of transition, such as
// no-shows. Each step is a loop with its own timer, errors and retries, so a step that fails does
// not delay the other steps. A pass is one run of a step: it makes all transitions that are due.
//
// The store decides which rows make a transition: a step of store/due.go is one guarded, bounded
// transaction that skips rows locked by another replica. So each transition happens exactly once,
// in any one of the replicas. The worker only decides when a step makes a pass:
//   - when the next row is due by Postgres's clock
//   - when the change log shows a reservation that comes due earlier
//   - at least once in Config.Interval
//
// If a transaction for several seats fails, the step splits it into smaller transactions. If a
// transaction for one seat fails, the step logs the seat and skips it for a while. So one bad row
// does not delay other seats.
//
//	worker.go       New, configuration, the list of steps, DueIn
//	step.go         the loop of a step: timer, retries, the log
//	seat_step.go    the pass of a step that works on seats
//	sweep.go        the pass of the step sweep, which ends reservations that staff have made impossible
//	revocation.go   the pass of the step forget_revocation
//	retention.go    the pass of the step retention, which removes people from old rows
//	suspend.go      the pass of the step suspend
//	usage.go        the pass of the step usage, which writes the sums of reports
//	outage.go       the pass of the step outage: the heartbeat, and the deadlines after an outage
package worker
