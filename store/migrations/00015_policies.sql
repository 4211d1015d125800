-- +goose Up

-- The rules that staff have set. A policy applies to the library, or to a branch, an area of a
-- branch, a group of users, or a combination of them, and may be limited to some dates. rules has
-- the rules that the policy sets, by name; package library has their meaning.
CREATE TABLE policies (
    library_id bigint NOT NULL REFERENCES libraries (id),
    id         bigint GENERATED ALWAYS AS IDENTITY,
    branch_id  bigint,
    area       text,
    user_group text,
    dates      daterange NOT NULL DEFAULT '(,)' CONSTRAINT policies_dates_check CHECK (NOT isempty(dates)),
    rules      jsonb NOT NULL CONSTRAINT policies_rules_check CHECK (jsonb_typeof(rules) = 'object'),
    PRIMARY KEY (library_id, id),
    CONSTRAINT policies_branch_fkey FOREIGN KEY (library_id, branch_id) REFERENCES branches (library_id, id),
    CONSTRAINT policies_area_check CHECK (area IS NULL OR branch_id IS NOT NULL)
);
CREATE UNIQUE INDEX policies_key ON policies
    (library_id, (COALESCE(branch_id, 0)), (COALESCE(area, '')), (COALESCE(user_group, '')), dates);
CREATE INDEX policies_branch ON policies (library_id, branch_id);

-- The policies, resolved when they are written. For a seat, a user and a date, the first row in
-- this order has all rules that apply: with the seat's area before without, with its branch before
-- without, with the user's group before without. So a booking looks up one row. 0 and '' stand for
-- all other branches, areas and groups. A rule that is NULL has the value of the process: see
-- library.Policy.
CREATE TABLE effective_policies (
    library_id              bigint NOT NULL,
    branch_id               bigint NOT NULL,
    area                    text NOT NULL,
    user_group              text NOT NULL,
    dates                   daterange NOT NULL,
    may_book                boolean,
    min_duration            interval,
    max_duration            interval,
    step                    interval,
    max_ahead               interval,
    opens_at                time,
    max_upcoming            int,
    max_minutes_per_day     int,
    max_minutes_per_week    int,
    max_reservations_per_day  int,
    max_reservations_per_week int,
    cancel_until            interval,
    check_in_lead           interval,
    grace                   interval,
    strike_limit            int,
    strike_days             int,
    suspension_days         int[],
    PRIMARY KEY (library_id, branch_id, area, user_group, dates)
);

-- A no-show looks up whether any policy counts no-shows.
CREATE INDEX effective_policies_strikes ON effective_policies (library_id) WHERE strike_limit > 0;

-- dlsms_policy returns the row of effective_policies for a seat, a user and a date, or no row if no
-- policy was set. Postgres inlines the function into the query that calls it.
-- +goose StatementBegin
CREATE FUNCTION dlsms_policy(library bigint, branch bigint, seat_area text, users_group text, on_day date)
    RETURNS SETOF effective_policies
    LANGUAGE sql STABLE
    AS $$
    SELECT * FROM effective_policies p
    WHERE p.library_id = library AND p.branch_id IN (branch, 0) AND p.area IN (seat_area, '')
        AND p.user_group IN (users_group, '') AND p.dates @> on_day
    ORDER BY p.area <> '' DESC, p.branch_id <> 0 DESC, p.user_group <> '' DESC LIMIT 1
$$;
-- +goose StatementEnd

-- dlsms_off_grid returns whether a time is not a multiple of step after midnight, in a time zone.
-- +goose StatementBegin
CREATE FUNCTION dlsms_off_grid(step interval, at timestamptz, zone text) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$ SELECT mod(extract(epoch FROM (at AT TIME ZONE zone)::time), extract(epoch FROM step)) <> 0 $$;
-- +goose StatementEnd

-- dlsms_usage returns what a user has reserved on the local day and in the local week of a time: the
-- sum of the lengths, and the number of reservations. A reservation belongs to the day and week of
-- its start. Weeks start on Monday. Cancelled reservations and offers do not count, and neither does
-- the reservation "without". A completed reservation counts until its end.
-- +goose StatementBegin
CREATE FUNCTION dlsms_usage(library bigint, of_user bigint, zone text, at timestamptz, without bigint)
    RETURNS TABLE (day_time interval, week_time interval, day_count bigint, week_count bigint)
    LANGUAGE sql STABLE
    AS $$
    SELECT COALESCE(sum(r.used) FILTER (WHERE r.on_day), '0'), COALESCE(sum(r.used), '0'),
        count(*) FILTER (WHERE r.on_day), count(*)
    FROM (
        SELECT lower(r.during) >= d.day AT TIME ZONE zone
                AND lower(r.during) < (d.day + interval '1 day') AT TIME ZONE zone AS on_day,
            GREATEST(interval '0', CASE WHEN r.status = 'COMPLETED' THEN LEAST(r.ended_at, upper(r.during))
                ELSE upper(r.during) END - lower(r.during)) AS used
        FROM (SELECT date_trunc('day', at AT TIME ZONE zone) AS day OFFSET 0) d
        JOIN reservations r ON r.library_id = library AND r.user_id = of_user
            AND lower(r.during) >= date_trunc('week', d.day) AT TIME ZONE zone
            AND lower(r.during) < (date_trunc('week', d.day) + interval '7 days') AT TIME ZONE zone
        WHERE r.status NOT IN ('HELD', 'CANCELLED') AND r.id <> without
    ) r
