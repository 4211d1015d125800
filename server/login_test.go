package server

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/metadata"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/server/identity"
)

// TestLoginSucceedsDuringFlood: while 40 connections from one address guess passwords, logins from
// other addresses succeed, and few guesses are compared before each of them.
// TestFairSlotsDuringFlood of package identity tests the same without calls.
func TestLoginSucceedsDuringFlood(t *testing.T) {
	t.Parallel()
	// The constant within bounds the wait for a slot. It is long, because the machine may be busy.
	passwords, err := identity.NewPasswords(6, runtime.GOMAXPROCS(0)/2, within)
	if err != nil {
		t.Fatal(err)
	}
	s := startWith(t, func(all *services) { all.auth.(*authService).passwords = passwords })
	s.register(t, "S2021001")
	flood, stop := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "x-real-ip", "192.0.2.1"))
	var all sync.WaitGroup
	var guesses atomic.Int64
	for i := range 40 {
		all.Go(func() {
			for flood.Err() == nil {
				_, _ = s.auth.Login(flood, &dlsmsv1.LoginRequest{
					StudentId: fmt.Sprintf("guess-%d", i), Password: testPassword,
				})
				guesses.Add(1)
			}
		})
	}
	eventually(t, "the flood has made more than 40 guesses", func() bool { return guesses.Load() > 40 })
	before := guesses.Load()
	for i := range 10 {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-real-ip", fmt.Sprintf("198.51.100.%d", i))
		if _, err := s.auth.Login(ctx, &dlsmsv1.LoginRequest{StudentId: "S2021001", Password: testPassword}); err != nil {
			t.Errorf("login %d: %v", i+1, err)
		}
	}
	if n := guesses.Load() - before; n > 200 { // in the order of arrival it would be 400
		t.Errorf("%d guesses were compared before ten logins", n)
	}
	stop()
	all.Wait()
}
