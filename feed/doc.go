// Package feed follows the change log, once a process, and passes on what it reads to its subscribers.
//
// A Feed loads the state of the library once, in one snapshot of Postgres. Then it reads the change log again and again. Each read,
// a refresh, returns what the snapshot before could not see, together with the next snapshot. The result, a Delta, goes to the
// subscribers in order: the read model applies it, notification streams wake, the worker sets its timers.
//
// A reader calls Refresh before it reads from the read model. Refresh returns after a refresh that began after the call, so the
// reader sees every booking that was acknowledged before it asked. All readers that wait share the next refresh: under load, one
// small query serves hundreds of readers.
//
//	reader 1    reader 2        feed                    Postgres
//	   |           |              |                         |
//	   |-Refresh()--------------->| begin refresh A         |
//	   |           |              |-changes after S0------->|
//	   |           |-Refresh()--->| A may have read before  |
//	   |           |              | this call: join B       |
//	   |           |              |<-------events, now, S1--|
//	   |           |              | Apply(delta)            |
//	   |<--ok---------------------| finish A                |
//	   |           |              | OnEvents(delta)         |
//	   |           |              | begin refresh B         |
//	   |           |              |-changes after S1------->|
//	   |           |              |<-------nothing, now, S1-|
//	   |           |              | Apply(delta)            |
//	   |           |<--ok---------| finish B                |
//
// If a refresh fails because Postgres is unreachable, the feed reads once more at once. If that fails as well, the readers that wait
// are released, and readers are answered from memory without waiting until the state is older than Options.MaxStaleness. Meanwhile
// the feed retries. It loads the state anew when Postgres answers again: after a crash, Postgres may use transaction ids again, so
// the old snapshot proves nothing.
//
// The invariant: when Refresh returns nil, each subscriber has applied every delta up to a refresh that began after the call, or
// Postgres is unreachable and the state is at most MaxStaleness old.
//
//	feed.go     New, options, subscribers, figures
//	refresh.go  the protocol between readers and the goroutine that reads
//	run.go      the goroutine that reads: pace, retries, loading anew
package feed
