package store

import (
	"context"

	"github.com/jackc/pgx/v5"
)

const (
	// blankUsers sets a student id with a random part, so that no other user can already have it.
	// The group stays: it selects the pseudonym to which the history of the user moves later. See
	// updatePassword for the step of the generation.
	blankUsers = `
		WITH blanked AS (
			UPDATE users
			SET student_id = 'gone-' || id || '-' || substr(md5(random()::text), 1, 6), name = 'gone', email = 'gone',
				card = NULL, role = 'STUDENT', branches = NULL, suspended_until = NULL, password_hash = '',
				closed_at = COALESCE(closed_at, dlsms_now()), blanked_at = dlsms_now(),
				token_generation = token_generation + 1 + floor(random() * 4294967296)::bigint
			WHERE library_id = $1 AND id = ANY ($2)
			RETURNING library_id, id, student_id, token_generation
		), ended AS (
			INSERT INTO revocations (library_id, user_id, generation, expires_at)
			SELECT library_id, id, token_generation, dlsms_now() + $3::interval FROM blanked
		)
		SELECT id, student_id, token_generation AS generation FROM blanked`

	// A client chooses its request ids, and they may contain the student id. No client repeats a
	// request of a user whose tokens have ended.
	blankReservations = `
		UPDATE reservations SET request_id = NULL, request_hash = NULL
		WHERE library_id = $1 AND user_id = ANY ($2) AND request_id IS NOT NULL`
	blankEntries = `
		UPDATE waitlist_entries SET request_id = NULL, request_hash = NULL
		WHERE library_id = $1 AND user_id = ANY ($2) AND request_id IS NOT NULL`

	// Staff write the reasons, and a reason may name the person.
	blankEvents = `
		UPDATE reservation_events e SET reason = NULL FROM reservations r
		WHERE r.library_id = $1 AND r.user_id = ANY ($2)
			AND e.library_id = r.library_id AND e.reservation_id = r.id AND e.reason IS NOT NULL`
	blankStrikes = `
		UPDATE strikes SET reason = '' WHERE library_id = $1 AND user_id = ANY ($2) AND reason <> ''`
	blankSuspensions = `
		UPDATE suspensions SET reason = '' WHERE library_id = $1 AND user_id = ANY ($2) AND reason <> ''`
	blankAudit = `
		UPDATE audit_log a SET ` + withoutPerson + `
		FROM (
			SELECT 'user/' || u.id AS object FROM unnest($2::bigint[]) u (id)
			UNION ALL SELECT 'reservation/' || id FROM reservations WHERE library_id = $1 AND user_id = ANY ($2)
			UNION ALL SELECT 'strike/' || id FROM strikes WHERE library_id = $1 AND user_id = ANY ($2)
		) o
		WHERE a.library_id = $1 AND a.object = o.object`

	// withoutPerson is the part of an UPDATE that removes personal data from rows of the audit log
	// about people. Rows about other objects stay as they are: the name of a branch is no personal
	// data. See personState and auditedReservation for the names.
	withoutPerson = `
		before = CASE WHEN ` + aboutPerson + ` THEN a.before - '{name,email,card,user_id}'::text[] ELSE a.before END,
		after = CASE WHEN ` + aboutPerson + ` THEN a.after - '{name,email,card,user_id}'::text[] ELSE a.after END,
		reason = CASE WHEN ` + aboutPerson + ` THEN '' ELSE a.reason END,
		request_id = CASE WHEN ` + aboutPerson + ` THEN '' ELSE a.request_id END`
	aboutPerson = `a.object ~ '^(user|reservation|strike)/'`
)

// blankedUser is a user after blankPeople.
type blankedUser struct {
	ID         int64
	StudentID  string // identifies no person
	Generation int64
}

// blankPeople overwrites the personal data of locked users in all tables, and ends their tokens.
// Their history stays. The caller has ended their reservations and waitlist entries.
func (t *tx) blankPeople(ctx context.Context, userIDs ...int64) ([]blankedUser, error) {
	var users []blankedUser
	batch := &pgx.Batch{}
	batch.Queue(blankUsers, t.s.lib, userIDs, tokenRetention).Query(func(rows pgx.Rows) (err error) {
		users, err = pgx.CollectRows(rows, pgx.RowToStructByName[blankedUser])
		return err
	})
	batch.Queue(blankReservations, t.s.lib, userIDs)
	batch.Queue(blankEntries, t.s.lib, userIDs)
	batch.Queue(blankEvents, t.s.lib, userIDs)
	batch.Queue(blankStrikes, t.s.lib, userIDs)
	batch.Queue(blankSuspensions, t.s.lib, userIDs)
	batch.Queue(blankAudit, t.s.lib, userIDs)
	return users, t.SendBatch(ctx, batch).Close()
}
