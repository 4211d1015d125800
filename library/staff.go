package library

import "time"

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

// Person is a user as the desk sees them.
type Person struct {
	ID        int64
	StudentID string
	Name      string
	Email     string
	Card      string // number of the library card; empty: none
	Group     string // selects the policies of the user; empty: none
	Role      Role
	// SuspendedUntil is the end of the suspension. It is nil if the user is not suspended.
	SuspendedUntil *time.Time
	ClosedAt       *time.Time // nil: the account is open
}

// PersonQuery finds users by one of its fields. The other fields are empty.
type PersonQuery struct {
	StudentID string // the whole student id, in upper or lower case
	Card      string // the whole number of the card
	Email     string // the whole address, in upper or lower case
	Name      string // a part of the name, in upper or lower case
}

// PersonChange changes a user. A nil field stays as it is.
type PersonChange struct {
	StudentID string
	Name      *string
	Email     *string
	Group     *string
	Card      *string // empty: no card
}

// Overview is what the desk sees of a user.
type Overview struct {
	Person       Person
	Reservations []Reservation // the latest start first
	Entries      []WaitlistEntry
	Strikes      []Strike // the newest first
}

// Grant is the role of a user, with the codes of the branches for which it holds. Without branches,
// it holds for all.
type Grant struct {
	UserID    int64
	StudentID string
	Role      Role
	Branches  []string
}

// Closed counts what the end of an account has ended.
type Closed struct {
	Reservations int
	Entries      int
}

// KeyScope is what a program may do with a service key.
type KeyScope string

// The scopes.
const (
	ScopeScreen   KeyScope = "screen"   // show the screen of the branch
	ScopeArrivals KeyScope = "arrivals" // record arrivals
	ScopeReports  KeyScope = "reports"  // read reports
)

// ServiceKey is a key of a program, without its secret.
type ServiceKey struct {
	ID        int64
	Name      string
	Branch    string // code
	Scopes    []KeyScope
	CreatedAt time.Time
	RevokedAt *time.Time // nil: the key is valid
}

// KeyRecord is the part of a service key that its secret is checked against.
type KeyRecord struct {
	ID      int64
	Scopes  []KeyScope
	Hash    []byte // SHA-256 of the secret
	Revoked bool
}

// AuditEntry is a row of the audit log.
type AuditEntry struct {
	ID        int64
	At        time.Time
	UserID    int64 // 0: a command on the host, or a service key
	StudentID string
	Role      Role
	Action    string
	Branch    string // code; empty: the change is not limited to a branch
	Object    string
	Before    string // JSON; empty: the object is new
	After     string // JSON
	Reason    string
	RequestID string
}

// AuditQuery selects rows of the audit log. An empty field selects all.
type AuditQuery struct {
	Branch string // code
	Object string
	Action string
}
