package identity

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/library"
)

func testTokens(t testing.TB, setting string, clock *testClock) *Tokens {
	t.Helper()
	ring, err := ParseKeyRing(setting)
	if err != nil {
		t.Fatal(err)
	}
	return NewTokens(ring, 24*time.Hour, clock.now)
}

var ada = library.Credentials{
	User:            library.User{ID: 7, StudentID: "S2021001", Role: library.RoleStudent},
	TokenGeneration: 3,
}

func issue(t testing.TB, k *Tokens) (string, Caller) {
	t.Helper()
	token, caller, err := k.Issue(ada)
	if err != nil {
		t.Fatal(err)
	}
	return token, caller
}

func TestTokenCarriesItsCaller(t *testing.T) {
	t.Parallel()
	k := testTokens(t, testSecret, &testClock{})
	token, issued := issue(t, k)
	got, err := k.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(issued, got); diff != "" {
		t.Error(diff)
	}
	if got.UserID != 7 || got.StudentID != "S2021001" || got.Role != library.RoleStudent || got.Generation != 3 ||
		got.ExpiresAt.Sub(got.IssuedAt) != 24*time.Hour {
		t.Errorf("the caller is %+v", got)
	}
	if raw, err := base64.RawURLEncoding.DecodeString(got.JTI); err != nil || len(raw) != 16 {
		t.Errorf("jti is %q", got.JTI)
	}
	if _, again := issue(t, k); again.JTI == got.JTI {
		t.Error("two tokens have one jti")
	}
}

// TestTokenPayload tests the header and the claims of a token, field by field.
func TestTokenPayload(t *testing.T) {
	t.Parallel()
	token, caller := issue(t, testTokens(t, "k1:"+testSecret, &testClock{}))
	parts := strings.Split(token, ".")
	var header, payload map[string]any
	for i, into := range []*map[string]any{&header, &payload} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]any{"alg": "HS256", "typ": "JWT", "kid": "k1"}, header); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{
		"user_id": 7.0, "student_id": "S2021001", "role": "STUDENT", "gen": 3.0, "jti": caller.JTI,
		"iat": float64(caller.IssuedAt.Unix()), "exp": float64(caller.ExpiresAt.Unix()),
	}, payload); diff != "" {
		t.Error(diff)
	}
}

func TestVerifyRefusesInvalidTokens(t *testing.T) {
	t.Parallel()
	clock := &testClock{}
	k := testTokens(t, "k1:"+testSecret, clock)
	now := clock.now()
	good := jwt.MapClaims{
		"user_id": 7, "student_id": "S2021001", "role": "STUDENT", "gen": 0, "jti": "x",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	sign := func(method jwt.SigningMethod, kid any, secret any, change jwt.MapClaims) string {
		c := maps.Clone(good)
		for name, value := range change {
			if value == nil {
				delete(c, name)
			} else {
				c[name] = value
			}
		}
		token := jwt.NewWithClaims(method, c)
		token.Header["kid"] = kid
		signed, err := token.SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	hs, none, secret := jwt.SigningMethodHS256, jwt.SigningMethodNone, []byte(testSecret)
	if _, err := k.Verify(sign(hs, "k1", secret, nil)); err != nil {
		t.Fatalf("the valid token is refused: %v", err)
	}
	token, _ := issue(t, k)
	parts := strings.Split(token, ".")
	user8 := strings.Split(sign(hs, "k1", secret, jwt.MapClaims{"user_id": 8}), ".")
	past, future := now.Add(-time.Second).Unix(), now.Add(time.Hour).Unix()
	old := now.Add(-25 * time.Hour).Unix() // tokens are valid for 24 hours
	long := jwt.MapClaims{"x": strings.Repeat("x", 4096)}
	for name, test := range map[string]struct {
		token string
		want  error
	}{
		"empty":              {"", library.ErrTokenInvalid},
		"one part":           {"hello", library.ErrTokenInvalid},
		"two parts":          {parts[0] + "." + parts[1], library.ErrTokenInvalid},
		"no signature":       {parts[0] + "." + parts[1] + ".", library.ErrTokenInvalid},
		"other payload":      {parts[0] + "." + user8[1] + "." + parts[2], library.ErrTokenInvalid},
		"oversize":           {sign(hs, "k1", secret, long), library.ErrTokenInvalid},
		"other secret":       {sign(hs, "k1", []byte(otherSecret), nil), library.ErrTokenInvalid},
		"unknown kid":        {sign(hs, "k2", secret, nil), library.ErrTokenInvalid},
		"kid is a number":    {sign(hs, 1, secret, nil), library.ErrTokenInvalid},
		"none":               {sign(none, "k1", jwt.UnsafeAllowNoneSignatureType, nil), library.ErrTokenInvalid},
		"HS384":              {sign(jwt.SigningMethodHS384, "k1", secret, nil), library.ErrTokenInvalid},
		"HS512":              {sign(jwt.SigningMethodHS512, "k1", secret, nil), library.ErrTokenInvalid},
		"no exp":             {sign(hs, "k1", secret, jwt.MapClaims{"exp": nil}), library.ErrTokenInvalid},
		"no iat":             {sign(hs, "k1", secret, jwt.MapClaims{"iat": nil}), library.ErrTokenInvalid},
		"no jti":             {sign(hs, "k1", secret, jwt.MapClaims{"jti": nil}), library.ErrTokenInvalid},
		"no user":            {sign(hs, "k1", secret, jwt.MapClaims{"user_id": nil}), library.ErrTokenInvalid},
		"user is text":       {sign(hs, "k1", secret, jwt.MapClaims{"user_id": "7"}), library.ErrTokenInvalid},
		"user below 0":       {sign(hs, "k1", secret, jwt.MapClaims{"user_id": -7}), library.ErrTokenInvalid},
		"unknown role":       {sign(hs, "k1", secret, jwt.MapClaims{"role": "DEAN"}), library.ErrTokenInvalid},
		"unspecified role":   {sign(hs, "k1", secret, jwt.MapClaims{"role": "UNSPECIFIED"}), library.ErrTokenInvalid},
		"not yet valid":      {sign(hs, "k1", secret, jwt.MapClaims{"nbf": future}), library.ErrTokenInvalid},
		"expired":            {sign(hs, "k1", secret, jwt.MapClaims{"exp": past}), library.ErrTokenExpired},
		"expires now":        {sign(hs, "k1", secret, jwt.MapClaims{"exp": now.Unix()}), library.ErrTokenExpired},
		"expired and forged": {sign(hs, "k1", []byte(otherSecret), jwt.MapClaims{"exp": past}), library.ErrTokenInvalid},
		"older than the TTL": {sign(hs, "k1", secret, jwt.MapClaims{"iat": old}), library.ErrTokenExpired},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			caller, err := k.Verify(test.token)
			if !errors.Is(err, test.want) || caller != (Caller{}) {
				t.Errorf("got %+v, %v, want %v", caller, err, test.want)
			}
		})
	}
}

