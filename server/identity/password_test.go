package identity

import (
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkEchoDuringHashing measures an echo over loopback while passwords are compared all the
// time, with GOMAXPROCS=1. The result shows how long a cheap call, such as GetSeats, waits while
// many users log in.
func BenchmarkEchoDuringHashing(b *testing.B) {
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
	p, err := NewPasswords(12, 1, PasswordWait)
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
				_ = p.Compare("", "wrong password")
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
