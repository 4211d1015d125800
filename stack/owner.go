package stack

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ownerFile lies beside the cluster: a random id in its first line, then the state directory that the cluster belongs to.
// A copy of a checkout brings along the owner file of the original, or a link to it, and so does not pass for its owner.
// stack/clean.sh reads it too.
const ownerFile = "owner"

// owner returns the name of the state directory in owner files. Links on the way to it are followed, so that a checkout has
// one name. The last element is not: two checkouts may have linked their .local to the same directory.
func (d *stateDir) owner() (string, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(d.path))
	if err != nil {
		return "", fmt.Errorf("find the directory of %s: %w", d.path, err)
	}
	return filepath.Join(parent, filepath.Base(d.path)), nil
}

// own makes this state directory the owner of base, which holds the cluster, or says in one line why it can't be.
// A cluster whose owner is gone was moved: it gets a new owner. An owner is gone when its own cluster has another owner file,
// or none.
func (d *stateDir) own(base string, log *console) error {
	us, err := d.owner()
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(base, ownerFile))
	if errors.Is(err, fs.ErrNotExist) {
		// New, or of an earlier version. What that put elsewhere has a name that tells for which link.
		if filepath.Dir(base) == clustersElsewhere && !strings.HasPrefix(filepath.Base(base), nameElsewhere(d.file("postgres"))) {
			return fmt.Errorf("the database in %s is not this checkout's: remove the link %s to begin with an empty one",
				base, d.file("postgres"))
		}
		return writeOwner(base, us)
	}
	if err != nil {
		return fmt.Errorf("can't read %s (%w): make it readable for this user", filepath.Join(base, ownerFile), err)
	}
	_, them, _ := strings.Cut(string(content), "\n")
	them = strings.TrimSuffix(them, "\n")
	if them == us {
		return nil
	}
	theirs, err := os.ReadFile(filepath.Join(them, "postgres", ownerFile))
	switch {
	case err == nil && string(theirs) == string(content), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the database in %s belongs to %s: run there, or begin with an empty one here with `make clean`",
			base, filepath.Dir(them))
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("can't tell whether the database in %s still belongs to %s: %w", base, filepath.Dir(them), err)
	}
	log.printf("postgres", "%s, which had the database in %s, is gone: it belongs to %s now", filepath.Dir(them), base, filepath.Dir(us))
	return writeOwner(base, us)
}

func writeOwner(base, us string) error {
	return writeFile(filepath.Join(base, ownerFile), rand.Text()+"\n"+us+"\n", 0o644)
}

// refuseOthers returns an error when another user owns dir, or, where it is yet to be made, when root would make it in a
// directory of an ordinary user, who could not use it afterwards.
func refuseOthers(dir string) error {
	owner, err := ownerOf(dir)
	if errors.Is(err, fs.ErrNotExist) && os.Geteuid() == 0 {
		owner, err = ownerOf(filepath.Dir(dir))
	}
	if err != nil || owner == os.Geteuid() {
		return nil //nolint:nilerr // what the next step makes of it says more
	}
	name := strconv.Itoa(owner)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return fmt.Errorf("%s belongs to the user %s: run as %[2]s", dir, name)
}

func ownerOf(path string) (uid int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return int(stat.Uid), nil
}
