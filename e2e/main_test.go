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

	"github.com/dlsms/dlsms/stack"
)

// binary is the dlsms that all systems run, built with the race detector: a data race in a replica fails its test.
var binary string

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
	// Most tests wait for servers nearly all of their time: more of them may wait at once than there are cores.
	if !isSet("test.parallel") {
		if err := flag.Set("test.parallel", "8"); err != nil {
			return 1, err
		}
	}
	dir, err := os.MkdirTemp("", "dlsms-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary = filepath.Join(dir, "dlsms")
	build := exec.Command("stack/build.sh", "-race", "-o", binary, ".")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build: %w\n%s", err, out)
	}
	code = m.Run()
	return code, stopCommon()
}

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// common is the system that tests share who break nothing.
var common struct {
	once sync.Once
	*system
	err error
}

// shared returns the system for tests that break nothing: the default rules, and no rate limits.
func shared(t *testing.T) *system {
	t.Helper()
	common.once.Do(func() {
		common.system, common.err = startSystem(context.Background(), stack.Config{Env: map[string]string{
			"RATE_LIMIT_PER_MINUTE": "0", "AUTH_RATE_LIMIT_PER_MINUTE": "0", "LOGIN_FAILURE_LIMIT": "0",
		}})
	})
	if common.err != nil {
		t.Fatal(common.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log of the shared system:\n%s", common.journal.Tail(40))
		}
	})
	return common.system
}

// stopCommon ends the shared system, which must have come through everything unharmed.
func stopCommon() error {
	if common.system == nil {
		return nil
	}
	return common.stop(context.Background())
}