func TestTokenExpiresToTheSecond(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	ring, err := ParseKeyRing(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	k := NewTokens(ring, time.Hour, func() time.Time { return at })
	token, caller := issue(t, k)
	at = caller.ExpiresAt.Add(-time.Nanosecond)
	if _, err := k.Verify(token); err != nil {
		t.Errorf("1 ns before the expiry: %v", err)
	}
	at = caller.ExpiresAt
	if _, err := k.Verify(token); !errors.Is(err, library.ErrTokenExpired) {
		t.Errorf("at the expiry: %v", err)
	}
}

func TestSecretRotationKeepsTokensValid(t *testing.T) {
	t.Parallel()
	clock := &testClock{}
	old, _ := issue(t, testTokens(t, testSecret, clock)) // a bare secret: its kid is derived
	both := testTokens(t, "new:"+otherSecret+","+testSecret, clock)
	if _, err := both.Verify(old); err != nil {
		t.Errorf("during the rotation an old token is refused: %v", err)
	}
	fresh, _ := issue(t, both)
	if _, err := testTokens(t, "new:"+otherSecret, clock).Verify(fresh); err != nil {
		t.Errorf("the first secret doesn't sign: %v", err)
	}
	if _, err := testTokens(t, "new:"+otherSecret, clock).Verify(old); !errors.Is(err, library.ErrTokenInvalid) {
		t.Errorf("after the rotation: %v", err)
	}
	if _, err := testTokens(t, "named:"+testSecret, clock).Verify(old); err != nil {
		t.Errorf("a bare secret that has been given a kid: %v", err)
	}
}

// FuzzToken: no token makes Verify panic, and only the token that was signed here is valid.
func FuzzToken(f *testing.F) {
	at := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	ring, err := ParseKeyRing("k1:" + testSecret)
	if err != nil {
		f.Fatal(err)
	}
	k := NewTokens(ring, time.Hour, func() time.Time { return at })
	// The jti is fixed, so that the token is the same in every fuzzing process.
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		UserID: 7, StudentID: "S2021001", Role: library.RoleStudent,
		RegisteredClaims: jwt.RegisteredClaims{
			ID: "x", IssuedAt: jwt.NewNumericDate(at), ExpiresAt: jwt.NewNumericDate(at.Add(time.Hour)),
		},
	})
	token.Header["kid"] = "k1"
	good, err := token.SignedString([]byte(testSecret))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := k.Verify(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("eyJhbGciOiJub25lIiwia2lkIjoiazEifQ.eyJ1c2VyX2lkIjo3fQ.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		_, err := k.Verify(token)
		if err == nil && token != good {
			t.Errorf("%q is valid", token)
		}
		if err != nil && !errors.Is(err, library.ErrTokenInvalid) && !errors.Is(err, library.ErrTokenExpired) {
			t.Errorf("%q: %v", token, err)
		}
	})
}
