package identity

import (
	"time"

	"github.com/dlsms/dlsms/library"
)

// Caller is the user of a call, according to its verified token, or the program of a call,
// according to its service key.
type Caller struct {
	UserID    int64
	StudentID string
	Role      library.Role
	// JTI is the id of the token. Generation increases with each change of the user's password.
	JTI        string
	Generation int64
	IssuedAt   time.Time
	ExpiresAt  time.Time
	// Key is the service key of a program. Then Role is library.RoleKey, and the fields above are
	// zero. It is nil for a user.
	Key *library.KeyRecord
}

// Identity returns the user that the token names. The store compares it with the row of the user.
func (c Caller) Identity() *library.Identity {
	return &library.Identity{ID: c.UserID, StudentID: c.StudentID, TokenGeneration: c.Generation}
}

// RevocationExpiry returns the time after which a revocation of the caller's token has no effect.
func (c Caller) RevocationExpiry() time.Time { return c.ExpiresAt.Add(clockSkew) }

// Actor returns the caller as the actor of a change of the library.
func (c Caller) Actor() library.Actor {
	if c.Key != nil {
		return library.Actor{Role: c.Role, KeyID: c.Key.ID}
	}
	return library.Actor{Token: c.Identity(), Role: c.Role}
}
