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

// Process is one child process. It can be stopped or killed, and started again with the same
// address and data. Its methods may be called from several goroutines.
type Process struct {
	spec spec

	starting sync.Mutex // one Start at a time
	mu       sync.Mutex // guards run
	run      *run
}

// spec describes one kind of process.
type spec struct {
	name              string
	log               *console
	command           func() (*exec.Cmd, error)       // returns a new command for each start
	ready             func(ctx context.Context) error // one health check; nil if the process serves
	startTimeout      time.Duration                   // the limit for a start until ready
	stopSignal        syscall.Signal                  // requests a graceful stop
	stopTimeout       time.Duration                   // the limit for a graceful stop, before SIGKILL
	parentDeathSignal syscall.Signal                  // sent when this process dies (Linux)
	explain           func(lastLines []string) string // explains a known failure, or returns ""
	quiet             bool                            // log its lines only while it is ready
}

// run is one execution of the process.
type run struct {
	cmd     *exec.Cmd
	tail    *tail
	isReady atomic.Bool
	ended   chan struct{}
	err     error // the reason of the end; read it after ended is closed
}

const (
	readyPoll   = 20 * time.Millisecond
	readyReport = 5 * time.Second
)

// Name returns the prefix of the process's lines in the log, such as "app1".
func (p *Process) Name() string { return p.spec.name }

// PID returns the process id, or 0 if the process does not run.
func (p *Process) PID() int {
	if r := p.current(); r != nil && !r.hasEnded() {
		return r.cmd.Process.Pid
	}
	return 0
}

// Done returns a channel that is closed when the current run of the process and all its children
// have ended. It returns nil before the first Start.
func (p *Process) Done() <-chan struct{} {
	if r := p.current(); r != nil {
		return r.ended
	}
	return nil
}

// Wait waits until the process or ctx ends. It returns nil if the exit code was 0, else an error
// that describes how the process ended, or the error of ctx.
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

// Start starts the process and returns when it is ready. It fails if the process already runs.
// If the process ends early, or is not ready in time or before ctx ends, Start kills it and returns
// an error of one line with the reason.
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

// Signal sends sig to the process, not to its children. It fails if the process does not run.
func (p *Process) Signal(sig os.Signal) error {
	r := p.current()
	if r == nil {
		return os.ErrProcessDone
	}
	return r.cmd.Process.Signal(sig)
}

// Kill sends SIGKILL to the process and the other processes of its process group. It returns when
// the process and all its children have ended. It returns nil if the process had already ended.
func (p *Process) Kill() error {
	r := p.current()
	if r == nil {
		return nil
	}
	return p.kill(r)
}

// Stop requests a graceful stop and waits for the end of the process. After the limit for this kind
// of process, or when ctx ends, Stop kills the process. It returns an error if it killed the
// process or if the exit code was not 0. It returns nil if the process had already ended.
func (p *Process) Stop(ctx context.Context) error {
	r := p.current()
	if r == nil || r.hasEnded() {
		return nil
	}
	if err := r.cmd.Process.Signal(p.spec.stopSignal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.spec.name, err)
	}
	r.isReady.Store(false)
	ctx, cancel := context.WithTimeout(ctx, p.spec.stopTimeout)
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

// Restart calls Stop, then Start.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Ready makes one health check. It returns nil if the process serves.
func (p *Process) Ready(ctx context.Context) error { return p.spec.ready(ctx) }

func (p *Process) current() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// launch starts the program and copies its output to the log line by line.
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
	err = startChild(cmd, p.spec.parentDeathSignal)
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

// reap waits until the process and all its children have ended. The channel drained is closed at
// the end of the output pipe.
//
// The children of a killed Postgres have their own process groups and end a moment after it. Each
// child holds a copy of the output pipe. So the pipe ends when the last child has ended, and only
// then may another Postgres start. reap waits at most 10 s for the end of the pipe.
func (p *Process) reap(r *run, drained <-chan struct{}) {
	pid := r.cmd.Process.Pid
	err := r.cmd.Wait()
	_ = syscall.Kill(-pid, syscall.SIGKILL) // for example, workers of a killed nginx
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
	if !r.hasEnded() { // after the end, another process group may have the same id
		if err := syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %s: %w", p.spec.name, err)
		}
	}
	<-r.ended
	return nil
}

func (p *Process) untilReady(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.spec.startTimeout,
		fmt.Errorf("not ready within %.0f s", p.spec.startTimeout.Seconds()))
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

// failure returns an error of one line that explains why a process ended before it was ready.
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
			if !p.spec.quiet || r.isReady.Load() {
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

// tail keeps the last lines of the output, to explain why a process ended.
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
