package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// account is the user that Postgres runs as; nil: this process's own.
type account struct{ uid, gid uint32 }

// postgresUser returns the account for Postgres, which refuses to run as root.
func postgresUser() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("Postgres refuses to run as root, and there is no user postgres (%w): run as an ordinary user, or `useradd --system postgres`", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("the user postgres has the id %q: %w", u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("the user postgres has the group %q: %w", u.Gid, err)
	}
	return &account{uid: uint32(uid), gid: uint32(gid)}, nil
}

// apply makes cmd run as the account, in dir, with a locale that every system has.
func (a *account) apply(cmd *exec.Cmd, dir string) {
	cmd.Dir = dir
	cmd.Env = append(baseEnv(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
}

// own gives path to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("give %s to the user postgres: %w", path, err)
	}
	return nil
}

// clustersElsewhere is where root's cluster goes when the user postgres can't reach the state directory, as in a clone under /root.
const clustersElsewhere = "/var/lib/dlsms"

// clusterBase returns the directory that holds the cluster: postgres in the state directory, or what a link there leads to.
func clusterBase(ctx context.Context, state *stateDir, as *account, log *console) (string, error) {
	base := state.file("postgres")
	info, err := os.Stat(base)
	switch {
	case err == nil && !info.IsDir():
		return "", fmt.Errorf("%s is not a directory: remove it and run again", base)
	case err == nil:
		link := base
		if base, err = filepath.EvalSymlinks(link); err != nil {
			return "", fmt.Errorf("follow %s: %w", link, err)
		}
		if err := state.own(base, log); err != nil {
			return "", err
		}
		if err := reachable(ctx, base, as); err != nil {
			return "", fmt.Errorf("the user postgres can't reach %s (%w): allow it, or begin anew with `make clean`", base, err)
		}
		return base, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("can't look into %s (%w): make it readable for this user", base, err)
	}
	if target, err := os.Readlink(base); err == nil {
		return "", fmt.Errorf("%s leads to %s, which is gone: remove the link to begin with an empty database", base, target)
	}
	if reachable(ctx, state.path, as) == nil {
		if err := os.Mkdir(base, 0o755); err != nil {
			return "", notWritten("make", base, err)
		}
	} else if base, err = clusterElsewhere(base, log); err != nil {
		return "", err
	}
	return base, state.own(base, log)
}

// nameElsewhere is how the names begin of the directories in clustersElsewhere that are made for a link.
func nameElsewhere(link string) string {
	hash := sha256.Sum256([]byte(link))
	return hex.EncodeToString(hash[:6])
}

func clusterElsewhere(link string, log *console) (string, error) {
	if err := os.MkdirAll(clustersElsewhere, 0o755); err != nil {
		return "", fmt.Errorf("make a place for the database: %w", err)
	}
	name := nameElsewhere(link)
	if older, _ := filepath.Glob(filepath.Join(clustersElsewhere, name+"-*")); len(older) > 0 {
		log.printf("postgres", "%s is left from an earlier clone at this path: remove it if you don't need it", strings.Join(older, " "))
	}
	base, err := os.MkdirTemp(clustersElsewhere, name+"-")
	if err != nil {
		return "", fmt.Errorf("make a place for the database: %w", err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		return "", fmt.Errorf("open the place for the database: %w", err)
	}
	if err := os.Symlink(base, link); err != nil {
		return "", fmt.Errorf("link the place for the database: %w", err)
	}
	log.printf("postgres", "the user postgres can't reach %s, so the database lives in %s", filepath.Dir(link), base)
	return base, nil
}

// reachable asks the system itself, by going there as that user: modes, lists of rights and mounts all count.
func reachable(ctx context.Context, dir string, as *account) error {
	if as == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `cd "$1"`, "sh", dir)
	as.apply(cmd, "/")
	return runTool(cmd)
}

// clusterRelease returns the major release that made the cluster, or 0 if there is none yet.
func clusterRelease(data string) (int, error) {
	content, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err == nil {
		release, err := strconv.Atoi(strings.TrimSpace(string(content)))
		if err != nil {
			return 0, damaged(data, "its PG_VERSION is no number")
		}
		return release, nil
	}
	if _, err := os.Lstat(data); err == nil {
		return 0, damaged(data, "it has no readable PG_VERSION")
	}
	return 0, nil
}

func damaged(data, why string) error {
	return fmt.Errorf("%s is no database (%s): restore it, or begin anew with `make clean`", data, why)
}

// clusterPassword returns the password of the roles, made before the cluster is, and the file that keeps it, which initdb reads.
func clusterPassword(file, data string, as *account) (string, error) {
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(data); err == nil {
			return "", fmt.Errorf("%s is gone, and without it nobody gets into the database: restore it, or begin anew with `make clean`", file)
		}
	}
	password, err := secret(file)
	if err != nil {
		return "", err
	}
	return password, as.own(file)
}

// initCluster makes the cluster if it isn't there, under another name first: one whose making was cut short never counts.
func initCluster(ctx context.Context, bin, data, passwordFile string, unsafe bool, as *account, log *console) error {
	if _, err := os.Lstat(data); err == nil {
		return nil
	}
	log.printf("postgres", "making a database cluster in %s (once)", data)
	fresh := data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove a half-made database: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return notWritten("make", fresh, err)
	}
	if err := as.own(fresh); err != nil {
		return err
	}
	locale := "C.UTF-8"
	if runtime.GOOS == "darwin" { // which knows that name only since macOS 15; both sort alike
		locale = "C"
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata", fresh, "--username", postgresSuperuser, "--pwfile", passwordFile,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", locale, "--data-checksums")
	if unsafe {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	as.apply(cmd, filepath.Dir(data))
	if err := runTool(cmd); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	if err := os.Rename(fresh, data); err != nil {
		return fmt.Errorf("name the database: %w", err)
	}
	return nil
}

// baseEnv is what a child needs of this process's environment, and nothing that would change how it behaves.
func baseEnv() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "USER", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
