package library

import (
	"errors"
	"time"
)

// Role decides which calls a user may make.
type Role string

// The roles.
const (
	RoleStudent   Role = "STUDENT"
	RoleStaff     Role = "STAFF"
	RoleLibrarian Role = "LIBRARIAN"
	RoleAdmin     Role = "ADMIN"
)

// User is a person with an account.
type User struct {
	ID        int64
	StudentID string // as written at registration; unique without regard to case
	Name      string
	Email     string
	Role      Role
	CreatedAt time.Time
}

// NewUser is a registration. PasswordHash is a bcrypt hash.
type NewUser struct {
	StudentID    string
	Name         string
	Email        string
	PasswordHash string
	Role         Role
}

// Credentials is a user with the values that a login is checked against.
type Credentials struct {
	User
	PasswordHash string
	// TokenGeneration is written into each token of the user. A token is valid while its generation
	// equals TokenGeneration. A change of the password increases TokenGeneration, so it makes all
	// older tokens invalid. The first value is random. After a restore, or in a new database,
	// another user may get the same id. That user then has another generation, so the tokens of the
	// previous user are invalid.
	TokenGeneration int64
}

// Identity is the part of a user that a token contains. A token is valid only if its Identity
// equals that of the user's row.
type Identity struct {
	ID              int64
	StudentID       string
	TokenGeneration int64
	// Closed says that the account was closed, which may have changed the student id. A token has false.
	Closed bool
}

// ErrUserNotFound means that the user does not exist. It never reaches a client, because a client
// must not learn which student ids are registered.
var ErrUserNotFound = errors.New("no such user")

// Account is a user as the user sees the own account.
type Account struct {
	User

	// Branches are the codes of the branches for which the role holds, sorted. AllBranches says that it
	// holds in all branches; Branches is empty then, and for a student.
	Branches    []string
	AllBranches bool
	Group       string // empty: no group
	// SuspendedUntil is nil if the user is not suspended.
	SuspendedUntil *time.Time
}
