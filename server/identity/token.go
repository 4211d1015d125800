package identity

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/dlsms/dlsms/library"
)

// maxToken is the maximum size of a token in bytes. The tokens of this system have about 350.
const maxToken = 4 << 10

// clockSkew is how long a revocation is kept after its token has expired. The clocks of two
// replicas may differ by at most this time. Otherwise, one replica may drop the revocation of a
// token that another replica still accepts.
const clockSkew = time.Hour

// Tokens signs and verifies tokens.
type Tokens struct {
	ring   *KeyRing
	ttl    time.Duration
	now    func() time.Time
	parser *jwt.Parser
}

// NewTokens returns Tokens that live for ttl by the clock now.
func NewTokens(ring *KeyRing, ttl time.Duration, now func() time.Time) *Tokens {
	return &Tokens{
		ring: ring, ttl: ttl, now: now,
		parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired(),
			jwt.WithTimeFunc(now), jwt.WithStrictDecoding()),
	}
}

// claims is the payload of a token.
type claims struct {
	UserID     int64        `json:"user_id"`
	StudentID  string       `json:"student_id"`
	Role       library.Role `json:"role"`
	Generation int64        `json:"gen"`
	jwt.RegisteredClaims
}

// Issue returns a new token for a user, and the caller that it identifies.
func (t *Tokens) Issue(c library.Credentials) (string, Caller, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: the runtime crashes the process instead
	now := t.now().Truncate(time.Second)
	caller := Caller{
		UserID:     c.ID,
		StudentID:  c.StudentID,
		Role:       c.Role,
		JTI:        base64.RawURLEncoding.EncodeToString(id[:]),
		Generation: c.TokenGeneration,
		IssuedAt:   now,
		ExpiresAt:  now.Add(t.ttl),
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		UserID: caller.UserID, StudentID: caller.StudentID, Role: caller.Role, Generation: caller.Generation,
		RegisteredClaims: jwt.RegisteredClaims{
			ID:        caller.JTI,
			IssuedAt:  jwt.NewNumericDate(caller.IssuedAt),
			ExpiresAt: jwt.NewNumericDate(caller.ExpiresAt),
		},
	})
	token.Header["kid"] = t.ring.signing.kid
	signed, err := token.SignedString(t.ring.signing.secret)
	return signed, caller, err
}

// Verify returns the caller of a token. It fails with ErrTokenInvalid or ErrTokenExpired. It does
// not check revocations.
func (t *Tokens) Verify(token string) (Caller, error) {
	if len(token) > maxToken {
		return Caller{}, library.ErrTokenInvalid
	}
	var c claims
	_, err := t.parser.ParseWithClaims(token, &c, t.key)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return Caller{}, library.ErrTokenExpired
	case err != nil:
		return Caller{}, library.ErrTokenInvalid.WithCause(err)
	case c.UserID <= 0 || c.ID == "" || c.IssuedAt == nil || !knownRole(c.Role):
		return Caller{}, library.ErrTokenInvalid
	}
	caller := Caller{
		UserID: c.UserID, StudentID: c.StudentID, Role: c.Role, JTI: c.ID, Generation: c.Generation,
		IssuedAt: c.IssuedAt.UTC(), ExpiresAt: c.ExpiresAt.UTC(),
	}
	// A token from a time with a longer JWT_TTL is valid only for the present JWT_TTL. A revocation
	// of all tokens of a user is kept only for the present JWT_TTL plus clockSkew. Without this
	// rule, such a token could be accepted again after that time.
	if end := caller.IssuedAt.Add(t.ttl); end.Before(caller.ExpiresAt) {
		caller.ExpiresAt = end
	}
	if t.Remaining(caller) <= 0 {
		return Caller{}, library.ErrTokenExpired
	}
	return caller, nil
}

func (t *Tokens) key(token *jwt.Token) (any, error) {
	kid, _ := token.Header["kid"].(string)
	k, ok := t.ring.verifies[kid]
	if !ok {
		return nil, errors.New("unknown kid")
	}
	return k.secret, nil
}

// Remaining returns the time until the caller's token expires.
func (t *Tokens) Remaining(c Caller) time.Duration { return c.ExpiresAt.Sub(t.now()) }

// RevocationExpiry returns the time after which a revocation of the tokens issued until now has no
// effect.
func (t *Tokens) RevocationExpiry() time.Time { return t.now().Add(t.ttl + clockSkew) }

// knownRole reports whether r is a role of the domain.
func knownRole(r library.Role) bool { return r == library.RoleStudent || r.StaffRole() }
