// Package worker does what time brings about: no-shows, completions, offers that run out, entries past their window, reminders, and
// offers of seats that are free while a user waits for them.
//
// It runs in every replica and has no leader. Each step is a loop of its own, with its own timer, errors and retries, so that none holds
// up another. What a step does is one guarded, bounded transaction of the store, which skips what another replica has locked, so a
// transition happens exactly once, whichever replica makes it. A batch that fails is split, and a seat that fails by itself is left out
// for a while and reported, so that one bad row holds up no other seat. The worker only decides when to look: when the next thing is due
// by Postgres's clock, when it is told that something will be, and at least once an interval.
package worker
