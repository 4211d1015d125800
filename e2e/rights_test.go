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

// grants are the statements of docs/operating/postgres.md that give the two roles their rights, without their comments.
func grants(t *testing.T) (owner, run []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/operating/postgres.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "### Rights of the database role")
	_, rest, _ := strings.Cut(section, "```sql\n")
	first, rest, _ := strings.Cut(rest, "```")
	_, rest, _ = strings.Cut(rest, "```sql\n")
	second, _, fenced := strings.Cut(rest, "```")
	if !found || !fenced {
		t.Fatal("docs/operating/postgres.md has no two lists of rights")
	}
	list := func(block string) (statements []string) {
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(line, "--")
			if line = strings.TrimSpace(line); line != "" {
				statements = append(statements, line)
			}
		}
		return statements
	}
	return list(first), list(second)
}

// server is a Postgres with a database dlsms that belongs to nobody but the superuser.
type server struct {
	*stack.Postgres
}

func startServer(t *testing.T) server {
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
	return server{pg}
}

// as is the URL for a role and a database.
func (s server) as(t *testing.T, role, database string) string {
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

func (s server) exec(t *testing.T, url, sql string) {
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

// runs is a command of dlsms that is to end, and what it has said.
func runs(t *testing.T, env map[string]string, command string) (code int, said string) {
	t.Helper()
	p := launch(t, env, command)
	code = p.exit()
	return code, strings.TrimSpace(p.stderr.String())
}

// TestRightsOfTheRole: a role with the rights of docs/operating/postgres.md migrates, and one with less runs. Without one of them, one line says which.
func TestRightsOfTheRole(t *testing.T) {
	t.Parallel()
	s := shared(t)
	pg := startServer(t)
	toOwn, toRun := grants(t)
	databases := 0
	// fresh makes a database, and runs statements in it but the one of that index.
	fresh := func(statements []string, but int) (database string) {
		databases++
		database = fmt.Sprintf("rights_%d", databases)
		pg.exec(t, pg.as(t, "", "postgres"), "CREATE DATABASE "+database)
		pg.exec(t, pg.as(t, "", "postgres"), "REVOKE ALL ON DATABASE "+database+" FROM PUBLIC")
		pg.exec(t, pg.as(t, "", database), "REVOKE ALL ON SCHEMA public FROM PUBLIC")
		grant(t, pg, database, statements, but)
		return database
	}
	env := func(role, database string) map[string]string {
		env := replicaEnv(t, s, pg.as(t, role, database))
		env["SEED_DEMO"] = "true"
		return env
	}
	pg.exec(t, pg.AdminURL(), "CREATE ROLE dlsms_owner LOGIN PASSWORD 'secret'; CREATE ROLE dlsms_app LOGIN PASSWORD 'secret'")

	database := fresh(toOwn, -1)
	if code, said := runs(t, env("dlsms_owner", database), "migrate"); code != 0 {
		t.Fatalf("dlsms migrate as the owner: %s", said)
	}
	grant(t, pg, database, toRun, -1)
	for _, role := range []string{"dlsms_owner", "dlsms_app"} {
		booksAs(t, env(role, database))
	}

	for i, statement := range toOwn {
		code, said := runs(t, env("dlsms_owner", fresh(toOwn, i)), "migrate")
		lacks(t, statement, code, said)
	}
	for i, statement := range toRun {
		database := fresh(toOwn, -1)
		if strings.HasPrefix(statement, "ALTER DEFAULT PRIVILEGES") {
			continue // for the tables of later versions
		}
		if code, said := runs(t, env("dlsms_owner", database), "migrate"); code != 0 {
			t.Fatalf("dlsms migrate as the owner: %s", said)
		}
		grant(t, pg, database, toRun, i)
		code, said := runs(t, env("dlsms_app", database), "serve")
		lacks(t, statement, code, said)
	}
}

// grant runs statements, but the one of that index, in a database whose name takes the place of dlsms.
func grant(t *testing.T, pg server, database string, statements []string, but int) {
	t.Helper()
	for i, statement := range statements {
		if i != but {
			pg.exec(t, pg.as(t, "", database), strings.ReplaceAll(statement, "DATABASE dlsms ", "DATABASE "+database+" "))
		}
	}
}

// lacks checks that a command failed with one line that names a right of the statement.
func lacks(t *testing.T, statement string, code int, said string) {
	t.Helper()
	rights, _, _ := strings.Cut(strings.TrimPrefix(statement, "GRANT "), " ON ")
	_, last, _ := strings.Cut(said, "\n")
	named := false
	for right := range strings.SplitSeq(rights, ", ") {
		named = named || strings.Contains(said, right)
	}
	if code == 0 || last != "" || !named {
		t.Errorf("without %q it ended with %d and %q", statement, code, said)
	}
}

// booksAs serves with these settings, and books a seat.
func booksAs(t *testing.T, settings map[string]string) {
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
	if _, err := user.Reservations.CancelReservation(t.Context(), &dlsmsv1.CancelReservationRequest{ReservationId: id}); err != nil {
		t.Error(err)
	}
	if _, err := user.Auth.Logout(t.Context(), &dlsmsv1.LogoutRequest{}); err != nil {
		t.Error(err)
	}
	p.terminate()
}
