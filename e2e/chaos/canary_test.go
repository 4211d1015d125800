package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestCanariesFit: each change of each canary finds its place in the source as it is now. It names all that do not at once.
func TestCanariesFit(t *testing.T) {
	t.Parallel()
	const least = 12
	all := canaries()
	if len(all) < least {
		t.Errorf("there are %d canaries", len(all))
	}
	for _, c := range append(all, noBreaker) {
		for _, ch := range c.changes {
			if _, err := ch.apply(filepath.Join("..", "..", ch.file())); err != nil {
				t.Errorf("canary %q: %v", c.name, err)
			}
		}
	}
}

// TestCanariesSayWhatHasGone: a place that is there no more, or more than once, is named.
func TestCanariesSayWhatHasGone(t *testing.T) {
	t.Parallel()
	for want, ch := range map[string]change{
		"has gone":           {"store/no-such-file.go", "x", "y"},
		"0 functions noSuch": {"server/notify.go noSuch", "x", "y"},
		"not once":           {"server/notify.go sendAfter", "return after", "y"},
		"0 times":            {"server/notify.go sendAfter", "GetNotifications", "y"},
	} {
		if _, err := ch.apply(filepath.Join("..", "..", ch.file())); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", ch.place, err, want)
		}
	}
}
