-- +goose NO TRANSACTION
-- +goose Up

-- Each statement can be repeated. If a statement fails, the next start runs this file again from
-- the top. Bookings continue while a statement waits for a lock.
SET lock_timeout = 0;

-- Checks the waitlist entries that were written before 00004. If one of them violates the
-- constraint, it stays, and the constraint applies to new rows only. No code writes such entries
-- any more.
-- +goose StatementBegin
DO $$
BEGIN
    ALTER TABLE waitlist_entries VALIDATE CONSTRAINT waitlist_times_check;
EXCEPTION WHEN check_violation THEN
    RAISE WARNING '%', SQLERRM;
END $$;
-- +goose StatementEnd

-- Two student ids that differ only in case must not belong to two users. The old index compares
-- them with lower(), whose result depends on the locale of the database: in Turkish, I does not
-- become i. So the old index may have accepted such ids. Student ids are ASCII, and the new index
-- compares them by the rules of ASCII (COLLATE "C").
-- +goose StatementBegin
DO $$
DECLARE
    twice text;
BEGIN
    SELECT string_agg(t.ids, '; ') INTO twice FROM (
        SELECT string_agg(format('user %s is %s', id, student_id), ', ' ORDER BY id) AS ids
        FROM users GROUP BY library_id, lower(student_id COLLATE "C") HAVING count(*) > 1 LIMIT 20) t;
    IF twice IS NOT NULL THEN
        RAISE EXCEPTION 'student ids that differ in case alone belong to several users; '
            'change the student_id of all but one by SQL, and start again: %', twice;
    END IF;
END $$;
-- +goose StatementEnd
DROP INDEX CONCURRENTLY IF EXISTS users_student_id_ascii_key; -- invalid if an earlier attempt failed
CREATE UNIQUE INDEX CONCURRENTLY users_student_id_ascii_key ON users (library_id, lower(student_id COLLATE "C"));
COMMENT ON INDEX users_student_id_key
    IS 'for replicas of the version before 00005; to be dropped by the release after it';

-- +goose Down
DROP INDEX CONCURRENTLY users_student_id_ascii_key;
