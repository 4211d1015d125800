// Package docs_test checks the documentation against the repository.
package docs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server"
)

// repository is the root of the repository.
var repository = os.DirFS("..")

// files returns the files of the repository whose name has one of the suffixes. It skips installed
// packages and hidden directories such as .local.
func files(t *testing.T, suffixes ...string) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(repository, ".", func(name string, d fs.DirEntry, err error) error {
		base := path.Base(name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(base, ".") || base == "node_modules"):
			return fs.SkipDir
		case !d.IsDir() && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(base, s) }):
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// read returns the text of a file of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := fs.ReadFile(repository, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// between returns the part of a text after the first marker and before the next one.
func between(t *testing.T, text, begin, end string) string {
	t.Helper()
	_, text, found := strings.Cut(text, begin)
	if !found {
		t.Fatalf("the text has no %q", begin)
	}
	text, _, _ = strings.Cut(text, end)
	return text
}

// TestTestsInDocsExist checks each test that a page names. If the page names the directory before
// the test, as in store `TestOpen`, the test must be in that directory.
func TestTestsInDocsExist(t *testing.T) {
	t.Parallel()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	dirs := map[string][]string{} // of each test
	all := map[string]bool{}      // all directories with tests
	for _, name := range files(t, "_test.go") {
		dir := path.Dir(name)
		all[dir] = true
		for _, m := range declared.FindAllStringSubmatch(read(t, name), -1) {
			dirs[m[1]] = append(dirs[m[1]], dir)
		}
	}
	named := regexp.MustCompile("(?:([a-z][a-z0-9/]*) `?)?\\b((?:Test|Fuzz|Benchmark)[A-Z]\\w*)")
	n := 0
	for _, name := range files(t, ".md") {
		if name == "CHANGELOG.md" { // may name tests of earlier releases
			continue
		}
		for i, line := range strings.Split(read(t, name), "\n") {
			for _, m := range named.FindAllStringSubmatch(line, -1) {
				n++
				dir, test := m[1], m[2]
				if len(dirs[test]) == 0 {
					t.Errorf("%s:%d: there is no test %s", name, i+1, test)
				} else if all[dir] && !slices.Contains(dirs[test], dir) {
					t.Errorf("%s:%d: %s is in %s, not in %s", name, i+1, test, dirs[test], dir)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("the pages name %d tests, want at least 50", n)
	}
}

// heading matches a heading of a page. fence matches the first or last line of a block of code.
// code matches a span of code in a line.
var (
	heading = regexp.MustCompile(`^#+ +(.*?) *$`)
	fence   = regexp.MustCompile("^ *```")
	code    = regexp.MustCompile("`[^`]*`")
)

// prose returns the lines of a Markdown text. Lines of blocks of code are empty.
func prose(text string) []string {
	lines := strings.Split(text, "\n")
	fenced := false
	for i, line := range lines {
		begins := fence.MatchString(line)
		if begins || fenced {
			lines[i] = ""
		}
		if begins {
			fenced = !fenced
		}
	}
	return lines
}

// anchors returns the anchors that GitHub gives to the headings of a Markdown text.
func anchors(text string) map[string]bool {
	refused := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	linked := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	found := map[string]bool{}
	for _, line := range prose(text) {
		m := heading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		title := linked.ReplaceAllString(m[1], "$1")
		anchor := strings.ReplaceAll(refused.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
		unique := anchor
		for i := 1; found[unique]; i++ {
			unique = fmt.Sprintf("%s-%d", anchor, i)
		}
		found[unique] = true
	}
	return found
}

// TestRelativeLinksExist checks the target of each relative link in all pages, with its anchor.
func TestRelativeLinksExist(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)|^\[[^\]]+\]: +(\S+)`)
	n := 0
	for _, name := range files(t, ".md") {
		for i, line := range prose(read(t, name)) {
			for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(line, "x"), -1) {
				target, err := url.Parse(m[1] + m[2])
				if err != nil {
					t.Errorf("%s:%d: %v", name, i+1, err)
					continue
				}
				if target.IsAbs() || target.Host != "" {
					continue
				}
				n++
				file := name
				if target.Path != "" {
					file = path.Join(path.Dir(name), target.Path)
				}
				info, err := fs.Stat(repository, file)
				switch {
				case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid):
					t.Errorf("%s:%d: there is no file %s", name, i+1, file)
				case err != nil:
					t.Fatal(err)
				case target.Fragment == "":
				case info.IsDir() || path.Ext(file) != ".md":
					t.Errorf("%s:%d: %s is no page, so it has no anchor #%s", name, i+1, file, target.Fragment)
				case !anchors(read(t, file))[target.Fragment]:
					t.Errorf("%s:%d: %s has no heading #%s", name, i+1, file, target.Fragment)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("the pages have %d relative links, want at least 50", n)
	}
}

// TestIndexHasAllPages checks that docs/README.md links to each page of docs.
func TestIndexHasAllPages(t *testing.T) {
	t.Parallel()
	index := read(t, "docs/README.md")
	for _, name := range files(t, ".md") {
		page, ok := strings.CutPrefix(name, "docs/")
		if !ok || page == "README.md" || page == "plan.md" { // a plan has no reader outside the project
			continue
		}
		if !strings.Contains(index, "]("+page+")") {
			t.Errorf("docs/README.md has no link to %s", page)
		}
	}
}

// TestCanariesInDocsExist checks the table of canaries in reliability/figures.md, and the canaries
// and trials that reliability.md names, against the source of the fault runs.
func TestCanariesInDocsExist(t *testing.T) {
	t.Parallel()
	var source strings.Builder
	for _, name := range files(t, ".go") {
		if path.Dir(name) == "e2e/chaos" && !strings.HasSuffix(name, "_test.go") {
			source.WriteString(read(t, name))
		}
	}
	checks := map[string]string{}
	for _, m := range regexp.MustCompile(`(check\w+) +check = "(.+)"`).FindAllStringSubmatch(source.String(), -1) {
		checks[m[1]] = m[2]
	}
	canaries := map[string]string{} // the check that finds each
	canary := regexp.MustCompile(`(?s)\bname: "([^"]+)",[^"]*?\bby: (check\w+)`)
	for _, m := range canary.FindAllStringSubmatch(source.String(), -1) {
		canaries[m[1]] = checks[m[2]]
	}
	known := map[string]bool{}
	for name := range canaries {
		known["canary "+name] = true
	}
	trials := between(t, source.String(), "\nfunc trials() []trial {\n", "\n}\n")
	for _, m := range regexp.MustCompile(`\{"(.+)", \w+\}`).FindAllStringSubmatch(trials, -1) {
		known["trial "+m[1]] = true
	}

	listed := map[string]bool{}
	table := between(t, read(t, "docs/reliability/figures.md"), "\n## Canaries\n", "\n## ")
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|,]+).* \| .*\|$`).FindAllStringSubmatch(table, -1) {
		name, by := m[1], strings.TrimSpace(m[2])
		if name == "canary" || strings.HasPrefix(name, "none, ") {
			continue
		}
		listed[name] = true
		if canaries[name] != by {
			t.Errorf("the canary %q is found by %q, not by %q", name, canaries[name], by)
		}
	}
	for name := range canaries {
		if !listed[name] {
			t.Errorf("the table has no canary %q", name)
		}
	}

	n := 0
	quoted := regexp.MustCompile(`"([^"]+)"`)
	for line := range strings.SplitSeq(read(t, "docs/reliability.md"), "\n") {
		kind := "trial "
		if strings.HasPrefix(line, "- canar") {
			kind = "canary "
		} else if !strings.HasPrefix(line, "- trial ") {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(line, -1) {
			n++
			if !known[kind+m[1]] {
				t.Errorf("there is no %s%q", kind, m[1])
			}
		}
	}
	if n < 15 {
		t.Errorf("the failure modes name %d canaries and trials, want at least 15", n)
	}
}

