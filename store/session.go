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

// sessionSettings are what every session of ours needs, whatever the server, the database or the role sets. They are
// set once the session is open, not as start-up parameters: PgBouncer refuses those that it does not know, or is told
// to drop them, and a session without timeouts works until the first lock that is never released.
//
// A setting with a dot in its name is one of our own, such as a mark for triggers.
func sessionSettings() map[string]string {
	return map[string]string{
		"application_name":                    "dlsms",
		"dlsms.guard":                         "off", // which looks for the event of a change, made by SQL: see 00004_integrity.sql
		"client_encoding":                     "UTF8",
		"timezone":                            "UTC",
		"default_transaction_isolation":       "read committed",
		"default_transaction_read_only":       "off",
		"statement_timeout":                   millis(statementTimeout),
		"lock_timeout":                        millis(statementTimeout * 3 / 5),
		"idle_in_transaction_session_timeout": millis(2 * statementTimeout),
		"idle_session_timeout":                "0", // the pool decides how long a connection may be idle
	}
}

// logSettings are for the sessions that follow the logs, and those that book. How much is new since a snapshot is what
// no planner can know, and it would plan each read anew (0.25 ms, three times as long as the read itself takes), or
// keep the plan that it made while the tables were empty: a scan of them. Likewise a booking, of which all look-ups are
// by a key. Without scans, one plan fits always.
func logSettings() map[string]string {
	settings := sessionSettings()
	settings["plan_cache_mode"] = "force_generic_plan"
	settings["enable_seqscan"] = "off"
	return settings
}

// PrepareMigration prepares a session that migrates: a statement takes as long as it needs, but waits for a lock no
// longer than lockTimeout, since bookings wait behind it meanwhile.
func PrepareMigration(ctx context.Context, conn *pgx.Conn, lockTimeout time.Duration) error {
	settings := sessionSettings()
	settings["application_name"] = "dlsms migrate"
	settings["statement_timeout"] = "0"
	settings["idle_in_transaction_session_timeout"] = "0"
	settings["lock_timeout"] = millis(lockTimeout)
	return prepareSession(ctx, conn, settings)
}

// sessionStatements are sent as one message, so that they cost one round trip. What was set is read in a transaction of
// its own: the isolation level of the first one was fixed before it was set.
func sessionStatements(settings map[string]string) string {
	names := slices.Sorted(maps.Keys(settings))
	var set, read []string
	for _, name := range names { // constants of this package: there is nothing to quote
		set = append(set, fmt.Sprintf("set_config('%s', '%s', false)", name, settings[name]))
		read = append(read, fmt.Sprintf("current_setting('%s')", name))
	}
	return "BEGIN; SELECT " + strings.Join(set, ", ") + "; COMMIT; SELECT " + strings.Join(read, ", ") +
		"; SHOW transaction_isolation; SHOW transaction_read_only"
}

// prepareSession sets what the session needs and reads it back. It refuses a session that has it not: under a stricter
// isolation level a statement after a lock would still see the rows from before it, and on a standby no write succeeds.
func prepareSession(ctx context.Context, conn *pgx.Conn, settings map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, sessionStatements(settings)).ReadAll()
	if err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	// SQL_ASCII lets bytes pass that no answer may contain, and any other encoding cannot store all names. Postgres tells it unasked.
	if is := conn.PgConn().ParameterStatus("server_encoding"); is != "" && is != "UTF8" {
		return fmt.Errorf("the database's encoding is %s, and has to be UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", is)
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
	return fmt.Errorf("the session's %s is %q, although it was set to %q: a pooler overrides it; use session mode", name, got, want)
}

var errReadOnly = errors.New("this Postgres is read only: is it a standby? DATABASE_URL must name the primary, or all hosts")