$$;
-- +goose StatementEnd

-- A strike is a no-show that counts against its user until it expires or is forgiven. The
-- transition to NO_SHOW writes it. suspension_id is the suspension to which it has led.
CREATE TABLE strikes (
    library_id     bigint NOT NULL,
    id             bigint GENERATED ALWAYS AS IDENTITY,
    user_id        bigint NOT NULL,
    reservation_id bigint NOT NULL,
    branch_id      bigint NOT NULL,
    at             timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL CONSTRAINT strikes_expires_check CHECK (expires_at > at),
    strike_limit   int NOT NULL,
    suspension_days int[] NOT NULL,
    judged         boolean NOT NULL DEFAULT false,
    suspension_id  bigint,
    forgiven_at    timestamptz,
    reason         text NOT NULL DEFAULT '',
    PRIMARY KEY (library_id, id),
    CONSTRAINT strikes_user_fkey FOREIGN KEY (library_id, user_id) REFERENCES users (library_id, id),
    CONSTRAINT strikes_reservation_fkey FOREIGN KEY (library_id, reservation_id)
        REFERENCES reservations (library_id, id),
    CONSTRAINT strikes_reservation_key UNIQUE (library_id, reservation_id)
);
COMMENT ON COLUMN strikes.judged IS 'whether the worker has decided if this strike suspends its user';
COMMENT ON COLUMN strikes.strike_limit IS 'the policy at the time of the strike: this many strikes suspend the user';
COMMENT ON COLUMN strikes.suspension_days IS 'the policy at the time of the strike: lengths of the suspensions';
COMMENT ON COLUMN strikes.reason IS 'why the strike was forgiven';
CREATE INDEX strikes_user ON strikes (library_id, user_id, expires_at);
CREATE INDEX strikes_branch ON strikes (library_id, branch_id, at);
CREATE INDEX strikes_new ON strikes (library_id, id) WHERE NOT judged;

CREATE TABLE suspensions (
    library_id bigint NOT NULL,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    user_id    bigint NOT NULL,
    branch_id  bigint,
    begins_at  timestamptz NOT NULL,
    ends_at    timestamptz NOT NULL,
    lifted_at  timestamptz,
    reason     text NOT NULL DEFAULT '',
    PRIMARY KEY (library_id, id),
    CONSTRAINT suspensions_user_fkey FOREIGN KEY (library_id, user_id) REFERENCES users (library_id, id),
    CONSTRAINT suspensions_span_check CHECK (ends_at > begins_at AND isfinite(begins_at) AND isfinite(ends_at))
);
COMMENT ON COLUMN suspensions.branch_id IS 'the branch of the last strike, where the user can ask; NULL: set by staff';
CREATE INDEX suspensions_user ON suspensions (library_id, user_id, id);

-- alive_at is the time at which a worker last saw this database. seen_at is the same moment by
-- clock_timestamp(). In production the two are equal. Tests replace the clock of dlsms_now, and a
-- clock that jumps or runs fast is no outage. Only seen_at tells how long no worker ran: see
-- store/outage.go.
CREATE TABLE worker_heartbeat (
    library_id bigint PRIMARY KEY REFERENCES libraries (id),
    alive_at   timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A span in which no worker saw this database. The worker moves the check-in deadlines that fell
-- into it, and goes through the seats in the order of their ids. last_seat_id is the last seat that
-- it has finished.
CREATE TABLE outages (
    library_id   bigint NOT NULL REFERENCES libraries (id),
    id           bigint GENERATED ALWAYS AS IDENTITY,
    during       tstzrange NOT NULL,
    last_seat_id bigint NOT NULL DEFAULT 0,
    moved        int NOT NULL DEFAULT 0,
    done_at      timestamptz,
    PRIMARY KEY (library_id, id)
);
COMMENT ON COLUMN outages.moved IS 'number of reservations whose deadline was moved, or that were cancelled';
CREATE INDEX outages_open ON outages (library_id, id) WHERE done_at IS NULL;

-- dlsms_day returns the date of a time in a time zone. If Postgres does not know the zone, it
-- returns the date in UTC, so that one faulty branch does not make a transition fail.
-- +goose StatementBegin
CREATE FUNCTION dlsms_day(at timestamptz, zone text) RETURNS date
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
    RETURN (at AT TIME ZONE zone)::date;
EXCEPTION WHEN data_exception THEN
    RETURN (at AT TIME ZONE 'UTC')::date;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION dlsms_day(timestamptz, text);
DROP TABLE outages;
DROP TABLE worker_heartbeat;
DROP TABLE suspensions;
DROP TABLE strikes;
DROP FUNCTION dlsms_off_grid(interval, timestamptz, text);
DROP FUNCTION dlsms_usage(bigint, bigint, text, timestamptz, bigint);
DROP FUNCTION dlsms_policy(bigint, bigint, text, text, date);
DROP TABLE effective_policies;
DROP TABLE policies;
