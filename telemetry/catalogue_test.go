package telemetry

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

var update = flag.Bool("update", false, "write docs/reference/metrics.md")

func TestReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	const file = "../docs/reference/metrics.md"
	if *update {
		if err := os.WriteFile(file, []byte(reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(reference(), string(got)); diff != "" {
		t.Errorf("%s differs from the catalogue: run `go test ./telemetry -update` (-want +got):\n%s", file, diff)
	}
	for line := range strings.Lines(string(got)) {
		if len(line) > 121 {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
}

func TestCatalogueEntriesAreComplete(t *testing.T) {
	t.Parallel()
	sentence, name := regexp.MustCompile(`^[A-Zd].*\.$`), regexp.MustCompile(`^[a-z_]+$`)
	seen := map[string]bool{}
	for _, m := range catalogue {
		if !name.MatchString(m.name) || seen[m.name] {
			t.Errorf("%q is not a valid name, or is a duplicate", m.name)
		}
		seen[m.name] = true
		if !sentence.MatchString(m.help) || !sentence.MatchString(m.when) {
			t.Errorf("%s: help and when must be sentences", m.name)
		}
		if (m.kind == counter) != strings.HasSuffix(m.name, "_total") || (m.kind == histogram) != (len(m.buckets) > 0) {
			t.Errorf("%s: a counter ends with _total, and a histogram has buckets", m.name)
		}
	}
}

func TestUnknownMetricPanics(t *testing.T) {
	t.Parallel()
	for name, register := range map[string]func(r prometheus.Registerer){
		"no such name":     func(r prometheus.Registerer) { Counter(r, "bookings_total") },
		"another kind":     func(r prometheus.Registerer) { Counter(r, "seats") },
		"registered twice": func(r prometheus.Registerer) { Gauge(r, "seats"); Gauge(r, "seats") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if recover() == nil {
					t.Error("the registration did not panic")
				}
			}()
			register(prometheus.NewRegistry())
		})
	}
}

const referenceHead = `# Metrics

<!-- Generated from telemetry/catalogue.go by ` + "`go test ./telemetry -update`" + `. Do not edit. -->

A replica serves its metrics at ` + "`/metrics`" + ` on ` + "`ADMIN_ADDR`" + `, in the text format of Prometheus.
The names are a contract: they do not change.

Three metrics of libraries matter as well:

- ` + "`grpc_server_handled_total`" + ` counts calls by method and code.
- ` + "`grpc_server_handling_seconds`" + ` is a histogram of how long calls take, by method.
- ` + "`go_gc_gomemlimit_bytes`" + ` is the memory limit of the Go runtime.
  It is nine tenths of the container's limit, unless ` + "`GOMEMLIMIT`" + ` is set.
  Look at it when a replica uses more memory than you gave its container.
`

// reference returns docs/reference/metrics.md.
func reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, m := range catalogue {
		fmt.Fprintf(&b, "\n## dlsms_%s\n\n%s\n\n- Type: %s\n", m.name, sentences(m.help, ""), m.kind)
		if len(m.labels) > 0 {
			fmt.Fprintf(&b, "- Labels: `%s`\n", strings.Join(m.labels, "`, `"))
		}
		fmt.Fprintf(&b, "- When to look at it:\n  %s\n", sentences(m.when, "  "))
	}
	return b.String()
}

// sentences starts a new line after each sentence, as in all Markdown files of the project.
func sentences(text, indent string) string { return strings.ReplaceAll(text, ". ", ".\n"+indent) }
