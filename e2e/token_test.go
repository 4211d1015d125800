package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"hash"
	"maps"
	"strings"
	"testing"
	"time"
)

// The tests encode and sign tokens by themselves. With the JWT library that the server uses, they
// would not detect a fault of that library.

// claims returns the payload of a token.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	return part(t, token, 1)
}

func header(t *testing.T, token string) map[string]any {
	t.Helper()
	return part(t, token, 0)
}

func part(t *testing.T, token string, i int) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[i])
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber() // a float64 would round large ids
	var out map[string]any
	if err := decoder.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// changed returns a copy of a token's header or payload with these changes. A nil value removes the
// field.
func changed(part, changes map[string]any) map[string]any {
	out := maps.Clone(part)
	maps.Copy(out, changes)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

// sign encodes a token and signs it with secret. If secret is empty, the signature is empty too.
func sign(t *testing.T, header, claims map[string]any, secret string) string {
	t.Helper()
	var encoded []string
	for _, p := range []map[string]any{header, claims} {
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		encoded = append(encoded, base64.RawURLEncoding.EncodeToString(raw))
	}
	text := strings.Join(encoded, ".")
	if secret == "" {
		return text + "."
	}
	algorithm := map[any]func() hash.Hash{"HS256": sha256.New, "HS512": sha512.New}[header["alg"]]
	mac := hmac.New(algorithm, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// tampered returns a token with a changed payload and the original signature.
func tampered(t *testing.T, token string, changes map[string]any) string {
	t.Helper()
	other := sign(t, header(t, token), changed(claims(t, token), changes), "")
	return other + token[strings.LastIndex(token, ".")+1:]
}

// expired returns a copy of a token that expired a minute ago, with a valid signature.
func (s *system) expired(t *testing.T, token string) string {
	t.Helper()
	now := time.Now()
	return sign(t, header(t, token), changed(claims(t, token), map[string]any{
		"iat": now.Add(-24*time.Hour - time.Minute).Unix(), "exp": now.Add(-time.Minute).Unix(),
	}), s.secret)
}

func TestTokenMatchesContract(t *testing.T) {
	t.Parallel()
	s := shared(t)
	u := s.student(t)
	h, c := header(t, u.Token), claims(t, u.Token)
	if h["alg"] != "HS256" || h["kid"] != "e2e" {
		t.Errorf("the header is %v", h)
	}
	id, _ := c["user_id"].(json.Number)
	iat, _ := c["iat"].(json.Number)
	exp, _ := c["exp"].(json.Number)
	if n, err := id.Int64(); err != nil || n != u.id() {
		t.Errorf("user_id is %v, want the number %d", c["user_id"], u.id())
	}
	from, _ := iat.Int64()
	until, _ := exp.Int64()
	if c["student_id"] != u.User.GetStudentId() || until-from != int64((24*time.Hour).Seconds()) || c["jti"] == "" {
		t.Errorf("the payload is %v", c)
	}
	// The server must accept this valid token, which the test has signed itself. This shows that
	// the server refuses the tokens in TestAccess because of their faults, and not because of the
	// way in which the test signs tokens.
	own := student{u.WithToken(sign(t, h, c, s.secret)), t}
	own.reservations(0)
}
