-- +goose Up

-- States which binaries may run on this schema. The first migration of a release sets oldest_binary
-- to the newest schema version of the release before it. So a release runs on its own schema and on
-- the schema of the next release, and on no later one.
CREATE TABLE schema_compatibility (
    one           boolean PRIMARY KEY DEFAULT true CONSTRAINT schema_compatibility_one_check CHECK (one),
    oldest_binary bigint NOT NULL
);
COMMENT ON COLUMN schema_compatibility.oldest_binary IS 'a binary whose newest migration is older refuses to start';
INSERT INTO schema_compatibility (oldest_binary) VALUES (3);

-- Identifies the database as a replica last saw it. A restored dump, a copy, a promoted server and
-- a recovery to a point in time each differ in at least one of these columns. xid is the
-- transaction that wrote the row. pg_restore writes the row in another transaction, so the system
-- column xmin then differs from xid.
CREATE TABLE database_identity (
    one               boolean PRIMARY KEY DEFAULT true CONSTRAINT database_identity_one_check CHECK (one),
    system_identifier bigint NOT NULL,
    timeline          text NOT NULL,
    database_oid      oid NOT NULL,
    xid               xid8 NOT NULL DEFAULT pg_current_xact_id()
);

-- dlsms_move_ids_on advances all id sequences. After a restore, the database lacks ids that it gave
-- out before, and must not give them out again. It cannot know how many they were. But ids are used
-- up at less than 100,000 a second. So it advances each sequence to 100,000 times the number of
-- seconds since the start of 2026. In case the clock is wrong, it advances each sequence by at
-- least 1,000,000,000. Ids pass 2^53, where JavaScript begins to round, not before the year 4800.
-- +goose StatementBegin
CREATE FUNCTION dlsms_move_ids_on() RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    sequence regclass;
BEGIN
    FOR sequence IN
        SELECT d.objid::regclass
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> '' AND a.atttypid = 'bigint'::regtype
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum
            AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
        WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'libraries'::regclass)
    LOOP
        PERFORM setval(sequence, GREATEST(
            COALESCE(pg_sequence_last_value(sequence), 0) + 1000000000,
            (extract(epoch FROM clock_timestamp() - timestamptz '2026-01-01 00:00:00Z') * 100000)::bigint));
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION dlsms_move_ids_on() IS 'for operators, after a restore that Postgres cannot tell from a crash';

-- dlsms_settle compares the database with the row of database_identity. If they differ, it advances
-- the ids, writes the new identity and returns true. A database without such a row is new:
-- dlsms_settle inserts the row and returns false.
-- +goose StatementBegin
CREATE FUNCTION dlsms_settle() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    here  bigint := 0;
    line  text := '';
    base  oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
    known boolean;
BEGIN
    -- In plain Postgres every role may call these functions, but a hosted database may refuse. Then
    -- only the other columns can show a difference.
    BEGIN
        SELECT c.system_identifier INTO here FROM pg_control_system() c;
        line := left(pg_walfile_name(pg_current_wal_lsn()), 8);
    EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR undefined_function THEN
        NULL;
    END;
    FOR attempt IN 1..2 LOOP
        SELECT i.system_identifier = here AND i.timeline = line AND i.database_oid = base
            AND i.xmin::text::bigint = i.xid::text::numeric % 4294967296
        INTO known FROM database_identity i;
        IF known THEN
            RETURN false;
        END IF;
        -- Check again under the lock: another replica may have been first.
        LOCK TABLE database_identity IN SHARE ROW EXCLUSIVE MODE;
    END LOOP;
    IF known IS NOT NULL THEN
        PERFORM dlsms_move_ids_on();
    END IF;
    INSERT INTO database_identity (system_identifier, timeline, database_oid) VALUES (here, line, base)
    ON CONFLICT (one) DO UPDATE SET system_identifier = here, timeline = line, database_oid = base, xid = DEFAULT;
    RETURN known IS NOT NULL;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION dlsms_settle();
DROP FUNCTION dlsms_move_ids_on();
DROP TABLE database_identity;
DROP TABLE schema_compatibility;
