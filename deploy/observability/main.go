// Command observability writes the Grafana dashboards, and watches a running system with Prometheus
// and the alert rules of this directory:
//
//	observability dashboards
//	observability watch -replicas ADDR,ADDR,ADDR -proxy ADDR -disk DIR [-for 10m] [-pictures DIR]
//
// The directory is a module of its own, so that the module of the server does not need the packages
// of Prometheus and Grafana.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const usage = "usage: observability dashboards | " +
	"watch -replicas ADDR,… -proxy ADDR -disk DIR [-for 10m] [-pictures DIR]"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "observability:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	switch args[0] {
	case "dashboards":
		return writeDashboards()
	case "watch":
		return watch(ctx, args[1:], out)
	default:
		return errors.New(usage)
	}
}

func writeDashboards() error {
	for _, d := range dashboards {
		content, err := d.JSON()
		if err != nil {
			return err
		}
		if err := os.WriteFile(d.file(), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (d dashboard) file() string { return filepath.Join("grafana", "dashboards", d.uid+".json") }

// watch runs Prometheus on a running system. It prints each alert that begins or ends to fire, and
// fails if an alert fired. At the end it draws the dashboards.
func watch(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("watch", flag.ContinueOnError)
	replicas := flags.String("replicas", "", "the admin addresses of the replicas, separated by commas")
	proxy := flags.String("proxy", "", "the address of nginx for HTTP")
	disk := flags.String("disk", "", "a directory on the disk of Postgres")
	duration := flags.Duration("for", 10*time.Minute, "how long to watch")
	pictures := flags.String("pictures", "", "the directory for pictures of the dashboards")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *replicas == "" || *proxy == "" || *disk == "" || flags.NArg() > 0 {
		return errors.New(usage)
	}
	rules, err := readRules()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dlsms-observability")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := startMonitor(ctx, monitorConfig{
		dir: dir, replicas: strings.Split(*replicas, ","), proxy: *proxy, disk: *disk, speed: 1, rules: rules,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	began := time.Now()
	fmt.Fprintf(out, "watching for %s, on http://%s\n", *duration, m.addr)
	fired, err := m.follow(ctx, began.Add(*duration), out)
	if err != nil {
		return err
	}
	if *pictures != "" {
		for _, d := range dashboards {
			if err := m.draw(ctx, d, began, time.Now(), *pictures); err != nil {
				return err
			}
		}
	}
	if fired > 0 {
		return fmt.Errorf("%d alerts fired", fired)
	}
	fmt.Fprintln(out, "no alert fired")
	return nil
}

// follow prints each alert that begins or ends to fire, until end, and returns how many fired.
func (m *monitor) follow(ctx context.Context, end time.Time, out io.Writer) (fired int, err error) {
	before := map[string]bool{}
	for time.Now().Before(end) {
		names, err := m.firing(ctx)
		if err != nil {
			return fired, err
		}
		now := map[string]bool{}
		for _, name := range names {
			now[name] = true
			if !before[name] {
				fired++
				fmt.Fprintf(out, "%s  %s fires\n", time.Now().Format(time.TimeOnly), name)
			}
		}
		for name := range before {
			if !now[name] {
				fmt.Fprintf(out, "%s  %s ended\n", time.Now().Format(time.TimeOnly), name)
			}
		}
		before = now
		select {
		case <-ctx.Done():
			return fired, nil
		case <-time.After(min(scrapeInterval, time.Until(end))):
		}
	}
	return fired, nil
}
