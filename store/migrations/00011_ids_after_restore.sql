-- +goose Up

-- dlsms_move_ids_on advances all id sequences. After a restore, the database lacks ids that it gave
-- out before, and must not give them out again. It cannot know how many they were. But ids are used
-- up at less than 100,000 a second. So it advances each sequence to 100,000 times the number of
-- seconds since the start of 2026. If the clock is so wrong that the sequence is already beyond this
-- number, it advances the sequence by 1,000,000,000. Ids pass 2^53, where JavaScript begins to
-- round, not before the year 4800.
--
-- Before, each sequence advanced by 1,000,000,000 at least. Two restores of one dump then gave out
-- the same ids, if the dump was made within 10,000 s of an earlier restore.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION dlsms_move_ids_on() RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    sequence regclass;
    last bigint;
    by_clock bigint;
BEGIN
    FOR sequence IN
        SELECT d.objid::regclass
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> '' AND a.atttypid = 'bigint'::regtype
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum
            AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
        WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'libraries'::regclass)
    LOOP
        last := COALESCE(pg_sequence_last_value(sequence), 0);
        by_clock := extract(epoch FROM clock_timestamp() - timestamptz '2026-01-01 00:00:00Z') * 100000;
        PERFORM setval(sequence, CASE WHEN by_clock > last THEN by_clock ELSE last + 1000000000 END);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down
-- The function of before works on this schema too, so nothing needs to be undone.