// TestServicesPageListsAllServices reads the list of services, and the example of two processes, which
// together must run all of them.
func TestServicesPageListsAllServices(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/operating/services.md")
	var want []string
	for _, s := range server.Services() {
		want = append(want, string(s))
	}
	want = append(want, "worker")
	slices.Sort(want)
	list := between(t, page, "chooses what a process runs:\n", ", separated by commas")
	example := between(t, page, "less CPU weight", "cpu_shares")
	for what, found := range map[string][][]string{
		"list":    regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(list, -1),
		"example": regexp.MustCompile(`SERVICES=([a-z,]+)`).FindAllStringSubmatch(example, -1),
	} {
		var got []string
		for _, m := range found {
			got = append(got, strings.Split(m[1], ",")...)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the %s of docs/operating/services.md has %v, not %v", what, got, want)
		}
	}
}

// TestErrorsPageListsAllReasons checks reference/errors.md against the enum ErrorReason, and the
// codes against e2e.CodeOf.
func TestErrorsPageListsAllReasons(t *testing.T) {
	t.Parallel()
	const prefix = "ERROR_REASON_"
	word := regexp.MustCompile(`([a-z])([A-Z])`)
	upper := func(c codes.Code) string { return strings.ToUpper(word.ReplaceAllString(c.String(), "${1}_$2")) }
	page := read(t, "docs/reference/errors.md")

	listed := map[string]string{} // the code of each reason
	row := regexp.MustCompile(`(?m)^\| ([A-Z_]+) \| ([A-Z_]+) \|`)
	for _, m := range row.FindAllStringSubmatch(between(t, page, "\n## Reasons\n", "\n## "), -1) {
		if _, twice := listed[m[1]]; twice {
			t.Errorf("%s is listed twice", m[1])
		}
		listed[m[1]] = m[2]
	}
	for number, name := range dlsmsv1.ErrorReason_name {
		reason := dlsmsv1.ErrorReason(number)
		if reason == dlsmsv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
			continue // never sent
		}
		name = strings.TrimPrefix(name, prefix)
		if want := upper(e2e.CodeOf(reason)); listed[name] != want {
			t.Errorf("%s is listed with the code %q, want %s", name, listed[name], want)
		}
	}
	for name := range listed {
		if _, ok := dlsmsv1.ErrorReason_value[prefix+name]; !ok {
			t.Errorf("there is no reason %s", name)
		}
	}

	first := regexp.MustCompile(`(?m)^\| ([A-Z_]+(?:, [A-Z_]+)*) \|`)
	for _, m := range first.FindAllStringSubmatch(between(t, page, "\n## Metadata\n", "\n## "), -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			if _, ok := dlsmsv1.ErrorReason_value[prefix+name]; !ok {
				t.Errorf("the table of metadata names %s, which is no reason", name)
			}
		}
	}
}

// TestLogLinesInMonitorPageExist checks that the source has each message in the table of log lines
// in operating/monitor.md. The page shortens a message with "…" at its end.
func TestLogLinesInMonitorPageExist(t *testing.T) {
	t.Parallel()
	var source strings.Builder
	for _, name := range files(t, ".go") {
		if !strings.HasSuffix(name, "_test.go") {
			source.WriteString(read(t, name))
		}
	}
	page := read(t, "docs/operating/monitor.md")
	quoted := regexp.MustCompile("`([^`]+)`")
	n := 0
	for line := range strings.SplitSeq(between(t, page, "| `msg` |", "\n\n"), "\n") {
		for _, m := range quoted.FindAllStringSubmatch(line, -1) {
			message := m[1]
			if !strings.Contains(message, " ") { // a level, a setting or a field
				continue
			}
			n++
			literal := `"` + message + `"`
			if short, ok := strings.CutSuffix(message, "…"); ok {
				literal = `"` + strings.TrimSpace(short)
			}
			if !strings.Contains(source.String(), literal) {
				t.Errorf("no source file has the message %q", message)
			}
		}
	}
	if n < 8 {
		t.Errorf("the table has %d messages, want at least 8", n)
	}
}
