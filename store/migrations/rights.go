package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// missingToMigrate finds the rights that the role lacks to create the schema. missingToRun finds
// those that it lacks to serve. docs/operating/postgres.md tells operators to grant these rights.
const (
	missingToMigrate = `
		SELECT 'USAGE on a schema of its search_path, ' || current_setting('search_path') WHERE current_schema() IS NULL
		UNION ALL
		SELECT format('CREATE on schema %I', current_schema()) WHERE NOT has_schema_privilege(current_schema(), 'CREATE')
		UNION ALL
		SELECT format('CREATE on database %I, which the extension btree_gist needs', current_database())
		WHERE NOT has_database_privilege(current_database(), 'CREATE')
			AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'btree_gist')`
	missingToRun = `
		SELECT format('%s on %s', string_agg(needed, ', ' ORDER BY needed), c.oid::regclass)
		FROM pg_class l
		JOIN pg_class c ON c.relnamespace = l.relnamespace AND c.relowner = l.relowner AND c.relkind IN ('r', 'p', 'S')
		CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p (needed)
		WHERE l.oid = 'libraries'::regclass AND CASE
			WHEN c.relkind <> 'S' THEN NOT has_table_privilege(c.oid, needed)
			WHEN needed IN ('SELECT', 'UPDATE') THEN NOT has_sequence_privilege(c.oid, needed)
			ELSE false END
		GROUP BY c.oid, c.relname ORDER BY c.relname`
)

// missingRights returns a message about the rights that the role lacks, or "" if it lacks none.
func missingRights(ctx context.Context, db *sql.DB, query string) (string, error) {
	var role string
	var missing sql.NullString
	err := db.QueryRowContext(ctx, `
		SELECT current_user, (SELECT string_agg(needed, '; ') FROM (`+query+`) q (needed))`).Scan(&role, &missing)
	if err != nil || !missing.Valid {
		return "", err
	}
	return fmt.Sprintf("the role %s lacks %s (docs/operating/postgres.md lists its rights)", role, missing.String), nil
}

// checkRights returns an error if the role lacks a right that a replica needs. Without this check,
// some calls would fail later.
func checkRights(ctx context.Context, db *sql.DB) error {
	why, err := missingRights(ctx, db, missingToRun)
	if err == nil && why != "" {
		err = errors.New(why)
	}
	return err
}

// explainRights returns an error that names the missing rights, if err was caused by a missing
// right. It returns any other err unchanged. If the role lacks USAGE on the schema, Postgres
// reports that the schema or a table does not exist. So explainRights checks the rights after these
// errors, too.
func explainRights(ctx context.Context, db *sql.DB, err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch pg.Code {
	case "42501", "3F000", "42P01": // insufficient privilege, no schema, no table
	default:
		return err
	}
	for _, query := range []string{missingToRun, missingToMigrate} {
		// The query fails if the role cannot connect, or if the tables do not exist yet.
		if why, failed := missingRights(ctx, db, query); failed == nil && why != "" {
			return errors.New(why)
		}
	}
	if pg.Code != "42501" {
		return err
	}
	why := pg.Message // for example: must be owner of table seats
	if pg.Detail != "" {
		why += ": " + pg.Detail
	}
	return fmt.Errorf("%s (docs/operating/postgres.md lists the rights of the role)", why)
}
