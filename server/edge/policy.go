package edge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/identity"
)

// who may make a call.
type who int

const (
	nobody    who = iota // the zero rule denies
	public               // anyone; a token is not looked at
	signedIn             // whoever has a good token
	librarian            // signed in with RoleLibrarian
)

// class is which slots a call waits for before it may work.
type class int

const (
	free class = iota // none: it works in memory, or has its own bound
	read              // looks at rows of Postgres
	book              // writes
)

// quota is which rate limit a call counts against.
type quota int

const (
	unlimited  quota = iota
	perUser          // RATE_LIMIT_PER_MINUTE
	perAddress       // AUTH_RATE_LIMIT_PER_MINUTE
)

// rule says what it takes to make a call.
type rule struct {
	who   who
	class class
	quota quota
	// identified is true for what checks in its own transaction whether the token is its user's: no look-up of the user precedes it.
	identified bool
	// brief is true for what waits for nothing but a look at the log, which has a deadline of its own: none is set for each call.
	brief bool
	// always is true for what answers while the server starts and drains as well.
	always bool
}

// policy is the one place that says who may call what. A registered method without an entry stops the server from starting.
var policy = map[string]rule{
	dlsmsv1.AuthService_Register_FullMethodName:       {who: public, quota: perAddress},
	dlsmsv1.AuthService_Login_FullMethodName:          {who: public, quota: perAddress},
	dlsmsv1.AuthService_VerifyToken_FullMethodName:    {who: public},
	dlsmsv1.AuthService_ChangePassword_FullMethodName: {who: signedIn, quota: perUser},
	dlsmsv1.AuthService_Logout_FullMethodName:         {who: signedIn, class: book, quota: perUser},

	dlsmsv1.SeatService_GetBranches_FullMethodName: {who: public},
	dlsmsv1.SeatService_GetSeats_FullMethodName:    {who: public, brief: true},
	dlsmsv1.SeatService_GetSeat_FullMethodName:     {who: public, brief: true},
	dlsmsv1.SeatService_WatchSeats_FullMethodName:  {who: public},

	dlsmsv1.ReservationService_CreateReservation_FullMethodName: {who: signedIn, class: book, quota: perUser, identified: true},
	dlsmsv1.ReservationService_GetReservation_FullMethodName:    {who: signedIn, class: read, quota: perUser},
	dlsmsv1.ReservationService_GetReservations_FullMethodName:   {who: signedIn, class: read, quota: perUser},
	dlsmsv1.ReservationService_CancelReservation_FullMethodName: {who: signedIn, class: book, quota: perUser},
	dlsmsv1.ReservationService_CheckIn_FullMethodName:           {who: signedIn, class: book, quota: perUser},
	dlsmsv1.ReservationService_CheckOut_FullMethodName:          {who: signedIn, class: book, quota: perUser},
	dlsmsv1.ReservationService_ExtendReservation_FullMethodName: {who: signedIn, class: book, quota: perUser},

	dlsmsv1.NotifyService_JoinWaitlist_FullMethodName:     {who: signedIn, class: book, quota: perUser},
	dlsmsv1.NotifyService_GetWaitlist_FullMethodName:      {who: signedIn, class: read, quota: perUser},
	dlsmsv1.NotifyService_LeaveWaitlist_FullMethodName:    {who: signedIn, class: book, quota: perUser},
	dlsmsv1.NotifyService_ClaimOffer_FullMethodName:       {who: signedIn, class: book, quota: perUser},
	dlsmsv1.NotifyService_GetNotifications_FullMethodName: {who: signedIn, class: read, quota: perUser},
	dlsmsv1.NotifyService_Subscribe_FullMethodName:        {who: signedIn, quota: perUser},

	"/grpc.health.v1.Health/Check":                                   {who: public, always: true},
	"/grpc.health.v1.Health/List":                                    {who: public, always: true},
	"/grpc.health.v1.Health/Watch":                                   {who: public, always: true},
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {who: public, always: true},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {who: public, always: true},
}

// CheckPolicy fails if a method of the services has no rule.
func CheckPolicy(services map[string]grpc.ServiceInfo) error {
	var missing []string
	for _, service := range slices.Sorted(maps.Keys(services)) {
		for _, m := range services[service].Methods {
			if name := "/" + service + "/" + m.Name; policy[name].who == nobody {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the policy does not say who may call %s", strings.Join(missing, ", "))
	}
	return nil
}

// allows returns nil if the caller may make calls of this rule, which are not public.
func (r rule) allows(c identity.Caller) error {
	switch r.who {
	case signedIn:
		return nil
	case librarian:
		if c.Role == library.RoleLibrarian {
			return nil
		}
	case nobody, public:
	}
	return library.ErrRoleRequired
}
