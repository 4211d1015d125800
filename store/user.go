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

// RegisterUser creates a user. It fails with library.ErrStudentIDTaken.
func (s *Store) RegisterUser(ctx context.Context, u library.NewUser) (library.User, error) {
	return queryOne(ctx, s.pool, pgx.ErrNoRows, pgx.RowToStructByName[library.User],
		insertUser, s.lib, u.StudentID, u.Name, u.Email, u.Role, u.PasswordHash)
}

// sameStudentID is an SQL condition on a user: its student id is $2, in upper or lower case.
// Student ids are ASCII. The comparison ignores the database's locale, because in a Turkish locale
// lower('I') is not 'i'. An index supports it.
const sameStudentID = `lower(student_id COLLATE "C") = lower($2::text COLLATE "C")`

const selectCredentials = `
	SELECT id, student_id, name, email, role, created_at, password_hash, token_generation
	FROM users WHERE library_id = $1 AND `

const (
	selectCredentialsByStudentID = selectCredentials + sameStudentID
	selectCredentialsByID        = selectCredentials + `id = $2`
)

// Credentials returns the credentials of the user with this student id, or library.ErrUserNotFound.
// The case of letters in studentID does not matter.
func (s *Store) Credentials(ctx context.Context, studentID string) (library.Credentials, error) {
	return queryOne(ctx, s.pool, library.ErrUserNotFound, pgx.RowToStructByName[library.Credentials],
		selectCredentialsByStudentID, s.lib, studentID)
}

// CredentialsByID returns the credentials of a user, or library.ErrUserNotFound.
func (s *Store) CredentialsByID(ctx context.Context, userID int64) (library.Credentials, error) {
	return queryOne(ctx, s.pool, library.ErrUserNotFound, pgx.RowToStructByName[library.Credentials],
		selectCredentialsByID, s.lib, userID)
}

const selectIdentities = `
	SELECT id, student_id, token_generation, closed_at IS NOT NULL AS closed FROM users
	WHERE library_id = $1 AND id = ANY($2)`

// Identities returns the identities of those users that exist.
func (s *Store) Identities(ctx context.Context, userIDs ...int64) ([]library.Identity, error) {
	return query(ctx, s.pool, pgx.RowToStructByName[library.Identity], selectIdentities, s.lib, userIDs)
}

// updatePassword replaces the password hash and raises the generation by a random step. A restore
// can undo a change of the password. Because the step is random, the next change results in another
// generation than the undone change, and tokens of the undone generation are not valid.
const updatePassword = `
	WITH changed AS (
		UPDATE users SET password_hash = $4, token_generation = token_generation + 1 + floor(random() * 4294967296)::bigint
		WHERE library_id = $1 AND id = $2 AND password_hash = $3
		RETURNING library_id, id, token_generation
	)
	INSERT INTO revocations (library_id, user_id, generation, expires_at)
	SELECT library_id, id, token_generation, $5 FROM changed
	RETURNING generation`

// ChangePassword replaces oldHash by newHash and returns the new generation. It revokes all tokens
// of the user with an earlier generation. The last of these tokens would expire at tokensExpireBy.
// It fails with library.ErrBadCredentials if the stored hash is not oldHash.
func (s *Store) ChangePassword(
	ctx context.Context, userID int64, oldHash, newHash string, tokensExpireBy time.Time,
) (generation int64, err error) {
	return queryOne(ctx, s.pool, library.ErrBadCredentials, pgx.RowTo[int64],
		updatePassword, s.lib, userID, oldHash, newHash, tokensExpireBy)
}

// updateGeneration revokes all tokens of a user whose generation is still $3. See updatePassword for
// the step of the generation.
const updateGeneration = `
	WITH changed AS (
		UPDATE users SET token_generation = token_generation + 1 + floor(random() * 4294967296)::bigint
		WHERE library_id = $1 AND id = $2 AND token_generation = $3
		RETURNING library_id, id, token_generation
	)
	INSERT INTO revocations (library_id, user_id, generation, expires_at)
	SELECT library_id, id, token_generation, $4 FROM changed
	RETURNING generation`

// RevokeTokens ends all tokens of the user of a token, which would expire at tokensExpireBy at the
// latest. It returns the generation below which all tokens are revoked. It fails with ErrTokenRevoked
// if the token has another generation than the row of the user: then an earlier call has ended it,
// and a repeated call must not end the tokens that were issued since.
func (s *Store) RevokeTokens(
	ctx context.Context, token *library.Identity, tokensExpireBy time.Time,
) (generation int64, err error) {
	return queryOne(ctx, s.pool, library.ErrTokenRevoked, pgx.RowTo[int64],
		updateGeneration, s.lib, token.ID, token.TokenGeneration, tokensExpireBy)
}

// saveLogin writes the time of a login at most once a day. It skips a row that another transaction
// has locked: a login must not wait for a booking of the same user.
const saveLogin = `
	UPDATE users u SET last_login_at = dlsms_now()
	FROM (
		SELECT id FROM users
		WHERE library_id = $1 AND id = $2 AND last_login_at < dlsms_now() - interval '1 day'
		FOR NO KEY UPDATE SKIP LOCKED
	) old
	WHERE u.library_id = $1 AND u.id = old.id
	RETURNING u.id`

// SaveLogin stores that a user has logged in now, to the day. The retention needs it.
func (s *Store) SaveLogin(ctx context.Context, userID int64) error {
	_, err := query(ctx, s.pool, pgx.RowTo[int64], saveLogin, s.lib, userID)
	return err
}
