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

// PostgresConfig is the configuration of a private Postgres.
// The zero value is a temporary cluster on a free port.
type PostgresConfig struct {
	// Dir keeps the cluster between runs. If it is empty, StartPostgres creates a temporary
	// directory, and Stop removes it.
	Dir string
	// Port is the preferred port on 127.0.0.1. If it is 0 or in use, any free port is used.
	Port int
	// Settings of the server, which override PostgresSettings.
	Settings map[string]string
	// Unsafe turns off fsync and full_page_writes. It is for unit tests only: a crash of the
	// machine destroys the cluster.
	Unsafe bool
	// Certificate, if set, makes the server accept TLS. Connections without TLS still work. The URLs
	// of Postgres do not use TLS.
	Certificate *Certificate
	// Log receives the lines of the server and one line for each step. It may be nil.
	Log io.Writer
}

// Postgres is a private cluster that listens on 127.0.0.1 only.
// The role dlsms owns the database dlsms. It may create databases but is not a superuser, like a
// role in a hosted database.
type Postgres struct {
	*Process
	port       int
	base       string // the directory of data/ and the password
	password   string
	statistics bool      // pg_stat_statements is loaded
	state      *stateDir // Stop releases it; nil if a Stack owns it
	ports      *ports
}

const (
	postgresSuperuser = "postgres"
	postgresRole      = "dlsms"
	postgresDatabase  = "dlsms"
)

// PostgresSettings returns the settings that DL-SMS needs. docker-compose.yml has the same
// settings.
func PostgresSettings() map[string]string {
	return map[string]string{
		// Each of three replicas opens at most 109 connections: DB_MAX_CONNS (100) and 9 more
		// (store.Open). The rest is for manual connections, for example with psql.
		"max_connections": "400",
		"shared_buffers":  "256MB",
		// The statements are small: to compile a statement takes longer than to run it.
		"jit": "off",
		// These are the defaults. They are explicit because an acknowledged booking must survive a
		// crash.
		"fsync":              "on",
		"synchronous_commit": "on",
		"full_page_writes":   "on",
		"timezone":           "UTC",
		"log_timezone":       "UTC",
	}
}

// StartPostgres creates the cluster on first use, starts it, and returns when the role and the
// database dlsms exist. If the caller is root, the server runs as the user postgres.
// Every error is one line that says how to fix the problem.
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

// Stop requests a stop in which Postgres rolls back open transactions. If the server has not ended
// after 30 s, Stop kills it. If StartPostgres started the server, Stop also releases the directory
// and the port, and the server can't be started again.
func (pg *Postgres) Stop(ctx context.Context) error {
	err := pg.Process.Stop(ctx)
	if pg.state == nil {
		return err
	}
	pg.ports.close()
	return errors.Join(err, pg.state.close())
}

// DatabaseURL returns the URL of the database dlsms for its owner, the role dlsms.
func (pg *Postgres) DatabaseURL() string { return pg.url(postgresRole, postgresDatabase) }

// AdminURL returns the URL of the database dlsms for the superuser.
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

