package edge

import (
	"sync/atomic"

	"github.com/dlsms/dlsms/library"
)

// gate lets calls in while the server is ready. It is shut while the server starts, and again at the end of its drain.
type gate struct{ open atomic.Bool }

func (g *gate) check(r rule) error {
	if r.always || g.open.Load() {
		return nil
	}
	return library.ErrUnavailable
}
