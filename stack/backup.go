package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// BackupConfig is the configuration of Backup.
type BackupConfig struct {
	// Dir is the directory of the stack whose database is dumped.
	Dir string
	// File is the path of the new file. If it is empty, the file is in the working directory, and
	// its name has the time in UTC, such as dlsms-20260102T030405Z.dump.
	File string
	// Log receives one line for each step. It may be nil.
	Log io.Writer
}

// Backup writes a dump of the database of a stack to a new file and returns its path. The stack may
// run. If it does not run, Backup starts Postgres alone and stops it at the end.
// Only this user can read the file. The file appears when it is complete: after an error, or if ctx
// ends, there is no file. Every error is one line that says how to fix the problem.
func Backup(ctx context.Context, cfg BackupConfig) (file string, err error) {
	begin := time.Now()
	file = cfg.File
	if file == "" {
		file = begin.UTC().Format("dlsms-20060102T150405Z.dump")
	}
	if err := checkAbsent(file); err != nil {
		return "", err
	}
	data := filepath.Join(cfg.Dir, "postgres", "data")
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no database in %s: `make run` creates one", cfg.Dir)
	}
	bin, err := clientPrograms(ctx, data)
	if err != nil {
		return "", err
	}
	log := newConsole(cfg.Log)
	databaseURL, stop, err := serverForBackup(ctx, cfg)
	if err != nil {
		return "", interrupted(ctx, err, "the backup was interrupted: no file was written")
	}
	defer func() { err = errors.Join(err, stop()) }()
	log.printf("backup", "writing %s", file)
	size, err := dump(ctx, bin, databaseURL, file)
	if err != nil {
		return "", interrupted(ctx, err, "the backup was interrupted: no file was written")
	}
	log.printf("backup", "done after %.1f s: %s has %s", time.Since(begin).Seconds(), file, megabytes(size))
	log.printf("backup", "the file has personal data and password hashes: keep it where only operators can read it")
	return file, nil
}

// serverForBackup returns the URL of the database for its owner, and a function that releases the
// server. If no other process uses the directory, it starts Postgres.
func serverForBackup(ctx context.Context, cfg BackupConfig) (databaseURL string, stop func() error, err error) {
	pg, err := StartPostgres(ctx, PostgresConfig{Dir: cfg.Dir, Log: cfg.Log})
	if err == nil {
		return pg.DatabaseURL(), func() error { return pg.Stop(context.WithoutCancel(ctx)) }, nil
	}
	if _, running := errors.AsType[*inUseError](err); !running {
		return "", nil, err
	}
	content, readErr := os.ReadFile(filepath.Join(cfg.Dir, databaseURLFile))
	if readErr != nil {
		return "", nil, err
	}
	return strings.TrimSpace(string(content)), func() error { return nil }, nil
}

// dump writes a dump to file, and returns its size.
func dump(ctx context.Context, bin, databaseURL, file string) (size int64, err error) {
	// Only this user can read a file of CreateTemp, and pg_dump does not change that.
	partial, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.partial")
	if err != nil {
		return 0, writeError("make", file, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(partial.Name())
		}
	}()
	if err := partial.Close(); err != nil {
		return 0, writeError("make", file, err)
	}
	// pg_dump waits until the file is on disk.
	cmd, err := clientTool(ctx, bin, "pg_dump", databaseURL, "--format=custom", "--file="+partial.Name())
	if err != nil {
		return 0, err
	}
	if err := runTool(cmd); err != nil {
		return 0, fmt.Errorf("pg_dump failed, and no file was written: %w", err)
	}
	info, err := os.Stat(partial.Name())
	if err != nil {
		return 0, fmt.Errorf("read the size of the backup: %w", err)
	}
	if err := checkAbsent(file); err != nil { // another backup may have taken the name
		return 0, err
	}
	if err := os.Rename(partial.Name(), file); err != nil {
		return 0, fmt.Errorf("rename the complete backup to %s: %w", file, err)
	}
	return info.Size(), nil
}

func checkAbsent(file string) error {
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s exists, and a backup never replaces a file: choose another name, or remove the file", file)
	}
	return nil
}

// clientPrograms returns the directory with the programs of the Postgres release that created the
// cluster in data, or of the newest one if there is no cluster.
func clientPrograms(ctx context.Context, data string) (string, error) {
	release, err := clusterRelease(data)
	if err != nil {
		return "", err
	}
	bin, _, err := systemTools().postgres(ctx, release)
	return bin, err
}

// clientTool returns a command that runs a client program of Postgres with the database. The
// password is in its environment, because every user of the machine can see the arguments.
func clientTool(ctx context.Context, bin, program, databaseURL string, args ...string) (*exec.Cmd, error) {
	u, err := url.Parse(databaseURL)
	if err != nil {
		return nil, errors.New("the URL of the database is damaged: start the system again with `make run`")
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), append([]string{"--dbname=" + u.String()}, args...)...)
	cmd.Env = append(baseEnv(), "LC_ALL=C", "PGPASSWORD="+password)
	return cmd, nil
}

// interrupted returns an error with the text if ctx has ended, because the end of ctx causes other
// errors. Otherwise it returns err.
func interrupted(ctx context.Context, err error, text string) error {
	if ctx.Err() != nil {
		return errors.New(text)
	}
	return err
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
