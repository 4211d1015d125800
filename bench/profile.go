package main

import (
	"context"
	"fmt"
)

// profiled runs a scenario, with profiles of it if a directory is given for them.
func (b *bench) profiled(ctx context.Context, dir string, s scenario) error {
	if dir == "" {
		return s.run(ctx)
	}
	return fmt.Errorf("profiles: not yet")
}
