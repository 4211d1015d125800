package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/stack"
)

// observed measures GetSeats of a system whose metrics are read and whose traces are sampled,
// against a system without both. The replicas count their metrics in both: no setting turns that off.
func (b *bench) observed(ctx context.Context, cfg stack.Config) (err error) {
	traces, err := startCollector()
	if err != nil {
		return err
	}
	defer traces.server.Stop()
	env := maps.Clone(cfg.Env)
	maps.Copy(env, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + traces.addr,
		"OTEL_TRACES_SAMPLER":         "traceidratio",
		"OTEL_TRACES_SAMPLER_ARG":     "0.01",
	})
	cfg.Env = env
	watched, err := startSubject(ctx, ours+" with traces", cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watched.stop()) }()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	for i := range watched.Replicas {
		go readMetrics(reading, watched.AdminAddr(i))
	}
	const clients = 50
	c, err := b.compare(ctx, "GetSeats", clients, [2]*subject{watched, b.ours},
		func(*subject) (load, error) { return b.readLoad(clients), nil })
	if err != nil {
		return err
	}
	if traces.spans.Load() == 0 {
		return errors.New("the collector received no span")
	}
	b.report.atMost("GetSeats with 1% traces and a read of the metrics every 15 s: CPU of the replicas for a call, "+
		"divided by that without", c.cpuReplica, 1.05)
	return nil
}

// readMetrics reads the metrics of a replica every 15 s, as Prometheus does, until ctx ends.
func readMetrics(ctx context.Context, addr string) {
	for {
		if req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil); err == nil {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(15 * time.Second):
		}
	}
}

// traceCollector counts the spans that replicas send by OTLP.
type traceCollector struct {
	collector.UnimplementedTraceServiceServer

	addr   string
	server *grpc.Server
	spans  atomic.Int64
}

func startCollector() (*traceCollector, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for traces: %w", err)
	}
	c := &traceCollector{addr: l.Addr().String(), server: grpc.NewServer()}
	collector.RegisterTraceServiceServer(c.server, c)
	go func() { _ = c.server.Serve(l) }() // ends at Stop
	return c, nil
}

// Export implements the service of OTLP.
func (c *traceCollector) Export(
	_ context.Context, req *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	for _, r := range req.GetResourceSpans() {
		for _, s := range r.GetScopeSpans() {
			c.spans.Add(int64(len(s.GetSpans())))
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}
