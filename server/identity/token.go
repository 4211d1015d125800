package identity

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/dlsms/dlsms/library"
)

// maxToken is how long a token may be, in bytes. Ours have about 350; what is longer isn't worth decoding.
const maxToken = 4 << 10

// clockSkew is how far the clocks of two replicas may be apart before a token counts as expired on one of them while its revocation is
// forgotten on another.
const clockSkew = time.Hour

// Tokens signs and verifies.
type Tokens struct {
	ring   *KeyRing
	ttl    time.Duration
	now    func() time.Time
	parser *jwt.Parser
}

func NewTokens(ring *KeyRing, ttl time.Duration, now func() time.Time) *Tokens {
	return &Tokens{
		ring: ring, ttl: ttl, now: now,
		parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired(),
			jwt.WithTimeFunc(now), jwt.WithStrictDecoding()),
	}
}

// claims are the payload of a token.
type claims struct {
	UserID     int64        `json:"user_id"`
	StudentID  string       `json:"student_id"`
	Role       library.Role `json:"role"`
	Generation int64        `json:"gen"`
	jwt.RegisteredClaims
}

// Issue gives a new token to a user, and says who its bearer is.
func (t *Tokens) Issue(c library.Credentials) (string, Caller, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: the runtime ends the process first
	now := t.now().Truncate(time.Second)
	who := Caller{
		UserID:     c.ID,
		StudentID:  c.StudentID,
		Role:       c.Role,
		JTI:        base64.RawURLEncoding.EncodeToString(id[:]),
		Generation: c.TokenGeneration,
		IssuedAt:   now,
		ExpiresAt:  now.Add(t.ttl),
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		UserID: who.UserID, StudentID: who.StudentID, Role: who.Role, Generation: who.Generation,
		RegisteredClaims: jwt.RegisteredClaims{
			ID:        who.JTI,
			IssuedAt:  jwt.NewNumericDate(who.IssuedAt),
			ExpiresAt: jwt.NewNumericDate(who.ExpiresAt),
		},
	})
	token.Header["kid"] = t.ring.signing.kid
	signed, err := token.SignedString(t.ring.signing.secret)
	return signed, who, err
}

// Verify returns whose token it is. It fails with ErrTokenInvalid or ErrTokenExpired; whether the token was revoked, it doesn't know.
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
	who := Caller{
		UserID: c.UserID, StudentID: c.StudentID, Role: c.Role, JTI: c.ID, Generation: c.Generation,
		IssuedAt: c.IssuedAt.UTC(), ExpiresAt: c.ExpiresAt.UTC(),
	}
	// No token outlives the present JWT_TTL, also one given out under a longer one: its revocation would be forgotten before it expires.
	if end := who.IssuedAt.Add(t.ttl); end.Before(who.ExpiresAt) {
		who.ExpiresAt = end
	}
	if t.Remaining(who) <= 0 {
		return Caller{}, library.ErrTokenExpired
	}
	return who, nil
}

func (t *Tokens) key(token *jwt.Token) (any, error) {
	kid, _ := token.Header["kid"].(string)
	k, ok := t.ring.verifies[kid]
	if !ok {
		return nil, errors.New("no such kid")
	}
	return k.secret, nil
}

// Remaining returns how long the caller's token has to live.
func (t *Tokens) Remaining(c Caller) time.Duration { return c.ExpiresAt.Sub(t.now()) }

// RevocationExpiry returns when a revocation of everything that was issued until now may be forgotten.
func (t *Tokens) RevocationExpiry() time.Time { return t.now().Add(t.ttl + clockSkew) }

// knownRole reports whether a role is one that users have.
func knownRole(r library.Role) bool { return r == library.RoleStudent || r == library.RoleLibrarian }
