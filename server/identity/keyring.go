package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// KeyRing holds the secrets that sign tokens. The first secret signs new tokens, and every secret
// verifies tokens. A rotation in three steps therefore logs out no user:
//
//  1. Every replica gets the new secret in second place.
//  2. The new secret moves to the first place.
//  3. After JWT_TTL, the old secret is removed.
type KeyRing struct {
	signing  key
	verifies map[string]key // by kid
}

type key struct {
	kid    string
	secret []byte
}

// minSecret is the size of the HS256 hash in bytes. A shorter secret would be the weakest part of
// the signature.
const minSecret = 32

// ParseKeyRing parses JWT_SECRET: see ParseSecrets.
func ParseKeyRing(setting string) (*KeyRing, error) {
	if strings.TrimSpace(setting) == "" {
		return nil, errors.New("JWT_SECRET is missing: " +
			"set it to at least 32 random bytes, such as the output of: openssl rand -hex 32")
	}
	return parseKeyRing("JWT_SECRET", setting)
}

// ParseSecrets parses a setting with secrets: separated by commas, each bare or as kid:secret. A
// secret has at least 32 bytes and contains no comma or colon. name is the name of the setting. The
// error lists every invalid secret and never shows a secret.
func ParseSecrets(name, setting string) ([]string, error) {
	if _, err := parseKeyRing(name, setting); err != nil {
		return nil, err
	}
	var secrets []string
	for entry := range strings.SplitSeq(setting, ",") {
		_, secret, _ := parseSecret(strings.TrimSpace(entry)) // parseKeyRing has checked it
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

func parseKeyRing(name, setting string) (*KeyRing, error) {
	ring := &KeyRing{verifies: map[string]key{}}
	var errs []error
	for i, entry := range strings.Split(setting, ",") {
		kid, secret, err := parseSecret(strings.TrimSpace(entry))
		if err == nil && ring.verifies[kid].kid != "" {
			err = fmt.Errorf("has the kid %q of an earlier secret", kid)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: secret %d %w", name, i+1, err))
			continue
		}
		k := key{kid, []byte(secret)}
		ring.verifies[kid] = k
		// This secret may have had no kid in an earlier setting. The tokens that it signed then
		// carry its derived kid, and it must still verify them.
		if derived := derivedKID(secret); ring.verifies[derived].kid == "" {
			ring.verifies[derived] = k
		}
		if i == 0 {
			ring.signing = k
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return ring, nil
}

func parseSecret(entry string) (kid, secret string, err error) {
	kid, secret, named := strings.Cut(entry, ":")
	switch {
	case !named:
		kid, secret = derivedKID(entry), entry
	case !validKID(kid):
		return "", "", errors.New(`has a kid that is not 1 to 64 of letters, digits, ".", "_" and "-"`)
	case strings.Contains(secret, ":"):
		return "", "", errors.New("has two colons: the form is kid:secret")
	}
	return kid, secret, weakness(secret)
}

// derivedKID returns the kid of a bare secret: four bytes of its hash. They reveal no more of a
// random secret than a signature does.
func derivedKID(secret string) string {
	sum := sha256.Sum256([]byte("dlsms kid " + secret))
	return hex.EncodeToString(sum[:4])
}

// guessable are parts of placeholder secrets. A random secret contains none of them.
var guessable = []string{
	"changeme", "change-me", "change_me", "changethis", "change-this", "change_this",
	"your-secret", "your_secret", "yoursecret", "secretkey", "secret-key", "secret_key", "mysecret", "my-secret",
	"password", "example", "0123456789", "1234567890", "abcdefgh", "qwertyui",
}

// weakness returns an error that describes why a secret is too weak, or nil.
func weakness(secret string) error {
	if len(secret) < minSecret {
		return fmt.Errorf("has %d bytes: it needs at least %d", len(secret), minSecret)
	}
	lower := strings.ToLower(secret)
	for _, part := range guessable {
		if strings.Contains(lower, part) {
			return fmt.Errorf("contains %q: use random bytes", part)
		}
	}
	var seen [256]bool
	distinct := 0
	for _, b := range []byte(secret) {
		if !seen[b] {
			seen[b] = true
			distinct++
		}
	}
	// 32 random hex digits have fewer than 8 distinct digits once in 25 million secrets.
	if distinct < 8 {
		return fmt.Errorf("has only %d distinct bytes: use random bytes", distinct)
	}
	for period := 1; period <= len(secret)/2; period++ {
		if secret[period:] == secret[:len(secret)-period] {
			return fmt.Errorf("repeats itself every %d bytes: use random ones", period)
		}
	}
	return nil
}

// validKID reports whether kid has 1 to 64 ASCII letters, digits, ".", "_" and "-".
func validKID(kid string) bool {
	if len(kid) == 0 || len(kid) > 64 {
		return false
	}
	for i := range len(kid) {
		if !IsIDByte(kid[i]) {
			return false
		}
	}
	return true
}
