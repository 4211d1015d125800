package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresConfig says how to start a Postgres of one's own. Its zero value is a cluster to be thrown away, on a free port.
type PostgresConfig struct {
	// Dir keeps the cluster between runs; empty: a temporary directory, removed by Stop.
	Dir string
	// Port on 127.0.0.1 that is taken if it is free; if it isn't, or 0: any free port.
	Port int
	// Settings of the server on top of PostgresSettings.
	Settings map[string]string
	// Unsafe turns fsync and full_page_writes off. For unit tests only: a crash of the machine ruins the cluster.
	Unsafe bool
	// Log gets the server's lines and a line a step; nil: nowhere.
	Log io.Writer
}

// Postgres is a private cluster, listening on 127.0.0.1 only. The database dlsms belongs to the role dlsms, which may create
// databases but is no superuser, so that what runs here runs in a hosted database as well.
type Postgres struct {
	*Process
	port       int
	base       string // holds data/ and the password
	password   string
	statistics bool      // pg_stat_statements is loaded
	state      *stateDir // what Stop gives back; nil when a Stack holds it
	ports      *ports
}

const (
	postgresSuperuser = "postgres"
	postgresRole      = "dlsms"
	postgresDatabase  = "dlsms"
)

// PostgresSettings are those that differ from the defaults of Postgres; docker-compose.yml has the same.
func PostgresSettings() map[string]string {
	return map[string]string{
		// Three replicas of 100 connections, their workers, and a person with psql.
		"max_connections": "400",
		"shared_buffers":  "256MB",
		// The statements are small: compiling one takes longer than running it.
		"jit": "off",
		// The defaults, said aloud: an acknowledged booking survives a crash.
		"fsync":              "on",
		"synchronous_commit": "on",
		"full_page_writes":   "on",
		"timezone":           "UTC",
		"log_timezone":       "UTC",
	}
}

// StartPostgres makes the cluster on first use, starts it, and returns once the role and database dlsms are there.
// Run by root, the server runs as the user postgres. Every error is one line that says what to do.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	state, err := openState(cfg.Dir)
	if err != nil {
		return nil, err
	}
	held := &ports{}
	pg, err := startPostgres(ctx, cfg, state, held, newConsole(cfg.Log), systemTools())
	if err != nil {
		held.close()
		return nil, errors.Join(err, state.close())
	}
	pg.state, pg.ports = state, held
	return pg, nil
}

// Stop ends the server within 30 s, letting transactions roll back; one of StartPostgres also gives up its directory and port,
// and can't be started again.
func (pg *Postgres) Stop(ctx context.Context) error {
	err := pg.Process.Stop(ctx)
	if pg.state == nil {
		return err
	}
	pg.ports.close()
	return errors.Join(err, pg.state.close())
}

// DatabaseURL names the database dlsms for the role that owns it.
func (pg *Postgres) DatabaseURL() string { return pg.url(postgresRole, postgresDatabase) }

// AdminURL names the database dlsms for the superuser.
func (pg *Postgres) AdminURL() string { return pg.url(postgresSuperuser, postgresDatabase) }

