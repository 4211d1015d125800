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

// TestLoginsDuringFlood is TestFairSlotsDuringFlood of package identity with real calls: while 40
// connections from one address guess passwords, few guesses are compared before a login from
// another address.
func TestLoginsDuringFlood(t *testing.T) {
	t.Parallel()
	passwords, err := identity.NewPasswords(6, runtime.GOMAXPROCS(0)/2, within) // the machine may be busy
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
	eventually(t, "a flood", func() bool { return guesses.Load() > 40 })
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
