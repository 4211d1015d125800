package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Process is one child process, which may be stopped or killed and started again at the same address with the same data.
// Its methods may be called from several goroutines.
type Process struct {
	spec spec

	starting sync.Mutex // one Start at a time
	mu       sync.Mutex // guards run
	run      *run
}

// spec is what tells the kinds of processes apart.
type spec struct {
	name     string
	log      *console
	command  func() (*exec.Cmd, error)       // a fresh command for each start
	ready    func(ctx context.Context) error // one try; nil once it serves
	within   time.Duration                   // how long a start may take until ready
	quit     syscall.Signal                  // asks for a graceful end
	patience time.Duration                   // how long that end may take before SIGKILL
	orphan   syscall.Signal                  // what the kernel sends should this process die (Linux)
	explain  func(lastLines []string) string // a better sentence for a known failure, or ""
	hushed   bool                            // its lines are of interest only while it is ready, or in the sentence of a failure
}

// run is one life of the process.
type run struct {
	cmd     *exec.Cmd
	tail    *tail
	isReady atomic.Bool
	ended   chan struct{}
	err     error // why it ended; read after ended is closed
}

const (
	readyPoll   = 20 * time.Millisecond
	readyReport = 5 * time.Second
)

// Name is the prefix of the process's lines in the log, such as "app1".
func (p *Process) Name() string { return p.spec.name }

// PID is the process id, or 0 while the process does not run.
func (p *Process) PID() int {
	if r := p.current(); r != nil && !r.hasEnded() {
		return r.cmd.Process.Pid
	}
	return 0
}

// Done is closed when the life that is current now, and everything that it started, has ended; nil before the first Start.
func (p *Process) Done() <-chan struct{} {
	if r := p.current(); r != nil {
		return r.ended
	}
	return nil
}

// Wait returns when the process has ended: nil after exit code 0, else an error that says how it ended, or ctx's.
func (p *Process) Wait(ctx context.Context) error {
	r := p.current()
	if r == nil {
		return fmt.Errorf("%s was never started", p.spec.name)
	}
	select {
	case <-r.ended:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start starts the process and returns once it is ready. When it ends early, or isn't ready in time or before ctx ends,
// the error says why in one line and nothing is left running. It fails when the process runs already.
func (p *Process) Start(ctx context.Context) error {
	p.starting.Lock()
	defer p.starting.Unlock()
	if p.PID() != 0 {
		return fmt.Errorf("%s is running already", p.spec.name)
	}
	begin := time.Now()
	r, err := p.launch()
	if err != nil {
		return err
	}
	if err := p.untilReady(ctx, r); err != nil {
		return errors.Join(err, p.kill(r))
	}
	p.spec.log.printf(p.spec.name, "ready after %.1f s (pid %d)", time.Since(begin).Seconds(), r.cmd.Process.Pid)
	return nil
}

// Signal sends sig to the process itself, not to what it started in turn; it fails when the process does not run.
func (p *Process) Signal(sig os.Signal) error {
	r := p.current()
	if r == nil {
		return os.ErrProcessDone
	}
	return r.cmd.Process.Signal(sig)
}

// Kill ends the process with SIGKILL, along with its process group, and returns when they are gone. A process that has ended is no error.
func (p *Process) Kill() error {
	r := p.current()
	if r == nil {
		return nil
	}
	return p.kill(r)
}

// Stop asks the process to end, waits for as long as its kind may take or until ctx ends, and then kills it.
// It returns an error when the process had to be killed or ended with a code other than 0; none when it had ended before.
func (p *Process) Stop(ctx context.Context) error {
	r := p.current()
	if r == nil || r.hasEnded() {
		return nil
	}
	if err := r.cmd.Process.Signal(p.spec.quit); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.spec.name, err)
	}
	r.isReady.Store(false)
	ctx, cancel := context.WithTimeout(ctx, p.spec.patience)
	defer cancel()
	begin := time.Now()
	select {
	case <-r.ended:
		p.spec.log.printf(p.spec.name, "stopped")
		return r.err
	case <-ctx.Done():
		err := fmt.Errorf("%s did not stop within %.1f s and was killed", p.spec.name, time.Since(begin).Seconds())
		return errors.Join(err, p.kill(r))
	}
}

