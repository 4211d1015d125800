package identity

import (
	"time"

	"github.com/dlsms/dlsms/library"
)

// Caller is the user who makes a call, as a verified token says.
type Caller struct {
	UserID    int64
	StudentID string
	Role      library.Role
	// JTI is the id of the token. Generation counts the changes of the user's password before the token was issued.
	JTI        string
	Generation int64
	IssuedAt   time.Time
	ExpiresAt  time.Time
}

// Identity returns what the token says of its user, for the store to compare with the user's row.
func (c Caller) Identity() *library.Identity {
	return &library.Identity{ID: c.UserID, StudentID: c.StudentID, TokenGeneration: c.Generation}
}

// RevocationExpiry returns when a revocation of the caller's token may be forgotten.
func (c Caller) RevocationExpiry() time.Time { return c.ExpiresAt.Add(clockSkew) }
