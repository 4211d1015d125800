// Package migrations brings a database to the schema that this binary works with.
//
// Every replica runs it at its start. A session lock lets one of them work while the others wait, and then find nothing to do.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/dlsms/dlsms/store"
)

//go:embed *.sql
var files embed.FS

// Result says what Up has done.
type Result struct {
	// Applied are the versions that were applied, none when there was nothing to do.
	Applied []int64
	// Schema is the version of the database, Newest the newest one that this binary knows. Where Schema is above Newest, a
	// newer release has migrated the database, and this binary may still run on it.
	Schema, Newest int64
	// Moved says that the database is not where it was, as after a restore or a failover, so that ids were moved on.
	Moved bool
}

const (
	// lockTimeout bounds how long a migration waits for a lock, as all bookings wait behind it.
	lockTimeout = 500 * time.Millisecond
	// lockPause is how long bookings go on before it tries again, and lockPatience for how long it does.
	lockPause, lockPatience = time.Second, 5 * time.Minute
)

// ErrTooOld says that the database has the schema of a release on which this binary can't run.
var ErrTooOld = errors.New("this binary is too old for the database")

// Up migrates the database at url to the newest schema. After a restore, a copy or a failover it moves ids on, and after
// a restore from a dump it writes the change log anew, once. It fails with ErrTooOld on a schema that is too new.
// It waits for another replica that is migrating, at most 5 minutes or until ctx ends.
func Up(ctx context.Context, url string) (Result, error) {
	result, err := up(ctx, url)
	if err != nil {
		return Result{}, fmt.Errorf("migrate: %w", err)
	}
	return result, nil
}

func up(ctx context.Context, url string) (result Result, err error) {
	config, err := store.ParseURL(url)
	if err != nil {
		return result, fmt.Errorf("DATABASE_URL: %w", err)
	}
	prepare := func(ctx context.Context, conn *pgx.Conn) error { return store.PrepareMigration(ctx, conn, lockTimeout) }
	// Each migration gets the session anew, whatever the one before it has set.
	db := stdlib.OpenDB(*config.ConnConfig, stdlib.OptionAfterConnect(prepare), stdlib.OptionResetSession(prepare))
	defer db.Close()
	defer func() { err = explain(ctx, db, err) }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		return result, err
	}
	unlock, err := lockDatabase(ctx, db)
	if err != nil {
		return result, err
	}
	defer unlock()
	sources := provider.ListSources()
	result.Newest = sources[len(sources)-1].Version
	if err := checkCompatible(ctx, db, result.Newest); err != nil {
		return result, err
	}
	if result.Applied, err = applyAll(ctx, provider); err != nil {
		return result, err
	}
	if result.Schema, err = provider.GetDBVersion(ctx); err != nil {
		return result, err
	}
	if err := runnable(ctx, db); err != nil {
		return result, err
	}
	result.Moved, err = adopt(ctx, db)
	return result, err
}

// lockDatabase has other replicas wait until unlock is called. The lock is that of goose, which older releases take too.
func lockDatabase(ctx context.Context, db *sql.DB) (unlock func(), err error) {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if err := locker.SessionLock(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return func() {
		_ = locker.SessionUnlock(context.WithoutCancel(ctx), conn) // the session ends with the pool at the latest
		_ = conn.Close()
	}, nil
}

// checkCompatible refuses a database on whose schema a binary that knows no more than newest can't run.
func checkCompatible(ctx context.Context, db *sql.DB, newest int64) error {
	var known bool
	if err := db.QueryRowContext(ctx, `SELECT to_regclass('schema_compatibility') IS NOT NULL`).Scan(&known); err != nil || !known {
		return err // of a release before there was such a table
	}
	var schema, oldest int64
	err := db.QueryRowContext(ctx, `
		SELECT (SELECT COALESCE(max(version_id), 0) FROM goose_db_version), (SELECT COALESCE(max(oldest_binary), 0) FROM schema_compatibility)`).
		Scan(&schema, &oldest)
	if err == nil && newest < oldest {
		err = fmt.Errorf("%w: it has schema %d, which needs a binary with schema %d or newer; this one has %d: start a newer release",
			ErrTooOld, schema, oldest, newest)
	}
	return err
}

// applyAll applies what is missing, each migration by itself, and returns the versions. One that can't get a lock in time,
// or deadlocks with bookings, is tried again after a pause in which they go on.
func applyAll(ctx context.Context, provider *goose.Provider) (versions []int64, err error) {
	for until := time.Now().Add(lockPatience); ; {
		applied, err := provider.UpByOne(ctx)
		switch pg, refused := errors.AsType[*pgconn.PgError](err); {
		case err == nil:
			versions = append(versions, applied.Source.Version)
		case errors.Is(err, goose.ErrNoNextVersion):
			return versions, nil
		case refused && (pg.Code == lockNotAvailable || pg.Code == deadlockDetected) && time.Now().Before(until):
			pause := time.NewTimer(lockPause)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return versions, errors.Join(ctx.Err(), err)
			}
		default:
			return versions, err
		}
	}
}

// What Postgres says when lock_timeout has passed, and when two transactions wait for each other.
const (
	lockNotAvailable = "55P03"
	deadlockDetected = "40P01"
)

// countAsNew is what to do to a table.
const countAsNew = ` SET xid = DEFAULT
	WHERE library_id = ANY (ARRAY(SELECT id FROM libraries)) AND xid >= pg_snapshot_xmax(pg_current_snapshot())`

// adopt has rows that came from another cluster, as by pg_dump and pg_restore, counted as written now. What a row says in xid is a number of the
// cluster that it was written in; where that is ahead of this one, each look at the change log would take the row for a new one, for years.
// No other row that can be seen is of a transaction after the snapshot.
// It returns whether the database is not where it was.
func adopt(ctx context.Context, db *sql.DB) (moved bool, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	if err := tx.QueryRowContext(ctx, `SELECT dlsms_settle()`).Scan(&moved); err != nil {
		return false, err
	}
	for _, table := range []string{"branches", "seats", "revocations", "reservation_events"} {
		_, err := tx.ExecContext(ctx, `UPDATE `+table+countAsNew) //nolint:gosec // one of those above
		if err != nil {
			return false, fmt.Errorf("%s: %w", table, err)
		}
	}
	return moved, tx.Commit()
}

// Hash names the schema: it differs whenever a migration does. Tests name their template database by it.
func Hash() (string, error) {
	h := fnv.New64a()
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		b, err := files.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, name, len(b))
		h.Write(b)
	}
	return fmt.Sprintf("%016x", h.Sum64()), nil
}
