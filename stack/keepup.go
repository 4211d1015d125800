package stack

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// How long KeepUp waits before it starts a process again: twice as long after each start that did not last.
const firstPause, longestPause = 500 * time.Millisecond, 30 * time.Second

// KeepUp starts each process again that ends by itself or is killed, saying so, as the restart policy of docker-compose.yml does.
// It returns once ctx has ended. Nothing else may stop or start the processes meanwhile: fault tests do without it.
func (s *Stack) KeepUp(ctx context.Context) {
	var all sync.WaitGroup
	for _, p := range s.Processes() {
		all.Go(func() { p.keepUp(ctx) })
	}
	all.Wait()
}

func (p *Process) keepUp(ctx context.Context) {
	pause := firstPause
	for {
		begin := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
		}
		if time.Since(begin) > longestPause {
			pause = firstPause
		}
		err := p.Wait(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = fmt.Errorf("%s ended by itself", p.spec.name)
		}
		p.spec.log.printf("stack", "%v; starting it again in %.1f s", err, pause.Seconds())
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		pause = min(2*pause, longestPause)
		if err := p.Start(ctx); err != nil && ctx.Err() == nil {
			p.spec.log.printf("stack", "%v", err)
		}
	}
}
