package stack_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProseNamesEachHit(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	if err := os.Mkdir(filepath.Join(dir, "tools"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tools/prose.sh", "tools/prose.txt"} {
		if err := copyFile(filepath.Join("..", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	git(t, dir, "init", "--quiet")
	prose := func() (string, error) {
		git(t, dir, "add", "--all")
		out, err := inClone(dir, filepath.Join(dir, "tools", "prose.sh")).CombinedOutput()
		return string(out), err
	}
	write(t, "package a\n\n// A returns what it stores. \"What else\" is quoted.\nvar What = `Who is it`\n", dir, "good.go")
	write(t, "# What is a hold?\n\nIt is "+strings.Repeat("…", 110)+".\nhttps://localhost/"+strings.Repeat("x", 120)+"\n", dir, "good.md")
	if out, err := prose(); err != nil || out != "" {
		t.Fatalf("got %v for good text:\n%s", err, out)
	}

	write(t, "package a\n\n// What is free is free.\nvar s = \"all but for this\"\n", dir, "a.go")
	write(t, "One line.\n"+strings.Repeat("word ", 25)+"\nWhoever reads this. Who knows.\n", dir, "b.md")
	write(t, "# It tries anew.\n", dir, "c.sh")
	write(t, "/** Who calls this? */\n/**\n * What waits, waits. */\n", dir, "d.tsx")
	write(t, "/* Who reads this */\n*, ::before { margin: 0 }\n", dir, "e.css")
	out, err := prose()
	if err == nil {
		t.Error("bad text passes")
	}
	for _, want := range []string{
		`a.go:3: the sentence begins with "What"`, `a.go:4: "but for": write instead: except`,
		"b.md:2: 125 columns", `b.md:3: the sentence begins with "Whoever"`, `b.md:3: the sentence begins with "Who":`,
		`c.sh:1: "anew": write instead: again`, `d.tsx:3: the sentence begins with "What"`,
		`e.css:1: the sentence begins with "Who"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output does not contain %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "good.") {
		t.Errorf("good text is reported:\n%s", out)
	}
}
