// Package migrations brings a database to the schema that this binary works with.
//
// Every replica runs the migrations when it starts. One replica holds a session lock and migrates,
// while the others wait for the lock. The others then find nothing to do.
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

// Result describes the work of Up.
type Result struct {
	// Applied lists the versions that Up applied. It is empty if there was nothing to do.
	Applied []int64
	// Schema is the version of the database. Newest is the newest version that this binary knows.
	// If Schema is above Newest, a newer release has migrated the database, and this binary may
	// still run on it.
	Schema, Newest int64
	// Moved is true if the database is not the one that was last seen, for example after a restore
	// or a failover. Up has then advanced all ids.
	Moved bool
}

const (
	// lockTimeout bounds how long a migration waits for a lock. While it waits, bookings that need
	// the same table wait behind it.
	lockTimeout = 500 * time.Millisecond
	// lockPause is the time between two attempts to get a lock, in which bookings continue.
	// lockPatience bounds the time of all attempts together.
	lockPause, lockPatience = time.Second, 5 * time.Minute
)

// ErrTooOld means that a later release migrated the database to a schema on which this binary
// cannot run.
var ErrTooOld = errors.New("this binary is too old for the database")

// Up migrates the database at url to the newest schema. After a restore, a copy or a failover it
// advances all ids. After a restore from a dump it also rewrites xids, once (see settle). It fails
// with ErrTooOld if the schema is too new for this binary. While another replica migrates, Up waits
// for at most 5 minutes or until ctx ends.
func Up(ctx context.Context, url string) (Result, error) {
	result, err := up(ctx, url)
	if err != nil {
		return Result{}, fmt.Errorf("migrate: %w", store.ExplainCertificate(err))
	}
	return result, nil
}

func up(ctx context.Context, url string) (result Result, err error) {
	config, err := store.ParseURL(url)
	if err != nil {
		return result, fmt.Errorf("DATABASE_URL: %w", err)
	}
	prepare := func(ctx context.Context, conn *pgx.Conn) error { return store.PrepareMigration(ctx, conn, lockTimeout) }
	// Each migration starts with the same session settings, even if the migration before it has
	// changed some settings.
	db := stdlib.OpenDB(*config.ConnConfig, stdlib.OptionAfterConnect(prepare), stdlib.OptionResetSession(prepare))
	defer db.Close()
	defer func() { err = explainRights(ctx, db, err) }()
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
	if err := checkRights(ctx, db); err != nil {
		return result, err
	}
	result.Moved, err = settle(ctx, db)
	return result, err
}

// lockDatabase makes other replicas wait until unlock is called. It takes the lock of goose,
// because older releases take that lock, too.
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
		_ = locker.SessionUnlock(context.WithoutCancel(ctx), conn) // at the latest, the session ends with the pool
		_ = conn.Close()
	}, nil
}

// checkCompatible returns ErrTooOld if this binary cannot run on the schema of the database. newest
// is the version of the newest migration in this binary.
func checkCompatible(ctx context.Context, db *sql.DB, newest int64) error {
	var known bool
	err := db.QueryRowContext(ctx, `SELECT to_regclass('schema_compatibility') IS NOT NULL`).Scan(&known)
	if err != nil || !known {
		return err // a schema from before 00007 has no such table
	}
	var schema, oldest int64
	err = db.QueryRowContext(ctx, `
		SELECT (SELECT COALESCE(max(version_id), 0) FROM goose_db_version),
			(SELECT COALESCE(max(oldest_binary), 0) FROM schema_compatibility)`).
		Scan(&schema, &oldest)
	if err == nil && newest < oldest {
		err = fmt.Errorf(
			"%w: it has schema %d, which needs a binary with schema %d or newer; this one has %d: start a newer release",
			ErrTooOld, schema, oldest, newest)
	}
	return err
}

// applyAll applies the missing migrations, each by itself, and returns their versions. If a
// migration does not get a lock in time, or deadlocks with bookings, applyAll tries it again after
// a pause in which bookings continue.
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

// The SQLSTATEs of a statement that waited longer than lock_timeout, and of a deadlock.
const (
	lockNotAvailable = "55P03"
	deadlockDetected = "40P01"
)

// setNewXID is the second part of an UPDATE statement. It gives rows with a future xid the xid of
// this transaction. A future xid is one that the current snapshot has not reached.
const setNewXID = ` SET xid = DEFAULT
	WHERE library_id = ANY (ARRAY(SELECT id FROM libraries)) AND xid >= pg_snapshot_xmax(pg_current_snapshot())`

// settle repairs the xids of rows from another cluster, for example after pg_dump and pg_restore.
// The xid in a row is a transaction id of the cluster that wrote the row. If it is ahead of this
// cluster's ids, each refresh would read the row as a new one, for years. settle gives such rows
// the xid of this transaction. It does not change rows that this cluster wrote: the xid of a
// visible row is below the Xmax of the snapshot. settle returns the result of dlsms_settle: whether
// the database is not the one that was last seen.
func settle(ctx context.Context, db *sql.DB) (moved bool, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	if err := tx.QueryRowContext(ctx, `SELECT dlsms_settle()`).Scan(&moved); err != nil {
		return false, err
	}
	for _, table := range []string{"branches", "seats", "revocations", "reservation_events"} {
		_, err := tx.ExecContext(ctx, `UPDATE `+table+setNewXID) //nolint:gosec // table is one of the constants above
		if err != nil {
			return false, fmt.Errorf("%s: %w", table, err)
		}
	}
	return moved, tx.Commit()
}

// Hash returns a hash of all migrations. Tests use it in the name of their template database.
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
