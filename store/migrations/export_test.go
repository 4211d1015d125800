package migrations

import (
	"context"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/dlsms/dlsms/store"
)

// Files contains the migrations of this binary.
var Files fs.FS = files

// ApplyUpTo applies migrations up to a version in the way that Up does. It is for tests.
func ApplyUpTo(ctx context.Context, url string, migrations fs.FS, version int64) error {
	config, err := store.ParseURL(url)
	if err != nil {
		return err
	}
	prepare := func(ctx context.Context, conn *pgx.Conn) error { return store.PrepareMigration(ctx, conn, lockTimeout) }
	db := stdlib.OpenDB(*config.ConnConfig, stdlib.OptionAfterConnect(prepare), stdlib.OptionResetSession(prepare))
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations)
	if err != nil {
		return err
	}
	if version > 0 {
		_, err = provider.UpTo(ctx, version)
		return err
	}
	_, err = applyAll(ctx, provider)
	return err
}
