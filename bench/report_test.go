package main

import (
	"encoding/csv"
	"os"
	"strings"
	"testing"
)

// TestBenchmarksPageMatchesReport checks docs/benchmarks/README.md: the page has the fixed texts of
// a report and all rows of figures.csv.
func TestBenchmarksPageMatchesReport(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		text, err := os.ReadFile("../docs/benchmarks/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	page := read("README.md")
	rest := page
	after := func(line string) {
		_, after, found := strings.Cut(rest, line+"\n")
		if !found {
			t.Errorf("README.md has no line %q, or not in this order", line)
			return
		}
		rest = after
	}

	var text strings.Builder
	if err := (&report{}).markdown(&text); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(text.String(), "\n") {
		if line != "" && !strings.HasPrefix(line, "- ") { // list items describe the measured run
			after(line)
		}
	}

	rest = page
	rows, err := csv.NewReader(strings.NewReader(read("figures.csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(rows[0], ","), strings.Join(columns, ","); got != want {
		t.Errorf("figures.csv has the columns %s, want %s", got, want)
	}
	for _, row := range rows[1:] {
		after("| " + strings.Join(row, " | ") + " |")
	}
}
