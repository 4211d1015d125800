-- +goose Up

-- occupies states whether the reservation takes its seat after the event. A replica of an older
-- version can then handle a status that it does not know. Adding a column without a default
-- rewrites no rows. Events of earlier versions have NULL: their status determines the answer.
ALTER TABLE reservation_events ADD COLUMN occupies boolean;

-- +goose Down
ALTER TABLE reservation_events DROP COLUMN occupies;
