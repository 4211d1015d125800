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

// access says which callers may make a call.
type access int

const (
	denied    access = iota // the zero rule denies every call
	public                  // every client; a token is ignored
	signedIn                // every client with a valid token
	staff                   // a client with a valid token of RoleStaff, RoleLibrarian or RoleAdmin
	librarian               // a client with a valid token of RoleLibrarian or RoleAdmin
	admin                   // a client with a valid token of RoleAdmin
	arrivals                // a program with a service key of this scope
	reports                 // librarian, and a program with a service key of this scope
	screens                 // a program with a service key of the scope screen
)

// class is the class of slots that a call waits for.
type class int

const (
	noSlot class = iota // the call works in memory, or is bounded elsewhere
	read                // the call reads rows in Postgres
	book                // the call writes rows in Postgres
	bulk                // the call reads or writes the seats of whole branches
	report              // the call makes a report
	export              // the stream exports reservations
	scan                // the call reads a row in Postgres for a client without a token
)

// quota is the rate limit that a call counts against.
type quota int

const (
	unlimited       quota = iota
	perUser               // the setting RATE_LIMIT_PER_MINUTE
	perAddress            // the setting AUTH_RATE_LIMIT_PER_MINUTE
	scansPerAddress       // the same setting, counted apart from perAddress
	perKey                // keysPerMinute, for programs with a service key
	perCaller             // perUser for a user, perKey for a program
)

// rule holds the conditions for calls of one method.
type rule struct {
	access access
	class  class
	quota  quota
	// knowsWatcher is true for a public method that answers a user differently: see Watcher.
	knowsWatcher bool
	// checksUser is true if the method's own transaction checks that the token belongs to its user.
	// The edge then does not look up the user.
	checksUser bool
	// noDeadline is true if the method waits only for a refresh, which has a deadline of its own.
	// The edge then sets no deadline.
	noDeadline bool
	// duringStartup is true if the method also answers while the server starts and drains.
	duringStartup bool
}

