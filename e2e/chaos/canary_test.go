package main

import (
	"path/filepath"
	"testing"
)

// TestCanariesFit: each change of each canary finds its place in the source as it is now.
func TestCanariesFit(t *testing.T) {
	t.Parallel()
	const least = 12
	all := canaries()
	if len(all) < least {
		t.Errorf("there are %d canaries", len(all))
	}
	for _, c := range append(all, noBreaker) {
		for _, ch := range c.changes {
			if _, err := ch.apply(filepath.Join("..", "..", ch.file)); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
}
