-- +goose Up

-- Protection against faulty rows that operators write by SQL, in two parts:
--
--   1. A CHECK or a trigger refuses, in every session, a row that would mislead or stop a replica.
--   2. The guard refuses a row that does not agree with another row, such as a reservation without
--      an event for its new status. The guard is a set of triggers. They run in each session in
--      which the setting dlsms.guard is not off.
--
-- The replicas set dlsms.guard to off, because the guard would slow down each booking. Replicas of
-- the previous version do not set it, and the guard accepts their transactions: they write the
-- reservation and its event in one transaction, and the guard checks at the end of a transaction.
--
-- The statements of this migration change the system catalog and scan small tables, so they hold
-- their locks for milliseconds. They lock the tables in the order in which transactions lock them.
LOCK TABLE users, branches, branch_hours, seats, reservations, waitlist_entries, reservation_events, revocations
    IN ACCESS EXCLUSIVE MODE;

-- dlsms_zone returns the name of a time zone as Postgres spells it. It returns NULL if Postgres
-- does not know the name, or if Go may interpret the name differently:
--   - An IANA name of the form Area/City, or UTC, means the same to Postgres and Go.
--   - A name without a slash may have another meaning in Go. For example, to Postgres, CET is an
--     abbreviation without summer time, and EST5EDT is a POSIX rule if its file is missing.
--   - The meaning of posix/, right/ and localtime depends on the machine.
--   - Postgres accepts any name that ends in a number, such as Europe/Foo3, as a POSIX rule, and
--     spells it in capitals. So a name needs a lower-case letter.
-- +goose StatementBegin
CREATE FUNCTION dlsms_zone(name text) RETURNS text
    LANGUAGE plpgsql
    SET timezone = 'UTC'
    AS $$
DECLARE
    spelled text;
BEGIN
    IF name IS NULL OR name = '' THEN
        RETURN NULL;
    END IF;
    -- In effect until the function returns. A query of pg_timezone_names would take 100 ms.
    PERFORM set_config('timezone', name, true);
    spelled := current_setting('timezone');
    RETURN CASE WHEN spelled = 'UTC' OR spelled ~ '^[A-Z][A-Za-z]*/' AND spelled ~ '[a-z]' THEN spelled END;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- These rows have only one possible repair.
UPDATE branches SET timezone = dlsms_zone(timezone) WHERE timezone <> dlsms_zone(timezone);
UPDATE seats SET amenities = ARRAY(SELECT DISTINCT a FROM unnest(amenities) a WHERE a BETWEEN 1 AND 5 ORDER BY a)
WHERE NOT amenities <@ '{1,2,3,4,5}'
    OR array_ndims(amenities) > 1
    OR array_lower(amenities, 1) <> 1
    OR cardinality(amenities) > 32;
-- No replica can read an infinite time.
UPDATE revocations SET expires_at = dlsms_now() + interval '1 year' WHERE NOT isfinite(expires_at);

-- dlsms_plain returns whether a text has 1 to most characters, has no control characters and no
-- marks of text direction, and does not begin or end with a blank.
-- +goose StatementBegin
CREATE FUNCTION dlsms_plain(value text, most int) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT char_length(value) BETWEEN 1 AND most AND value = btrim(value, E' \u00a0\u3000')
        AND value COLLATE "C" !~ '[\u0001-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]'
$$;
-- +goose StatementEnd

-- The statements above have repaired the rows that have only one possible repair. If other rows
-- violate the new constraints, the migration fails and lists them, and an operator must correct
-- them.
-- +goose StatementBegin
DO $$
DECLARE
    refused text;
