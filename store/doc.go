// Package store keeps users, seats, reservations, the waitlist and the change log in Postgres. It
// is the only package with SQL. Package library has the types and the rules that need no database.
//
// Main invariant: a transaction that writes to a seat's reservations or waitlist holds the lock of
// the seat's row. Every transaction takes its locks in this order:
//
//  1. rows of users, in id order
//  2. rows of seats, in id order
//  3. rows of reservations and waitlist entries
//  4. the notification locks of the users to notify, just before the commit
//
// A change by staff locks the row of its branch before all of them, and a sweep locks its own row.
//
// A transaction that frees a seat locks that seat and never a second user. So no deadlock is
// possible. The lock of a seat orders the transactions that book it. Within one batch, the
// exclusion constraint reservations_no_overlap refuses the second booking of a seat.
//
// Each transition of a reservation writes one row to reservation_events, in the transaction that
// makes it (event.go). All decisions use Postgres's clock, dlsms_now(). A transaction reads it
// after it has taken its locks.
//
// Exported methods begin a transaction. Unexported methods run in the transaction they are given.
package store
