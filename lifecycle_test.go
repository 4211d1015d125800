package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/store/storetest"
	"github.com/dlsms/dlsms/telemetry"
)

// recorded returns a step that adds its name to names, unless names is nil. Then the step waits for
// the time wait and returns err. If its context ends earlier, the step returns the error of the
// context.
func recorded(names *[]string, name string, limit, wait time.Duration, err error) step {
	return step{name, limit, func(ctx context.Context) error {
		if names != nil {
			*names = append(*names, name)
		}
		select {
		case <-time.After(wait):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

func TestStartEndsAtTheFirstError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		for name, c := range map[string]struct {
			second step // the second of three steps
			logged string
			want   error
		}{
			"error":     {recorded(nil, "second", time.Minute, time.Second, broken), "broken", broken},
			"limit":     {recorded(nil, "second", time.Second, time.Minute, nil), "not done after 1s", context.DeadlineExceeded},
			"interrupt": {recorded(nil, "second", time.Hour, time.Hour, nil), "start interrupted", context.Canceled},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Minute, cancel)
			var ran []string
			var log bytes.Buffer
			err := startInOrder(ctx, slog.New(slog.NewTextHandler(&log, nil)), []step{
				recorded(&ran, "first", time.Second, 0, nil), c.second, recorded(&ran, "third", time.Second, 0, nil),
			})
			if !errors.Is(err, c.want) || slices.Contains(ran, "third") {
				t.Errorf("%s: %v after %v, want %v", name, err, ran, c.want)
			}
			for _, part := range []string{c.logged, "step=first", "step=second"} {
				if !strings.Contains(log.String(), part) {
					t.Errorf("%s: the log does not have %q:\n%s", name, part, log.String())
				}
			}
			cancel()
		}
	})
}

func TestStopRunsEveryStepWithinItsLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hanging := make(chan struct{})
		var ran []string
		var log bytes.Buffer
		began := time.Now()
		stopInOrder(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), []step{
			recorded(&ran, "fails", time.Second, 0, errors.New("broken")),
			{"hangs", 2 * time.Second, func(context.Context) error { <-hanging; return nil }},
			recorded(&ran, "works", time.Minute, time.Second, nil),
		})
		if took := time.Since(began); took != 3*time.Second || !slices.Equal(ran, []string{"fails", "works"}) {
			t.Errorf("%v ran, in %s", ran, took)
		}
		for _, part := range []string{
			`msg="stop incomplete" step=fails duration=0s error=broken`,
			`msg="stop incomplete" step=hangs duration=2s error="not done after 2s"`,
			`msg=stop step=works duration=1s`,
		} {
			if !strings.Contains(log.String(), part) {
				t.Errorf("the log does not have %q:\n%s", part, log.String())
			}
		}
		close(hanging)
	})
}

// TestReplicaStartsAndStops starts and stops a replica. The log must have each step of both, and
// the replica must have exactly the metrics of the catalogue.
func TestReplicaStartsAndStops(t *testing.T) {
	t.Parallel()
	proxy := httptest.NewTLSServer(http.NotFoundHandler())
	defer proxy.Close()
	s := parseSettings(t, "--database-url="+storetest.NewDB(t).URL, "--tls-probe="+proxy.Listener.Addr().String(),
		"--jwt-secret=vT4qk9Zr2mWc7XpLh8sYb3NdJf6GaEuQ",
		"--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0",
		"--db-min-conns=1", "--db-max-conns=4", "--bcrypt-cost=4")
	var log bytes.Buffer
	r := newReplica(t.Context(), s, slog.New(slog.NewTextHandler(&log, nil)))
	observeLog(r.metrics, &telemetry.LogOutput{})
	if err := startInOrder(t.Context(), r.log, r.startSteps()); err != nil {
		t.Fatal(err)
	}
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	// Without a transition, a refusal or a request, these have no series.
	names := []string{
		"dlsms_worker_transitions_total", "dlsms_refusals_total", "dlsms_http_request_duration_seconds",
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "dlsms_") {
			names = append(names, f.GetName())
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff(slices.Sorted(slices.Values(telemetry.Names())), slices.Compact(names)); diff != "" {
		t.Errorf("metrics (-catalogue +replica):\n%s", diff)
	}
	stopInOrder(t.Context(), r.log, r.stopSteps())
	for _, done := range append(r.startSteps(), r.stopSteps()...) {
		if !strings.Contains(log.String(), `step="`+done.name+`"`) {
			t.Errorf("the log does not have the step %q", done.name)
		}
	}
	if strings.Contains(log.String(), "incomplete") {
		t.Error("a step of the stop is incomplete")
	}
	if t.Failed() {
		t.Log(log.String())
	}
}

// TestOpenDatabaseIsTriedAgain lets a replica try three times to open a database that does not
// answer. If the replica registered the metrics of the store in each attempt, the second attempt
// would panic.
func TestOpenDatabaseIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := parseSettings(t, "--database-url=postgres://u:p@127.0.0.1:1/db?sslmode=disable",
		"--jwt-secret=vT4qk9Zr2mWc7XpLh8sYb3NdJf6GaEuQ")
	r := newReplica(t.Context(), s, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond) // three attempts
	defer cancel()
	if err := r.openDatabase(ctx); err == nil {
		t.Error("openDatabase opened a database that does not exist")
	}
}
