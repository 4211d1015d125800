package reportfile_test

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/reportfile"
)

func write(t *testing.T, rows ...library.ExportedReservation) [][]string {
	t.Helper()
	var file bytes.Buffer
	w := reportfile.NewWriter(&file)
	if err := w.WriteHeader(); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows { // several writes
		if err := w.Write([]library.ExportedReservation{r}); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := csv.NewReader(&file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestLines(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
	arrived := start.Add(4*time.Minute + 300*time.Millisecond)
	lines := write(t, library.ExportedReservation{
		UserID: 7, Group: "law", Branch: "main", Timezone: "Europe/Berlin", Area: "Hall, south", Label: "A-1",
		StartTime: start, EndTime: start.Add(2 * time.Hour), Status: library.CheckedIn, CreatedAt: start.Add(-time.Hour),
		CheckedInAt: &arrived, Proof: library.ProofScreen,
	}, library.ExportedReservation{
		UserID: 7, Branch: "main", Timezone: "No/Where", Area: "=1+1", Label: "-3", StartTime: start,
	},
		library.ExportedReservation{UserID: 8, Timezone: "UTC", Area: "@x", Label: "+A"})
	// The clocks go forward during the reservation.
	want := "law|main|Hall, south|A-1|2026-03-29T01:30:00+01:00|2026-03-29T04:30:00+02:00|CHECKED_IN|" +
		"2026-03-29T00:30:00+01:00|2026-03-29T01:34:00+01:00|SCREEN|"
	if got := strings.Join(lines[1][1:], "|"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if lines[2][3] != "'=1+1" || lines[2][4] != "-3" || lines[3][3] != "'@x" || lines[3][4] != "'+A" {
		t.Errorf("a spreadsheet may take a text for a formula, or a number for a text: %q", lines[2:])
	}
	if lines[2][5] != "2026-03-29T00:30:00Z" {
		t.Errorf("a time in an unknown zone is %s, want it in UTC", lines[2][5])
	}
	if len(lines[0]) != len(lines[1]) || lines[0][0] != "\ufeffperson" { // Excel needs the byte order mark
		t.Errorf("the columns are %q", lines[0])
	}
}

// TestPseudonyms checks that a pseudonym says who is the same person within a file, and nothing else.
func TestPseudonyms(t *testing.T) {
	t.Parallel()
	people := []library.ExportedReservation{{UserID: 1}, {UserID: 2}, {UserID: 1}, {}}
	first, second := write(t, people...), write(t, people...)
	if first[1][0] != first[3][0] || first[1][0] == first[2][0] || len(first[1][0]) != 16 {
		t.Errorf("pseudonyms %s, %s and %s of the users 1, 2 and 1", first[1][0], first[2][0], first[3][0])
	}
	if first[4][0] != "" {
		t.Errorf("a reservation without a person has the pseudonym %s", first[4][0])
	}
	if first[1][0] == second[1][0] {
		t.Error("a person has the same pseudonym in two files")
	}
}

func BenchmarkWrite(b *testing.B) {
	var file bytes.Buffer
	w := reportfile.NewWriter(&file)
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	row := []library.ExportedReservation{{
		UserID: 7, Group: "law", Branch: "main", Timezone: "Europe/Berlin", Area: "Hall", Label: "A-1", StartTime: now,
		EndTime: now, Status: library.Completed, CreatedAt: now, CheckedInAt: &now, EndedAt: &now,
	}}
	for b.Loop() {
		file.Reset()
		if err := w.Write(row); err != nil {
			b.Fatal(err)
		}
	}
}
