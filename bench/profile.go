package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// profiled runs a scenario. If dir is not empty, it also writes a CPU profile of the first replica
// and the statistics of SQL statements to dir. Profiling costs a few percent of the CPU: do not use
// the figures of such a run.
func (b *bench) profiled(ctx context.Context, dir string, s scenario) error {
	if dir == "" {
		return s.run(ctx)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if _, err := b.ours.db.Exec(ctx, `SELECT pg_stat_statements_reset()`); err != nil {
		return fmt.Errorf("reset pg_stat_statements (is postgresql-contrib installed?): %w", err)
	}
	raw := filepath.Join(dir, s.name+".pprof")
	stop := b.profileCPU(ctx, raw)
	err := s.run(ctx)
	if profileErr := stop(); err == nil {
		err = profileErr
	}
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(raw) }()
	top := []byte("the scenario was too short for a profile\n")
	if info, err := os.Stat(raw); err == nil && info.Size() > 0 {
		if top, err = exec.CommandContext(
			ctx, "go", "tool", "pprof", "-top", "-cum", "-nodecount=70", raw,
		).Output(); err != nil {
			return fmt.Errorf("go tool pprof: %w", err)
		}
	}
	statements, err := b.statements(ctx)
	if err != nil {
		return err
	}
	return toFile(filepath.Join(dir, s.name+".txt"), func(w io.Writer) error {
		_, err := fmt.Fprintf(
			w, "CPU of one replica during %q\n\n%s\nSQL statements during the scenario\n\n%s", s.name, top, statements,
		)
		return err
	})
}

// profileCPU profiles the first replica of b.ours until stop is called. stop returns when the
// profile is written.
func (b *bench) profileCPU(ctx context.Context, file string) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- b.keepProfiling(ctx, file) }()
	return func() error {
		cancel()
		return <-done
	}
}

// profileSeconds is the length of each part of a profile in seconds.
const profileSeconds = 3

// keepProfiling takes many short profiles and merges them. It cannot take one long profile: the
// length of a profile is set at its start, and the length of a scenario is not known then.
func (b *bench) keepProfiling(ctx context.Context, file string) error {
	var parts []string
	for i := 0; ctx.Err() == nil; i++ {
		part := fmt.Sprintf("%s.%d", file, i)
		err := b.takeProfile(ctx, part)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("profile of a replica: %w", err)
		}
		if err == nil {
			parts = append(parts, part)
		} else {
			_ = os.Remove(part)
		}
	}
	if len(parts) == 0 { // a stampede is shorter than a profile
		return os.WriteFile(file, nil, 0o600)
	}
	args := append([]string{"tool", "pprof", "-proto", "-output", file}, parts...)
	merged, err := exec.CommandContext(context.WithoutCancel(ctx), "go", args...).CombinedOutput()
	for _, part := range parts {
		_ = os.Remove(part)
	}
	if err != nil {
		return fmt.Errorf("go tool pprof: %w: %s", err, merged)
	}
	return nil
}

func (b *bench) takeProfile(ctx context.Context, file string) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", b.ours.AdminAddr(0), profileSeconds)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return toFile(file, func(w io.Writer) error {
		_, err := io.Copy(w, resp.Body)
		return err
	})
}

// statements returns a table of the statements on which Postgres spent the most time.
func (b *bench) statements(ctx context.Context) (string, error) {
	rows, err := b.ours.db.Query(ctx, `
		SELECT calls, total_exec_time + total_plan_time, mean_exec_time, wal_bytes::bigint,
			left(regexp_replace(query, '\s+', ' ', 'g'), 150)
		FROM pg_stat_statements ORDER BY total_exec_time + total_plan_time DESC LIMIT 15`)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%9s %10s %9s %9s  statement\n", "calls", "total", "mean", "WAL, KiB")
	var calls, wal int64
	var total, mean float64
	var query string
	_, err = pgx.ForEachRow(rows, []any{&calls, &total, &mean, &wal, &query}, func() error {
		_, err := fmt.Fprintf(
			&out, "%9d %10s %7.3fms %9d  %s\n", calls, (time.Duration(total) * time.Millisecond).Round(time.Millisecond), mean,
			wal>>10, strings.TrimSpace(query),
		)
		return err
	})
	return out.String(), err
}
