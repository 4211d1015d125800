package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// sessionSettings returns the settings that every session must have, even if the server, the
// database or the role has other values. prepareSession sets them in the open session. They are not
// start-up parameters, because PgBouncer may refuse or drop the start-up parameters that it does
// not know. A session that lost its timeouts would wait for a lock without a limit.
//
// A setting with a dot in its name, such as dlsms.guard, belongs to this project. Triggers read it.
func sessionSettings() map[string]string {
	return map[string]string{
		"application_name":                    "dlsms",
		"dlsms.guard":                         "off", // the check of changes made by SQL: see 00004_integrity.sql
		"client_encoding":                     "UTF8",
		"timezone":                            "UTC",
		"default_transaction_isolation":       "read committed",
		"default_transaction_read_only":       "off",
		"statement_timeout":                   millis(statementTimeout),
		"lock_timeout":                        millis(statementTimeout * 3 / 5),
		"idle_in_transaction_session_timeout": millis(2 * statementTimeout),
		"idle_session_timeout":                "0", // the pool closes idle connections
	}
}

// bulkSettings returns the settings of the sessions of the bulk pool.
func bulkSettings() map[string]string {
	settings := sessionSettings()
	settings["statement_timeout"] = millis(bulkTimeout)
	settings["idle_in_transaction_session_timeout"] = millis(bulkTimeout)
	return settings
}

// reportSettings returns the settings of the sessions of the pool for reports. A report is planned for
// its own days. Postgres must not compile its statements, which takes longer than to run most of
// them, nor use more than one CPU for one of them.
func reportSettings() map[string]string {
	settings := sessionSettings()
	settings["plan_cache_mode"] = "force_custom_plan"
	settings["jit"] = "off"
	settings["max_parallel_workers_per_gather"] = "0"
	// The sums of a year fit in this memory. Otherwise Postgres would sort them on disk.
	settings["work_mem"] = "32MB"
	settings["enable_mergejoin"] = "off"
	return settings
}

// indexPlanSettings returns the settings of the sessions that follow the change log and the
// revocation list, and of the session that books. The statements of these sessions find rows only
// by an index.
//
// The planner cannot know how many rows are new since a snapshot. With the default settings, it
// would plan each read again, which takes 0.25 ms, three times as long as the read. Or it would
// keep a plan that it made while the tables were empty: a sequential scan. With these settings,
// Postgres plans a statement once and uses an index.
func indexPlanSettings() map[string]string {
	settings := sessionSettings()
	settings["plan_cache_mode"] = "force_generic_plan"
	settings["enable_seqscan"] = "off"
	return settings
}

// PrepareMigration prepares a session for migrations. A statement may run for any time, but it
// waits for a lock for at most lockTimeout. While it waits, bookings that need the same lock wait
// behind it.
func PrepareMigration(ctx context.Context, conn *pgx.Conn, lockTimeout time.Duration) error {
	settings := sessionSettings()
	settings["application_name"] = "dlsms migrate"
	settings["statement_timeout"] = "0"
	settings["idle_in_transaction_session_timeout"] = "0"
	settings["lock_timeout"] = millis(lockTimeout)
	return prepareSession(ctx, conn, settings)
}

// sessionStatements returns statements that set the settings and read them back. They are sent as
// one message, so they cost one round trip. A second transaction reads the settings, because a new
// isolation level does not apply to the transaction that sets it.
func sessionStatements(settings map[string]string) string {
	names := slices.Sorted(maps.Keys(settings))
	var set, read []string
	for _, name := range names { // names and values are constants of this package and need no quoting
		set = append(set, fmt.Sprintf("set_config('%s', '%s', false)", name, settings[name]))
		read = append(read, fmt.Sprintf("current_setting('%s')", name))
	}
	return "BEGIN; SELECT " + strings.Join(set, ", ") + "; COMMIT; SELECT " + strings.Join(read, ", ") +
		"; SHOW transaction_isolation; SHOW transaction_read_only"
}

// prepareSession sets the settings, reads them back, and refuses a session in which they differ.
// For example, with a stricter isolation level a statement after a lock would see rows from before
// the lock. prepareSession also refuses a standby, because no write succeeds on it.
func prepareSession(ctx context.Context, conn *pgx.Conn, settings map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, sessionStatements(settings)).ReadAll()
	if err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	// A database in SQL_ASCII accepts text that is not UTF-8, which a gRPC message cannot contain.
	// Any other encoding cannot store all names. Postgres reports the encoding when the session
	// starts.
	if is := conn.PgConn().ParameterStatus("server_encoding"); is != "" && is != "UTF8" {
		return fmt.Errorf("the database's encoding is %s, and has to be UTF8:"+
			" CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", is)
	}
	const set, read, isolation, readOnly = 1, 3, 4, 5
	if len(results) != readOnly+1 {
		return fmt.Errorf("prepare the session: %d results", len(results))
	}
	value := func(result, column int) string { return string(results[result].Rows[0][column]) }
	for i, name := range slices.Sorted(maps.Keys(settings)) {
		if value(read, i) != value(set, i) {
			return overridden(name, value(set, i), value(read, i))
		}
	}
	if level := value(isolation, 0); level != "read committed" {
		return overridden("transaction_isolation", "read committed", level)
	}
	if value(readOnly, 0) != "off" {
		return library.ErrUnavailable.WithCause(errReadOnly)
	}
	return nil
}

func overridden(name, want, got string) error {
	return fmt.Errorf("the session's %s is %q, although it was set to %q: a pooler overrides it; use session mode",
		name, got, want)
}

var errReadOnly = errors.New(
	"this Postgres is read only: is it a standby? DATABASE_URL must name the primary, or all hosts")
