// Package availability is the read model of seats: it answers from memory which seat is free when.
// So a query reads no reservations from Postgres.
//
// A Model subscribes to a feed.Feed, which loads the state and follows the change log. A world is
// the state as of one refresh. The goroutine of the feed builds each world from the previous world
// and the changes of one refresh. A world never changes. So readers take no lock, each answer is
// right for one moment, and a comparison of two worlds shows what a refresh changed. A watch
// delivers a snapshot of one world, and then the differences to each later world.
//
// The invariant: a world holds exactly the catalog and the taken windows that its snapshot of
// Postgres shows. Only windows that ended more than a minute ago may be missing, because the
// worldBuilder drops them. The worldBuilder ignores an event if it knows the same or a newer
// version of the reservation. So events may repeat, or arrive in another order.
//
//	worldBuilder ── load, apply ──► world               one for each refresh; shares unchanged parts
//	  known   reservation → version  │ asOf, generation
//	  taken   seat → bookings        ├─ catalog          branches and seats, in the order of ids
//	  tombstones                     │   ├─ branch ── calendar   opening hours, as instants
//	                                 │   ├─ seat             the fields that do not depend on time
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
//	closed.go   closures of a branch, an area or seats
//	query.go    queries and their answers
//	answer.go   the cache of answers to frequent questions
//	watch.go    watches: begin, read, fall behind
//	publish.go  the updates of watches
package availability
