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

// sessionSettings returns the settings that every session needs, whatever the server, the database
// or the role sets. They are set in the open session, not as start-up parameters. PgBouncer refuses
// start-up parameters that it does not know, or drops them if it is configured to; a session
// without timeouts works until the first lock that is never released.
//
// A setting with a dot in its name belongs to this project, such as a flag for triggers.
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

// indexPlanSettings returns the settings of the sessions that follow the change log and the
// revocation list, and of the session that books. The planner cannot know how many rows are new
// since a snapshot. It would plan each read again (0.25 ms, three times the duration of the read
// itself), or keep the plan that it made while the tables were empty: a sequential scan. The same
// is true for a booking, whose look-ups are all by a key. Without sequential scans, one plan always
// fits.
func indexPlanSettings() map[string]string {
	settings := sessionSettings()
	settings["plan_cache_mode"] = "force_generic_plan"
	settings["enable_seqscan"] = "off"
	return settings
}

// PrepareMigration prepares a session for migrations. A statement may run without a limit, but it
// waits for a lock for at most lockTimeout, because bookings queue behind that wait.
func PrepareMigration(ctx context.Context, conn *pgx.Conn, lockTimeout time.Duration) error {
	settings := sessionSettings()
	settings["application_name"] = "dlsms migrate"
	settings["statement_timeout"] = "0"
	settings["idle_in_transaction_session_timeout"] = "0"
	settings["lock_timeout"] = millis(lockTimeout)
	return prepareSession(ctx, conn, settings)
}

// sessionStatements returns statements that set the settings and read them back. They are sent as
// one message, so they cost one round trip. A second transaction reads the settings, because the
// isolation level of the first was fixed before the setting changed.
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
// With a stricter isolation level, a statement after a lock would still see the rows from before
// the lock. On a standby, no write succeeds.
func prepareSession(ctx context.Context, conn *pgx.Conn, settings map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, sessionStatements(settings)).ReadAll()
	if err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	// SQL_ASCII accepts bytes that no answer may contain; any other encoding cannot store all names.
	// Postgres reports the encoding when the session starts.
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
