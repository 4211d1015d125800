// Package availability knows which seat is free when, in retention, so that a look at the seats costs no query over the reservations.
//
// A Model loads the world once, in one snapshot of Postgres, and then tails the change log: each read of the log returns what the
// snapshot before could not see, together with the next snapshot. A reader waits for a read of the log that began after the reader came;
// all readers that wait share the next one, so under load one small query serves hundreds of them. When Postgres is out of reach, the
// model answers from what it knows, with the time that this is true of, until that is too old.
//
// What is known is a world: a value that is never changed. One goroutine (Run) makes the next one from the last one and a batch of changes,
// sharing all that stayed as it was, so that readers need no lock, an answer is true of one timeOf, and what a batch changed can be found
// by comparing two worlds. Watchers live on that: a watch is a snapshot of one world and then the differences to each later one.
//
// The invariant: a world holds exactly the catalog and the taken windows that its snapshot of Postgres shows, but for windows that
// ended more than a minute ago, which are forgotten. Events are applied by version, so twice or out of order does no harm.
//
//	model.go    New, options, the source
//	tail.go     following the log; who waits for which read of it; what happens when Postgres is away
//	worldBuilder.go   from events to the next world
//	world.go    the world: catalog and taken windows
//	seat.go     one seat in one window: free, until when, and if not, when next
//	hours.go    opening hours, in the branch's time zone
//	query.go    questions and answers
//	answer.go   answers that many ask for, kept while they hold
//	watch.go    watchers: joining, reading, falling behind
//	publish.go  what watchers are told
package availability
