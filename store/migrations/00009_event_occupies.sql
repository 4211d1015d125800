-- +goose Up

-- occupies states whether the reservation takes its seat after the event. With it, a replica of an
-- older version can handle a status that it does not know. The new column has no default, so no
-- rows are rewritten. It is NULL in events of earlier versions. For these events, a replica derives
-- from the status whether the seat is taken.
ALTER TABLE reservation_events ADD COLUMN occupies boolean;

-- +goose Down
ALTER TABLE reservation_events DROP COLUMN occupies;
