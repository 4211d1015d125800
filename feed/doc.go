// Package feed follows the change log, once a process, and publishes each read of it to its
// subscribers.
//
// A Feed loads the state of the library once, in one snapshot of Postgres. Then it reads the change
// log again and again. Each read, a refresh, returns the commits that the snapshot before could not
// see, together with the next snapshot. The result, a Delta, goes to the subscribers in order: the
// read model applies it, the streams of notifications wake, the worker sets its timers.
//
// A reader calls Refresh before it asks the read model. Refresh returns after a refresh that began
// after the call, so the reader sees each booking that was acknowledged before it asked. All
// readers that wait share the next refresh: under load, one small query serves hundreds of readers.
//
//	reader 1    reader 2        feed                        Postgres
//	   |           |              |                             |
//	   |--Refresh---------------->| begin refresh A             |
//	   |           |              |--changes since snapshot 0-->|
//	   |           |--Refresh---->| A may miss a commit that    |
//	   |           |              | came before this call, so   |
//	   |           |              | reader 2 waits for B        |
//	   |           |              |<--events, now, snapshot 1---|
//	   |           |              | Apply(delta)                |
//	   |<--nil--------------------| finish refresh A            |
//	   |           |              | OnEvents(delta)             |
//	   |           |              | begin refresh B             |
//	   |           |              |--changes since snapshot 1-->|
//	   |           |              |<--none, now, snapshot 2-----|
//	   |           |              | Apply(delta)                |
//	   |           |<--nil--------| finish refresh B            |
//
// If Postgres is unreachable in a refresh, the feed reads once more, immediately. If that read
// fails too, the feed releases the readers that wait. From then on, Refresh returns without
// waiting, and readers are answered from memory until the state is older than Options.MaxStaleness.
// Meanwhile the feed retries. When Postgres answers again, the feed loads the whole state: after a
// crash, Postgres may reuse transaction ids, so the old snapshot proves nothing.
//
// The invariant: when Refresh returns nil, each subscriber has applied a refresh that began after
// the call, and all refreshes before it; or Postgres does not answer, and the state that the
// subscribers have is at most MaxStaleness old.
//
//	feed.go     New, options, subscribers, figures
//	refresh.go  how readers and the goroutine of Run meet
//	run.go      the goroutine of Run: pace, retries, loads
package feed
