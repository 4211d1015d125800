package compose_test

import (
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// observers are the services of the profile observability.
var observers = []string{"grafana", "jaeger", "node-exporter", "prometheus"}

func (top topology) loadObserved(t *testing.T) *types.Project {
	t.Helper()
	return top.loadWith(t, cli.WithProfiles([]string{"observability"}))
}

// TestObserversAreConfined: the profile adds four services to those that run without it. They can
// write to volumes and to memory only, and publish their pages on the loopback interface only.
func TestObserversAreConfined(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`^[a-z]+/[a-z-]+:v?\d+\.\d+\.\d+$`)
	each(t, func(t *testing.T, top topology) {
		project := top.loadObserved(t)
		want := append(slices.Sorted(maps.Keys(top.load(t).Services)), observers...)
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(project.Services)); !slices.Equal(got, want) {
			t.Fatalf("services %v, want %v", got, want)
		}
		for _, name := range observers {
			service := project.Services[name]
			if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) ||
				!slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
				t.Errorf("%s can write to its image, or has capabilities", name)
			}
			if service.User == "" || service.User == "root" || service.User == "0" {
				t.Errorf("%s runs as root", name)
			}
			if !pinned.MatchString(service.Image) {
				t.Errorf("%s has the image %q, which is not pinned to a release", name, service.Image)
			}
			for _, p := range service.Ports {
				if ip, err := netip.ParseAddr(p.HostIP); err != nil || !ip.IsLoopback() {
					t.Errorf("%s publishes port %s on %q", name, p.Published, p.HostIP)
				}
			}
		}
	})
}

// TestObserversFindTheirFiles: a mounted file that is missing would become an empty directory.
func TestObserversFindTheirFiles(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		project := top.loadObserved(t)
		for _, name := range observers {
			for _, v := range project.Services[name].Volumes {
				if _, err := os.Stat(v.Source); v.Type == types.VolumeTypeBind && err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	})
}

// TestPrometheusReadsAllApps compares the targets of Prometheus with the services that run dlsms.
func TestPrometheusReadsAllApps(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, top topology) {
		var file string
		for _, v := range top.loadObserved(t).Services["prometheus"].Volumes {
			if v.Target == "/etc/prometheus/targets.yml" {
				file = v.Source
			}
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range regexp.MustCompile(`"(\w+):9100"`).FindAllStringSubmatch(string(content), -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, top.apps) {
			t.Errorf("Prometheus reads %v, want %v", got, top.apps)
		}
		if !strings.Contains(string(content), `"`+top.proxy+`:8080"`) {
			t.Errorf("Prometheus does not read %s", top.proxy)
		}
	})
}
