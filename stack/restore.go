package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// RestoreConfig is the configuration of Restore.
type RestoreConfig struct {
	// Dir is the directory of the stack whose database is replaced. If it has no database, Restore
	// creates one.
	Dir string
	// File is a dump that Backup or pg_dump -Fc wrote.
	File string
	// Binary is the path of the dlsms program. It migrates the restored database.
	Binary string
	// Log receives one line for each step. It may be nil.
	Log io.Writer
}

// The databases of a restore. The dump is restored into restoringDatabase, which then takes the
// name of the database dlsms. The former database dlsms is replacedDatabase until it is dropped.
const restoringDatabase, replacedDatabase = "dlsms_restoring", "dlsms_replaced"

// dumpTables are tables that every dump of DL-SMS has.
var dumpTables = []string{"database_identity", "goose_db_version", "reservation_events"}

// Restore replaces the database of a stack with a dump. The stack must not run.
// It restores the dump into a new database and migrates it. Then it gives the new database the name
// of the old one, in one transaction, and drops the old one. So if it fails before, or ctx ends,
// the old database is unchanged. Every error is one line that says how to fix the problem.
func Restore(ctx context.Context, cfg RestoreConfig) (err error) {
	begin := time.Now()
	binary, err := exec.LookPath(cfg.Binary)
	if err != nil {
		return fmt.Errorf("the program %q can't be run (%w): build it with `make build`", cfg.Binary, err)
	}
	bin, err := clientPrograms(ctx, filepath.Join(cfg.Dir, "postgres", "data"))
	if err != nil {
		return err
	}
	contents, err := dumpContents(ctx, bin, cfg.File)
	if err != nil {
		return interrupted(ctx, err, "the restore was interrupted: nothing is changed")
	}
	pg, err := StartPostgres(ctx, PostgresConfig{Dir: cfg.Dir, Log: cfg.Log})
	if err != nil {
		return interrupted(ctx, err, "the restore was interrupted: nothing is changed")
	}
	defer func() { err = errors.Join(err, pg.Stop(context.WithoutCancel(ctx))) }()
	r := &restoration{cfg: cfg, binary: binary, bin: bin, pg: pg, log: newConsole(cfg.Log)}
	if err := r.run(ctx, contents); err != nil {
		return interrupted(ctx, fmt.Errorf("%s is not restored, and the database is unchanged: %w", cfg.File, err),
			"the restore was interrupted: the database is unchanged")
	}
	r.log.printf("restore", "done after %.1f s: start the system with `make run`, "+
		"then close again what was closed after the backup (docs/operating/users.md)", time.Since(begin).Seconds())
	return nil
}

// dumpContents returns the table of contents of a dump. It returns an error if the file is not a
// dump of DL-SMS.
func dumpContents(ctx context.Context, bin, file string) (string, error) {
	if file == "" {
		return "", errors.New("the file to restore is not named: `make restore FILE=…` with a file of `make backup`")
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("can't read the dump: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file: choose a file of `make backup`", file)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "pg_restore"), "--list", file)
	cmd.Env = append(baseEnv(), "LC_ALL=C")
	var contents, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &contents, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s is not a readable dump (%w: %s): choose a file of `make backup`",
			file, err, firstLine([]byte(complaint.String())))
	}
	for _, table := range dumpTables {
		if !strings.Contains(contents.String(), " TABLE DATA public "+table+" ") {
			return "", fmt.Errorf("%s is a dump of another database, without the table %s: choose a file of `make backup`",
				file, table)
		}
	}
	return contents.String(), nil
}

// restoration is one call of Restore.
type restoration struct {
	cfg    RestoreConfig
	binary string // the path of the dlsms program
	bin    string // the directory with the programs of Postgres
	pg     *Postgres
	log    *console
}

