package main

import (
	"context"
	"fmt"
	"time"
)

// idle measures memory and CPU of replicas that get no calls.
func (b *bench) idle(ctx context.Context) error {
	b.progress("idle for %s", b.idleTime)
	before, err := cpuOf(b.ours)
	if err != nil {
		return err
	}
	if err := until(ctx, time.Now().Add(b.idleTime)); err != nil {
		return err
	}
	after, err := cpuOf(b.ours)
	if err != nil {
		return err
	}
	memory, err := b.ours.memory("VmRSS")
	if err != nil {
		return err
	}
	used := after.minus(before)
	core := 100 * used.replicas.Seconds() / float64(len(b.ours.Replicas)) / b.idleTime.Seconds()
	pg := 100 * used.postgres.Seconds() / b.idleTime.Seconds()
	b.report.goal("an idle replica: memory", "≤ 40 MiB", mebibytes(memory), memory <= 40<<20)
	b.report.goal(
		"an idle replica: CPU", "≤ 1% of a core", fmt.Sprintf("%.1f%% (Postgres for all three: %.1f%%)", core, pg),
		core <= 1,
	)
	return nil
}
