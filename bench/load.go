package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bojand/ghz/runner"
	"github.com/jhump/protoreflect/dynamic" //nolint:staticcheck // ghz asks for it
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// load describes the calls that ghz, the load generator, makes. Its clients call one method. Each
// client makes its next call as soon as it has the answer to its last call.
type load struct {
	// method is the full name of the method, such as "/dlsms.v1.SeatService/GetSeats".
	method  string
	clients int
	// rps is the rate of the calls of all clients together; 0: without a limit.
	rps int
	// calls is the number of calls; 0: as many as fit into the time.
	calls int
	// warm is the time before the measurement. measure is the length of the measurement.
	warm, measure time.Duration
	// request returns the message of call n, from 0. It must be safe for concurrent use.
	request func(n int64) (*dynamic.Message, error)
	// sign returns the metadata of call n, nil for none.
	sign func(n int64) *metadata.MD
	// allowed has the codes other than OK that do not count as failures.
	allowed []codes.Code
}

// clientsPerConnection is the number of clients that share a connection. By default, all clients of
// ghz share one connection, and then only one nginx worker has work. Each real client has a
// connection of its own. Here, that would take more memory and would show little more.
const clientsPerConnection = 10

// sample is the result of a load.
type sample struct {
	// calls is the number of calls that were answered with OK within the measured seconds. refused
	// is the number of calls that were answered with a code in load.allowed.
	calls, refused int
	seconds        float64
	// latencies has the latencies of calls and refused, sorted.
	latencies []time.Duration
	// failed is the number of calls with any other code, including the warm-up. failures counts
	// these calls by the text of the error.
	failed   int
	failures map[string]int
	// cpu is the processor time by kind of process.
	cpu cpuTimes
}

func (s sample) rps() float64 { return float64(s.calls) / s.seconds }

// percentile returns the latency that p percent of the calls do not exceed.
func (s sample) percentile(p float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	return s.latencies[min(int(p/100*float64(len(s.latencies))), len(s.latencies)-1)]
}

// run runs the load against a subject's proxy.
func (l load) run(ctx context.Context, s *subject) (sample, error) {
	files, err := protoset()
	if err != nil {
		return sample{}, err
	}
	connections := max(1, l.clients/clientsPerConnection)
	addr, security := s.Addr(), runner.WithInsecure(true)
	if s.certificate != "" {
		addr, security = s.TLSAddr(), runner.WithRootCertificate(s.certificate)
	}
	options := []runner.Option{
		security,
		runner.WithProtosetBinary(files),
		runner.WithConcurrency(uint(l.clients)),
		runner.WithConnections(uint(connections)),
		runner.WithDataProvider(func(c *runner.CallData) ([]*dynamic.Message, error) {
			m, err := l.request(c.RequestNumber)
			return []*dynamic.Message{m}, err
		}),
	}
	if l.sign != nil {
		options = append(options, runner.WithMetadataProvider(func(c *runner.CallData) (*metadata.MD, error) {
			return l.sign(c.RequestNumber), nil
		}))
	}
	if l.rps > 0 {
		options = append(options, runner.WithRPS(uint(l.rps)))
	}
	var clock *stopwatch[cpuTimes]
	if l.calls > 0 {
		options = append(options, runner.WithTotalRequests(uint(l.calls)))
	} else {
		// "ignore": calls in flight at the end are not counted. By default, ghz counts them as
		// Unavailable.
		options = append(
			options, runner.WithRunDuration(l.warm+l.measure+100*time.Millisecond), runner.WithDurationStopAction("ignore"),
		)
	}
	began := time.Now()
	if l.calls == 0 {
		clock = startStopwatch(ctx, func() (cpuTimes, error) { return cpuOf(s) }, began.Add(l.warm), l.measure)
	}
	report, err := runner.Run(strings.TrimPrefix(l.method, "/"), addr, options...)
	if err != nil {
		// If there is a report, go on: it has the errors of the single calls, which are clearer
		// than err.
		if report == nil || report.Count == 0 {
			return sample{}, fmt.Errorf("ghz: %w", err)
		}
	}
	if ctx.Err() != nil {
		return sample{}, ctx.Err()
	}
	from, to := began, time.Now()
	out := sample{failures: map[string]int{}}
	if clock != nil {
		if from, to, out.cpu, err = clock.result(); err != nil {
			return sample{}, err
		}
	}
	l.count(&out, report.Details, from, to)
	return out, nil
}

// count adds the results of ghz to the sample.
func (l load) count(out *sample, details []runner.ResultDetail, from, to time.Time) {
	var last time.Time
	for _, d := range details {
		if d.Timestamp.After(last) {
			last = d.Timestamp
		}
		allowed := slices.ContainsFunc(l.allowed, func(c codes.Code) bool { return c.String() == d.Status })
		if d.Status != codes.OK.String() && !allowed {
			out.failed++
			out.failures[d.Error]++
			continue
		}
		if d.Timestamp.Before(from) || d.Timestamp.After(to) {
			continue
		}
		if allowed {
			out.refused++
		} else {
			out.calls++
		}
		out.latencies = append(out.latencies, d.Latency)
	}
	if l.calls > 0 {
		to = last
	}
	out.seconds = to.Sub(from).Seconds()
	slices.Sort(out.latencies)
}

// failure returns an error with the most frequent failure, or nil without failures.
func (s sample) failure() error {
	if s.failed == 0 {
		return nil
	}
	kinds := slices.SortedFunc(maps.Keys(s.failures), func(a, b string) int { return s.failures[b] - s.failures[a] })
	return fmt.Errorf("%d calls failed, most of them with: %s", s.failed, kinds[0])
}

// protoset returns the descriptors of the API for ghz. With them, ghz needs no gRPC server
// reflection, which the minimal replica (bench/limit) does not have.
func protoset() ([]byte, error) {
	set := &descriptorpb.FileDescriptorSet{}
	added := map[string]bool{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if added[f.Path()] {
			return
		}
		added[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	for _, f := range []protoreflect.FileDescriptor{
		dlsmsv1.File_dlsms_v1_auth_proto, dlsmsv1.File_dlsms_v1_seat_proto,
		dlsmsv1.File_dlsms_v1_reservation_proto, dlsmsv1.File_dlsms_v1_notify_proto,
	} {
		add(f)
	}
	return proto.Marshal(set)
}

// sameMessage returns a value for load.request: each call gets the message m.
func sameMessage(m proto.Message) func(int64) (*dynamic.Message, error) {
	d, err := dynamic.AsDynamicMessage(protoadapt.MessageV1Of(m))
	return func(int64) (*dynamic.Message, error) { return d, err }
}

// cycle returns a value for load.request: the calls get these messages in turn, repeatedly.
func cycle[M proto.Message](messages []M) func(int64) (*dynamic.Message, error) {
	list := make([]*dynamic.Message, len(messages))
	var err error
	for i, m := range messages {
		if list[i], err = dynamic.AsDynamicMessage(protoadapt.MessageV1Of(m)); err != nil {
			break
		}
	}
	return func(n int64) (*dynamic.Message, error) { return list[n%int64(len(list))], err }
}

// bearer returns the metadata that contains a token.
func bearer(token string) *metadata.MD {
	md := metadata.Pairs("authorization", "Bearer "+token)
	return &md
}

// perSecond formats a rate.
func perSecond(rps float64) string {
	if rps < 100 {
		return strconv.FormatFloat(rps, 'f', 1, 64) + "/s"
	}
	n := strconv.Itoa(int(rps + 0.5))
	if len(n) > 3 {
		n = n[:len(n)-3] + "," + n[len(n)-3:]
	}
	return n + "/s"
}
