package server

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/blowfish" //nolint:staticcheck // deprecated for encryption; bcrypt is made of it
)

// This is bcrypt, the same as golang.org/x/crypto/bcrypt (a test holds it to that), but for one thing: it stops for a moment every
// millisecond. The library works for a quarter of a second in one go, during which Go's scheduler looks at the network only every 10 ms or
// so. Measured with GOMAXPROCS=1, as each of three replicas on two cores has it, with passwords being compared all the time, an echo over
// loopback took 40 ms at the median and 101 ms at p99 with the library, 0.04 and 2.7 ms with the pauses.
const (
	roundsAtOnce = 16 // about a millisecond
	pause        = 50 * time.Microsecond
)

const (
	minBcryptCost = 4
	maxBcryptCost = 31
	saltSize      = 16
	saltChars     = 22 // of saltSize bytes
	sumSize       = 23 // of the 24 that there are: so it was in the first bcrypt
)

var bcryptBase64 = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

// bcryptHash returns the hash of a password of at most 72 bytes, with a new salt.
func bcryptHash(password string, cost int) (string, error) {
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:]) // never fails: the runtime ends the process first
	sum, err := bcryptSum(password, cost, salt[:])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("$2a$%02d$%s%s", cost, bcryptBase64.EncodeToString(salt[:]), bcryptBase64.EncodeToString(sum)), nil
}

// bcryptMatches reports whether a hash, of whichever cost, is of the password. It fails if the hash is none.
func bcryptMatches(hash, password string) (bool, error) {
	parts := strings.Split(hash, "$") // "", version, cost, salt and sum
	if len(parts) != 4 || parts[0] != "" || (parts[1] != "2a" && parts[1] != "2b" && parts[1] != "2y") || len(parts[3]) < saltChars {
		return false, errNoBcrypt
	}
	cost, err := strconv.Atoi(parts[2])
	if err != nil {
		return false, errNoBcrypt
	}
	salt, err := bcryptBase64.DecodeString(parts[3][:saltChars])
	if err != nil {
		return false, errNoBcrypt
	}
	want, err := bcryptBase64.DecodeString(parts[3][saltChars:])
	if err != nil || len(want) != sumSize {
		return false, errNoBcrypt
	}
	got, err := bcryptSum(password, cost, salt)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1, err
}

var errNoBcrypt = errors.New("the stored password hash is not one of bcrypt")

// bcryptSum sets up Blowfish with the password and the salt 2^cost times and encrypts a known text with it.
func bcryptSum(password string, cost int, salt []byte) ([]byte, error) {
	if cost < minBcryptCost || cost > maxBcryptCost {
		return nil, fmt.Errorf("a bcrypt cost of %d is not %d to %d", cost, minBcryptCost, maxBcryptCost)
	}
	key := append([]byte(password), 0)
	c, err := blowfish.NewSaltedCipher(key, salt)
	if err != nil {
		return nil, err
	}
	for round := range 1 << cost {
		blowfish.ExpandKey(key, c)
		blowfish.ExpandKey(salt, c)
		if round%roundsAtOnce == roundsAtOnce-1 {
			time.Sleep(pause) //nolint:forbidigo // and not Gosched, which doesn't look at the network
		}
	}
	sum := []byte("OrpheanBeholderScryDoubt")
	for block := 0; block < len(sum); block += blowfish.BlockSize {
		for range 64 {
			c.Encrypt(sum[block:], sum[block:])
		}
	}
	return sum[:sumSize], nil
}
