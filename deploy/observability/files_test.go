package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	gdash "github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// TestRules runs promtool, which evaluates the rules on the series in alerts_test.yml.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", rulesFile}, {"test", "rules", "alerts_test.yml"},
		{"check", "config", "--syntax-only", "prometheus.yml"},
	} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestDashboardsAreCurrent compares the files of the dashboards with panels.go, and checks them with
// the types of Grafana's schema, which refuse unknown fields.
func TestDashboardsAreCurrent(t *testing.T) {
	t.Parallel()
	plugins.RegisterDefaultPlugins() // the types of the panels and queries
	for _, d := range dashboards {
		want, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(d.file())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is out of date: run `make generate`", d.file())
		}
		var read gdash.Dashboard
		// The error of a dashboard without errors is not nil but an empty list.
		for _, err := range []error{read.UnmarshalJSONStrict(got), read.Validate()} {
			if err != nil && err.Error() != "" {
				t.Errorf("%s: %v", d.file(), err)
			}
		}
	}
}

// TestAlertsHaveRunbooks fails if the link of an alert does not lead to a heading of
// docs/operating/alerts.md with its name.
func TestAlertsHaveRunbooks(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operating", "alerts.md"))
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(page), -1) {
		headings[m[1]] = true
	}
	rules, err := readRules()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		link := "https://github.com/dlsms/dlsms/blob/main/docs/operating/alerts.md#" + strings.ToLower(r.Alert)
		if r.Annotations["runbook_url"] != link {
			t.Errorf("the runbook_url of %s is %q, want %q", r.Alert, r.Annotations["runbook_url"], link)
		}
		if !headings[r.Alert] {
			t.Errorf("docs/operating/alerts.md has no section %s", r.Alert)
		}
		delete(headings, r.Alert)
	}
	for name := range headings {
		t.Errorf("docs/operating/alerts.md has a section %s, but there is no such alert", name)
	}
}
