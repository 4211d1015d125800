// Package migrations brings a database to the schema that this binary works with.
//
// Every replica runs it at its start. A session lock lets one of them work while the others wait, and then find nothing to do.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"hash/fnv"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/dlsms/dlsms/store"
)

//go:embed *.sql
var files embed.FS

// Up migrates the database at url to the newest schema and returns the versions that it applied, none when there was nothing to do. After a
// restore from a dump it writes the change log anew, once.
// It waits for another replica that is migrating, at most 5 minutes or until ctx ends.
func Up(ctx context.Context, url string) ([]int64, error) {
	config, err := store.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	prepare := func(ctx context.Context, conn *pgx.Conn) error { return store.PrepareMigration(ctx, conn, lockTimeout) }
	// Each migration gets the session anew, whatever the one before it has set.
	db := stdlib.OpenDB(*config.ConnConfig, stdlib.OptionAfterConnect(prepare), stdlib.OptionResetSession(prepare))
	defer db.Close()
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return nil, err
	}
	results, err := provider.Up(ctx)
	if err == nil {
		err = adopt(ctx, db)
	}
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	var versions []int64
	for _, r := range results {
		versions = append(versions, r.Source.Version)
	}
	return versions, nil
}

// lockTimeout bounds how long a migration waits for a lock: all bookings wait behind it.
const lockTimeout = 500 * time.Millisecond

// countAsNew is what to do to a table.
const countAsNew = ` SET xid = DEFAULT
	WHERE library_id = ANY (ARRAY(SELECT id FROM libraries)) AND xid >= pg_snapshot_xmax(pg_current_snapshot())`

// adopt has rows that came from another cluster, as by pg_dump and pg_restore, counted as written now. What a row says in xid is a number of the
// cluster that it was written in; where that is ahead of this one, each look at the change log would take the row for a new one, for years.
// No other row that can be seen is of a transaction after the snapshot.
func adopt(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	// One replica at a time, as the rows of a restored log are many.
	if _, err := tx.ExecContext(ctx, `LOCK TABLE libraries IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return err
	}
	for _, table := range []string{"branches", "seats", "revocations", "reservation_events"} {
		_, err := tx.ExecContext(ctx, `UPDATE `+table+countAsNew) //nolint:gosec // one of those above
		if err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
	}
	return tx.Commit()
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
