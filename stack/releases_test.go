package stack_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// If the packages of a system release are too old, releases.sh must print one line and fail.
func TestReleasesReportsOldPackages(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		postgres, redis, nginx string
		want                   []string // nil: the packages are new enough
	}{
		"Debian 12":    {postgres: "15+248", redis: "5:7.0.15-1~deb12u4", nginx: "1.22.1-9+deb12u2"},
		"Debian 13":    {postgres: "17+278", redis: "5:8.0.2-3", nginx: "1.26.3-3"},
		"Ubuntu 23.04": {postgres: "15+248", redis: "5:7.0.8-4", nginx: "1.22.0-1ubuntu3"},
		"Ubuntu 24.04": {postgres: "16+257build1", redis: "5:7.0.15-1", nginx: "1.24.0-2ubuntu7"},
		"Ubuntu 22.04": {postgres: "14+238", redis: "5:6.0.16-1ubuntu1", nginx: "1.18.0-6ubuntu14",
			want: []string{
				"postgresql 14.0 (15 is needed), redis-server 6.0 (7 is needed), nginx 1.18 (1.22 is needed)",
				"Debian 12, Ubuntu 24.04",
			}},
		// releases.sh ignores packages that apt-cache does not know. apt-get reports them later.
		"unknown packages": {postgres: "(none)", redis: "(none)", nginx: "(none)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fake := "#!/bin/sh\ncase $2 in postgresql) v='" + c.postgres + "';; redis-server) v='" + c.redis +
				"';; nginx) v='" + c.nginx + "';; esac\nprintf '%s:\\n  Installed: (none)\\n  Candidate: %s\\n' \"$2\" \"$v\"\n"
			if err := os.WriteFile(filepath.Join(dir, "apt-cache"), []byte(fake), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("./releases.sh", "gcc", "postgresql", "redis-server", "nginx")
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if (err != nil) != (c.want != nil) || strings.Count(string(out), "\n") != min(len(c.want), 1) {
				t.Errorf("%v: %s", err, out)
			}
			for _, w := range c.want {
				if !strings.Contains(string(out), w) {
					t.Errorf("the output does not contain %q: %s", w, out)
				}
			}
		})
	}
}
