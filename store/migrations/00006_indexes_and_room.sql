-- +goose NO TRANSACTION
-- +goose Up

-- Bookings go on while this runs: an index that is built CONCURRENTLY waits for transactions that are under way, and
-- no booking waits for it. One that failed is left INVALID; the next start begins this file anew, and so drops it first.
SET lock_timeout = 0;

-- Each key that refers to another table has an index, or else a delete over there scans all rows here.
DROP INDEX CONCURRENTLY IF EXISTS revocations_user;
CREATE INDEX CONCURRENTLY revocations_user ON revocations (library_id, user_id);

DROP INDEX CONCURRENTLY IF EXISTS reservations_seat;
CREATE INDEX CONCURRENTLY reservations_seat ON reservations (library_id, seat_id);

DROP INDEX CONCURRENTLY IF EXISTS reservations_entry;
CREATE INDEX CONCURRENTLY reservations_entry ON reservations (library_id, entry_id) WHERE entry_id IS NOT NULL;

DROP INDEX CONCURRENTLY IF EXISTS waitlist_seat;
CREATE INDEX CONCURRENTLY waitlist_seat ON waitlist_entries (library_id, seat_id);

DROP INDEX CONCURRENTLY IF EXISTS waitlist_reservation;
CREATE INDEX CONCURRENTLY waitlist_reservation ON waitlist_entries (library_id, reservation_id) WHERE reservation_id IS NOT NULL;

-- A check-in comes a day after the booking, when the page is full of later ones. With room left on it, the new version
-- of the row stays there and touches no index (a HOT update). Entries have no such update, as each transition of theirs
-- changes a column of an index.
ALTER TABLE reservations SET (fillfactor = 70);
ALTER TABLE users SET (fillfactor = 90);

-- +goose Down
ALTER TABLE users RESET (fillfactor);
ALTER TABLE reservations RESET (fillfactor);
DROP INDEX CONCURRENTLY IF EXISTS waitlist_reservation;
DROP INDEX CONCURRENTLY IF EXISTS waitlist_seat;
DROP INDEX CONCURRENTLY IF EXISTS reservations_entry;
DROP INDEX CONCURRENTLY IF EXISTS reservations_seat;
DROP INDEX CONCURRENTLY IF EXISTS revocations_user;
