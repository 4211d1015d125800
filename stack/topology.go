package stack

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/dlsms/dlsms/deploy"
)

// Topology says which services run in which process.
type Topology string

const (
	// Monolith is several equal replicas, each with all services and the worker.
	Monolith Topology = ""
	// Microservices is one process for each of the services auth, seat, reservation and notify, and
	// one for the worker, behind deploy/nginx-microservices.conf. Stack.Replicas has them in this
	// order. The process reservation also runs the services of the staff, admin and desk, and the
	// process seat the one of screens.
	Microservices Topology = "microservices"
)

// The names of services in the setting SERVICES.
var (
	// clientServices have a process each in the topology Microservices.
	clientServices = []string{"auth", "seat", "reservation", "notify"}
	staffServices  = []string{"admin", "desk", "report"}
	screenServices = []string{"screen"}
	allServices    = slices.Concat(clientServices, staffServices, screenServices, []string{workerService})
)

const workerService = "worker"

// conf returns the configuration of nginx.
func (t Topology) conf() string {
	if t == Microservices {
		return deploy.NginxMicroservicesConf
	}
	return deploy.NginxConf
}

// upstreams returns the servers of each upstream in the configuration that conf returns. grpc and
// http are the addresses of the replicas that serve clients. http is empty if the replicas serve no
// HTTP.
func (t Topology) upstreams(grpc, http []string) map[string][]string {
	if t != Microservices {
		return map[string][]string{"dlsms": grpc, "dlsms_http": http}
	}
	all := map[string][]string{}
	for suffix, addrs := range map[string][]string{"": grpc, "_http": http} {
		for i, name := range clientServices {
			all[name+suffix] = addrs[min(i, len(addrs)):min(i+1, len(addrs))]
		}
		all["any"+suffix] = nil
		for _, name := range []string{"seat", "auth", "reservation", "notify"} { // as in conf
			all["any"+suffix] = append(all["any"+suffix], all[name+suffix]...)
		}
	}
	return all
}

// plan is what one replica runs.
type plan struct {
	name     string
	services []string
	env      map[string]string
	nice     int // added to the niceness of this process
}

// plans returns what each replica runs.
func (c *Config) plans() (all []plan) {
	if c.Topology == Microservices {
		for _, name := range append(slices.Clone(clientServices), workerService) {
			services := []string{name}
			switch name {
			case "seat":
				services = append(services, screenServices...)
			case "reservation":
				services = append(services, staffServices...)
			}
			p := plan{name: name, services: services, env: map[string]string{
				"SERVICES": strings.Join(services, ","),
				// Each of the 5 processes opens at most 6 more connections. Postgres accepts 400.
				"DB_MAX_CONNS": "60",
				// Each of the 5 processes may use a third of the cores, not a fifth, because some
				// of them have little load.
				"GOMAXPROCS": share(3),
			}}
			if name == "auth" && !c.EqualWeight {
				// A login costs a quarter of a second of CPU. If the cores are busy, the others come first.
				p.nice = 10
			}
			all = append(all, p)
		}
		return all
	}
	replicas := cmp.Or(c.Replicas, 3)
	for i := range replicas {
		// Each replica uses its share of the cores. A call behind nginx then cost 20 to 30% less
		// CPU than when each replica could use all cores.
		env := map[string]string{"GOMAXPROCS": share(replicas)}
		all = append(all, plan{name: fmt.Sprintf("app%d", i+1), services: allServices, env: env})
	}
	return all
}

// share returns the number of cores that one of n processes uses.
func share(n int) string { return strconv.Itoa(max(1, runtime.NumCPU()/n)) }

// upstreams returns the servers of the upstreams of nginx.
func (s *Stack) upstreams(cfg Config) (map[string][]string, error) {
	var grpc, http []string
	for _, r := range s.Replicas {
		if r.worker() {
			continue
		}
		grpc = append(grpc, r.Addr())
		if !cfg.NoHTTP {
			http = append(http, r.HTTPAddr())
		}
	}
	var err error
	if cfg.ProxyBackends != nil {
		if grpc, err = cfg.ProxyBackends(grpc); err != nil {
			return nil, err
		}
	}
	if cfg.ProxyHTTPBackends != nil {
		if http, err = cfg.ProxyHTTPBackends(http); err != nil {
			return nil, err
		}
	}
	return cfg.Topology.upstreams(grpc, http), nil
}
