package deploy_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/dlsms/dlsms/deploy"
	"github.com/dlsms/dlsms/stack"
)

// services are the processes of the microservice topology, by the name of their gRPC service.
var services = map[string]string{
	"dlsms.v1.AuthService": "auth", "dlsms.v1.SeatService": "seat",
	"dlsms.v1.ReservationService": "reservation", "dlsms.v1.NotifyService": "notify",
	// The staff's services run in the process reservation.
	"dlsms.v1.AdminService": "reservation", "dlsms.v1.DeskService": "reservation",
	"dlsms.v1.ReportService": "reservation",
	// That of the screens reads seats from memory, as the process seat does.
	"dlsms.v1.ScreenService": "seat",
}

// process is a process behind nginx that receives calls over gRPC and HTTP, and answers none.
type process struct {
	name           string
	grpc           *grpc.Server
	addr, httpAddr string
}

// arrivals has the names of the processes that received each call.
type arrivals struct {
	mu     sync.Mutex
	byCall map[string][]string
}

func (a *arrivals) add(call, process string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.byCall[call] = append(a.byCall[call], process)
}

func startProcess(t *testing.T, name string, seen *arrivals) *process {
	t.Helper()
	p := &process{name: name}
	p.grpc = grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		seen.add(method, name)
		<-stream.Context().Done()
		return stream.Context().Err()
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- p.grpc.Serve(l) }()
	t.Cleanup(func() {
		p.grpc.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	p.httpAddr = newHTTPBackend(t, func(w http.ResponseWriter, r *http.Request) {
		seen.add(r.Method+" "+r.URL.Path, name)
		hang(w, r)
	}).addr()
	return p
}

// apiCall is a call of the API that nginx must send to a process, or to any process.
type apiCall struct {
	name    string // "/dlsms.v1.SeatService/GetSeats" or "GET /v1/seats"
	process string // empty: any
	stream  bool
}

// rpcs returns the calls of all methods that a replica registers, over gRPC.
func rpcs() (all []apiCall) {
	for _, pkg := range []protoreflect.FullName{
		"dlsms.v1", "grpc.health.v1", "grpc.reflection.v1", "grpc.reflection.v1alpha",
	} {
		protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(file protoreflect.FileDescriptor) bool {
			for i := range file.Services().Len() {
				service := file.Services().Get(i)
				for j := range service.Methods().Len() {
					m := service.Methods().Get(j)
					all = append(all, apiCall{
						name:    fmt.Sprintf("/%s/%s", service.FullName(), m.Name()),
						process: services[string(service.FullName())],
						stream:  m.IsStreamingServer() || m.IsStreamingClient(),
					})
				}
			}
			return true
		})
	}
	return all
}

// requests returns the calls of all HTTP rules.
func requests(t *testing.T) (all []apiCall) {
	t.Helper()
	rules, err := os.ReadFile("../proto/rest.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parameter := regexp.MustCompile(`\{\w+\}`)
	rule := regexp.MustCompile(`selector: (\S+)\s+(get|post): (\S+)`)
	for _, m := range rule.FindAllStringSubmatch(string(rules), -1) {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, apiCall{
			name:    strings.ToUpper(m[2]) + " " + parameter.ReplaceAllString(m[3], "1"),
			process: services[string(d.Parent().FullName())],
			stream:  d.(protoreflect.MethodDescriptor).IsStreamingServer(),
		})
	}
	return append(all, apiCall{name: "GET /healthz"}, apiCall{name: "GET /docs"}, apiCall{name: "GET /v1/openapi.json"},
		apiCall{name: "GET /elsewhere"}, apiCall{name: "GET /"}, apiCall{name: "GET /C/V7Q2"},
		apiCall{name: "GET /assets/main-ABCDEFGH.js"},
		apiCall{name: "POST /v1/auth/session", process: "auth"},
		apiCall{name: "POST /v1/auth/session:resume", process: "auth"},
		apiCall{name: "POST /v1/auth/session:end", process: "auth"})
}

// Every call reaches the process of its service, and streams outlive the timeouts of other calls.
// This process makes all calls at once, and no backend answers. When the last call that is not a
// stream has ended at its timeout, all streams are still open.
func TestCallsReachTheirProcess(t *testing.T) {
	t.Parallel()
	for name, conf := range map[string]string{
		"monolith": deploy.NginxConf, "microservices": deploy.NginxMicroservicesConf,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := &arrivals{byCall: map[string][]string{}}
			upstreams := map[string][]string{}
			if name == "monolith" {
				p := startProcess(t, "replica", seen)
				upstreams["dlsms"], upstreams["dlsms_http"] = []string{p.addr}, []string{p.httpAddr}
			} else {
				for _, service := range []string{"seat", "auth", "reservation", "notify"} { // as in the upstream any
					p := startProcess(t, service, seen)
					upstreams[service], upstreams[service+"_http"] = []string{p.addr}, []string{p.httpAddr}
					upstreams["any"] = append(upstreams["any"], p.addr)
					upstreams["any_http"] = append(upstreams["any_http"], p.httpAddr)
				}
			}
			nginx := startProxy(t, stack.NginxConfig{Upstreams: upstreams, Conf: edit(t, conf, []string{
				"grpc_read_timeout 6s;", "grpc_read_timeout 3s;", "proxy_read_timeout 6s;", "proxy_read_timeout 3s;",
				"proxy_next_upstream_timeout 5s;", "proxy_next_upstream_timeout 2s;",
				"proxy_read_timeout 50s;", "proxy_read_timeout 3s;",
			})})
			conn, err := grpc.NewClient(nginx.Addr(),
				grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			callAll(t, seen, rpcs(), name, func(ctx context.Context, c apiCall) error { return invoke(ctx, conn, c) })
			callAll(t, seen, requests(t), name, func(ctx context.Context, c apiCall) error {
				return request(ctx, nginx.HTTPAddr(), c)
			})
		})
	}
}

