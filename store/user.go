package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const insertUser = `
	INSERT INTO users (library_id, student_id, name, email, role, password_hash)
	VALUES ($1, $2, $3, $4, $5, $6)
	RETURNING id, student_id, name, email, role, created_at`

// RegisterUser makes a user. It fails with ErrStudentIDTaken.
func (s *Store) RegisterUser(ctx context.Context, u library.NewUser) (library.User, error) {
	return queryOne(ctx, s.pool, pgx.ErrNoRows, pgx.RowToStructByName[library.User],
		insertUser, s.lib, u.StudentID, u.Name, u.Email, u.Role, u.PasswordHash)
}

// sameStudentID compares student ids ($2), which are ASCII, without regard to case and to the
// database's locale: in a Turkish one, lower('I') is not 'i'. An index answers it.
const sameStudentID = `lower(student_id COLLATE "C") = lower($2::text COLLATE "C")`

const selectCredentials = `
	SELECT id, student_id, name, email, role, created_at, password_hash, token_generation FROM users WHERE library_id = $1 AND `

const (
	selectCredentialsByStudentID = selectCredentials + sameStudentID
	selectCredentialsByID        = selectCredentials + `id = $2`
)

// Credentials returns what a login with that student id, in whichever case, is checked against, or ErrUserNotFound.
func (s *Store) Credentials(ctx context.Context, studentID string) (library.Credentials, error) {
	return queryOne(ctx, s.pool, library.ErrUserNotFound, pgx.RowToStructByName[library.Credentials], selectCredentialsByStudentID, s.lib, studentID)
}

// CredentialsByID returns the credentials of a user, or ErrUserNotFound.
func (s *Store) CredentialsByID(ctx context.Context, userID int64) (library.Credentials, error) {
	return queryOne(ctx, s.pool, library.ErrUserNotFound, pgx.RowToStructByName[library.Credentials], selectCredentialsByID, s.lib, userID)
}

const selectIdentities = `SELECT id, student_id, token_generation FROM users WHERE library_id = $1 AND id = ANY($2)`

// Identities returns the identities of users; those that do not exist are left out.
func (s *Store) Identities(ctx context.Context, userIDs ...int64) ([]library.Identity, error) {
	return query(ctx, s.pool, pgx.RowToStructByName[library.Identity], selectIdentities, s.lib, userIDs)
}

// updatePassword raises the generation by a random step: after a restore, the next change must not give the one that a change after the
// backup gave.
const updatePassword = `
	WITH changed AS (
		UPDATE users SET password_hash = $4, token_generation = token_generation + 1 + floor(random() * 4294967296)::bigint
		WHERE library_id = $1 AND id = $2 AND password_hash = $3
		RETURNING library_id, id, token_generation
	)
	INSERT INTO revocations (library_id, user_id, generation, expires_at)
	SELECT library_id, id, token_generation, $5 FROM changed
	RETURNING generation`

// ChangePassword replaces oldHash by newHash and revokes the user's tokens of every earlier generation than the one it returns.
// tokensExpireBy is when the last of them expires anyway. It fails with ErrBadCredentials when the hash is not oldHash (any more).
func (s *Store) ChangePassword(ctx context.Context, userID int64, oldHash, newHash string, tokensExpireBy time.Time) (int64, error) {
	return queryOne(ctx, s.pool, library.ErrBadCredentials, pgx.RowTo[int64], updatePassword, s.lib, userID, oldHash, newHash, tokensExpireBy)
}
