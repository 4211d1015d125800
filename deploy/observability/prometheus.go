package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// scrapeInterval is that of prometheus.yml.
const scrapeInterval = 15 * time.Second

// monitor is a Prometheus that reads the metrics of a running system and evaluates the alert rules.
type monitor struct {
	promv1.API

	addr     string // host:port
	programs []*program
}

// monitorConfig is the configuration of a monitor.
type monitorConfig struct {
	dir      string   // of its configuration, data and logs
	replicas []string // host:port of each admin port
	proxy    string   // host:port of nginx for HTTP
	disk     string   // a directory on the disk of Postgres
	// speed is the factor by which the monitor is faster than the rules: see faster.
	speed int
	rules []rule
}

// startMonitor starts Prometheus and node_exporter from PATH. It returns when Prometheus answers
// queries.
func startMonitor(ctx context.Context, cfg monitorConfig) (_ *monitor, err error) {
	m := &monitor{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.stop())
		}
	}()
	exporter, err := freeAddr()
	if err != nil {
		return nil, err
	}
	if m.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	mount, err := mountPoint(cfg.disk)
	if err != nil {
		return nil, err
	}
	if err := cfg.write(exporter, mount); err != nil {
		return nil, err
	}
	if err := m.run(cfg.dir, nodeExporter(), "--web.listen-address="+exporter, "--log.level=warn",
		"--collector.disable-defaults", "--collector.filesystem",
		"--collector.filesystem.fs-types-exclude=^$", "--collector.filesystem.mount-points-exclude=^$",
	); err != nil {
		return nil, err
	}
	interval := scrapeInterval / time.Duration(cfg.speed)
	if err := m.run(cfg.dir, "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn",
		"--web.listen-address="+m.addr, fmt.Sprintf("--query.lookback-delta=%dms", 20*interval.Milliseconds()),
	); err != nil {
		return nil, err
	}
	client, err := api.NewClient(api.Config{Address: "http://" + m.addr})
	if err != nil {
		return nil, err
	}
	m.API = promv1.NewAPI(client)
	return m, m.wait(ctx)
}

// write writes the configuration: that of prometheus.yml, with the addresses of cfg.
func (cfg monitorConfig) write(exporter, mount string) error {
	interval := model.Duration(scrapeInterval / time.Duration(cfg.speed))
	var rules []rule
	for _, r := range cfg.rules {
		r, err := faster(r, cfg.speed)
		if err != nil {
			return err
		}
		rules = append(rules, r)
	}
	for name, content := range map[string]any{
		rulesFile: ruleFile{[]ruleGroup{{"dlsms", rules}}},
		"prometheus.yml": map[string]any{
			"global": map[string]any{
				"scrape_interval": interval, "scrape_timeout": min(interval, model.Duration(10*time.Second)),
				"evaluation_interval": interval,
			},
			"rule_files": []string{rulesFile},
			"scrape_configs": []any{
				map[string]any{"job_name": "dlsms", "static_configs": []any{map[string]any{"targets": cfg.replicas}}},
				map[string]any{
					"job_name": "nginx", "metrics_path": "/nginx/up",
					"static_configs": []any{map[string]any{"targets": []string{cfg.proxy}}},
				},
				map[string]any{
					"job_name": "postgres-disk", "static_configs": []any{map[string]any{"targets": []string{exporter}}},
					"metric_relabel_configs": []any{map[string]any{
						"source_labels": []string{"mountpoint"}, "regex": mount, "action": "keep",
					}},
				},
			},
		},
	} {
		out, err := yaml.Marshal(content)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(cfg.dir, name), out, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until Prometheus answers a query.
func (m *monitor) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, _, _, err := m.Query(ctx, "up", time.Now())
		if err == nil {
			return nil
		}
		for _, p := range m.programs {
			if exited, log := p.exited(); exited {
				return fmt.Errorf("%s exited: %s", p.cmd.Path, log)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("prometheus does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// firing returns the names of the alerts that fire.
func (m *monitor) firing(ctx context.Context) ([]string, error) {
	all, err := m.Alerts(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus for the alerts: %w", err)
	}
	names := map[string]bool{}
	for _, a := range all.Alerts {
		if a.State == promv1.AlertStateFiring {
			names[string(a.Labels[model.AlertNameLabel])] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// reload makes Prometheus read its rules again.
func (m *monitor) reload() error {
	return m.programs[len(m.programs)-1].cmd.Process.Signal(syscall.SIGHUP)
}

// stop ends the programs and waits for their exit.
func (m *monitor) stop() error {
	var errs []error
	for _, p := range slices.Backward(m.programs) {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// program is a child process that runs until stop.
type program struct {
	cmd  *exec.Cmd
	log  bytes.Buffer // read only after done is closed
	done chan struct{}
	err  error // of Wait
}

// nodeExporter returns the name of node_exporter, which Debian calls by another name.
func nodeExporter() string {
	const debian = "prometheus-node-exporter"
	if _, err := exec.LookPath(debian); err == nil {
		return debian
	}
	return "node_exporter"
}

// run starts a program with dir as its working directory.
func (m *monitor) run(dir, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("%w: run `make install`, which installs it", err)
	}
	p := &program{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	m.programs = append(m.programs, p)
	return nil
}

func (p *program) exited() (bool, string) {
	select {
	case <-p.done:
		return true, p.log.String()
	default:
		return false, ""
	}
}

// stop ends the program. It fails if the program does not end within 10 s or had ended before.
func (p *program) stop() error {
	if exited, log := p.exited(); exited {
		return fmt.Errorf("%s exited (%w): %s", p.cmd.Path, p.err, log)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within 10 s of SIGTERM", p.cmd.Path)
	}
}

// freeAddr returns an address on the loopback interface with a port that is free now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// mountPoint returns the mount point of the file system that holds path.
func mountPoint(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	device := func(path string) (uint64, error) {
		var s syscall.Stat_t
		if err := syscall.Stat(path, &s); err != nil {
			return 0, fmt.Errorf("stat %s: %w", path, err)
		}
		return uint64(s.Dev), nil //nolint:unconvert // an int32 on macOS
	}
	own, err := device(path)
	if err != nil {
		return "", err
	}
	for path != "/" {
		parent, err := device(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		if parent != own {
			break
		}
		path = filepath.Dir(path)
	}
	return path, nil
}
