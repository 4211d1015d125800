package e2e_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// The limits of the system under test: few calls, so that a minute's worth of them takes no minute.
const (
	callsAMinute  = 5
	loginsAMinute = 20
	failedLogins  = 3
)

// narrow is the environment of a system with these limits, and of which the times are short.
func narrow() map[string]string {
	return map[string]string{
		"RATE_LIMIT_PER_MINUTE":      fmt.Sprint(callsAMinute),
		"AUTH_RATE_LIMIT_PER_MINUTE": fmt.Sprint(loginsAMinute),
		"LOGIN_FAILURE_LIMIT":        fmt.Sprint(failedLogins),
		"GRACE_MINUTES":              "0.01",
		"CLAIM_MINUTES":              "0.01",
		"MAX_WAITLIST":               "1",
	}
}

// admitted makes calls at once, and returns how many of them were not refused for being too many.
func admitted(t *testing.T, calls int, call func(i int) error) int {
	t.Helper()
	var passed atomic.Int64
	inParallel(t, calls, calls, func(i int) error {
		switch err := call(i); e2e.Reason(err) {
		case "RATE_LIMITED":
			return e2e.CheckRefusal(err, "RATE_LIMITED")
		case "BAD_CREDENTIALS", "OVERLOADED", "": // the call was made
			passed.Add(1)
			return nil
		default:
			return err
		}
	})
	return int(passed.Load())
}

// togetherWithin is for how long it is tried to find the replicas counting together: a busy machine may keep them from Redis for a while.
const togetherWithin = 2 * time.Minute

// limitsOfAUser looks whether the replicas count together. On a busy machine one of them may find Redis too slow, and count by itself for a
// second: then it is looked at again. Replicas that don't count together let in three times as many each time.
func limitsOfAUser(t *testing.T, s *system) {
	var replicas []*grpc.ClientConn
	for i := range s.Replicas {
		replicas = append(replicas, conn(t, s, i))
	}
	let := []int{}
	for round, begun := 0, time.Now(); round == 0 || time.Since(begun) < togetherWithin; round++ {
		campus := s.fromAddress(t, fmt.Sprintf("127.0.1.%d", round)) // its own, as registrations are limited, too
		u := campus.student(t)
		n := admitted(t, 8*callsAMinute, func(i int) error {
			_, err := u.WithConn(replicas[i%len(replicas)]).Reservations.GetReservations(t.Context(), &dlsmsv1.GetReservationsRequest{})
			return err
		})
		let = append(let, n)
		if n != callsAMinute {
			continue
		}
		apart := false
		for _, r := range replicas {
			_, err := u.WithConn(r).Notify.GetWaitlist(t.Context(), &dlsmsv1.GetWaitlistRequest{})
			if apart = apart || err == nil; apart {
				break
			}
			refused(t, err, "RATE_LIMITED")
			if wait := e2e.RefusalOf(err).RetryAfter; wait > time.Minute/callsAMinute {
				t.Errorf("the next call is allowed in %s", wait)
			}
		}
		if apart {
			continue
		}
		// Browsing, other users, and the user's tokens by themselves are another matter.
		if _, err := u.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}); err != nil {
			t.Error(err)
		}
		if _, err := u.Auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: u.Token}); err != nil {
			t.Error(err)
		}
		campus.student(t).reservations(0)
		return
	}
	t.Errorf("of %d calls at once over three replicas, %v were let in, want %d", 8*callsAMinute, let, callsAMinute)
}

func limitsOfFailedLogins(t *testing.T, s *system) {
	from := s.fromAddress(t, "127.0.0.6")
	u, other := from.student(t), from.student(t)
	login := func(id, password string) error {
		_, err := u.Auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: id, Password: password})
		return err
	}
	var err error
	failed := 0
	for ; failed <= 4*failedLogins; failed++ { // at most three times as many, should the replicas have had to count by themselves
		if err = login(u.User.GetStudentId(), "a wrong password"); e2e.Reason(err) != "BAD_CREDENTIALS" {
			break
		}
	}
	refused(t, err, "RATE_LIMITED")
	if failed < failedLogins {
		t.Errorf("no more tries after %d failed ones", failed)
	}
	// The right password isn't told from a wrong one any more, whatever the case of the id.
	refused(t, login("e2e"+u.User.GetStudentId()[3:], u.Password), "RATE_LIMITED")
	if err := login(other.User.GetStudentId(), other.Password); err != nil {
		t.Errorf("another student: %v", err)
	}
}

// limitsOfAnAddress counts logins by the address that nginx sees, not by one that a client claims to have. Like limitsOfAUser it looks again
// when the replicas could not count together.
func limitsOfAnAddress(t *testing.T, s *system) {
	let := []int{}
	for round, begun := 0, time.Now(); round == 0 || time.Since(begun) < togetherWithin; round++ {
		from := s.fromAddress(t, fmt.Sprintf("127.0.2.%d", round))
		begin := time.Now()
		n := admitted(t, 4*loginsAMinute, func(i int) error {
			claim := metadata.AppendToOutgoingContext(t.Context(), "x-real-ip", fmt.Sprintf("10.0.0.%d", i), "x-forwarded-for", "10.1.1.1")
			_, err := from.anonymous().Auth.Login(claim, &dlsmsv1.LoginRequest{StudentId: fmt.Sprintf("nobody-%d-%d", round, i), Password: password})
			return err
		})
		let = append(let, n)
		refilled := int(time.Since(begin)*loginsAMinute/time.Minute) + 1
		if n < loginsAMinute || n > loginsAMinute+refilled {
			continue
		}
		refused(t, failedToRegister(t, from), "RATE_LIMITED")
		s.fromAddress(t, "127.0.0.8").student(t) // others are another matter
		return
	}
	t.Errorf("of %d logins at once from one address, %v were let in, want %d", 4*loginsAMinute, let, loginsAMinute)
}

// failedToRegister registers again and again until that fails, since a token may come back meanwhile, and returns why.
func failedToRegister(t *testing.T, s *system) error {
	t.Helper()
	for range 3 * loginsAMinute {
		_, err := s.anonymous().Auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
			StudentId: fmt.Sprintf("MORE-%d", s.names.Add(1)), Name: "One More", Email: "more@university.example", Password: password,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fromAddress returns the same system for a client at another address of this machine.
func (s *system) fromAddress(t *testing.T, ip string) *system {
	t.Helper()
	other := &system{Stack: s.Stack, log: s.log, db: s.db, secret: s.secret}
	other.names.Store(s.names.Add(1000) - 1000) // a thousand names of its own
	for i := range other.proxied {
		c, err := e2e.DialFrom(s.Addr(), ip)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		other.proxied[i] = c
	}
	return other
}
