-- +goose NO TRANSACTION
-- +goose Up

-- Each statement can be repeated. If a statement fails, the next start runs this file again from
-- the top. Bookings continue while a statement waits for a lock.
SET lock_timeout = '500ms';

-- last_login_at is written at most once a day. No row has had a login time before, so existing users
-- count from this migration on: otherwise the first pass of the retention would blank people who
-- use the system every day. Postgres computes the first default once and rewrites no rows.
ALTER TABLE users
    ADD COLUMN IF NOT EXISTS last_login_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS blanked_at timestamptz,
    ADD COLUMN IF NOT EXISTS pseudonym boolean NOT NULL DEFAULT false;
ALTER TABLE users
    ALTER COLUMN last_login_at SET DEFAULT dlsms_now(),
    DROP CONSTRAINT IF EXISTS users_retention_check,
    ADD CONSTRAINT users_retention_check CHECK (
        isfinite(last_login_at) AND isfinite(blanked_at) AND (NOT pseudonym OR closed_at IS NOT NULL)) NOT VALID;
COMMENT ON COLUMN users.last_login_at IS 'the last login, at most a day old; before the first login, the registration';
COMMENT ON COLUMN users.blanked_at IS 'the time at which the personal data was overwritten';
COMMENT ON COLUMN users.pseudonym IS 'the user stands for all people of a group, for what is older than the retention';

-- anonymous marks a row whose user is a pseudonym. Such a row leaves the indexes below, so a pass of
-- the retention reads only rows that it may still have to move.
ALTER TABLE reservations ADD COLUMN IF NOT EXISTS anonymous boolean NOT NULL DEFAULT false;
ALTER TABLE waitlist_entries ADD COLUMN IF NOT EXISTS anonymous boolean NOT NULL DEFAULT false;
ALTER TABLE suspensions ADD COLUMN IF NOT EXISTS anonymous boolean NOT NULL DEFAULT false;
ALTER TABLE audit_log ADD COLUMN IF NOT EXISTS anonymous boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN audit_log.anonymous IS 'the personal data of the row was removed';

SET lock_timeout = 0;
ALTER TABLE users VALIDATE CONSTRAINT users_retention_check;

-- Users that were erased by an earlier release. No other user has such a student id: the release sets
-- it together with an empty password.
UPDATE users SET closed_at = COALESCE(closed_at, now()), blanked_at = now(), card = NULL
WHERE student_id ~ ('^gone-' || id || '-[0-9a-f]{6}$') AND name = 'gone' AND password_hash = '' AND blanked_at IS NULL;

DROP INDEX CONCURRENTLY IF EXISTS users_pseudonym_key; -- invalid if an earlier attempt failed
CREATE UNIQUE INDEX CONCURRENTLY users_pseudonym_key ON users (library_id, user_group) WHERE pseudonym;
DROP INDEX CONCURRENTLY IF EXISTS users_last_login;
CREATE INDEX CONCURRENTLY users_last_login ON users (library_id, last_login_at, id)
    WHERE blanked_at IS NULL AND NOT pseudonym;
DROP INDEX CONCURRENTLY IF EXISTS reservations_ended;
CREATE INDEX CONCURRENTLY reservations_ended ON reservations (library_id, ended_at, id)
    WHERE ended_at IS NOT NULL AND NOT anonymous;
-- An entry that got a reservation moves together with it.
DROP INDEX CONCURRENTLY IF EXISTS waitlist_ended;
CREATE INDEX CONCURRENTLY waitlist_ended ON waitlist_entries (library_id, ended_at, id)
    WHERE ended_at IS NOT NULL AND reservation_id IS NULL AND NOT anonymous;
DROP INDEX CONCURRENTLY IF EXISTS suspensions_ended;
CREATE INDEX CONCURRENTLY suspensions_ended ON suspensions (library_id, ends_at, id) WHERE NOT anonymous;
DROP INDEX CONCURRENTLY IF EXISTS audit_log_at;
CREATE INDEX CONCURRENTLY audit_log_at ON audit_log (library_id, at, id) WHERE NOT anonymous;
-- The export of a person has what the person did as staff.
DROP INDEX CONCURRENTLY IF EXISTS audit_log_user;
CREATE INDEX CONCURRENTLY audit_log_user ON audit_log (library_id, user_id, id) WHERE user_id IS NOT NULL;
-- The list of closed accounts, which operators keep for a restore.
DROP INDEX CONCURRENTLY IF EXISTS users_closed;
CREATE INDEX CONCURRENTLY users_closed ON users (library_id, id) WHERE closed_at IS NOT NULL AND NOT pseudonym;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS users_closed;
DROP INDEX CONCURRENTLY IF EXISTS audit_log_user;
DROP INDEX CONCURRENTLY IF EXISTS audit_log_at;
DROP INDEX CONCURRENTLY IF EXISTS suspensions_ended;
DROP INDEX CONCURRENTLY IF EXISTS waitlist_ended;
DROP INDEX CONCURRENTLY IF EXISTS reservations_ended;
DROP INDEX CONCURRENTLY IF EXISTS users_last_login;
DROP INDEX CONCURRENTLY IF EXISTS users_pseudonym_key;
ALTER TABLE audit_log DROP COLUMN anonymous;
ALTER TABLE suspensions DROP COLUMN anonymous;
ALTER TABLE waitlist_entries DROP COLUMN anonymous;
ALTER TABLE reservations DROP COLUMN anonymous;
ALTER TABLE users
    DROP CONSTRAINT users_retention_check,
    DROP COLUMN last_login_at, DROP COLUMN blanked_at, DROP COLUMN pseudonym;
