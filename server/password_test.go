package server

import (
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// TestPasswordsAreTimed: each hash and each comparison counts, those of unknown students too.
func TestPasswordsAreTimed(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := start(t, func(c *Config) { c.Metrics = registry })
	s.register(t, "S2021001")
	s.login(t, "S2021001", testPassword)
	_, err := s.auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: "S2021002", Password: "wrong password"})
	want(t, err, codes.Unauthenticated, "BAD_CREDENTIALS")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "dlsms_password_hash_duration_seconds" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		if h.GetSampleCount() != 3 || h.GetSampleSum() <= 0 {
			t.Errorf("%v", h)
		}
		return
	}
	t.Error("no such metric")
}

// BenchmarkEchoBesidePasswords is an echo over loopback while passwords are compared all the time, with one processor of Go's: what a
// look at the seats has to live with during a login rush.
func BenchmarkEchoBesidePasswords(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(conn, conn)
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	p, err := newPasswords(12, 1)
	if err != nil {
		b.Fatal(err)
	}
	var hashing sync.WaitGroup
	stop := make(chan struct{})
	hashing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = p.compare("", "wrong password")
			}
		}
	})
	var took []time.Duration
	buf := []byte("?")
	for b.Loop() {
		began := time.Now()
		if _, err := conn.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	close(stop)
	hashing.Wait()
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
}
