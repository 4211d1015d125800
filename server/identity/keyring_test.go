package identity

import (
	"strings"
	"testing"
)

const otherSecret = "Zx9cV8bN7mA6sD5fG4hJ3kL2qW1eR0tY"

func TestParseKeyRing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		setting string
		faults  []string // parts of the error; nil if there is none
	}{
		"bare":             {testSecret, nil},
		"named":            {"2026-03:" + testSecret, nil},
		"two":              {"new:" + testSecret + ",old:" + otherSecret, nil},
		"hex":              {"9f86d081884c7d659a2feaa0c55ad015", nil},
		"missing":          {"", []string{"missing"}},
		"blank":            {"  ", []string{"missing"}},
		"empty entry":      {testSecret + ",", []string{"secret 2 has 0 bytes"}},
		"short":            {"qL2vN8xR4tW6yB1dF3hJ5kM7pS9uZ0a", []string{"31 bytes"}},
		"short after kid":  {"a-kid-that-makes-it-long-enough:short", []string{"5 bytes"}},
		"one character":    {strings.Repeat("x", 64), []string{"distinct"}},
		"few characters":   {strings.Repeat("abcdefg", 5), []string{"distinct"}},
		"repeating":        {strings.Repeat("qL2vN8xR4t", 4), []string{"repeats itself every 10"}},
		"placeholder":      {"ChangeMe-qL2vN8xR4tW6yB1dF3hJ5kM7", []string{"changeme"}},
		"a word":           {"my-super-secret-key-for-the-library", []string{"secret-key"}},
		"two colons":       {"a:b:" + testSecret, []string{"two colons"}},
		"bad kid":          {"a b:" + testSecret, []string{"kid"}},
		"same kid":         {"a:" + testSecret + ",a:" + otherSecret, []string{"secret 2 has the kid \"a\""}},
		"same bare secret": {testSecret + "," + testSecret, []string{"secret 2 has the kid"}},
		"all faults": {"short," + strings.Repeat("x", 40),
			[]string{"secret 1 has 5 bytes", "secret 2 has only 1 distinct"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseKeyRing(test.setting)
			if (err == nil) != (test.faults == nil) {
				t.Fatalf("got %v", err)
			}
			for _, fault := range test.faults {
				if !strings.Contains(err.Error(), fault) || !strings.Contains(err.Error(), "JWT_SECRET") {
					t.Errorf("%v doesn't say %q", err, fault)
				}
			}
			if err != nil && (strings.Contains(err.Error(), testSecret) || strings.Contains(err.Error(), "qL2vN8xR4t")) {
				t.Errorf("%v shows the secret", err)
			}
		})
	}
}
