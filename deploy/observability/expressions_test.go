package main

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/dlsms/dlsms/e2e"
)

// TestExpressionsFitMetrics parses all expressions of the rules and the dashboards, and compares
// their metrics and labels with those of a running system.
func TestExpressionsFitMetrics(t *testing.T) {
	t.Parallel()
	s := startSystem(t, nil)
	ctx := t.Context()
	// Some series exist only after their first event.
	s.makeOverdue(t, s.bookSoon(t, s.seats[0])) // the worker makes a transition
	if _, err := e2e.Anonymous(s.conn).Login(ctx, "observer", "not the password"); err == nil {
		t.Fatal("a wrong password is accepted")
	}
	resp, err := http.Get("http://" + s.Nginx.HTTPAddr() + "/v1/seats")
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	for where, expr := range expressions(t) {
		for metric, used := range selectors(t, where, expr) {
			if metric == "ALERTS" { // exists only while an alert is pending or fires
				continue
			}
			have := s.labelsOf(t, metric)
			if have == nil {
				t.Errorf("%s: no metric %s", where, metric)
				continue
			}
			for _, label := range used {
				if !slices.Contains(have, label) {
					t.Errorf("%s: %s has no label %s, only %v", where, metric, label, have)
				}
			}
		}
	}
}

// expressions returns the expressions of the rules and dashboards by their place.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	rules, err := readRules()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		all["alert "+r.Alert] = r.Expr
	}
	for _, d := range dashboards {
		for _, p := range d.panels {
			for _, q := range p.queries {
				all[d.title+", "+p.title+", "+q.legend] = strings.ReplaceAll(q.expr, "$__rate_interval", rateInterval)
			}
		}
	}
	return all
}

// selectors returns the labels that an expression uses, by metric: those of the selector, and those
// of the aggregations around it.
func selectors(t *testing.T, where, expr string) map[string][]string {
	t.Helper()
	parsed, err := promQL.ParseExpr(expr)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	used := map[string][]string{}
	parser.Inspect(parsed, func(n parser.Node, path []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		for _, m := range selector.LabelMatchers {
			if m.Name != model.MetricNameLabel {
				used[selector.Name] = append(used[selector.Name], m.Name)
			}
		}
		for _, outer := range path {
			if a, ok := outer.(*parser.AggregateExpr); ok {
				used[selector.Name] = append(used[selector.Name], a.Grouping...)
			}
		}
		return nil
	})
	return used
}

// labelsOf returns the names of the labels of a metric. It waits until Prometheus has scraped the
// metric, and returns nil if the metric does not exist.
func (s *system) labelsOf(t *testing.T, metric string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		series, _, _, err := s.Series(ctx, []string{metric}, time.Now().Add(-time.Hour), time.Now())
		if err == nil && len(series) > 0 {
			names := map[string]bool{}
			for _, one := range series {
				for name := range one {
					names[string(name)] = true
				}
			}
			delete(names, model.MetricNameLabel)
			return slices.Collect(maps.Keys(names))
		}
		select {
		case <-ctx.Done():
		case <-time.After(scrapeInterval / speed):
		}
	}
	return nil
}
