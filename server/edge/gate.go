package edge

import (
	"sync/atomic"

	"github.com/dlsms/dlsms/library"
)

// gate admits calls while the server is ready. It is closed during the start and in the second half
// of a shutdown.
type gate struct{ open atomic.Bool }

func (g *gate) check(r rule) error {
	if r.duringStartup || g.open.Load() {
		return nil
	}
	return library.ErrUnavailable
}
