package storetest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/stack"
)

// MakeStandby restarts a cluster of NewCluster as a standby. The standby accepts no writes until
// Promote is called.
func MakeStandby(t testing.TB, pg *stack.Postgres) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	var data string
	if err := conn.QueryRow(t.Context(), `SELECT current_setting('data_directory')`).Scan(&data); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	signal := os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644)
	if err := errors.Join(signal, pg.Kill(), pg.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// Promote makes the standby the primary on a new timeline, as a failover does.
func Promote(t testing.TB, pg *stack.Postgres) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var promoted bool
	if err := conn.QueryRow(t.Context(), `SELECT pg_promote()`).Scan(&promoted); err != nil || !promoted {
		t.Fatal("not promoted", err)
	}
}
