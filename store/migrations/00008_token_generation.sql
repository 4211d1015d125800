-- +goose NO TRANSACTION
-- +goose Up

-- A token carries the generation of its user, and is valid only while the two are equal. After a
-- restore, or in a fresh database, a new user may get the id of an earlier user. The token of the
-- earlier user must not be valid for the new one, so the first generation of a user is random. The
-- generation need not be secret. Existing rows keep their generation, so their tokens stay valid.
-- The default is below 2^52: each change of password adds at most 2^32, and JSON represents numbers
-- exactly only up to 2^53.
ALTER TABLE users ALTER COLUMN token_generation SET DEFAULT floor(random() * 4503599627370496)::bigint;
COMMENT ON COLUMN users.token_generation IS 'a token counts only if it carries this number';

-- Revocations are read in pages, in this order. A restore gives all of them the same xid.
DROP INDEX CONCURRENTLY IF EXISTS revocations_xid_id; -- invalid if an earlier attempt failed
CREATE INDEX CONCURRENTLY revocations_xid_id ON revocations (library_id, xid, id);
DROP INDEX CONCURRENTLY IF EXISTS revocations_xid;

-- +goose Down
CREATE INDEX revocations_xid ON revocations (library_id, xid);
DROP INDEX revocations_xid_id;
ALTER TABLE users ALTER COLUMN token_generation SET DEFAULT 0;
COMMENT ON COLUMN users.token_generation IS 'tokens of an earlier generation are revoked';
