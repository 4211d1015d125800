-- +goose Up

-- The same clock when the transaction began, and so from before any of its snapshots: what a snapshot shows is true of this time, even if
-- Postgres was held up between taking it and asking for the time. Tests replace it along with dlsms_now.
-- +goose StatementBegin
CREATE FUNCTION dlsms_began() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT transaction_timestamp() $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION dlsms_began();
