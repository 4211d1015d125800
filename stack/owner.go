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

// ownerFile is the name of a file next to the cluster. Its first line is a random id. Its second
// line is the state directory that owns the cluster. A copy of a checkout has the owner file of the
// original, or a link to it, so the stack detects that the copy is not the owner. stack/clean.sh
// also reads this file.
const ownerFile = "owner"

// owner returns the name of the state directory in owner files. It resolves links in the path of
// the parent, so that a checkout has one name. It does not resolve the last element, because the
// .local of two checkouts may link to the same directory.
func (d *stateDir) owner() (string, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(d.path))
	if err != nil {
		return "", fmt.Errorf("find the directory of %s: %w", d.path, err)
	}
	return filepath.Join(parent, filepath.Base(d.path)), nil
}

// claim makes this state directory the owner of base, the directory of the cluster. If another
// checkout owns the cluster, it returns an error of one line.
//
// The owner file names the previous owner. If the previous owner has no cluster with the same owner
// file, the checkout was moved. Then this state directory becomes the new owner.
func (d *stateDir) claim(base string, log *console) error {
	self, err := d.owner()
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(base, ownerFile))
	if errors.Is(err, fs.ErrNotExist) {
		// The cluster is new, or from an earlier version without owner files. The name of a
		// directory in fallbackDir shows which link may point to it.
		if filepath.Dir(base) == fallbackDir && !strings.HasPrefix(filepath.Base(base), fallbackPrefix(d.file("postgres"))) {
			return fmt.Errorf("the database in %s belongs to another checkout: remove the link %s to start with an empty one",
				base, d.file("postgres"))
		}
		return writeOwner(base, self)
	}
	if err != nil {
		return fmt.Errorf("can't read %s (%w): make it readable for this user", filepath.Join(base, ownerFile), err)
	}
	_, previous, _ := strings.Cut(string(content), "\n")
	previous = strings.TrimSuffix(previous, "\n")
	if previous == self {
		return nil
	}
	previousFile, err := os.ReadFile(filepath.Join(previous, "postgres", ownerFile))
	switch {
	case err == nil && string(previousFile) == string(content), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the database in %s belongs to %s: run there, or start with an empty one here with `make clean`",
			base, filepath.Dir(previous))
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("can't determine whether the database in %s still belongs to %s: %w",
			base, filepath.Dir(previous), err)
	}
	log.printf("postgres", "%s, which had the database in %s, no longer uses it: it belongs to %s now",
		filepath.Dir(previous), base, filepath.Dir(self))
	return writeOwner(base, self)
}

func writeOwner(base, self string) error {
	return writeFile(filepath.Join(base, ownerFile), rand.Text()+"\n"+self+"\n", 0o644)
}

// checkDirOwner returns an error if another user owns dir. If dir does not exist and this user is
// root, another user must not own the parent directory: the other user could not use a directory
// that root creates there.
func checkDirOwner(dir string) error {
	owner, err := ownerOf(dir)
	if errors.Is(err, fs.ErrNotExist) && os.Geteuid() == 0 {
		owner, err = ownerOf(filepath.Dir(dir))
	}
	if err != nil || owner == os.Geteuid() {
		return nil //nolint:nilerr // the next step returns a better error
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