// callAll makes all calls at once and checks which process received them, and that only the
// streams last.
func callAll(t *testing.T, seen *arrivals, calls []apiCall, topology string, do func(context.Context, apiCall) error) {
	t.Helper()
	seen.mu.Lock()
	clear(seen.byCall) // it has the health check of the start of nginx
	seen.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	var short, long sync.WaitGroup
	ended := make([]bool, len(calls))
	var mu sync.Mutex
	streams := 0
	for i, c := range calls {
		group := &short
		if c.stream {
			group = &long
			streams++
		}
		group.Go(func() {
			err := do(ctx, c)
			mu.Lock()
			defer mu.Unlock()
			ended[i] = true
			if err != nil && ctx.Err() == nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	short.Wait()
	mu.Lock()
	for i, c := range calls {
		if c.stream && ended[i] {
			t.Errorf("the stream %s ended at the timeout of a call", c.name)
		}
	}
	mu.Unlock()
	cancel()
	long.Wait()
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for _, c := range calls {
		got, want := seen.byCall[c.name], c.process
		if topology == "monolith" {
			want = "replica"
		} else if want == "" {
			want = "seat" // the first server of the upstream any
		}
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%s went to %q, want %s alone", c.name, got, want)
		}
	}
	if streams < 2 || len(calls)-streams < 22 {
		t.Errorf("there are %d streams and %d other calls", streams, len(calls)-streams)
	}
}

// invoke makes a call over gRPC. It returns nil if nginx ended the call at its timeout.
func invoke(ctx context.Context, conn *grpc.ClientConn, c apiCall) error {
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true} // that is the same to nginx
	stream, err := conn.NewStream(ctx, desc, c.name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	err = stream.RecvMsg(&emptypb.Empty{})
	if s := status.Convert(err); s.Code() == codes.Unavailable && strings.Contains(s.Message(), "in time") {
		return nil
	}
	return fmt.Errorf("ended with %w", err)
}

// request makes a call over HTTP. It returns nil if nginx ended the call at its timeout.
func request(ctx context.Context, addr string, c apiCall) error {
	method, path, _ := strings.Cut(c.name, " ")
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		return fmt.Errorf("answered with %s", resp.Status)
	}
	return nil
}

// If the first process of the gateway for health checks, /docs, the page and unknown paths is dead, another
// one answers. If the process of a service is dead, its calls alone fail.
func TestGatewayWithoutProcess(t *testing.T) {
	t.Parallel()
	upstreams := map[string][]string{}
	for _, service := range []string{"seat", "auth", "reservation", "notify"} {
		grpcBackend, b := new(backend).start(t), newHTTPBackend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Process", service)
		})
		if service == "seat" {
			grpcBackend.server.Stop()
			b.Close()
		}
		upstreams[service], upstreams[service+"_http"] = []string{grpcBackend.addr}, []string{b.addr()}
		upstreams["any"] = append(upstreams["any"], grpcBackend.addr)
		upstreams["any_http"] = append(upstreams["any_http"], b.addr())
	}
	nginx := startProxy(t, stack.NginxConfig{Upstreams: upstreams, Conf: deploy.NginxMicroservicesConf})
	for _, path := range []string{"/v1/seats", "/v1/seats/7", "/v1/seats:watch", "/v1/branches"} {
		resp, body := get(t, "http://"+nginx.HTTPAddr()+path)
		wantProblem(t, resp, body, http.StatusServiceUnavailable, "UNAVAILABLE")
	}
	for path, want := range map[string]string{
		"/healthz": "any", "/docs": "any", "/elsewhere": "any",
		"/": "any", "/me": "any", "/c/V7Q2": "any", "/S/R-11": "any", "/assets/main-ABCDEFGH.js": "any",
		"/v1/auth/session": "auth", "/v1/auth/session:resume": "auth",
		"/v1/auth/login": "auth", "/v1/reservations": "reservation", "/v1/waitlist": "notify", "/v1/notifications": "notify",
	} {
		resp, body := get(t, "http://"+nginx.HTTPAddr()+path)
		got := resp.Header.Get("X-Process")
		if got != want && (want != "any" || got == "") {
			t.Errorf("%s: %s from %q, want %s\n%s", path, resp.Status, got, want, body)
		}
	}
	wantStatus(t, call(t, dial(t, nginx.Addr())), codes.Unavailable, "UNAVAILABLE")
}

// The configurations of the two topologies differ only in comments, upstreams and the locations
// that send calls to them.
func TestGatewayHasRestOfConfiguration(t *testing.T) {
	t.Parallel()
	differs := regexp.MustCompile(`(?ms)^ *#[^\n]*\n|^    upstream .*?^    \}\n|^        location [^\n]* \{\n` +
		`            (?:grpc|proxy)_pass .*?^        \}\n|^\n`)
	monolith := differs.ReplaceAllString(deploy.NginxConf, "")
	microservices := differs.ReplaceAllString(deploy.NginxMicroservicesConf, "")
	if monolith != microservices {
		t.Errorf("nginx.conf has\n%s\nand nginx-microservices.conf has\n%s", monolith, microservices)
	}
	for _, line := range []string{
		"grpc_set_header", "limit_conn in_flight", "error_page 504", "/@problem/", "@no_replica",
	} {
		if !strings.Contains(monolith, line) {
			t.Errorf("the comparison leaves out %q", line)
		}
	}
}
