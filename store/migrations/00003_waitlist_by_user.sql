-- +goose Up

-- Queries for a user's entries read the live entries (ended_at is NULL) and those that ended
-- recently. With this index they do not read the older entries, which may go back for a year.
DROP INDEX waitlist_user;
CREATE INDEX waitlist_user_ended ON waitlist_entries (library_id, user_id, ended_at);

-- +goose Down
DROP INDEX waitlist_user_ended;
CREATE INDEX waitlist_user ON waitlist_entries (library_id, user_id, id);
