package server

import (
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// TestBcryptIsBcrypt: what one makes, the other takes, and refuses what it should.
func TestBcryptIsBcrypt(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"password123", "", "correct horse", strings.Repeat("x", 71), strings.Repeat("x", 72), strings.Repeat("ü", 36), "a\x00b", "\xff\xfe\x80 bytes"} {
		for _, cost := range []int{4, 5} {
			ours, err := bcryptHash(password, cost)
			if err != nil {
				t.Fatal(err)
			}
			if err := bcrypt.CompareHashAndPassword([]byte(ours), []byte(password)); err != nil {
				t.Errorf("the library refuses our hash of %q, %s: %v", password, ours, err)
			}
			if got, err := bcrypt.Cost([]byte(ours)); got != cost || err != nil {
				t.Errorf("%s has cost %d, %v", ours, got, err)
			}
			theirs, err := bcrypt.GenerateFromPassword([]byte(password), cost)
			if err != nil {
				t.Fatal(err)
			}
			for _, version := range []string{"$2a$", "$2b$", "$2y$"} {
				hash := version + string(theirs[4:])
				if ok, err := bcryptMatches(hash, password); !ok || err != nil {
					t.Errorf("%s of %q: %v, %v", hash, password, ok, err)
				}
			}
			for _, wrong := range []string{password + "x", "X" + password, strings.ToUpper(password) + "!"} {
				if len(wrong) > 72 {
					continue
				}
				if ok, err := bcryptMatches(string(theirs), wrong); ok || err != nil {
					t.Errorf("%s of %q matches %q, %v", theirs, password, wrong, err)
				}
			}
		}
	}
	one, _ := bcryptHash("password123", 4)
	if two, _ := bcryptHash("password123", 4); one == two {
		t.Error("two hashes have one salt")
	}
}

func TestBcryptKnowsWhatIsNoHash(t *testing.T) {
	t.Parallel()
	good, err := bcryptHash("password123", 4)
	if err != nil {
		t.Fatal(err)
	}
	for name, hash := range map[string]string{
		"empty":           "",
		"text":            "password123",
		"another version": "$2x" + good[3:],
		"cost 3":          strings.Replace(good, "$04$", "$03$", 1),
		"cost 32":         strings.Replace(good, "$04$", "$32$", 1),
		"no cost":         strings.Replace(good, "$04$", "$xx$", 1),
		"cut short":       good[:len(good)-1],
		"only a salt":     good[:7+saltChars],
		"longer":          good + "a",
		"bad characters":  good[:len(good)-3] + "!!!",
	} {
		if ok, err := bcryptMatches(hash, "password123"); ok || err == nil {
			t.Errorf("%s, %s: %v, %v", name, hash, ok, err)
		}
	}
	for _, cost := range []int{-1, 3, 32} {
		if _, err := bcryptHash("password123", cost); err == nil {
			t.Errorf("cost %d is taken", cost)
		}
	}
}
