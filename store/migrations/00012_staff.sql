-- +goose Up

-- The tables and columns with which staff run a library: roles, the audit log, service keys,
-- announcements, areas, and the places of seats on a floor plan.

-- A librarian or a member of staff works for the branches in this list. NULL means all branches. A
-- list, and not a table of its own: if a row of such a table were deleted with its branch, "this
-- branch" would become "no row", which must not mean "all branches".
ALTER TABLE users ADD COLUMN branches bigint[];
COMMENT ON COLUMN users.branches IS 'ids of the branches for which the role holds; NULL: all';
ALTER TABLE users
    ADD COLUMN user_group text NOT NULL DEFAULT '',
    ADD COLUMN card text,
    ADD COLUMN suspended_until timestamptz,
    ADD COLUMN closed_at timestamptz;
COMMENT ON COLUMN users.user_group IS 'selects the policies of the user; empty: no group';
COMMENT ON COLUMN users.card IS 'number of the library card, for the desk and for turnstiles';
COMMENT ON COLUMN users.suspended_until IS 'the user cannot reserve a seat before this time';
COMMENT ON COLUMN users.closed_at IS 'the time at which an admin closed the account';

-- NOT VALID does not scan the table. 00014 validates the constraints.
ALTER TABLE users
    DROP CONSTRAINT users_role_check,
    ADD CONSTRAINT users_role_check CHECK (role IN ('STUDENT', 'STAFF', 'LIBRARIAN', 'ADMIN')) NOT VALID,
    ADD CONSTRAINT users_staff_check CHECK (
        char_length(user_group) <= 64 AND char_length(card) <= 64 AND isfinite(suspended_until) AND isfinite(closed_at)
        AND (card IS NULL OR card <> '')) NOT VALID;

-- One row for each change that staff made. The transaction of the change writes it.
CREATE TABLE audit_log (
    library_id bigint NOT NULL REFERENCES libraries (id),
    id         bigint GENERATED ALWAYS AS IDENTITY,
    at         timestamptz NOT NULL DEFAULT dlsms_now(),
    user_id    bigint,
    key_id     bigint,
    role       text NOT NULL,
    action     text NOT NULL,
    branch_id  bigint,
    object     text NOT NULL,
    before     jsonb,
    after      jsonb,
    reason     text NOT NULL DEFAULT '',
    request_id text NOT NULL DEFAULT '',
    PRIMARY KEY (library_id, id)
);
COMMENT ON COLUMN audit_log.user_id IS 'NULL: a command on the host, or a service key';
COMMENT ON COLUMN audit_log.action IS 'the name of the RPC or of the command';
COMMENT ON COLUMN audit_log.object IS 'the kind and the key of the changed object, such as branch/main';
CREATE INDEX audit_log_branch ON audit_log (library_id, branch_id, id);
CREATE INDEX audit_log_object ON audit_log (library_id, object, id);
CREATE INDEX audit_log_request ON audit_log (library_id, user_id, request_id) WHERE request_id <> '';

-- The key of a program, such as a turnstile. Only the hash of its secret is stored.
CREATE TABLE service_keys (
    library_id bigint NOT NULL REFERENCES libraries (id),
    id         bigint GENERATED ALWAYS AS IDENTITY,
    name       text NOT NULL CONSTRAINT service_keys_name_check CHECK (dlsms_plain(name, 100)),
    branch_id  bigint NOT NULL,
    scopes     text[] NOT NULL CONSTRAINT service_keys_scopes_check CHECK (
        scopes <@ '{screen,arrivals,reports}' AND cardinality(scopes) BETWEEN 1 AND 3),
    hash       bytea NOT NULL CONSTRAINT service_keys_hash_check CHECK (length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT dlsms_now(),
    revoked_at timestamptz,
    PRIMARY KEY (library_id, id),
    CONSTRAINT service_keys_branch_fkey FOREIGN KEY (library_id, branch_id) REFERENCES branches (library_id, id)
);
CREATE INDEX service_keys_branch ON service_keys (library_id, branch_id);

-- An area has a row here only if staff described it. The areas of a branch are those of its seats.
CREATE TABLE areas (
    library_id bigint NOT NULL,
    branch_id  bigint NOT NULL,
    name       text NOT NULL CONSTRAINT areas_name_check CHECK (dlsms_plain(name, 100)),
    floor      text NOT NULL DEFAULT '' CONSTRAINT areas_floor_check CHECK (floor = '' OR dlsms_plain(floor, 50)),
    PRIMARY KEY (library_id, branch_id, name),
    CONSTRAINT areas_branch_fkey FOREIGN KEY (library_id, branch_id)
        REFERENCES branches (library_id, id) ON DELETE CASCADE
);
CREATE TRIGGER areas_touch AFTER INSERT OR UPDATE OR DELETE ON areas
    FOR EACH ROW EXECUTE FUNCTION dlsms_touch_branch();

-- A text that students see, by language. A language is a BCP 47 tag, such as de or pt-BR.
ALTER TABLE branches
    ADD COLUMN announcement jsonb NOT NULL DEFAULT '{}' CONSTRAINT branches_announcement_check CHECK (
        jsonb_typeof(announcement) = 'object'),
    ADD COLUMN announced_until timestamptz;

-- A retired seat is kept for its history. It is out of service, too, so that replicas of the
-- version before this column do not offer it.
ALTER TABLE seats
    ADD COLUMN x_cm int,
    ADD COLUMN y_cm int,
    ADD COLUMN angle smallint,
    ADD COLUMN desk text NOT NULL DEFAULT '',
    ADD COLUMN retired_at timestamptz,
    ADD CONSTRAINT seats_place_check CHECK (
        x_cm BETWEEN 0 AND 1000000 AND y_cm BETWEEN 0 AND 1000000 AND angle BETWEEN 0 AND 359
        AND (x_cm IS NULL) = (y_cm IS NULL)) NOT VALID,
    ADD CONSTRAINT seats_desk_check CHECK (desk = '' OR dlsms_plain(desk, 50)) NOT VALID,
    ADD CONSTRAINT seats_retired_check CHECK (retired_at IS NULL OR out_of_service) NOT VALID;

-- +goose Down
ALTER TABLE seats
    DROP COLUMN x_cm, DROP COLUMN y_cm, DROP COLUMN angle, DROP COLUMN desk, DROP COLUMN retired_at;
ALTER TABLE branches DROP COLUMN announcement, DROP COLUMN announced_until;
DROP TABLE areas;
DROP TABLE service_keys;
DROP TABLE audit_log;
UPDATE users SET role = 'LIBRARIAN' WHERE role IN ('STAFF', 'ADMIN');
ALTER TABLE users
    DROP CONSTRAINT users_role_check,
    ADD CONSTRAINT users_role_check CHECK (role IN ('STUDENT', 'LIBRARIAN')),
    DROP COLUMN branches, DROP COLUMN user_group, DROP COLUMN card, DROP COLUMN suspended_until, DROP COLUMN closed_at;
