package storetest

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/store"
)

// A test costs 20 ms with a database that another test had before, and a quarter of a second with one of its own.

// databasesToSpare are the ones that passed tests gave back.
type databasesToSpare struct {
	mu   sync.Mutex
	list []*DB
}

var spare databasesToSpare

// take returns a database, nil when there is none.
func (s *databasesToSpare) take() *DB {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return nil
	}
	db := s.list[len(s.list)-1]
	s.list = s.list[:len(s.list)-1]
	return db
}

func (s *databasesToSpare) give(db *DB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, db)
}

func (db *DB) name() string { return db.conn.Config().Database }

// manyRows is more than it makes sense to delete one by one.
const manyRows = 20_000

// recycle makes the database as it was at first and keeps it for another test, or drops it.
func (db *DB) recycle(ctx context.Context) error {
	var rows int
	err := db.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM reservation_events) + (SELECT count(*) FROM seats) + (SELECT count(*) FROM revocations)`).Scan(&rows)
	if err != nil || rows > manyRows || db.altered {
		db.conn.Close(ctx)
		return admin(ctx, "DROP DATABASE "+db.name()+" WITH (FORCE)")
	}
	// Sessions that a test left open could hold locks. Without the foreign keys' triggers, the order is of no matter.
	if _, err := db.conn.Exec(ctx, `
		SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
		SET session_replication_role = replica`); err != nil {
		return err
	}
	tables, err := column(ctx, db.conn, `
		SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('libraries', 'goose_db_version')`)
	if err != nil {
		return err
	}
	reset := []string{`DELETE FROM libraries WHERE id <> 1`, clockFunctions(`clock_timestamp()`)}
	for _, table := range tables {
		reset = append(reset, `DELETE FROM `+table)
	}
	if err := startHigh(ctx, db.conn); err != nil {
		return err
	}
	if _, err := db.conn.Exec(ctx, strings.Join(append(reset, `RESET ALL`), "; ")); err != nil {
		return err
	}
	db.speed, db.rules = 0, store.Rules{}
	spare.give(db)
	return nil
}

// firstID is the first id of each table: no place in the code may take an id for a 32-bit number.
const firstID = 1<<31 + 1000

// startHigh has the ids of all tables begin there.
func startHigh(ctx context.Context, conn *pgx.Conn) error {
	sequences, err := column(ctx, conn, `
		SELECT relname::text FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace AND relname NOT LIKE 'goose%'`)
	if err != nil {
		return err
	}
	for _, sequence := range sequences {
		if _, err := conn.Exec(ctx, `SELECT setval($1::text::regclass, $2::bigint, false)`, sequence, firstID); err != nil {
			return err
		}
	}
	return nil
}

func column(ctx context.Context, conn *pgx.Conn, sql string) ([]string, error) {
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// clockFunctions is the statement that makes an expression the database's clock.
func clockFunctions(now string) string {
	return `CREATE OR REPLACE FUNCTION dlsms_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS $$ SELECT ` + now + ` $$;
		CREATE OR REPLACE FUNCTION dlsms_began() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT ` +
		strings.ReplaceAll(now, "clock_timestamp()", "transaction_timestamp()") + ` $$`
}

// quickenLogins stores the superuser's password hashed once instead of 4,096 times: a test opens half a dozen connections, and under the race
// detector each login would cost 12 ms of computing. The password is random and lives as long as the cluster.
func quickenLogins(ctx context.Context) error {
	u, err := url.Parse(cluster.AdminURL())
	if err != nil {
		return err
	}
	password, _ := u.User.Password()
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return err
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, 1, sha256.Size)
	if err != nil {
		return err
	}
	sign := func(text string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(sign("Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return admin(ctx, fmt.Sprintf(`ALTER ROLE %s PASSWORD 'SCRAM-SHA-256$1:%s$%s:%s'`,
		u.User.Username(), encode(salt), encode(stored[:]), encode(sign("Server Key"))))
}
