-- +goose NO TRANSACTION
-- +goose Up

-- Each statement can be repeated. If a statement fails, the next start runs this file again from
-- the top.
SET lock_timeout = '2s';

-- The figures of reports, as sums of one hour. hour is the beginning of an hour in UTC. The worker
-- writes the rows of an hour once, some minutes after its end, and no row changes after that. So the
-- sums stay when reservations and events are made anonymous. No foreign key refers to the branch:
-- the sums of a branch that an operator deletes stay, and no report shows them.
--
-- The numbers of one hour, area and group are far below 2^31. Sums of int are bigint, and cheaper
-- than sums of bigint, which are numeric.
CREATE TABLE IF NOT EXISTS usage_hours (
    library_id          bigint NOT NULL REFERENCES libraries (id),
    hour                timestamptz NOT NULL,
    branch_id           bigint NOT NULL,
    area                text NOT NULL,
    user_group          text NOT NULL,
    reserved_seconds    int NOT NULL,
    used_seconds        int NOT NULL,
    reservations        int NOT NULL,
    check_ins           int NOT NULL,
    check_ins_seat      int NOT NULL,
    check_ins_screen    int NOT NULL,
    check_ins_both      int NOT NULL,
    check_ins_desk      int NOT NULL,
    check_ins_arrival   int NOT NULL,
    no_shows            int NOT NULL,
    cancelled           int NOT NULL,
    cancelled_by_library int NOT NULL,
    joins               int NOT NULL,
    offers              int NOT NULL,
    claims              int NOT NULL,
    PRIMARY KEY (library_id, hour, branch_id, area, user_group)
);
COMMENT ON COLUMN usage_hours.check_ins IS 'all check-ins; the columns after it are those with a proof';
COMMENT ON COLUMN usage_hours.check_ins_both IS 'the proof is SEAT_AND_SCREEN';

-- The time for which the seats of an area were open, summed over the seats.
CREATE TABLE IF NOT EXISTS usage_open (
    library_id   bigint NOT NULL REFERENCES libraries (id),
    hour         timestamptz NOT NULL,
    branch_id    bigint NOT NULL,
    area         text NOT NULL,
    open_seconds int NOT NULL,
    PRIMARY KEY (library_id, hour, branch_id, area)
);

-- How long users waited for the offers of an hour, in whole minutes. The median of several hours
-- cannot be computed from the medians of each, so all values are kept.
CREATE TABLE IF NOT EXISTS usage_waits (
    library_id bigint NOT NULL REFERENCES libraries (id),
    hour       timestamptz NOT NULL,
    branch_id  bigint NOT NULL,
    area       text NOT NULL,
    user_group text NOT NULL,
    minutes    int NOT NULL,
    offers     int NOT NULL,
    PRIMARY KEY (library_id, hour, branch_id, area, user_group, minutes)
);

-- Bookings that were refused because the seat was taken. They leave no event. Each replica adds its
-- numbers from time to time, also for hours that are final in the tables above.
CREATE TABLE IF NOT EXISTS usage_refusals (
    library_id bigint NOT NULL REFERENCES libraries (id),
    hour       timestamptz NOT NULL,
    branch_id  bigint NOT NULL,
    area       text NOT NULL,
    user_group text NOT NULL,
    taken      int NOT NULL,
    PRIMARY KEY (library_id, hour, branch_id, area, user_group)
);

-- The sums are final before counted_until, which is the beginning of an hour. The transaction that
-- writes the sums of an hour also moves it, so no hour is counted twice.
CREATE TABLE IF NOT EXISTS usage_progress (
    library_id    bigint PRIMARY KEY REFERENCES libraries (id),
    counted_until timestamptz NOT NULL
);

-- The events and the waitlist entries of an hour.
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS reservation_events_at; -- invalid if an earlier attempt failed
CREATE INDEX CONCURRENTLY reservation_events_at ON reservation_events (library_id, at);
DROP INDEX CONCURRENTLY IF EXISTS waitlist_created;
CREATE INDEX CONCURRENTLY waitlist_created ON waitlist_entries (library_id, created_at);

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS waitlist_created;
DROP INDEX CONCURRENTLY IF EXISTS reservation_events_at;
DROP TABLE usage_progress, usage_refusals, usage_waits, usage_open, usage_hours;
