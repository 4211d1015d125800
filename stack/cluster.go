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

// account is the user that runs Postgres. A nil account means the user of this process.
type account struct{ uid, gid uint32 }

// postgresUser returns the account for Postgres. For root it is the user postgres, because Postgres
// refuses to run as root.
func postgresUser() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("Postgres refuses to run as root, and there is no user postgres (%w): "+
			"run as an ordinary user, or `useradd --system postgres`", err)
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

// apply sets the user and the directory of cmd, and a locale that every system has.
func (a *account) apply(cmd *exec.Cmd, dir string) {
	cmd.Dir = dir
	cmd.Env = append(baseEnv(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
}

// own changes the owner of path to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("give %s to the user postgres: %w", path, err)
	}
	return nil
}

// The cluster is normally in the state directory (.local of a checkout). If root runs the stack and
// the user postgres can't enter the state directory, for example in a clone under /root, the
// cluster is in a directory of fallbackDir. The state directory then has a link to it.
const fallbackDir = "/var/lib/dlsms"

// clusterBase returns the directory of the cluster, and creates it if it does not exist. The
// directory is named postgres in the state directory, or postgres is a link to it. clusterBase also
// makes the state directory the owner of the cluster. It returns an error if another checkout owns
// the cluster.
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
		if err := state.claim(base, log); err != nil {
			return "", err
		}
		if err := reachable(ctx, base, as); err != nil {
			return "", fmt.Errorf("the user postgres can't enter %s (%w): allow it, or start again with `make clean`",
				base, err)
		}
		return base, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("can't read %s (%w): make it readable for this user", base, err)
	}
	if target, err := os.Readlink(base); err == nil {
		return "", fmt.Errorf("%s links to %s, which does not exist: remove the link to start with an empty database",
			base, target)
	}
	if reachable(ctx, state.path, as) == nil {
		if err := os.Mkdir(base, 0o755); err != nil {
			return "", writeError("make", base, err)
		}
	} else if base, err = createFallbackCluster(base, log); err != nil {
		return "", err
	}
	return base, state.claim(base, log)
}

// fallbackPrefix returns a hash of the path of link, which points to a cluster in fallbackDir
// (/var/lib/dlsms). The name of the cluster's directory begins with this hash. If a link points to
// a directory whose name begins with another hash, the directory belongs to another checkout.
func fallbackPrefix(link string) string {
	hash := sha256.Sum256([]byte(link))
	return hex.EncodeToString(hash[:6])
}

// createFallbackCluster creates a directory for the cluster in fallbackDir, and makes link point to
// it.
func createFallbackCluster(link string, log *console) (string, error) {
	if err := os.MkdirAll(fallbackDir, 0o755); err != nil {
		return "", fmt.Errorf("make a directory for the database: %w", err)
	}
	name := fallbackPrefix(link)
	if older, _ := filepath.Glob(filepath.Join(fallbackDir, name+"-*")); len(older) > 0 {
		log.printf("postgres", "%s is from an earlier clone at this path: remove it if you don't need it",
			strings.Join(older, " "))
	}
	base, err := os.MkdirTemp(fallbackDir, name+"-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the database: %w", err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		return "", fmt.Errorf("change the mode of the database directory: %w", err)
	}
	if err := os.Symlink(base, link); err != nil {
		return "", fmt.Errorf("link the database directory: %w", err)
	}
	log.printf("postgres", "the user postgres can't enter %s, so the database is in %s", filepath.Dir(link), base)
	return base, nil
}

// reachable returns an error if the account can't enter dir. It runs `cd dir` as the account,
// because modes, access control lists and mounts all matter.
func reachable(ctx context.Context, dir string, as *account) error {
	if as == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `cd "$1"`, "sh", dir)
	as.apply(cmd, "/")
	return runTool(cmd)
}

// clusterRelease returns the major release that created the cluster, or 0 if there is no cluster.
func clusterRelease(data string) (int, error) {
	content, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err == nil {
		release, err := strconv.Atoi(strings.TrimSpace(string(content)))
		if err != nil {
			return 0, damaged(data, "its PG_VERSION is not a number")
		}
		return release, nil
	}
	if _, err := os.Lstat(data); err == nil {
		return 0, damaged(data, "it has no readable PG_VERSION")
	}
	return 0, nil
}

func damaged(data, why string) error {
	return fmt.Errorf("%s is not a database (%s): restore it, or start again with `make clean`", data, why)
}

// clusterPassword returns the password of the superuser and of the role dlsms, from the file. If
// neither the file nor the cluster in data exists, it creates the file, and initdb reads it later.
// If only the file is missing, it returns an error.
func clusterPassword(file, data string, as *account) (string, error) {
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(data); err == nil {
			return "", fmt.Errorf("%s is missing, and the database has no other password: "+
				"restore it, or start again with `make clean`", file)
		}
	}
	password, err := secret(file)
	if err != nil {
		return "", err
	}
	return password, as.own(file)
}

// initCluster creates the cluster in data if it does not exist. It creates the cluster under
// another name and renames it at the end. So if the creation is interrupted, data does not exist,
// and the next start begins again. With unsafe, initdb does not wait until its files are on disk.
func initCluster(ctx context.Context, bin, data, passwordFile string, unsafe bool, as *account, log *console) error {
	if _, err := os.Lstat(data); err == nil {
		return nil
	}
	log.printf("postgres", "creating a database cluster in %s (once)", data)
	fresh := data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove an incomplete database: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return writeError("make", fresh, err)
	}
	if err := as.own(fresh); err != nil {
		return err
	}
	locale := "C.UTF-8"
	if runtime.GOOS == "darwin" { // macOS has C.UTF-8 only since version 15; C sorts the same
		locale = "C"
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata", fresh,
		"--username", postgresSuperuser, "--pwfile", passwordFile, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", locale, "--data-checksums")
	if unsafe {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	as.apply(cmd, filepath.Dir(data))
	if err := runTool(cmd); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	if err := os.Rename(fresh, data); err != nil {
		return fmt.Errorf("rename the database: %w", err)
	}
	return nil
}

// baseEnv returns the variables of the environment that a child needs. It leaves out variables that
// could change the behaviour of the child.
func baseEnv() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "USER", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
