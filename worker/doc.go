// Package worker does what time brings about: no-shows, completions, offers that run out, entries past their window, reminders, and
// offers of seats that are free while somebody waits.
//
// It runs in every replica and has no leader. Each step is one guarded, bounded transaction of the store, which skips what another replica
// has locked, so a transition happens exactly once, whoever makes it. The worker only decides when to look: when the next thing is due by
// Postgres's clock, when it is told that something will be, and at least once an interval.
package worker