// Restart is Stop, then Start.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Ready asks the process once whether it serves; nil means yes.
func (p *Process) Ready(ctx context.Context) error { return p.spec.ready(ctx) }

func (p *Process) current() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// launch starts the program, with its output going line by line to the log.
func (p *Process) launch() (*run, error) {
	cmd, err := p.spec.command()
	if err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.spec.name, err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	err = startChild(cmd, p.spec.orphan)
	_ = in.Close() // the child has its own copy
	if err != nil {
		_ = out.Close()
		return nil, fmt.Errorf("start %s: %w", p.spec.name, err)
	}
	r := &run{cmd: cmd, tail: &tail{}, ended: make(chan struct{})}
	p.mu.Lock()
	p.run = r
	p.mu.Unlock()

	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer func() { _ = out.Close() }()
		p.copyLines(out, r)
	}()
	go p.reap(r, drained)
	return r, nil
}

// reap waits for the end of the process and of what it started. The children of a killed Postgres have groups of their own and
// end by themselves, a moment later: their copies of the output pipe tell when, and only then may another Postgres start.
func (p *Process) reap(r *run, drained <-chan struct{}) {
	pid := r.cmd.Process.Pid
	err := r.cmd.Wait()
	_ = syscall.Kill(-pid, syscall.SIGKILL) // workers that outlived an nginx, say
	stragglers := time.NewTimer(10 * time.Second)
	defer stragglers.Stop()
	select {
	case <-drained:
	case <-stragglers.C:
	}
	if err != nil {
		err = fmt.Errorf("%s ended: %w", p.spec.name, err)
	}
	r.err = err
	close(r.ended)
}

func (p *Process) kill(r *run) error {
	if !r.hasEnded() { // or its pid, and so its group's id, could by now be another's
		if err := syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %s: %w", p.spec.name, err)
		}
	}
	<-r.ended
	return nil
}

func (p *Process) untilReady(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.spec.within,
		fmt.Errorf("not ready within %.0f s", p.spec.within.Seconds()))
	defer cancel()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	begin, report := time.Now(), time.NewTicker(readyReport)
	defer report.Stop()
	var last error
	for {
		select {
		case <-r.ended:
			return p.failure(r)
		default:
		}
		if last = p.spec.ready(ctx); last == nil {
			r.isReady.Store(true)
			return nil
		}
		select {
		case <-r.ended:
			return p.failure(r)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%w)", p.spec.name, context.Cause(ctx), last)
		case <-report.C:
			p.spec.log.printf(p.spec.name, "not ready yet, after %.0f s: %v", time.Since(begin).Seconds(), last)
		case <-poll.C:
		}
	}
}

// failure says in one line why a process ended before it was ready.
func (p *Process) failure(r *run) error {
	lines := r.tail.lines()
	if p.spec.explain != nil {
		if why := p.spec.explain(lines); why != "" {
			return fmt.Errorf("%s: %s", p.spec.name, why)
		}
	}
	how := r.err
	if how == nil {
		how = fmt.Errorf("%s ended at once", p.spec.name)
	}
	if len(lines) == 0 {
		return how
	}
	return fmt.Errorf("%w: %s", how, lines[len(lines)-1])
}

func (p *Process) copyLines(out io.Reader, r *run) {
	in := bufio.NewReaderSize(out, 64<<10)
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			r.tail.add(line)
			if !p.spec.hushed || r.isReady.Load() {
				p.spec.log.print(p.spec.name, line)
			}
		}
		if err != nil {
			return
		}
	}
}

func (r *run) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// tail keeps the last lines of a process, to explain its end.
type tail struct {
	mu   sync.Mutex
	kept []string
}

const tailLines = 20

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.kept) == tailLines {
		t.kept = append(t.kept[:0], t.kept[1:]...)
	}
	t.kept = append(t.kept, line)
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.kept...)
}
