-- +goose NO TRANSACTION
-- +goose Up

-- Each statement can be repeated. If a statement fails, the next start runs this file again from
-- the top. Bookings continue while a statement waits for a lock.
SET lock_timeout = '2s';

-- A change that the library makes for a user, such as a cancellation, notifies the user, whatever
-- its kind. So notifies is a column of its own, and the transition says what it is. A replica of
-- the version before does not set it. For its events, the trigger derives it from the kind. The
-- condition of the trigger is cheap, and the function does not run for replicas of this version.
--
-- The column and its trigger change in one transaction. Otherwise an event of the version before would
-- have no value in between.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION dlsms_notifies() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.notifies := NEW.kind IN ('OFFERED', 'OFFER_EXPIRED', 'REMINDED', 'NO_SHOW', 'COMPLETED', 'CHECKED_OUT');
    RETURN NEW;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$
BEGIN
    ALTER TABLE reservation_events
        ALTER COLUMN notifies DROP EXPRESSION IF EXISTS,
        ADD COLUMN IF NOT EXISTS by_library boolean NOT NULL DEFAULT false,
        ADD COLUMN IF NOT EXISTS sweep_id bigint,
        ADD COLUMN IF NOT EXISTS suggested_seat_id bigint;
    CREATE OR REPLACE TRIGGER reservation_events_notifies BEFORE INSERT ON reservation_events
        FOR EACH ROW WHEN (NEW.notifies IS NULL) EXECUTE FUNCTION dlsms_notifies();
    ALTER TABLE reservation_events ENABLE ALWAYS TRIGGER reservation_events_notifies;
END $$;
-- +goose StatementEnd
COMMENT ON COLUMN reservation_events.by_library IS 'staff or a sweep made the transition';
COMMENT ON COLUMN reservation_events.suggested_seat_id IS 'a free seat like the one that the user has lost';

-- SHORTENED: a closure ends the reservation of a user who is at the seat. RESCHEDULED: an outage
-- has moved the check-in deadline.
ALTER TABLE reservation_events
    DROP CONSTRAINT reservation_events_kind_check,
    ADD CONSTRAINT reservation_events_kind_check CHECK (kind IN (
        'RESERVED', 'OFFERED', 'CLAIMED', 'CHECKED_IN', 'CHECKED_OUT', 'EXTENDED', 'REMINDED',
        'CANCELLED', 'DECLINED', 'OFFER_EXPIRED', 'NO_SHOW', 'COMPLETED', 'SHORTENED', 'RESCHEDULED')) NOT VALID;

-- Old rows satisfy the constraints, so a validation only reads them, and bookings continue.
SET lock_timeout = 0;
ALTER TABLE reservation_events VALIDATE CONSTRAINT reservation_events_kind_check;
ALTER TABLE users VALIDATE CONSTRAINT users_role_check;
ALTER TABLE users VALIDATE CONSTRAINT users_staff_check;
ALTER TABLE seats VALIDATE CONSTRAINT seats_place_check;
ALTER TABLE seats VALIDATE CONSTRAINT seats_desk_check;
ALTER TABLE seats VALIDATE CONSTRAINT seats_retired_check;

-- The desk finds a person by student id, card or e-mail.
DROP INDEX CONCURRENTLY IF EXISTS users_card_key; -- invalid if an earlier attempt failed
CREATE UNIQUE INDEX CONCURRENTLY users_card_key ON users (library_id, card) WHERE card IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS users_email;
CREATE INDEX CONCURRENTLY users_email ON users (library_id, lower(email COLLATE "C"));

-- The desk lists the reservations of a branch that start on a day. The index still supports the
-- foreign key to seats.
DROP INDEX CONCURRENTLY IF EXISTS reservations_seat_start;
CREATE INDEX CONCURRENTLY reservations_seat_start ON reservations (library_id, seat_id, lower(during));
DROP INDEX CONCURRENTLY IF EXISTS reservations_seat;
ALTER INDEX reservations_seat_start RENAME TO reservations_seat;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS reservations_seat_start;
ALTER INDEX reservations_seat RENAME TO reservations_seat_start;
CREATE INDEX CONCURRENTLY reservations_seat ON reservations (library_id, seat_id);
DROP INDEX CONCURRENTLY IF EXISTS reservations_seat_start;
DROP INDEX CONCURRENTLY IF EXISTS users_email;
DROP INDEX CONCURRENTLY IF EXISTS users_card_key;
DROP TRIGGER reservation_events_notifies ON reservation_events;
DROP FUNCTION dlsms_notifies();
DELETE FROM reservation_events WHERE kind IN ('SHORTENED', 'RESCHEDULED');
ALTER TABLE reservation_events
    DROP CONSTRAINT reservation_events_kind_check,
    ADD CONSTRAINT reservation_events_kind_check CHECK (kind IN (
        'RESERVED', 'OFFERED', 'CLAIMED', 'CHECKED_IN', 'CHECKED_OUT', 'EXTENDED', 'REMINDED',
        'CANCELLED', 'DECLINED', 'OFFER_EXPIRED', 'NO_SHOW', 'COMPLETED')),
    DROP COLUMN by_library, DROP COLUMN sweep_id, DROP COLUMN suggested_seat_id, DROP COLUMN notifies;
ALTER TABLE reservation_events ADD COLUMN notifies boolean NOT NULL GENERATED ALWAYS AS
    (kind IN ('OFFERED', 'OFFER_EXPIRED', 'REMINDED', 'NO_SHOW', 'COMPLETED', 'CHECKED_OUT')) STORED;
CREATE INDEX reservation_events_notified ON reservation_events (library_id, user_id, id) WHERE notifies;
