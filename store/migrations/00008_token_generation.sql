-- +goose NO TRANSACTION
-- +goose Up

-- A token carries its user's generation, and counts only while the two are equal. Ids are given again after a restore and in a
-- fresh database, so the generation tells the users of one id apart. It need not be a secret. Rows that exist keep theirs: their
-- tokens stay good. Within 2^52, a change of password can add up to 2^32 each time and JSON still has the number exactly.
ALTER TABLE users ALTER COLUMN token_generation SET DEFAULT floor(random() * 4503599627370496)::bigint;
COMMENT ON COLUMN users.token_generation IS 'a token counts only if it carries this number';

-- Revocations are read in pages, in this order. A restore gives all of them one xid.
DROP INDEX CONCURRENTLY IF EXISTS revocations_xid_id; -- an earlier try may have left an invalid one
CREATE INDEX CONCURRENTLY revocations_xid_id ON revocations (library_id, xid, id);
DROP INDEX CONCURRENTLY IF EXISTS revocations_xid;

-- +goose Down
CREATE INDEX revocations_xid ON revocations (library_id, xid);
DROP INDEX revocations_xid_id;
ALTER TABLE users ALTER COLUMN token_generation SET DEFAULT 0;
COMMENT ON COLUMN users.token_generation IS 'tokens of an earlier generation are revoked';
