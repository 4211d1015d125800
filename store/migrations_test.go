package store_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestThreeReplicasMigrateAtOnce: on an empty database one of them applies each migration, and the others find nothing to do.
func TestThreeReplicasMigrateAtOnce(t *testing.T) {
	t.Parallel()
	for round := range 4 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			url := storetest.NewEmptyDB(t)
			applied := make([][]int64, 3)
			for _, err := range atOnce(3, func(i int) (err error) {
				applied[i], err = migrations.Up(t.Context(), url)
				return err
			}) {
				if err != nil {
					t.Fatal(err)
				}
			}
			slices.SortFunc(applied, func(a, b []int64) int { return len(b) - len(a) })
			if len(applied[0]) == 0 || len(applied[1]) != 0 || len(applied[2]) != 0 {
				t.Errorf("applied: %v", applied)
			}
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			var tables int
			if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM reservations, libraries`).Scan(&tables); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPostgresGoesWhileItIsMigrated: that is no reason to give up.
func TestPostgresGoesWhileItIsMigrated(t *testing.T) {
	t.Parallel()
	target := storetest.NewEmptyDB(t)
	through, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	postgres := through.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	through.Host = l.Addr().String()
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go cutAt(client, postgres, "goose_db_version")
		}
	}()
	if _, err := migrations.Up(t.Context(), through.String()); err == nil || !store.Unavailable(err) {
		t.Errorf("cut off: %v", err)
	}
	if _, err := migrations.Up(t.Context(), target); err != nil {
		t.Errorf("the next try: %v", err)
	}
}

// cutAt passes on what a client says to a server, and the answers, until the client says a word: then it hangs up on both.
func cutAt(client net.Conn, addr, word string) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() { _, _ = io.Copy(client, server) }()
	piece := make([]byte, 64<<10)
	for {
		n, err := client.Read(piece)
		if err != nil || bytes.Contains(piece[:n], []byte(word)) {
			return
		}
		if _, err := server.Write(piece[:n]); err != nil {
			return
		}
	}
}

func TestSchemaHash(t *testing.T) {
	t.Parallel()
	first, err := migrations.Hash()
	if err != nil || len(first) != 16 {
		t.Errorf("%q, %v", first, err)
	}
	if again, _ := migrations.Hash(); again != first {
		t.Errorf("%q, then %q", first, again)
	}
}
