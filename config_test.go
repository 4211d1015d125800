package main

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/reference/settings.md")

// declarationFaults returns the defects in the declarations of settings. An entry must have a name,
// a group, a help text, a check and a valid default. Each field must have an entry.
func declarationFaults(s *settings) []string {
	var faults []string
	report := func(name, fault string) { faults = append(faults, name+": "+fault) }
	names, fields := map[string]bool{}, map[any]bool{}
	for _, d := range s.table {
		if !regexp.MustCompile(`^[A-Z]+(_[A-Z]+)*$`).MatchString(d.name) || names[d.name] {
			report(d.name, "no name of its own")
		}
		names[d.name], fields[d.value.field] = true, true
		if !slices.Contains([]string{connections, users, bookingRules, operation}, d.group) {
			report(d.name, "no group")
		}
		if !regexp.MustCompile(`^[A-Z].*\.$`).MatchString(d.help) {
			report(d.name, "no help text")
		}
		if (d.placeholder == "") != d.value.toggle {
			report(d.name, "no placeholder")
		}
		if d.value.read == nil || d.value.accepts == "" {
			report(d.name, "no check")
			continue
		}
		if d.required != (d.value.read(d.preset) != nil) {
			report(d.name, "no valid default")
		}
		if d.value.read("nonsense") == nil {
			report(d.name, "nonsense is valid")
		}
	}
	for _, d := range s.table {
		if d.notAbove != "" && !names[d.notAbove] {
			report(d.name, "no setting has the name of notAbove")
		}
	}
	values := reflect.ValueOf(s).Elem()
	for i := range values.NumField() {
		if f := values.Type().Field(i); f.IsExported() && !fields[values.Field(i).Addr().Interface()] {
			report(f.Name, "no entry")
		}
	}
	return faults
}

func TestSettingsAreDeclaredCompletely(t *testing.T) {
	t.Parallel()
	if faults := declarationFaults(newSettings()); len(faults) > 0 {
		t.Errorf("faults: %v", faults)
	}
	// Each function makes one declaration defective. Its key is the fault that declarationFaults
	// must report.
	for want, spoil := range map[string]func(s *settings){
		"MAX_WAITING: no name of its own": func(s *settings) { entry(s, "DATABASE_URL").name = "MAX_WAITING" },
		"REDIS_URL: no group":             func(s *settings) { entry(s, "REDIS_URL").group = "" },
		"REDIS_URL: no help text":         func(s *settings) { entry(s, "REDIS_URL").help = "" },
		"REDIS_URL: no placeholder":       func(s *settings) { entry(s, "REDIS_URL").placeholder = "" },
		"REDIS_URL: no check":             func(s *settings) { entry(s, "REDIS_URL").value.read = nil },
		"GRPC_ADDR: no valid default":     func(s *settings) { entry(s, "GRPC_ADDR").preset = "" },
		"JWT_SECRET: nonsense is valid": func(s *settings) {
			entry(s, "JWT_SECRET").value.read = func(string) error { return nil }
		},
		"SeedDemo: no entry": func(s *settings) { s.table = s.table[:len(s.table)-1] },
		"DB_MIN_CONNS: no setting has the name of notAbove": func(s *settings) {
			entry(s, "DB_MIN_CONNS").notAbove = "DB_MAX"
		},
	} {
		s := newSettings()
		spoil(s)
		if faults := declarationFaults(s); !slices.Contains(faults, want) {
			t.Errorf("faults %v, want %q", faults, want)
		}
	}
}

// entry returns the entry of a setting.
func entry(s *settings, name string) *setting {
	return &s.table[slices.IndexFunc(s.table, func(d setting) bool { return d.name == name })]
}

func TestSettingsReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	const file = "docs/reference/settings.md"
	if *update {
		if err := os.WriteFile(file, []byte(settingsReference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(settingsReference(), string(got)); diff != "" {
		t.Errorf("%s differs from config.go: run `go test . -run Settings -update` (-want +got):\n%s", file, diff)
	}
	for line := range strings.Lines(string(got)) {
		if len(line) > 121 {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
}

const settingsHead = `# Settings

<!-- Generated from config.go by ` + "`go test . -run Settings -update`" + `. Do not edit. -->

Each setting is an environment variable and a flag.
The flag wins.
` + "`dlsms --help`" + ` lists them as well.
A replica reports all faults of its settings together, and does not start.
`

// settingsReference returns the text that docs/reference/settings.md must have.
func settingsReference() string {
	var b strings.Builder
	b.WriteString(settingsHead)
	group := ""
	for _, d := range newSettings().table {
		if d.group != group {
			group = d.group
			fmt.Fprintf(&b, "\n## %s\n", group)
		}
		preset := "none"
		switch {
		case d.required:
			preset = "none; the setting is required"
		case d.preset != "":
			preset = "`" + d.preset + "`"
		}
		if d.presetIn != "" {
			preset += " (" + d.presetIn + ")"
		}
		valid := d.value.accepts
		if d.notAbove != "" {
			valid += ", and not above `" + d.notAbove + "`"
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n- Flag: `--%s`\n- Default: %s\n- Values: %s\n",
			d.name, strings.ReplaceAll(d.help, ". ", ".\n"), d.flag(), preset, valid)
	}
	return b.String()
}
