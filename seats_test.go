package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/store/storetest"
)

// TestSeatsCommands exports the seats, changes the file, and imports it.
func TestSeatsCommands(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Seats(t, 3)
	name := filepath.Join(t.TempDir(), "seats.csv")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seats := func(args ...string) string {
		t.Helper()
		out, err := runCommand(t, append(append([]string{"seats"}, args...), "--database-url="+db.URL)...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	fails := func(want string, args ...string) {
		t.Helper()
		out, err := runCommand(t, append(append([]string{"seats"}, args...), "--database-url="+db.URL)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %q, %v; want the error %q", args, out, err, want)
		}
	}
	exported := seats("export", "--branch=branch-0")
	write(strings.Replace(exported, "A-1,,,,,,false", "A-1,window,,,,,false", 1) + "branch-0,Hall,B-1,,,,,,\n")
	write(strings.Replace(read(t, name), "branch-0,Area,A-3,,,,,,false\n", "", 1))

	out := seats("import", "--dry-run", "--retire-missing", name)
	const plan = "line 2: UPDATE branch-0 A-1: amenities \"\" -> \"window\"\n" +
		"line 4: CREATE branch-0 B-1\nRETIRE branch-0 A-3\n" +
		"1 to create, 1 to update, 1 the same, 1 to retire\n"
	found := regexp.MustCompile(`--fingerprint=[0-9a-f]{32}`).FindString(out)
	if !strings.HasPrefix(out, plan) || found == "" {
		t.Fatalf("the dry run says\n%s", out)
	}
	if again := seats("export"); again != exported {
		t.Errorf("the dry run changed the seats to\n%s", again)
	}
	fails("CHANGED_SINCE_CHECK", "import", found, name)
	fails("set either --dry-run, or --fingerprint", "import", "--retire-missing", name)
	fails("set either --dry-run, or --fingerprint", "import", "--dry-run", found, name)
	fails("--note: en must have 1 to 500", "import", "--dry-run", "--note=en="+strings.Repeat("x", 501), name)
	fails("--reason: ", "import", "--dry-run", "--reason="+strings.Repeat("x", 501), name)
	for range 2 { // the second import finds nothing to do
		out = seats("import", "--retire-missing", "--reason=new plan", "--note=en=Moved", found, name)
		if !strings.HasSuffix(out, "done\n") {
			t.Errorf("the import says\n%s", out)
		}
	}
	rows := storetest.Rows[string](t, db, `SELECT concat_ws(' ', role, action, object, reason) FROM audit_log`)
	if len(rows) != 1 || rows[0] != "HOST dlsms seats import branch/branch-0 new plan" {
		t.Errorf("audit log %v", rows)
	}
	write("branch,label,angle\nbranch-0,A-1,x\nbranch-0,,400\n")
	fails("nothing was changed:\n"+name+": line 2, column angle must be a whole number from 0 on\n"+
		name+": line 3, column label is missing\n"+name+": line 3, column angle must be 0 to 359",
		"import", "--dry-run", name)
	write("branch,label,angle\nbranch-0,A-1,x\nnone,A-1,1\nbranch-0,,400\n")
	fails(name+": line 2, column angle must be a whole number from 0 on\n"+
		name+": line 3, column branch there is no such branch\n"+name+": line 4, column label is missing\n",
		"import", "--dry-run", name)
	write("branch,label\nnone,A-1\n")
	fails(name+": line 2, column branch there is no such branch", "import", "--dry-run", name)
	write(strings.Repeat("x", 2<<20+1))
	fails("has more than 2 MiB", "import", "--dry-run", name)
	fails("no such file", "import", "--dry-run", "/none")
	fails("BRANCH_NOT_FOUND", "export", "--branch=none")
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
