-- +goose Up

-- Who looks for a user's entries looks for those that are live (ended_at is null) or ended of late, not for a year's.
DROP INDEX waitlist_user;
CREATE INDEX waitlist_user_ended ON waitlist_entries (library_id, user_id, ended_at);

-- +goose Down
DROP INDEX waitlist_user_ended;
CREATE INDEX waitlist_user ON waitlist_entries (library_id, user_id, id);