BEGIN
    SELECT string_agg(what, '; ') INTO refused FROM (
        SELECT format('branch %s of library %s has the time zone %L', code, library_id, timezone) AS what
        FROM branches WHERE dlsms_zone(timezone) IS NULL
        UNION ALL
        SELECT format('branch %s of library %s has the name %L', code, library_id, left(name, 50))
        FROM branches WHERE NOT dlsms_plain(name, 200)
        UNION ALL
        SELECT format('branch %s of library %s opens on weekday %s at %s and closes at %s',
            branch_id, library_id, weekday, opens, closes)
        FROM branch_hours
        WHERE opens = '24:00' OR extract(second FROM opens) % 1 <> 0 OR extract(second FROM closes) % 1 <> 0
        UNION ALL
        SELECT format('seat %s of library %s has the area %L and the label %L',
            id, library_id, left(area, 50), left(label, 50))
        FROM seats WHERE NOT dlsms_plain(area, 100) OR NOT dlsms_plain(label, 100)
        UNION ALL
        SELECT format('user %s of library %s has a name or email of more than 1,000 characters, '
            'or created_at is infinite',
            id, library_id)
        FROM users WHERE char_length(name) > 1000 OR char_length(email) > 1000 OR NOT isfinite(created_at)
        LIMIT 20) r;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'this version refuses rows that the database has; '
            'correct them by SQL as docs/operating/catalog.md says, and start it again: %', refused;
    END IF;
END $$;
-- +goose StatementEnd

ALTER TABLE branches ADD CONSTRAINT branches_name_check CHECK (dlsms_plain(name, 200));
ALTER TABLE branch_hours
    ADD CONSTRAINT branch_hours_opens_check CHECK (opens < '24:00'),
    ADD CONSTRAINT branch_hours_seconds_check CHECK (
        extract(second FROM opens) % 1 = 0 AND extract(second FROM closes) % 1 = 0);
ALTER TABLE seats
    ADD CONSTRAINT seats_area_check CHECK (dlsms_plain(area, 100)),
    ADD CONSTRAINT seats_label_check CHECK (dlsms_plain(label, 100)),
    -- For an array that contains NULL, the result of the old CHECK was NULL. Postgres accepts a row
    -- whose CHECK is NULL, so it accepted such arrays.
    DROP CONSTRAINT seats_amenities_check,
    ADD CONSTRAINT seats_amenities_check CHECK (amenities <@ '{1,2,3,4,5}' AND COALESCE(array_ndims(amenities), 1) = 1
        AND COALESCE(array_lower(amenities, 1), 1) = 1 AND cardinality(amenities) <= 32);
ALTER TABLE users
    ADD CONSTRAINT users_text_check CHECK (char_length(name) <= 1000 AND char_length(email) <= 1000),
    ADD CONSTRAINT users_times_check CHECK (isfinite(created_at));

-- A replica cannot read an infinite time. An infinite time in the change log would stop every
-- replica. In reservations and their events, the guard refuses infinite times. A CHECK on these two
-- tables would cost every booking, because Postgres prepares each CHECK again for each statement.
-- The constraint of waitlist_entries is NOT VALID, because the table is long: it applies to new
-- rows only, and 00005 checks the old rows.
ALTER TABLE reservation_events ADD COLUMN reason text; -- given by an operator, see store/cancel.go
ALTER TABLE waitlist_entries ADD CONSTRAINT waitlist_times_check CHECK (
    isfinite(offer_expires_at) AND isfinite(created_at) AND isfinite(ended_at)) NOT VALID;
ALTER TABLE revocations ADD CONSTRAINT revocations_times_check CHECK (isfinite(expires_at));

-- Ids must come from the sequence. If an operator gives a row an id that is ahead of the sequence,
-- a later INSERT fails. If the id of a row changes, clients keep the old id.
ALTER TABLE branches ALTER COLUMN id SET GENERATED ALWAYS;
ALTER TABLE seats ALTER COLUMN id SET GENERATED ALWAYS;
ALTER TABLE users ALTER COLUMN id SET GENERATED ALWAYS;
ALTER TABLE reservations ALTER COLUMN id SET GENERATED ALWAYS;