// policy lists the rule of every method. If a registered method has no entry, the server does not
// start.
var policy = map[string]rule{
	dlsmsv1.AuthService_Register_FullMethodName:       {access: public, quota: perAddress},
	dlsmsv1.AuthService_Login_FullMethodName:          {access: public, quota: perAddress},
	dlsmsv1.AuthService_VerifyToken_FullMethodName:    {access: public},
	dlsmsv1.AuthService_GetAccount_FullMethodName:     {access: signedIn, class: read, quota: perUser},
	dlsmsv1.AuthService_ChangePassword_FullMethodName: {access: signedIn, quota: perUser},
	dlsmsv1.AuthService_Logout_FullMethodName:         {access: signedIn, class: book, quota: perUser},
	dlsmsv1.AuthService_ExportMyData_FullMethodName:   {access: signedIn, quota: perUser},
	dlsmsv1.AuthService_CloseMyAccount_FullMethodName: {access: signedIn, quota: perUser},

	dlsmsv1.SeatService_GetBranches_FullMethodName:  {access: public},
	dlsmsv1.SeatService_GetFloorPlan_FullMethodName: {access: public, noDeadline: true},
	dlsmsv1.SeatService_GetSeats_FullMethodName:     {access: public, noDeadline: true},
	dlsmsv1.SeatService_GetSeat_FullMethodName:      {access: public, noDeadline: true},
	dlsmsv1.SeatService_GetSeatByLabel_FullMethodName: {
		access: public, class: read, knowsWatcher: true,
	},
	dlsmsv1.SeatService_WatchSeats_FullMethodName: {access: public},

	dlsmsv1.ReservationService_CreateReservation_FullMethodName: {
		access: signedIn, class: book, quota: perUser, checksUser: true,
	},
	dlsmsv1.ReservationService_CheckReservation_FullMethodName:  {access: signedIn, class: read, quota: perUser},
	dlsmsv1.ReservationService_GetStanding_FullMethodName:       {access: signedIn, class: read, quota: perUser},
	dlsmsv1.ReservationService_GetReservation_FullMethodName:    {access: signedIn, class: read, quota: perUser},
	dlsmsv1.ReservationService_GetReservations_FullMethodName:   {access: signedIn, class: read, quota: perUser},
	dlsmsv1.ReservationService_CancelReservation_FullMethodName: {access: signedIn, class: book, quota: perUser},
	dlsmsv1.ReservationService_RecordScan_FullMethodName:        {access: public, class: scan, quota: scansPerAddress},
	dlsmsv1.ReservationService_CheckIn_FullMethodName:           {access: signedIn, class: book, quota: perUser},
	dlsmsv1.ReservationService_CheckOut_FullMethodName:          {access: signedIn, class: book, quota: perUser},
	dlsmsv1.ReservationService_ExtendReservation_FullMethodName: {access: signedIn, class: book, quota: perUser},

	dlsmsv1.NotifyService_JoinWaitlist_FullMethodName:     {access: signedIn, class: book, quota: perUser},
	dlsmsv1.NotifyService_GetWaitlist_FullMethodName:      {access: signedIn, class: read, quota: perUser},
	dlsmsv1.NotifyService_LeaveWaitlist_FullMethodName:    {access: signedIn, class: book, quota: perUser},
	dlsmsv1.NotifyService_ClaimOffer_FullMethodName:       {access: signedIn, class: book, quota: perUser},
	dlsmsv1.NotifyService_GetNotifications_FullMethodName: {access: signedIn, class: read, quota: perUser},
	dlsmsv1.NotifyService_Subscribe_FullMethodName:        {access: signedIn, quota: perUser},

	dlsmsv1.AdminService_ListBranches_FullMethodName:    {access: librarian, class: read, quota: perUser},
	dlsmsv1.AdminService_UpsertBranch_FullMethodName:    {access: admin, class: book, quota: perUser},
	dlsmsv1.AdminService_UpsertArea_FullMethodName:      {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_UpsertSeats_FullMethodName:     {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_RetireSeats_FullMethodName:     {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_ImportSeats_FullMethodName:     {access: librarian, class: bulk, quota: perUser},
	dlsmsv1.AdminService_ExportSeats_FullMethodName:     {access: librarian, class: bulk, quota: perUser},
	dlsmsv1.AdminService_SetWeeklyHours_FullMethodName:  {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_SetDays_FullMethodName:         {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_CreateClosure_FullMethodName:   {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_UpdateClosure_FullMethodName:   {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_ListClosures_FullMethodName:    {access: librarian, class: read, quota: perUser},
	dlsmsv1.AdminService_ListPolicies_FullMethodName:    {access: librarian, class: read, quota: perUser},
	dlsmsv1.AdminService_SetPolicy_FullMethodName:       {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_SetAnnouncement_FullMethodName: {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_SetRole_FullMethodName:         {access: admin, class: book, quota: perUser},
	dlsmsv1.AdminService_UpsertUsers_FullMethodName:     {access: admin, class: book, quota: perUser},
	dlsmsv1.AdminService_CreateKey_FullMethodName:       {access: admin, class: book, quota: perUser},
	dlsmsv1.AdminService_RevokeKey_FullMethodName:       {access: admin, class: book, quota: perUser},
	dlsmsv1.AdminService_ListKeys_FullMethodName:        {access: admin, class: read, quota: perUser},
	dlsmsv1.AdminService_UpsertScreen_FullMethodName:    {access: librarian, class: book, quota: perUser},
	dlsmsv1.AdminService_ListScreens_FullMethodName:     {access: librarian, class: read, quota: perUser},
	dlsmsv1.AdminService_MakeLabels_FullMethodName:      {access: librarian, class: bulk, quota: perUser},
	dlsmsv1.AdminService_ListAudit_FullMethodName:       {access: librarian, class: read, quota: perUser},

	dlsmsv1.DeskService_FindUsers_FullMethodName:       {access: staff, class: read, quota: perUser},
	dlsmsv1.DeskService_GetUserOverview_FullMethodName: {access: staff, class: read, quota: perUser},
	dlsmsv1.DeskService_ListArrivals_FullMethodName:    {access: staff, class: read, quota: perUser},
	dlsmsv1.DeskService_WatchArrivals_FullMethodName:   {access: staff, quota: perUser},
	dlsmsv1.DeskService_BookFor_FullMethodName:         {access: staff, class: book, quota: perUser},
	dlsmsv1.DeskService_CancelFor_FullMethodName:       {access: staff, class: book, quota: perUser},
	dlsmsv1.DeskService_CheckInFor_FullMethodName:      {access: staff, class: book, quota: perUser},
	dlsmsv1.DeskService_CheckOutFor_FullMethodName:     {access: staff, class: book, quota: perUser},
	dlsmsv1.DeskService_ForgiveStrikes_FullMethodName:  {access: librarian, class: book, quota: perUser},
	dlsmsv1.DeskService_SetSuspension_FullMethodName:   {access: librarian, class: book, quota: perUser},
	dlsmsv1.DeskService_RecordArrival_FullMethodName:   {access: arrivals, class: book, quota: perKey},
	dlsmsv1.DeskService_CloseUser_FullMethodName:       {access: admin, class: book, quota: perUser},

	dlsmsv1.ReportService_GetUsage_FullMethodName:           {access: reports, class: report, quota: perCaller},
	dlsmsv1.ReportService_ExportReservations_FullMethodName: {access: reports, class: export, quota: perCaller},
	dlsmsv1.ScreenService_WatchScreen_FullMethodName:        {access: screens, quota: perKey},

	"/grpc.health.v1.Health/Check":                                   {access: public, duringStartup: true},
	"/grpc.health.v1.Health/List":                                    {access: public, duringStartup: true},
	"/grpc.health.v1.Health/Watch":                                   {access: public, duringStartup: true},
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {access: public, duringStartup: true},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {access: public, duringStartup: true},
}

// CheckPolicy fails if a method of the services has no rule.
func CheckPolicy(services map[string]grpc.ServiceInfo) error {
	var missing []string
	for _, service := range slices.Sorted(maps.Keys(services)) {
		for _, m := range services[service].Methods {
			if name := "/" + service + "/" + m.Name; policy[name].access == denied {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the policy does not say who may call %s", strings.Join(missing, ", "))
	}
	return nil
}

// allows returns nil if the caller may call a method with this rule. The method must not be public.
// A program with a service key may call only methods that name a scope of its key.
func (r rule) allows(c identity.Caller) error {
	if c.Key != nil {
		if scope := r.scope(); scope != "" && c.Allows(scope) {
			return nil
		}
		return r.refusal()
	}
	switch r.access {
	case signedIn:
		return nil
	case staff:
		if c.Role.StaffRole() {
			return nil
		}
	case librarian, reports:
		if c.Role == library.RoleLibrarian || c.Role == library.RoleAdmin {
			return nil
		}
	case admin:
		if c.Role == library.RoleAdmin {
			return nil
		}
	case arrivals, screens, denied, public:
	}
	return r.refusal()
}

// scope returns the scope that a service key needs for calls of a method with this rule. It returns
// "" if only users may make them.
func (r rule) scope() library.KeyScope {
	switch r.access {
	case arrivals:
		return library.ScopeArrivals
	case reports:
		return library.ScopeReports
	case screens:
		return library.ScopeScreen
	case denied, public, signedIn, staff, librarian, admin:
	}
	return ""
}

// refusal returns the error for a caller that may not call a method with this rule.
func (r rule) refusal() error {
	switch r.access {
	case signedIn:
		return library.RoleRequired(library.RoleStudent)
	case staff:
		return library.RoleRequired(library.RoleStaff)
	case librarian, reports:
		return library.RoleRequired(library.RoleLibrarian)
	case admin:
		return library.RoleRequired(library.RoleAdmin)
	case arrivals, screens:
		return library.ScopeRequired(r.scope())
	case denied, public:
	}
	return library.ErrRoleRequired
}

// Public reports whether calls of a method need no token.
func Public(method string) bool { return policy[method].access == public }
