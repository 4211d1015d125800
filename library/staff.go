package library

// StaffRole reports whether a user with this role may act for other users.
func (r Role) StaffRole() bool { return r == RoleStaff || r == RoleLibrarian || r == RoleAdmin }

// Actor is the person or program that changes the library.
type Actor struct {
	// Token is the identity of the user in the token. It is nil for a command on the host, and for a
	// service key.
	Token *Identity
	// Role is the role in the token. The store compares it with the role of the user's row.
	Role Role
	// KeyID is the id of the service key, or 0.
	KeyID int64
}

// The roles in the audit log that no user has.
const (
	RoleHost Role = "HOST" // a command on the host
	RoleKey  Role = "KEY"  // a service key
)

// Host is the Actor of a command on the host. It may make every change.
var Host = Actor{Role: RoleHost}

// Order is what every change by staff has besides its content.
type Order struct {
	Actor Actor
	// Action is the name of the call or command, for the audit log.
	Action string
	// Reason is at most 500 characters long. It may be empty.
	Reason string
	// RequestID identifies the call. It may be empty.
	RequestID string
	// ValidateOnly makes the store roll back the change after all checks.
	ValidateOnly bool
}

// Scope is the set of branches in which an actor may act.
type Scope struct {
	// All means all branches. Branches is then nil.
	All bool
	// Branches are the ids of the branches.
	Branches []int64
}
