// Package availability is the read model of seats: it answers from memory which seat is free when.
// A query costs no SQL over the reservations.
//
// A Model subscribes to a feed.Feed, which loads the state and follows the change log. One
// goroutine, that of the feed, builds each world from the one before and the changes of one
// refresh. A world never changes. So readers take no lock, an answer is true of one moment, and
// comparing two worlds shows what a refresh changed. A watch is a snapshot of one world, and then
// the differences of each later world.
//
// The invariant: a world holds exactly the catalog and the taken windows that its snapshot of
// Postgres shows, except windows that ended more than a minute ago, which the worldBuilder drops.
// Events are applied by version, so repeated events and events out of order have no effect.
//
//	worldBuilder ── load, apply ──► world               one a refresh; shares all unchanged parts
//	  known   reservation → version  │ asOf, generation
//	  taken   seat → bookings        ├─ catalog          branches and seats, in the order of ids
//	  tombstones                     │   ├─ branch ── calendar   opening hours, as instants
//	                                 │   ├─ seat             what does not depend on time
//	                                 │   └─ index            position of each seat id
//	                                 ├─ occupancy        []*chunk, one chunk for 64 seats
//	                                 │   └─ chunk            bookings by position
//	                                 └─ answers          shared by all worlds of one generation
//
//	hub ── published ──► world           the newest world that watchers know
//	 └─ class            watches of one window
//	     └─ group        watches of one window and filter: the updates that they have not read
//	         └─ Watch    position in the updates
//
//	model.go    New, options, figures
//	builder.go  from events to the next world
//	world.go    the world: catalog and occupancy
//	catalog.go  changes of the catalog
//	seat.go     one seat in one window: free, until when, or free again when
//	hours.go    opening hours, in the branch's time zone
//	query.go    queries and their answers
//	answer.go   answers that many readers ask for, cached while they hold
//	watch.go    watches: begin, read, fall behind
//	publish.go  the updates of watches
package availability
