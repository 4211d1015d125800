package stack

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stateDir is the directory with the data of a stack. It is locked while the stack runs.
type stateDir struct {
	path      string // absolute
	temporary bool   // close removes the directory
	lock      *os.File
}

const tempDirPrefix = "dlsms-stack-"

// openState creates dir if it does not exist, and locks it.
// If dir is "", openState creates a temporary directory.
func openState(dir string) (*stateDir, error) {
	d := &stateDir{path: dir}
	if dir == "" {
		removeStaleDirs()
		made, err := os.MkdirTemp("", tempDirPrefix)
		if err != nil {
			return nil, fmt.Errorf("make a directory for the stack: %w", err)
		}
		d.path, d.temporary = made, true
	}
	path, err := filepath.Abs(d.path)
	if err != nil {
		return nil, fmt.Errorf("find the directory %s: %w", d.path, err)
	}
	d.path = path
	if err := checkDirOwner(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("%s is not a directory: move it away and run again", path)
		}
		return nil, writeError("make", path, err)
	}
	if d.temporary {
		// Postgres may run as another user, which must be able to enter the directory.
		// Files with secrets have a stricter mode.
		if err := os.Chmod(path, 0o755); err != nil {
			return nil, fmt.Errorf("open the directory %s: %w", path, err)
		}
	}
	if err := d.acquire(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *stateDir) acquire() error {
	f, err := os.OpenFile(d.file("lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return writeError("open", d.file("lock"), err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		holder, _ := os.ReadFile(f.Name())
		return &inUseError{dir: d.path, pid: strings.TrimSpace(string(holder))}
	}
	d.lock = f
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return nil
}

// inUseError means that another process has locked the state directory.
type inUseError struct{ dir, pid string }

func (e *inUseError) Error() string {
	return fmt.Sprintf("another run uses %s (pid %s): stop it first, with Ctrl-C there or `kill %[2]s`", e.dir, e.pid)
}

// close unlocks the directory, and removes it if it is temporary.
func (d *stateDir) close() error {
	var err error
	if d.temporary {
		err = os.RemoveAll(d.path)
	}
	if d.lock != nil {
		// Close alone unlocks only when no process has the file open. A process that this one is starting has it
		// open until its program runs.
		err = errors.Join(err, syscall.Flock(int(d.lock.Fd()), syscall.LOCK_UN), d.lock.Close())
	}
	return err
}

func (d *stateDir) file(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

// secret returns 64 random characters that are stored in a file. It creates the file on first use;
// only this user can read it.
func secret(path string) (string, error) {
	kept, err := os.ReadFile(path)
	switch {
	case err == nil:
		s := strings.TrimSpace(string(kept))
		if len(s) < 32 {
			return "", fmt.Errorf("%s is damaged (%d characters, not 64): remove it and run again", path, len(s))
		}
		return s, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("can't read %s (%w): make it readable for this user, or remove it", path, err)
	}
	// rand.Text returns 26 random characters of 5 bits each.
	s := (rand.Text() + rand.Text() + rand.Text())[:64]
	if err := writeFile(path, s+"\n", 0o600); err != nil {
		return "", err
	}
	return s, nil
}

// writeFile replaces a file atomically: a process that is killed during the write leaves the old
// file.
func writeFile(path, content string, mode os.FileMode) error {
	fresh := path + ".new"
	// WriteFile sets the mode only if it creates the file, and an interrupted run may have left one.
	if left, err := os.Lstat(fresh); err == nil && left.Mode().IsRegular() {
		if err := os.Remove(fresh); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	if err := os.WriteFile(fresh, []byte(content), mode); err != nil {
		return writeError("write", path, err)
	}
	// The umask may have removed bits of the mode.
	if err := os.Chmod(fresh, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// writeError returns an error that says how to fix err, from creating, opening or writing a file or
// directory.
func writeError(do, path string, err error) error {
	advice := "make its directory writable for this user"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		advice = "free some space"
	case errors.Is(err, syscall.EROFS):
		advice = "its file system is read-only, run in a checkout that can be written to"
	}
	return fmt.Errorf("can't %s %s (%w): %s", do, path, err, advice)
}

// removeStaleDirs removes the temporary directories of killed test runs of this user, because each
// cluster takes 40 MB. It keeps locked directories, and directories that are less than an hour old:
// a process may be about to lock them.
func removeStaleDirs() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), tempDirPrefix+"*"))
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < time.Hour {
			continue
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
			continue
		}
		left := &stateDir{path: dir, temporary: true}
		if left.acquire() == nil {
			_ = left.close()
		}
	}
}