func startPostgres(
	ctx context.Context, cfg PostgresConfig, state *stateDir, held *ports, log *console, t tools,
) (*Postgres, error) {
	pg := &Postgres{}
	as, err := postgresUser()
	if err != nil {
		return nil, err
	}
	if pg.base, err = clusterBase(ctx, state, as, log); err != nil {
		return nil, err
	}
	data := filepath.Join(pg.base, "data")
	createdBy, err := clusterRelease(data)
	if err != nil {
		return nil, err
	}
	bin, release, err := t.postgres(ctx, createdBy)
	if err != nil && createdBy != 0 {
		return nil, fmt.Errorf("%w, which created the database in %s: install it, or start again with `make clean`",
			err, data)
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
	if err := waitForPreviousServer(ctx, data, log); err != nil {
		return nil, err
	}
	if pg.port, err = held.pick(cfg.Port); err != nil {
		return nil, err
	}

	settings := PostgresSettings()
	settings["listen_addresses"] = loopback
	settings["port"] = strconv.Itoa(pg.port)
	settings["unix_socket_directories"] = "" // no socket: its path could be too long
	// The errors of statements stay out of the log, because the replica that sends a statement logs
	// its error.
	settings["log_min_messages"] = "fatal"
	settings["log_line_prefix"] = ""
	pg.statistics = !cfg.Unsafe && hasStatStatements(ctx, bin)
	if pg.statistics {
		settings["shared_preload_libraries"] = "pg_stat_statements"
	}
	if cfg.Unsafe {
		settings["fsync"], settings["full_page_writes"] = "off", "off"
	}
	if cfg.Certificate != nil {
		settings["ssl"] = "on"
		settings["ssl_cert_file"], settings["ssl_key_file"], err = cfg.Certificate.write(pg.base, as)
		if err != nil {
			return nil, err
		}
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
		ready:             pg.ping,
		startTimeout:      2 * time.Minute, // after a crash under load, Postgres may replay 1 GB of WAL
		stopSignal:        syscall.SIGINT,  // "fast": open transactions are rolled back
		stopTimeout:       30 * time.Second,
		parentDeathSignal: syscall.SIGINT,
		explain:           fatalReason,
		quiet:             true, // before Postgres is ready, it logs a line for each health check
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

func (pg *Postgres) ping(ctx context.Context) error {
	return pg.withConn(ctx, "postgres", func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SELECT 1")
		return err
	})
}

// prepare creates the role and the database if they do not exist: on first use, or after an
// interrupted first use.
func (pg *Postgres) prepare(ctx context.Context) error {
	err := pg.withConn(ctx, "postgres", func(ctx context.Context, c *pgx.Conn) error {
		var role, database bool
		err := c.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
				EXISTS (SELECT FROM pg_database WHERE datname = $2)`,
			postgresRole, postgresDatabase).Scan(&role, &database)
		if err != nil {
			return err
		}
		if !role {
			// The password has only letters and digits, so it needs no quoting.
			_, err := c.Exec(ctx, `CREATE ROLE dlsms LOGIN CREATEDB IN ROLE pg_monitor PASSWORD '`+pg.password+`'`)
			if err != nil {
				return err
			}
		}
		if !database {
			_, err = c.Exec(ctx, `CREATE DATABASE dlsms OWNER dlsms`)
		}
		return err
	})
	if err == nil && pg.statistics {
		err = pg.withConn(ctx, postgresDatabase, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("prepare the database: %w", err)
	}
	return nil
}

// withConn calls f with a new connection of the superuser.
func (pg *Postgres) withConn(ctx context.Context, database string, f func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, pg.url(postgresSuperuser, database))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	return f(ctx, c)
}

// hasStatStatements reports whether the extension pg_stat_statements is installed. The benchmarks
// read its statistics. Some systems have it in a separate package.
func hasStatStatements(ctx context.Context, bin string) bool {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "pg_config"), "--pkglibdir").Output()
	if err != nil {
		return false
	}
	found, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "pg_stat_statements.*"))
	return len(found) > 0
}

// fatalReason returns the text of the last FATAL or PANIC line, without the hints that follow it.
func fatalReason(lines []string) string {
	for _, line := range slices.Backward(lines) {
		for _, level := range []string{"FATAL:  ", "PANIC:  "} {
			if _, why, ok := strings.Cut(line, level); ok {
				return why
			}
		}
	}
	return ""
}

// waitForPreviousServer waits until the Postgres of an earlier run has ended.
func waitForPreviousServer(ctx context.Context, data string, log *console) error {
	pid, err := previousServerPID(data)
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
			return fmt.Errorf("the Postgres of an earlier run, pid %d, still holds %s: "+
				"end it with `kill -INT %[1]d`, then run again", pid, data)
		case <-poll.C:
		}
		if again, err := previousServerPID(data); again != pid {
			return err
		}
	}
}

// previousServerPID returns the process id of a Postgres of an earlier run that still uses the
// directory data, or 0. It reads the id from the pid file in data.
//   - After a reboot, the id may belong to another process, even another Postgres. Then
//     previousServerPID removes the pid file, because Postgres would refuse to start.
//   - If data was copied while a Postgres used it, the pid file names the original directory. If
//     the original still has the same pid file, previousServerPID returns an error.
func previousServerPID(data string) (int, error) {
	file := filepath.Join(data, "postmaster.pid")
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, nil //nolint:nilerr // if the file exists, Postgres reports the problem
	}
	// The first three lines of the pid file are the process id, the data directory and the start
	// time.
	lines := strings.SplitN(string(content), "\n", 4)
	if len(lines) == 4 && !sameFile(data, lines[1]) {
		original, err := os.ReadFile(filepath.Join(lines[1], "postmaster.pid"))
		if err == nil && strings.HasPrefix(string(original), strings.Join(lines[:3], "\n")+"\n") {
			return 0, fmt.Errorf("%s was copied from %s while a server used it: "+
				"restore a backup, or start again with `make clean`",
				data, lines[1])
		}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return 0, nil //nolint:nilerr // Postgres reports the problem
	}
	program := programName(pid)
	if program == "" {
		return 0, nil
	}
	if (program == "postgres" || program == "postmaster") && hasWorkingDir(pid, data) {
		return pid, nil
	}
	_ = os.Remove(file) // if it fails, Postgres reports the problem
	return 0, nil
}

func sameFile(a, b string) bool {
	first, errFirst := os.Stat(a)
	second, errSecond := os.Stat(b)
	return errFirst == nil && errSecond == nil && os.SameFile(first, second)
}
