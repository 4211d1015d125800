// Package feed reads the change log for the whole process, and passes the result of each read to
// its subscribers.
//
// A Feed loads the state of the library once, in one snapshot of Postgres. Then it reads the change
// log again and again. Each read is a refresh: it returns the events of the transactions that
// committed since the previous snapshot, and a new snapshot. The result is a Delta. The subscribers
// receive each Delta in order: the read model applies it, the notification streams wake, the worker
// sets its timers.
//
// A reader calls AwaitRefresh before it uses the read model. AwaitRefresh waits for a refresh that
// begins after the call. So the reader sees each booking that was acknowledged before the call. All
// waiting readers share the next refresh: under load, one small query serves hundreds of readers.
//
//	reader 1    reader 2        feed                        Postgres
//	   |           |              |                             |
//	   |--AwaitRefresh----------->| begin refresh A             |
//	   |           |              |--changes since snapshot 0-->|
//	   |           |-AwaitRefresh>| A may miss a commit that    |
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
// If Postgres is unreachable in a refresh, the feed immediately reads a second time. If the second
// read fails too, the feed releases the readers that wait. From then on, AwaitRefresh returns
// without waiting, and readers are answered from memory until the state is older than
// Options.MaxStaleness. Meanwhile the feed retries. When Postgres answers again, the feed loads the
// whole state: after a crash, Postgres may reuse transaction ids, so a read since the old snapshot
// could miss events.
//
// The invariant, if AwaitRefresh returns no error:
//   - True: each subscriber has applied a refresh that began after the call (or at most
//     Options.Freshness before the call), and all earlier refreshes.
//   - False: Postgres does not answer, and the state of the subscribers is at most MaxStaleness old.
//
// The files:
//
//	feed.go     New, options, subscribers, figures
//	refresh.go  AwaitRefresh, and how a refresh releases its readers
//	run.go      the goroutine of Run: pace, retries, loads
package feed
