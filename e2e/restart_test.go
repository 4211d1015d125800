package e2e_test

import (
	"testing"

	"github.com/dlsms/dlsms/stack"
)

// unlimited are settings without rate limits, for tests that make many calls.
func unlimited() map[string]string {
	return map[string]string{"RATE_LIMIT_PER_MINUTE": "0", "AUTH_RATE_LIMIT_PER_MINUTE": "0", "LOGIN_FAILURE_LIMIT": "0"}
}

// TestRollingRestart stops one replica after the other with SIGTERM, and starts it again, while clients go on: none of them has to make a
// call more than twice, streams end with UNAVAILABLE and lose nothing, and each replica ends with exit code 0.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	s := start(t, stack.Config{Env: unlimited()})
	l, end := startLoad(t, s)
	l.progress(100, 20)
	for i, r := range s.Replicas {
		reopened := l.reopened.Load()
		if err := r.Restart(t.Context()); err != nil {
			t.Fatalf("replica %d: %v", i, err)
		}
		l.progress(100, 20)
		if l.reopened.Load() == reopened {
			t.Errorf("replica %d ended no stream", i)
		}
	}
	end()
}