func (pg *Postgres) url(role, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(role, pg.password),
		Host:     net.JoinHostPort(loopback, strconv.Itoa(pg.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

func startPostgres(ctx context.Context, cfg PostgresConfig, state *stateDir, held *ports, log *console, t tools) (*Postgres, error) {
	pg := &Postgres{}
	as, err := postgresUser()
	if err != nil {
		return nil, err
	}
	if pg.base, err = clusterBase(ctx, state, as, log); err != nil {
		return nil, err
	}
	data := filepath.Join(pg.base, "data")
	madeBy, err := clusterRelease(data)
	if err != nil {
		return nil, err
	}
	bin, release, err := t.postgres(ctx, madeBy)
	if err != nil && madeBy != 0 {
		return nil, fmt.Errorf("%w, which made the database in %s: install it, or begin anew with `make clean`", err, data)
	}
	if err != nil {
		return nil, err
	}
	passwordFile := filepath.Join(pg.base, "password")
	if pg.password, err = clusterPassword(passwordFile, data, as); err != nil {
		return nil, err
	}
	if err := initCluster(ctx, bin, data, passwordFile, cfg.Unsafe, as, log); err != nil {
		return nil, err
	}
	if err := awaitLeftover(ctx, data, log); err != nil {
		return nil, err
	}
	if pg.port, err = held.pick(cfg.Port); err != nil {
		return nil, err
	}

	settings := PostgresSettings()
	settings["listen_addresses"] = loopback
	settings["port"] = strconv.Itoa(pg.port)
	settings["unix_socket_directories"] = "" // a path may be too long for a socket, and the port is enough
	// What goes wrong with a statement is told by the replica that sent it.
	settings["log_min_messages"] = "fatal"
	settings["log_line_prefix"] = ""
	pg.statistics = !cfg.Unsafe && hasStatStatements(ctx, bin)
	if pg.statistics {
		settings["shared_preload_libraries"] = "pg_stat_statements"
	}
	if cfg.Unsafe {
		settings["fsync"], settings["full_page_writes"] = "off", "off"
	}
	maps.Copy(settings, cfg.Settings)
	args := []string{"-D", data}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	pg.Process = &Process{spec: spec{
		name: "postgres",
		log:  log,
		command: func() (*exec.Cmd, error) {
			cmd := exec.Command(filepath.Join(bin, "postgres"), args...)
			as.apply(cmd, pg.base)
			return cmd, nil
		},
		ready:    pg.answers,
		within:   2 * time.Minute, // a crash under load may leave a gigabyte of log to replay
		quit:     syscall.SIGINT,  // "fast": open transactions are rolled back
		patience: 30 * time.Second,
		orphan:   syscall.SIGINT,
		explain:  lastFatal,
		hushed:   true, // until ready it says to each look that it isn't
	}}
	log.printf("postgres", "starting PostgreSQL %d on %s:%d, data in %s", release, loopback, pg.port, data)
	if err := pg.Start(ctx); err != nil {
		return nil, err
	}
	if err := pg.prepare(ctx); err != nil {
		return nil, errors.Join(err, pg.Process.Stop(context.WithoutCancel(ctx)))
	}
	return pg, nil
}

func (pg *Postgres) answers(ctx context.Context) error {
	return pg.with(ctx, "postgres", func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SELECT 1")
		return err
	})
}

// prepare makes the role and the database where they are missing: on first use, or after a first use that was cut short.
func (pg *Postgres) prepare(ctx context.Context) error {
	err := pg.with(ctx, "postgres", func(ctx context.Context, c *pgx.Conn) error {
		var role, database bool
		err := c.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1), EXISTS (SELECT FROM pg_database WHERE datname = $2)`,
			postgresRole, postgresDatabase).Scan(&role, &database)
		if err != nil {
			return err
		}
		if !role {
			// Constants and random letters: there is nothing to quote.
			if _, err := c.Exec(ctx, `CREATE ROLE dlsms LOGIN CREATEDB IN ROLE pg_monitor PASSWORD '`+pg.password+`'`); err != nil {
				return err
			}
		}
		if !database {
			_, err = c.Exec(ctx, `CREATE DATABASE dlsms OWNER dlsms`)
		}
		return err
	})
	if err == nil && pg.statistics {
		err = pg.with(ctx, postgresDatabase, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("prepare the database: %w", err)
	}
	return nil
}

// with runs f as the superuser on a connection of its own.
func (pg *Postgres) with(ctx context.Context, database string, f func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, pg.url(postgresSuperuser, database))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	return f(ctx, c)
}

// hasStatStatements tells whether the statistics extension is installed, which a benchmark reads; it is in a package of its own on some systems.
func hasStatStatements(ctx context.Context, bin string) bool {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "pg_config"), "--pkglibdir").Output()
	if err != nil {
		return false
	}
	found, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "pg_stat_statements.*"))
	return len(found) > 0
}

// lastFatal picks the line by which Postgres says why it gave up; hints follow it.
func lastFatal(lines []string) string {
	for _, line := range slices.Backward(lines) {
		for _, level := range []string{"FATAL:  ", "PANIC:  "} {
			if _, why, ok := strings.Cut(line, level); ok {
				return why
			}
		}
	}
	return ""
}

func awaitLeftover(ctx context.Context, data string, log *console) error {
	pid, err := leftoverPID(data)
	if pid == 0 || err != nil {
		return err
	}
	log.printf("postgres", "waiting for the server of an earlier run (pid %d) to end", pid)
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Postgres of an earlier run, pid %d, still holds %s: end it with `kill -INT %[1]d`, then run again", pid, data)
		case <-poll.C:
		}
		if again, err := leftoverPID(data); again != pid {
			return err
		}
	}
}

// leftoverPID returns the live Postgres that holds the data directory, or 0. A pid file whose pid by now belongs to some other
// process, as after a reboot, is removed: Postgres itself would refuse to start over it. That process may be another Postgres.
// It returns an error when the directory is a copy of one whose server runs, or ended without removing its pid file.
func leftoverPID(data string) (int, error) {
	file := filepath.Join(data, "postmaster.pid")
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, nil //nolint:nilerr // if there is one, Postgres says what is wrong with it
	}
	// The pid, the data directory and the time of the start.
	lines := strings.SplitN(string(content), "\n", 4)
	if len(lines) == 4 && !sameFile(data, lines[1]) {
		original, err := os.ReadFile(filepath.Join(lines[1], "postmaster.pid"))
		if err == nil && strings.HasPrefix(string(original), strings.Join(lines[:3], "\n")+"\n") {
			return 0, fmt.Errorf("%s was copied from %s while a server used that: restore a backup, or begin anew with `make clean`",
				data, lines[1])
		}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return 0, nil //nolint:nilerr // Postgres says so
	}
	program := programOf(pid)
	if program == "" {
		return 0, nil
	}
	if (program == "postgres" || program == "postmaster") && worksIn(pid, data) {
		return pid, nil
	}
	_ = os.Remove(file) // should it fail, Postgres says so
	return 0, nil
}

func sameFile(a, b string) bool {
	first, errFirst := os.Stat(a)
	second, errSecond := os.Stat(b)
	return errFirst == nil && errSecond == nil && os.SameFile(first, second)
}
