package e2e_test

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// grants returns the SQL statements in docs/operating/postgres.md that grant rights. The result
// owner has those for the role dlsms_owner, which migrates. The result run has those for the role
// dlsms_app, which serves.
func grants(t *testing.T) (owner, run []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/operating/postgres.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "## Rights of the database role")
	_, rest, _ := strings.Cut(section, "```sql\n")
	first, rest, _ := strings.Cut(rest, "```")
	_, rest, _ = strings.Cut(rest, "```sql\n")
	second, _, fenced := strings.Cut(rest, "```")
	if !found || !fenced {
		t.Fatal("docs/operating/postgres.md has no two lists of rights")
	}
	list := func(block string) (statements []string) {
		var text strings.Builder
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(line, "--")
			text.WriteString(strings.TrimSpace(line) + " ")
		}
		for statement := range strings.SplitSeq(text.String(), ";") {
			if statement = strings.TrimSpace(statement); statement != "" {
				statements = append(statements, statement)
			}
		}
		return statements
	}
	return list(first), list(second)
}

// postgresServer is a Postgres whose database dlsms belongs to the superuser.
type postgresServer struct {
	*stack.Postgres
}

func startServer(t *testing.T) postgresServer {
	t.Helper()
	pg, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Unsafe: true, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return postgresServer{pg}
}

// as returns the URL of a database for a role. The empty role is the superuser.
func (s postgresServer) as(t *testing.T, role, database string) string {
	t.Helper()
	u, err := url.Parse(s.AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + database
	if role != "" {
		u.User = url.UserPassword(role, "secret")
	}
	return u.String()
}

func (s postgresServer) exec(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// runCommand runs a command of dlsms and returns its exit code and error output.
func runCommand(t *testing.T, env map[string]string, command string) (code int, said string) {
	t.Helper()
	p := launch(t, env, command)
	code = p.exit()
	return code, strings.TrimSpace(p.stderr.String())
}

// TestErrorNamesMissingDatabaseRight checks the rights in docs/operating/postgres.md. With them,
// dlsms_owner can migrate, and dlsms_app can serve. If a right is missing, the command fails with
// one line that names the right.
func TestErrorNamesMissingDatabaseRight(t *testing.T) {
	t.Parallel()
	s := shared(t)
	pg := startServer(t)
	toOwn, toRun := grants(t)
	databases := 0
	// newDatabase creates a database, and runs all statements in it except statements[skip].
	newDatabase := func(statements []string, skip int) (database string) {
		databases++
		database = fmt.Sprintf("rights_%d", databases)
		pg.exec(t, pg.as(t, "", "postgres"), "CREATE DATABASE "+database)
		pg.exec(t, pg.as(t, "", "postgres"), "REVOKE ALL ON DATABASE "+database+" FROM PUBLIC")
		pg.exec(t, pg.as(t, "", database), "REVOKE ALL ON SCHEMA public FROM PUBLIC")
		grant(t, pg, database, statements, skip)
		return database
	}
	env := func(role, database string) map[string]string {
		env := replicaEnv(t, s, pg.as(t, role, database))
		env["SEED_DEMO"] = "true"
		return env
	}
	pg.exec(
		t, pg.AdminURL(), "CREATE ROLE dlsms_owner LOGIN PASSWORD 'secret'; CREATE ROLE dlsms_app LOGIN PASSWORD 'secret'",
	)

	database := newDatabase(toOwn, -1)
	if code, said := runCommand(t, env("dlsms_owner", database), "migrate"); code != 0 {
		t.Fatalf("dlsms migrate as the owner: %s", said)
	}
	grant(t, pg, database, toRun, -1)
	for _, role := range []string{"dlsms_owner", "dlsms_app"} {
		serveAndBook(t, env(role, database))
	}

	for i, statement := range toOwn {
		code, said := runCommand(t, env("dlsms_owner", newDatabase(toOwn, i)), "migrate")
		wantMissingRight(t, statement, code, said)
	}
	for i, statement := range toRun {
		database := newDatabase(toOwn, -1)
		if strings.HasPrefix(statement, "ALTER DEFAULT PRIVILEGES") {
			continue // concerns only the tables of later releases
		}
		if code, said := runCommand(t, env("dlsms_owner", database), "migrate"); code != 0 {
			t.Fatalf("dlsms migrate as the owner: %s", said)
		}
		grant(t, pg, database, toRun, i)
		code, said := runCommand(t, env("dlsms_app", database), "serve")
		wantMissingRight(t, statement, code, said)
	}
}

// grant runs all statements except statements[skip], and replaces the name of the database in them.
func grant(t *testing.T, pg postgresServer, database string, statements []string, skip int) {
	t.Helper()
	for i, statement := range statements {
		if i != skip {
			pg.exec(t, pg.as(t, "", database), strings.ReplaceAll(statement, "DATABASE dlsms ", "DATABASE "+database+" "))
		}
	}
}

// wantMissingRight checks that a command failed with one line that names a right of the statement.
func wantMissingRight(t *testing.T, statement string, code int, said string) {
	t.Helper()
	rights, _, _ := strings.Cut(strings.TrimPrefix(statement, "GRANT "), " ON ")
	_, last, _ := strings.Cut(said, "\n")
	named := false
	for right := range strings.SplitSeq(rights, ", ") {
		named = named || strings.Contains(said, right)
	}
	if code == 0 || last != "" || !named {
		t.Errorf("without %q: exit %d, %q", statement, code, said)
	}
}

// serveAndBook starts a replica with these settings and books a seat.
func serveAndBook(t *testing.T, settings map[string]string) {
	t.Helper()
	env := maps.Clone(settings)
	p := launch(t, env, "serve")
	serves(t, p, env["GRPC_ADDR"])
	c, err := e2e.Dial(env["GRPC_ADDR"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	user, err := e2e.Anonymous(c).Login(t.Context(), "S2021001", "password123")
	if err != nil {
		t.Fatal(err)
	}
	booked, err := user.Reservations.CreateReservation(t.Context(), &dlsmsv1.CreateReservationRequest{
		SeatId: 7, EndTime: timestamppb.New(time.Now().Add(2 * time.Hour)),
	})
	if err != nil {
		t.Fatal(err)
	}
	id := booked.GetReservation().GetId()
	_, err = user.Reservations.CancelReservation(t.Context(), &dlsmsv1.CancelReservationRequest{ReservationId: id})
	if err != nil {
		t.Error(err)
	}
	if _, err := user.Auth.Logout(t.Context(), &dlsmsv1.LogoutRequest{}); err != nil {
		t.Error(err)
	}
	p.terminate()
}
