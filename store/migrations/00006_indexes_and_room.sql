-- +goose NO TRANSACTION
-- +goose Up

-- Bookings continue while this runs: CREATE INDEX CONCURRENTLY waits for running transactions, and
-- no booking waits for it. If CREATE INDEX fails, it leaves an INVALID index. The next start runs
-- this file again from the top, and each DROP INDEX removes the invalid index.
SET lock_timeout = 0;

-- Each foreign key has an index. Without the index, a delete in the table to which the key refers
-- would scan the whole table that has the key.
DROP INDEX CONCURRENTLY IF EXISTS revocations_user;
CREATE INDEX CONCURRENTLY revocations_user ON revocations (library_id, user_id);

DROP INDEX CONCURRENTLY IF EXISTS reservations_seat;
CREATE INDEX CONCURRENTLY reservations_seat ON reservations (library_id, seat_id);

DROP INDEX CONCURRENTLY IF EXISTS reservations_entry;
CREATE INDEX CONCURRENTLY reservations_entry ON reservations (library_id, entry_id) WHERE entry_id IS NOT NULL;

DROP INDEX CONCURRENTLY IF EXISTS waitlist_seat;
CREATE INDEX CONCURRENTLY waitlist_seat ON waitlist_entries (library_id, seat_id);

DROP INDEX CONCURRENTLY IF EXISTS waitlist_reservation;
CREATE INDEX CONCURRENTLY waitlist_reservation ON waitlist_entries (library_id, reservation_id)
    WHERE reservation_id IS NOT NULL;

-- A check-in often comes a day after the booking. By then, later bookings have filled the page of
-- the row. fillfactor keeps room on each page. So the new version of the row stays on the page, and
-- the check-in changes no index (a HOT update). Waitlist entries have no HOT updates, because each
-- of their transitions changes an indexed column.
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