// run replaces the database. The owner of the database does all of it, not the superuser, because a
// dump can contain any SQL.
func (r *restoration) run(ctx context.Context, contents string) error {
	// A restore that was killed leaves its databases.
	if err := r.dropDatabases(ctx); err != nil {
		return err
	}
	r.log.printf("restore", "reading %s into a new database", r.cfg.File)
	cleanup := context.WithoutCancel(ctx)
	err := r.fill(ctx, contents)
	if err == nil {
		err = ctx.Err() // the last moment at which Ctrl-C keeps the old database
	}
	if err == nil {
		err = r.swap(cleanup)
	}
	if err != nil {
		return errors.Join(err, r.dropDatabases(cleanup))
	}
	if err := r.dropDatabases(cleanup); err != nil {
		r.log.printf("restore", "the replaced database remains until the next restore: %v", err)
	}
	return nil
}

// swap makes the restored database the database dlsms.
func (r *restoration) swap(ctx context.Context) error {
	return r.asOwner(ctx, "postgres", func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `ALTER DATABASE `+postgresDatabase+` RENAME TO `+replacedDatabase)
			if err == nil {
				_, err = tx.Exec(ctx, `ALTER DATABASE `+restoringDatabase+` RENAME TO `+postgresDatabase)
			}
			return err
		})
	})
}

// dropDatabases drops the databases of a restore.
func (r *restoration) dropDatabases(ctx context.Context) error {
	return r.asOwner(ctx, "postgres", func(conn *pgx.Conn) error {
		for _, name := range []string{restoringDatabase, replacedDatabase} {
			if _, err := conn.Exec(ctx, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`); err != nil {
				return err
			}
		}
		return nil
	})
}

// asOwner calls f with a new connection of the role dlsms.
func (r *restoration) asOwner(ctx context.Context, database string, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, r.pg.url(postgresRole, database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return f(conn)
}

// fill creates restoringDatabase, restores the dump into it, migrates it, and makes the statistics of the
// planner, which a dump does not have.
func (r *restoration) fill(ctx context.Context, contents string) error {
	err := r.asOwner(ctx, "postgres", func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `CREATE DATABASE `+restoringDatabase+` TEMPLATE template0`)
		return err
	})
	if err != nil {
		return err
	}
	databaseURL := r.pg.url(postgresRole, restoringDatabase)
	if err := r.load(ctx, databaseURL, contents); err != nil {
		return err
	}
	r.log.printf("restore", "migrating the new database")
	migrate := exec.CommandContext(ctx, r.binary, "migrate")
	migrate.Env = append(baseEnv(), "DATABASE_URL="+databaseURL)
	out, err := migrate.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil {
		return fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	for _, line := range lines {
		r.log.print("restore", line)
	}
	return r.asOwner(ctx, restoringDatabase, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `ANALYZE`); err != nil {
			return err
		}
		var users, seats, reservations int64
		err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM seats),
			(SELECT count(*) FROM reservations)`).Scan(&users, &seats, &reservations)
		if err == nil {
			r.log.printf("restore", "%d users, %d seats, %d reservations", users, seats, reservations)
		}
		return err
	})
}

// load runs pg_restore. Dumps may contain the extension pg_stat_statements, which only a superuser
// can create. StartPostgres creates it, so load leaves it out.
func (r *restoration) load(ctx context.Context, databaseURL, contents string) error {
	wanted, err := os.CreateTemp("", "dlsms-restore-")
	if err != nil {
		return writeError("make", "a temporary file", err)
	}
	defer func() { _ = os.Remove(wanted.Name()) }()
	for line := range strings.Lines(contents) {
		if !strings.Contains(line, "EXTENSION") || !strings.Contains(line, "pg_stat_statements") {
			if _, err := wanted.WriteString(line); err != nil {
				return writeError("write", wanted.Name(), err)
			}
		}
	}
	if err := wanted.Close(); err != nil {
		return writeError("write", wanted.Name(), err)
	}
	cmd, err := clientTool(ctx, r.bin, "pg_restore", databaseURL,
		"--single-transaction", "--no-owner", "--no-privileges", "--use-list="+wanted.Name(), r.cfg.File)
	if err != nil {
		return err
	}
	if err := runTool(cmd); err != nil {
		return fmt.Errorf("pg_restore: %w", err)
	}
	return nil
}
