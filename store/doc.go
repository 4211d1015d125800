// Package store keeps the truth in Postgres: users, seats, reservations, the waitlist, and the log of everything that happened.
//
// One invariant carries the rest: whoever writes to a seat's reservations or waitlist holds the lock of the seat's row. Locks are
// taken in one order everywhere: the user's row, then the seats' rows in id order, then rows of reservations and entries, and last,
// when a transaction is about to commit, the notification locks of the users to be told. Whoever frees a seat locks that seat and
// never a second user. So nothing deadlocks, and the exclusion constraint that makes a double booking impossible has nothing left to do.
//
// Every transition writes one row to reservation_events in its own transaction (event.go). Postgres's clock, dlsms_now(), read after the
// locks, is the only one that decides.
//
// Exported methods open the transaction, unexported ones take it. Only this package holds SQL.
package store
