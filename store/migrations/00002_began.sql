-- +goose Up

-- dlsms_began is the time at which the transaction began, by the clock of dlsms_now. The
-- transaction begins before any of its snapshots, so a snapshot has the data of this time or newer
-- data. This is true even if Postgres pauses between taking the snapshot and reading the time.
-- Tests replace this function together with dlsms_now.
-- +goose StatementBegin
CREATE FUNCTION dlsms_began() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT transaction_timestamp() $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION dlsms_began();
