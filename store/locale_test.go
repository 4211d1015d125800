package store_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/store/storetest"
)

// turkish are the options of CREATE DATABASE for a database in which lower('I') is not 'i'.
var turkish = []string{"LOCALE_PROVIDER icu", "ICU_LOCALE 'tr-TR'", "ENCODING 'UTF8'"}

func openAt(t *testing.T, url string) (*store.Store, error) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: url, MinConns: 1, MaxConns: 2, Policy: library.DefaultPolicy()})
	if err == nil {
		t.Cleanup(s.Close)
	}
	return s, err
}

// TestStudentIDsInTurkishDatabase checks that the store compares student ids by the rules of ASCII:
// in registrations, logins, the demo data and EraseUser.
func TestStudentIDsInTurkishDatabase(t *testing.T) {
	t.Parallel()
	url := storetest.NewEmptyDB(t, turkish...)
	if _, err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	s, err := openAt(t, url)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.RegisterUser(t.Context(), library.NewUser{StudentID: "IiCase1", Role: library.RoleStudent})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"iIcASE1", "IICASE1", "iicase1"} {
		_, err := s.RegisterUser(t.Context(), library.NewUser{StudentID: id, Role: library.RoleStudent})
		if !errors.Is(err, library.ErrStudentIDTaken) {
			t.Errorf("%s registers: %v", id, err)
		}
		c, err := s.Credentials(t.Context(), id)
		if err != nil || c.ID != first.ID {
			t.Errorf("%s logs in: %+v, %v", id, c, err)
		}
	}
	for _, again := range []bool{false, true} {
		added, err := s.Seed(t.Context(), "hash")
		if err != nil || again && added != (store.Seeded{}) || !again && added.Users != 13 {
			t.Errorf("seeded %+v, %v", added, err)
		}
	}
	if _, err := s.EraseUser(t.Context(), "iiCASE1"); err != nil {
		t.Error(err)
	}
}

// TestMigrationNamesDuplicateStudentIDs migrates a database in which the student ids of two users
// differ only in case. The error of the migration must name both users.
func TestMigrationNamesDuplicateStudentIDs(t *testing.T) {
	t.Parallel()
	db := migratedTo(t, 4)
	db.Exec(t, `DROP INDEX users_student_id_key`)
	// In a Turkish database, the unique index of the old schema accepts these two ids, because the
	// lower case of I is not i there. This database is not Turkish. So the test replaces the index
	// with one that is not unique.
	db.Exec(t, `CREATE INDEX users_student_id_key ON users (library_id, lower(student_id))`)
	const insert = `
		INSERT INTO users (library_id, student_id, name, email, role, password_hash)
		VALUES (1, $1, '', '', 'STUDENT', '')`
	db.Exec(t, insert, "IiCase1")
	db.Exec(t, insert, "iIcASE1")
	db.Exec(t, insert, "other")
	_, err := migrations.Up(t.Context(), db.URL)
	if err == nil || !strings.Contains(err.Error(), "user 1 is IiCase1, user 2 is iIcASE1") ||
		strings.Contains(err.Error(), "other") {
		t.Fatalf("the migration fails with %v", err)
	}
	db.Exec(t, `UPDATE users SET student_id = 'case2' WHERE id = 2`)
	if _, err := migrations.Up(t.Context(), db.URL); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

// TestDatabaseMustBeUTF8 checks that databases with another encoding are refused. They could not
// store all names, or would store text that is not UTF-8.
func TestDatabaseMustBeUTF8(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"SQL_ASCII", "LATIN1"} {
		url := storetest.NewEmptyDB(t, "ENCODING '"+encoding+"' LC_COLLATE 'C' LC_CTYPE 'C'")
		_, err := migrations.Up(t.Context(), url)
		if err == nil || !strings.Contains(err.Error(), "encoding is "+encoding+", and has to be UTF8") ||
			store.Unavailable(err) {
			t.Errorf("%s is migrated: %v", encoding, err)
		}
		if _, err = openAt(t, url); err == nil || !strings.Contains(err.Error(), "encoding is "+encoding) {
			t.Errorf("%s is opened: %v", encoding, err)
		}
	}
	// The store sets the encoding of the session, even if the URL sets another one.
	s, err := openAt(t, storetest.NewDB(t).URL+"&client_encoding=LATIN1")
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.RegisterUser(t.Context(), library.NewUser{StudentID: "S-1", Name: "Zoë 座", Role: library.RoleStudent})
	if err != nil || u.Name != "Zoë 座" {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestBranchesAreSortedByBytes checks the order of branches in a database whose locale ignores
// hyphens. The order must be that of the bytes.
func TestBranchesAreSortedByBytes(t *testing.T) {
	t.Parallel()
	url := storetest.NewEmptyDB(t, "LOCALE_PROVIDER icu", "ICU_LOCALE 'en-US-u-ka-shifted'", "ENCODING 'UTF8'")
	if _, err := migrations.Up(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	s, err := openAt(t, url)
	if err != nil {
		t.Fatal(err)
	}
	db := storetest.Attach(t, url)
	db.Exec(t, `
		INSERT INTO branches (library_id, code, name, timezone)
		SELECT 1, c, c, 'UTC' FROM unnest('{ab,a-c,a-a,aa,1,b}'::text[]) c`)
	if byLocale := storetest.Rows[string](t, db, `SELECT code FROM branches ORDER BY code`); slices.IsSorted(byLocale) {
		t.Fatalf("this locale sorts like bytes, so the test proves nothing: %v", byLocale)
	}
	c, err := s.LoadWorld(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, b := range c.Branches {
		codes = append(codes, b.Code)
	}
	if !slices.IsSorted(codes) || len(codes) != 6 {
		t.Errorf("branches %v", codes)
	}
}
