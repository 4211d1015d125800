package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dlsms/dlsms/e2e"
	"github.com/dlsms/dlsms/stack"
)

// programs is the directory of the binaries under test. The race detector is on in dlsms, so that a
// data race in a replica fails its test. It is off in dlsms-fast, which TestStampedeHasOneWinner
// builds to measure times.
var programs string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	// Tests mostly wait for servers, so more tests than cores can run at once.
	if !isSet("test.parallel") {
		if err := flag.Set("test.parallel", "3"); err != nil {
			return 1, err
		}
	}
	if programs, err = os.MkdirTemp("", "dlsms-e2e-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(programs)) }()
	if err := build("dlsms", "1", "-race"); err != nil {
		return 1, err
	}
	code = m.Run()
	return code, errors.Join(monolith.stop(), microservices.stop())
}

func build(name, cgo string, flags ...string) error {
	cmd := exec.Command("stack/build.sh", append(flags, "-o", program(name), ".")...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

func program(name string) string { return filepath.Join(programs, name) }

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// sharedSystem is a system of all tests that do not stop or slow down a part of it.
type sharedSystem struct {
	once sync.Once
	*system
	err error
}

// The shared systems. The first test that needs one starts it.
var monolith, microservices sharedSystem

// shared returns the shared system. It has the default rules and no rate limits.
func shared(t *testing.T) *system {
	t.Helper()
	return monolith.get(t, stack.Monolith)
}

// sharedMicroservices is like shared, with each service in a process of its own.
func sharedMicroservices(t *testing.T) *system {
	t.Helper()
	return microservices.get(t, stack.Microservices)
}

func (c *sharedSystem) get(t *testing.T, topology stack.Topology) *system {
	t.Helper()
	c.once.Do(func() {
		env := e2e.NoRateLimits()
		env["TZ"] = "Pacific/Chatham" // 12:45 h ahead of UTC: no result may depend on the zone
		c.system, c.err = startSystem(context.Background(), stack.Config{Topology: topology, Env: env})
	})
	if c.err != nil {
		t.Fatal(c.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log of the shared system:\n%s", c.log.Tail(40))
		}
	})
	return c.system
}

// stop stops the system, if a test has started it, and returns the faults that system.stop found.
func (c *sharedSystem) stop() error {
	if c.system == nil {
		return nil
	}
	return c.system.stop(context.Background())
}
