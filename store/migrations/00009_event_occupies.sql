-- +goose Up

-- Whether the reservation takes its seat after the event, so that a replica of an older version understands a status that it does not know.
-- Adding a column without a default rewrites nothing. NULL in rows of earlier versions: their status says it.
ALTER TABLE reservation_events ADD COLUMN occupies boolean;

-- +goose Down
ALTER TABLE reservation_events DROP COLUMN occupies;
