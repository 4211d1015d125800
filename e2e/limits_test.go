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

// The limits of the system under test. They are low, so that a test can exhaust them.
const (
	callsAMinute  = 5
	loginsAMinute = 20
	failedLogins  = 3
)

// strictSettings returns the settings of a system with these limits and short times.
func strictSettings() map[string]string {
	return map[string]string{
		"RATE_LIMIT_PER_MINUTE":      fmt.Sprint(callsAMinute),
		"AUTH_RATE_LIMIT_PER_MINUTE": fmt.Sprint(loginsAMinute),
		"LOGIN_FAILURE_LIMIT":        fmt.Sprint(failedLogins),
		"GRACE_MINUTES":              "0.01",
		"CLAIM_MINUTES":              "0.01",
		"MAX_WAITLIST":               "1",
		"PRESENCE_SECRET":            "",
	}
}

// callsAtOnce is how many calls of a client run at the same time: some on each replica. More would
// take the processor from Redis on a small machine, and the replicas would count alone.
const callsAtOnce = 6

// admitted makes concurrent calls, and returns how many the rate limit let through.
func admitted(t *testing.T, calls int, call func(i int) error) int {
	t.Helper()
	var passed atomic.Int64
	inParallel(t, calls, callsAtOnce, func(i int) error {
		switch err := call(i); e2e.Reason(err) {
		case "RATE_LIMITED":
			return e2e.CheckRefusal(err, "RATE_LIMITED")
		case "BAD_CREDENTIALS", "OVERLOADED", "": // the limit let the call through
			passed.Add(1)
			return nil
		default:
			return err
		}
	})
	return int(passed.Load())
}

// sharedLimitTimeout bounds how long a test waits until the replicas share a limit. On a busy
// machine Redis may be too slow for a while, and then each replica counts alone.
const sharedLimitTimeout = 2 * time.Minute

// limitsCallsOfUser checks that the three replicas share the rate limit of a user. A replica that
// finds Redis too slow counts calls alone for a second. So the check is repeated until it succeeds
// or sharedLimitTimeout is over. If the replicas never shared the limit, they would let three times
// as many calls through each time, and the check would fail.
func limitsCallsOfUser(t *testing.T, s *system) {
	var replicas []grpc.ClientConnInterface
	for i := range s.copies() {
		replicas = append(replicas, conn(t, s, i))
	}
	counts := []int{}
	for round, begun := 0, time.Now(); round == 0 || time.Since(begun) < sharedLimitTimeout; round++ {
		from := s.fromAddress(t, fmt.Sprintf("127.0.1.%d", round)) // a new address, since registrations are limited too
		u := from.student(t)
		n := admitted(t, 8*callsAMinute, func(i int) error {
			_, err := u.WithConn(replicas[i%len(replicas)]).Reservations.GetReservations(
				t.Context(), &dlsmsv1.GetReservationsRequest{},
			)
			return err
		})
		counts = append(counts, n)
		if n != callsAMinute {
			continue
		}
		separate := false
		for _, r := range replicas {
			_, err := u.WithConn(r).Notify.GetWaitlist(t.Context(), &dlsmsv1.GetWaitlistRequest{})
			if separate = separate || err == nil; separate {
				break
			}
			refused(t, err, "RATE_LIMITED")
			if wait := e2e.RefusalOf(err).RetryAfter; wait > time.Minute/callsAMinute {
				t.Errorf("the next call is allowed in %s", wait)
			}
		}
		if separate {
			continue
		}
		// This limit counts the calls that one user makes to methods that need a token. So public
		// methods, VerifyToken and calls of other users still succeed.
		if _, err := u.Seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{}); err != nil {
			t.Error(err)
		}
		if _, err := u.Auth.VerifyToken(t.Context(), &dlsmsv1.VerifyTokenRequest{Token: u.Token}); err != nil {
			t.Error(err)
		}
		from.student(t).reservations(0)
		return
	}
	t.Errorf("of %d calls over three replicas, %v passed, want %d", 8*callsAMinute, counts, callsAMinute)
}

func limitsFailedLogins(t *testing.T, s *system) {
	from := s.fromAddress(t, "127.0.0.6")
	u, other := from.student(t), from.student(t)
	login := func(id, password string) error {
		_, err := u.Auth.Login(t.Context(), &dlsmsv1.LoginRequest{StudentId: id, Password: password})
		return err
	}
	var err error
	failed := 0
	for ; failed <= 4*failedLogins; failed++ { // three times the limit if each replica counts alone
		if err = login(u.User.GetStudentId(), "a wrong password"); e2e.Reason(err) != "BAD_CREDENTIALS" {
			break
		}
	}
	refused(t, err, "RATE_LIMITED")
	if failed < failedLogins {
		t.Errorf("refused after %d failed logins", failed)
	}
	// The limit also refuses a login with the right password, and with the student id in lower
	// case.
	refused(t, login("e2e"+u.User.GetStudentId()[3:], u.Password), "RATE_LIMITED")
	if err := login(other.User.GetStudentId(), other.Password); err != nil {
		t.Errorf("another student: %v", err)
	}
}

// limitsLoginsOfAddress checks that the limit counts the logins of the client address that nginx
// sees. An address in a header must have no effect. Like limitsCallsOfUser, the check is repeated
// until the replicas share the limit.
func limitsLoginsOfAddress(t *testing.T, s *system) {
	counts := []int{}
	for round, begun := 0, time.Now(); round == 0 || time.Since(begun) < sharedLimitTimeout; round++ {
		from := s.fromAddress(t, fmt.Sprintf("127.0.2.%d", round))
		begin := time.Now()
		n := admitted(t, 4*loginsAMinute, func(i int) error {
			withHeaders := metadata.AppendToOutgoingContext(
				t.Context(), "x-real-ip", fmt.Sprintf("10.0.0.%d", i), "x-forwarded-for", "10.1.1.1",
			)
			_, err := from.anonymous().Auth.Login(
				withHeaders, &dlsmsv1.LoginRequest{StudentId: fmt.Sprintf("unknown-%d-%d", round, i), Password: password},
			)
			return err
		})
		counts = append(counts, n)
		refilled := int(time.Since(begin)*loginsAMinute/time.Minute) + 1
		if n < loginsAMinute || n > loginsAMinute+refilled {
			continue
		}
		refused(t, registerUntilRefused(t, from), "RATE_LIMITED")
		s.fromAddress(t, "127.0.0.8").student(t) // another address is not limited
		return
	}
	t.Errorf("of %d logins from one address, %v passed, want %d", 4*loginsAMinute, counts, loginsAMinute)
}

// registerUntilRefused registers users until a call fails, and returns the error. The limit may
// admit some calls first, because it refills with time.
func registerUntilRefused(t *testing.T, s *system) error {
	t.Helper()
	for range 3 * loginsAMinute {
		_, err := s.anonymous().Auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
			StudentId: fmt.Sprintf("MORE-%d", s.names.Add(1)),
			Name:      "One More",
			Email:     "more@university.example",
			Password:  password,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fromAddress returns the same system, for clients at another address of this machine.
func (s *system) fromAddress(t *testing.T, ip string) *system {
	t.Helper()
	return s.view(t, s.protocol, ip)
}
