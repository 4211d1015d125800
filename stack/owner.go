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
// line is the path of the state directory (.local of a checkout) that owns the cluster. If a user
// copies a checkout, the copy has the same owner file, or a link to it. The file still names the
// state directory of the original, so the stack refuses to run the cluster from the copy.
// stack/clean.sh also reads the file.
const ownerFile = "owner"

// owner returns the path of the state directory for the owner file. It resolves links in the path
// of the parent directory, so that a checkout always has the same path. It does not resolve the
// last element, .local. If the .local of two checkouts were links to one directory, both would
// otherwise have the same path.
func (d *stateDir) owner() (string, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(d.path))
	if err != nil {
		return "", fmt.Errorf("find the directory of %s: %w", d.path, err)
	}
	return filepath.Join(parent, filepath.Base(d.path)), nil
}

// claim makes this state directory the owner of the cluster in base. The owner file names the
// previous owner, which is another state directory if the checkout was copied or moved:
//   - If the previous owner still has a cluster with the same owner file, this checkout is a copy.
//     claim returns an error of one line.
//   - Otherwise the checkout was moved, and claim writes a new owner file.
func (d *stateDir) claim(base string, log *console) error {
	self, err := d.owner()
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(base, ownerFile))
	if errors.Is(err, fs.ErrNotExist) {
		// The cluster has no owner file: it is new, or an earlier version of the stack created it.
		// If its directory is in fallbackDir (/var/lib/dlsms), the name of the directory begins
		// with a hash of the path of the link to it. If this is not the hash of the link of this
		// checkout, the directory belongs to another checkout.
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
// root, it checks the parent directory instead. If another user owns the parent, that user could
// not use the directory that root would create.
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
