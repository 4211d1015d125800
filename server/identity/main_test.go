package identity

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlsms/dlsms/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const testSecret = "qL2vN8xR4tW6yB1dF3hJ5kM7pS9uZ0aC"

// testClock is a wall clock that a test can move forward.
type testClock struct{ ahead atomic.Int64 }

func (c *testClock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *testClock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// noStreams is a replica without streams.
type noStreams struct{}

func (noStreams) End(func(Caller) error)      {}
func (noStreams) Callers() map[int64][]Caller { return nil }
