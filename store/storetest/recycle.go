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

	"github.com/dlsms/dlsms/library"
)

// A passed test returns its database for use by another test. With a returned database a test
// starts in 20 ms, with a new one in 250 ms.

// databasePool holds the databases that passed tests returned.
type databasePool struct {
	mu   sync.Mutex
	list []*DB
}

var sparePool databasePool

// take returns a database, or nil if the pool is empty.
func (s *databasePool) take() *DB {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return nil
	}
	db := s.list[len(s.list)-1]
	s.list = s.list[:len(s.list)-1]
	return db
}

func (s *databasePool) give(db *DB) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, db)
}

func (db *DB) name() string { return db.conn.Config().Database }

// manyRows is the number of rows above which a new database is faster than deleting the rows of the
// old one.
const manyRows = 20_000

// recycle restores the initial state of the database and keeps it for another test, or drops it.
func (db *DB) recycle(ctx context.Context) error {
	var rows int
	err := db.conn.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM reservation_events)
			+ (SELECT count(*) FROM seats)
			+ (SELECT count(*) FROM revocations)`).Scan(&rows)
	if err != nil || rows > manyRows || db.altered {
		db.conn.Close(ctx)
		return admin(ctx, "DROP DATABASE "+db.name()+" WITH (FORCE)")
	}
	// Sessions that the test left open could hold locks, so they are ended. The role replica turns
	// off the triggers of foreign keys, so the order of the DELETEs does not matter.
	if _, err := db.conn.Exec(ctx, `
		SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid();
		SET session_replication_role = replica`); err != nil {
		return err
	}
	tables, err := column(ctx, db.conn, `
		SELECT tablename::text FROM pg_tables
		WHERE schemaname = 'public' AND tablename NOT IN ('libraries', 'goose_db_version')`)
	if err != nil {
		return err
	}
	reset := []string{`DELETE FROM libraries WHERE id <> 1`, clockFunctions(`clock_timestamp()`)}
	for _, table := range tables {
		reset = append(reset, `DELETE FROM `+table)
	}
	if err := startIDsHigh(ctx, db.conn); err != nil {
		return err
	}
	if _, err := db.conn.Exec(ctx, strings.Join(append(reset, `RESET ALL`), "; ")); err != nil {
		return err
	}
	db.speed, db.rules = 0, library.Policy{}
	sparePool.give(db)
	return nil
}

// firstID is the first id of each table. It is above 2^31 to find code that treats ids as 32-bit
// numbers.
const firstID = 1<<31 + 1000

// startIDsHigh makes the ids of all tables start at firstID.
func startIDsHigh(ctx context.Context, conn *pgx.Conn) error {
	sequences, err := column(ctx, conn, `
		SELECT relname::text FROM pg_class
		WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace AND relname NOT LIKE 'goose%'`)
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

// clockFunctions returns the statements that make an expression the clock of the database.
func clockFunctions(now string) string {
	return `
		CREATE OR REPLACE FUNCTION dlsms_now() RETURNS timestamptz
			LANGUAGE sql VOLATILE PARALLEL SAFE AS $$ SELECT ` + now + ` $$;
		CREATE OR REPLACE FUNCTION dlsms_began() RETURNS timestamptz
			LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT ` +
		strings.ReplaceAll(now, "clock_timestamp()", "transaction_timestamp()") + ` $$`
}

// cheapenLogins stores the superuser's password so that a login hashes it once instead of 4,096
// times. A test opens about six connections, and with the race detector each login would cost 12 ms
// of CPU. The password is random and is deleted with the cluster.
func cheapenLogins(ctx context.Context) error {
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
