package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/store/storetest"
)

// TestClosedAccountsCommands lists closed accounts, opens them again as a restore does, and applies
// the list twice.
func TestClosedAccountsCommands(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	users := db.Users(t, 3)
	db.Exec(t, `UPDATE users SET closed_at = created_at WHERE id = $1`, users[0])
	db.Exec(t, `UPDATE users SET closed_at = created_at, blanked_at = created_at WHERE id = $1`, users[1])
	url := "--database-url=" + db.URL
	list, err := runCommand(t, "closed", "list", url)
	lines := strings.Split(strings.TrimSpace(list), "\n")
	if err != nil || len(lines) != 2 || !strings.HasPrefix(lines[0], fmt.Sprintf("%d CLOSED 20", users[0])) ||
		!strings.HasPrefix(lines[1], fmt.Sprintf("%d ERASED 20", users[1])) {
		t.Fatalf("%v: %q", err, list)
	}
	db.Exec(t, `UPDATE users SET closed_at = NULL, blanked_at = NULL`)
	file := filepath.Join(t.TempDir(), "closed.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(list + "\n12345 CLOSED 2026-03-02T12:00:00Z\n")
	for _, want := range []string{
		"2 accounts were closed again, 0 had nothing to do, 1 are not in this database\n",
		"0 accounts were closed again, 2 had nothing to do, 1 are not in this database\n",
	} {
		if out, err := runCommand(t, "closed", "apply", file, url); err != nil || out != want {
			t.Errorf("%q, %v; want %q", out, err, want)
		}
	}
	states := storetest.Rows[string](t, db, `
		SELECT concat_ws(' ', closed_at IS NOT NULL, blanked_at IS NOT NULL) FROM users ORDER BY id`)
	if got := strings.Join(states, ", "); got != "t f, t t, f f" {
		t.Errorf("the accounts are %s", got)
	}
	for _, faulty := range []string{
		"7 OPEN 2026-03-02T12:00:00Z", "x CLOSED 2026-03-02T12:00:00Z", "7 CLOSED today", "7",
	} {
		write(list + faulty)
		out, err := runCommand(t, "closed", "apply", file, url)
		if err == nil || !strings.Contains(err.Error(), "line 3: ") {
			t.Errorf("%s: %q, %v", faulty, out, err)
		}
	}
}

// TestExportUserCommand prints the data of a user.
func TestExportUserCommand(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	user := db.Users(t, 1)[0]
	id := storetest.Value[string](t, db, `SELECT student_id FROM users`)
	out, err := runCommand(t, "export-user", strings.ToLower(id), "--reason=letter", "--database-url="+db.URL)
	if err != nil || !json.Valid([]byte(out)) || !strings.Contains(out, id) {
		t.Errorf("%v: %s", err, out)
	}
	audit := storetest.Rows[string](t, db, `SELECT concat_ws(' ', role, action, object, reason) FROM audit_log`)
	if len(audit) != 1 || audit[0] != fmt.Sprintf("HOST export-user user/%d letter", user) {
		t.Errorf("audit log %v", audit)
	}
	if out, err := runCommand(t, "export-user", "none", "--database-url="+db.URL); err == nil || out != "" {
		t.Errorf("a missing user: %q, %v", out, err)
	}
}