-- +goose StatementBegin
CREATE FUNCTION dlsms_check_zone() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF dlsms_zone(NEW.timezone) IS DISTINCT FROM NEW.timezone THEN
        RAISE EXCEPTION 'branch %: % is not a time zone; '
            'write an IANA name of the form Area/City, spelled as in Europe/Berlin, or UTC',
            NEW.code, quote_nullable(NEW.timezone)
            USING ERRCODE = 'check_violation', CONSTRAINT = 'branches_timezone_check';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER branches_timezone BEFORE INSERT OR UPDATE OF timezone ON branches
    FOR EACH ROW EXECUTE FUNCTION dlsms_check_zone();

-- dlsms_refuse refuses the statement that fires its trigger. Its argument is the reason.
-- +goose StatementBegin
CREATE FUNCTION dlsms_refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME; END $$;
-- +goose StatementEnd

-- A row must not move to another library. No row of the library that it leaves would get a new xid,
-- so the replicas of that library would not learn of the move.
CREATE TRIGGER branches_stay BEFORE UPDATE OF library_id ON branches
    FOR EACH ROW WHEN (OLD.library_id <> NEW.library_id)
    EXECUTE FUNCTION dlsms_refuse('a branch does not move to another library');
CREATE TRIGGER seats_stay BEFORE UPDATE OF library_id ON seats FOR EACH ROW WHEN (OLD.library_id <> NEW.library_id)
    EXECUTE FUNCTION dlsms_refuse('a seat does not move to another library');
CREATE TRIGGER users_stay BEFORE UPDATE OF library_id ON users FOR EACH ROW WHEN (OLD.library_id <> NEW.library_id)
    EXECUTE FUNCTION dlsms_refuse('a user does not move to another library');

-- The triggers from here to the end are the guard.

-- The deletion of a branch leaves a new xid on the other branches. The deletion of the last branch
-- leaves none, so replicas would show the branch until they restart.
-- +goose StatementBegin
CREATE FUNCTION dlsms_keep_last_branch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM branches WHERE library_id = OLD.library_id) THEN
        RAISE EXCEPTION 'the last branch of a library is not deleted: '
            'replicas would not learn of it; add another one first'
            USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER branches_last AFTER DELETE ON branches
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION dlsms_keep_last_branch();

