// Package feed follows the change log, once a process, and publishes each read of it to its
// subscribers.
//
// A Feed loads the state of the library once, in one snapshot of Postgres. Then it reads the change
// log again and again. Each read is a refresh: it returns the transactions that committed since the
// previous snapshot, and the next snapshot. The result is a Delta. The subscribers receive each
// Delta in order: the read model applies it, the notification streams wake, the worker sets its
// timers.
//
// A reader calls Refresh before it uses the read model. The call returns when a refresh has ended
// that began after the call. So the reader sees each booking that was acknowledged before the call.
// All waiting readers share the next refresh: under load, one small query serves hundreds of them.
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
