package stack

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// minPause is how long Supervise waits before it restarts a process. The pause doubles after each
// run that lasted less than maxPause, up to maxPause. After a longer run, it is minPause again.
const minPause, maxPause = 500 * time.Millisecond, 30 * time.Second

// Supervise restarts and logs each process that ends or is killed, like the restart policy of
// docker-compose.yml. It returns when ctx has ended.
// While it runs, no other code may stop or start the processes, so e2e/chaos does not use it.
func (s *Stack) Supervise(ctx context.Context) {
	var all sync.WaitGroup
	for _, p := range s.Processes() {
		all.Go(func() { p.supervise(ctx) })
	}
	all.Wait()
}

func (p *Process) supervise(ctx context.Context) {
	pause := minPause
	for {
		begin := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
		}
		if time.Since(begin) > maxPause {
			pause = minPause
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
		pause = min(2*pause, maxPause)
		if err := p.Start(ctx); err != nil && ctx.Err() == nil {
			p.spec.log.printf("stack", "%v", err)
		}
	}
}