-- dlsms_check_offer refuses a waitlist entry and a hold that do not agree, for example an entry
-- with the status OFFERED and a reservation that is not a hold.
-- +goose StatementBegin
CREATE FUNCTION dlsms_check_offer(library bigint, entry bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    hold bigint;
BEGIN
    SELECT COALESCE(r.id, w.reservation_id) INTO hold
    FROM waitlist_entries w LEFT JOIN reservations r ON r.library_id = w.library_id AND r.id = w.reservation_id
    WHERE w.library_id = library AND w.id = entry
        AND CASE w.status
            WHEN 'OFFERED' THEN (r.status, r.entry_id, r.seat_id, r.user_id, r.during, r.offer_expires_at)
                IS DISTINCT FROM ('HELD', w.id, w.seat_id, w.user_id, w.during, w.offer_expires_at)
            WHEN 'CLAIMED' THEN r.entry_id IS DISTINCT FROM w.id OR r.status = 'HELD'
            ELSE EXISTS (
                SELECT FROM reservations h
                WHERE h.library_id = library AND h.user_id = w.user_id AND h.occupies
                AND h.entry_id = w.id AND h.status = 'HELD') END;
    IF FOUND THEN
        RAISE EXCEPTION 'waitlist entry % and its hold do not say the same; to end an offer, run: dlsms cancel %',
            entry, COALESCE(hold::text, '<reservation id>')
            USING ERRCODE = 'restrict_violation', TABLE = 'waitlist_entries';
    END IF;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION dlsms_check_entry() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN PERFORM dlsms_check_offer(NEW.library_id, NEW.id); RETURN NULL; END $$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER waitlist_offers AFTER INSERT OR UPDATE ON waitlist_entries DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION dlsms_check_entry();
CREATE TRIGGER waitlist_keep BEFORE UPDATE OF library_id, id, seat_id, user_id, during ON waitlist_entries
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION dlsms_refuse(
        'a waitlist entry does not move: the seat''s line was decided with it; end it, and its user joins again');

-- dlsms_check_reservation refuses a reservation that differs from its newest event. Replicas learn
-- of changes from events only.
-- +goose StatementBegin
CREATE FUNCTION dlsms_check_reservation(library bigint, reservation bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    told boolean;
BEGIN
    SELECT (r.version, r.seat_id, r.user_id, r.entry_id, r.during, r.status,
            r.check_in_opens_at, r.check_in_deadline, r.offer_expires_at,
            r.created_at, r.checked_in_at, r.ended_at)
        IS NOT DISTINCT FROM
        (e.version, e.seat_id, e.user_id, e.entry_id, e.during, e.status,
            e.check_in_opens_at, e.check_in_deadline, e.offer_expires_at,
            e.created_at, e.checked_in_at, e.ended_at)
        -- A later migration adds the column occupies.
        AND COALESCE((to_jsonb(e) ->> 'occupies')::boolean, r.occupies) = r.occupies
        -- Each time is NULL or finite.
        AND (isfinite(e.at)
            AND isfinite(e.check_in_opens_at) AND isfinite(e.check_in_deadline) AND isfinite(e.offer_expires_at)
            AND isfinite(e.created_at) AND isfinite(e.checked_in_at) AND isfinite(e.ended_at)) IS NOT FALSE
    INTO told
    FROM reservations r LEFT JOIN reservation_events e ON e.library_id = r.library_id AND e.reservation_id = r.id
    WHERE r.library_id = library AND r.id = reservation
    ORDER BY e.version DESC NULLS LAST LIMIT 1;
    IF told IS DISTINCT FROM true THEN
        RAISE EXCEPTION 'reservation % is not what its newest event says: '
            'replicas would not learn of the change; to cancel it, run: dlsms cancel %',
            reservation, reservation
            USING ERRCODE = 'restrict_violation', TABLE = 'reservations';
    END IF;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION dlsms_check_told() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM dlsms_check_reservation(NEW.library_id, NEW.id);
    IF NEW.entry_id IS NOT NULL THEN
        PERFORM dlsms_check_offer(NEW.library_id, NEW.entry_id);
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION dlsms_check_event() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF NEW.xid <> pg_current_xact_id() THEN
        RAISE EXCEPTION 'the xid of an event is that of its transaction'
            USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME;
    END IF;
    IF EXISTS (
        SELECT FROM reservations
        WHERE library_id = NEW.library_id AND id = NEW.reservation_id AND version <> NEW.version) THEN
        RAISE EXCEPTION 'reservation % has not the version % of its event', NEW.reservation_id, NEW.version
            USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME;
    END IF;
    PERFORM dlsms_check_reservation(NEW.library_id, NEW.reservation_id);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER reservations_told AFTER INSERT OR UPDATE ON reservations DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off') EXECUTE FUNCTION dlsms_check_told();
CREATE CONSTRAINT TRIGGER reservation_events_true AFTER INSERT ON reservation_events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION dlsms_check_event();
CREATE TRIGGER reservations_keep BEFORE DELETE ON reservations
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION dlsms_refuse(
        'a reservation is not deleted: replicas would not learn of it; to cancel it, run: dlsms cancel <id>');
-- An UPDATE of an event may change no column except xid. The first start after a restore rewrites
-- the xid.
-- +goose StatementBegin
CREATE FUNCTION dlsms_keep_event() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    -- Postgres computes the generated column notifies after this trigger.
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - '{xid,notifies}'::text[] = to_jsonb(OLD) - '{xid,notifies}'::text[] THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the change log is neither edited nor deleted: replicas and clients have read it'
        USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME;
END $$;
-- +goose StatementEnd
CREATE TRIGGER reservation_events_keep BEFORE UPDATE OR DELETE ON reservation_events
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off') EXECUTE FUNCTION dlsms_keep_event();
CREATE TRIGGER reservation_events_touch BEFORE UPDATE OF xid ON reservation_events
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off') EXECUTE FUNCTION dlsms_touch();

-- dlsms_check_user refuses values that would break logins. If an operator changes the role,
-- password or student id of a user, the function raises the token generation of the user. This
-- revokes the user's tokens.
-- +goose StatementBegin
CREATE FUNCTION dlsms_check_user() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    -- A login with a hash of cost 31 takes days. It would occupy one of the few slots that a
    -- replica has for logins.
    IF NEW.password_hash !~ '^(|\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53})$' THEN
        RAISE EXCEPTION
            'password_hash must be a bcrypt hash of cost 4 to 16, or empty: then no login succeeds'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'password_hash';
    END IF;
    IF NEW.student_id COLLATE "C" !~ '^[A-Za-z0-9._-]{3,32}$' THEN
        RAISE EXCEPTION
            'student_id is 3 to 32 of ASCII letters, digits, ".", "_" and "-": no login succeeds with %',
            quote_literal(NEW.student_id)
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'student_id';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF NEW.token_generation < OLD.token_generation THEN
            RAISE EXCEPTION 'token_generation does not go back: tokens that were revoked would count again'
                USING ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME, COLUMN = 'token_generation';
        END IF;
        IF (NEW.role, NEW.password_hash, NEW.student_id) IS DISTINCT FROM (OLD.role, OLD.password_hash, OLD.student_id)
            AND NEW.token_generation = OLD.token_generation
        THEN
            NEW.token_generation := OLD.token_generation + 1;
        END IF;
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER users_check BEFORE INSERT OR UPDATE OF student_id, role, password_hash, token_generation ON users
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off') EXECUTE FUNCTION dlsms_check_user();

-- Replicas learn of a new generation only from the table revocations. So this trigger adds a row
-- there, unless the transaction has added one. The row expires after one year. A token must not
-- live longer than that (JWT_TTL).
-- +goose StatementBegin
CREATE FUNCTION dlsms_revoke() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO revocations (library_id, user_id, generation, expires_at)
    SELECT NEW.library_id, NEW.id, NEW.token_generation, dlsms_now() + interval '1 year'
    WHERE NOT EXISTS (
        SELECT FROM revocations
        WHERE library_id = NEW.library_id AND user_id = NEW.id AND generation >= NEW.token_generation);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER users_revoke AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (
        NEW.token_generation > OLD.token_generation
        AND current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION dlsms_revoke();
CREATE TRIGGER users_keep BEFORE DELETE ON users
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION dlsms_refuse(
        'a user is not deleted: their tokens would still count; run: dlsms erase <student id>');
CREATE TRIGGER revocations_keep BEFORE UPDATE OF library_id, id, user_id, jti, generation, expires_at ON revocations
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION dlsms_refuse('a revocation is not edited: replicas have read it');
CREATE TRIGGER revocations_last BEFORE DELETE ON revocations
    FOR EACH ROW WHEN (OLD.expires_at > dlsms_now() AND current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
    EXECUTE FUNCTION dlsms_refuse('a revocation is not deleted before it expires: the tokens would count again');
CREATE TRIGGER revocations_touch BEFORE INSERT OR UPDATE OF xid ON revocations
    FOR EACH ROW WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off') EXECUTE FUNCTION dlsms_touch();

-- TRUNCATE fires no row triggers, so it would leave no new xid, and replicas would not learn of it.
-- These triggers refuse it.
-- +goose StatementBegin
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'libraries', 'branches', 'branch_hours', 'seats', 'users',
        'reservations', 'waitlist_entries', 'reservation_events', 'revocations'] LOOP
        EXECUTE format($trigger$CREATE TRIGGER %I BEFORE TRUNCATE ON %I
            FOR EACH STATEMENT WHEN (current_setting('dlsms.guard', true) IS DISTINCT FROM 'off')
            EXECUTE FUNCTION dlsms_refuse(
                'no table is truncated while replicas may run: they would not learn of it')$trigger$,
            name || '_truncate', name);
    END LOOP;
END $$;
-- +goose StatementEnd
