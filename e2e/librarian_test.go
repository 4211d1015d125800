package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/stack"
)

// TestLibrariansDay makes the calls of a librarian on a day at work: from the first admin to the
// audit log. It uses no SQL.
func TestLibrariansDay(t *testing.T) {
	t.Parallel()
	env := e2e.NoRateLimits()
	startEverywhere(t, stack.Config{Seed: true, Env: env}, librariansDay)
}

// dayAtWork is a librarian and the branch in their scope.
type dayAtWork struct {
	*system

	t         *testing.T
	admin     student
	librarian student
	branch    string
	seats     []int64 // of the branch, in the order of their labels
}

func librariansDay(t *testing.T, s *system) {
	t.Helper()
	d := &dayAtWork{system: s, t: t, branch: "north"}
	d.appoint()
	d.importSeats()
	d.setHours()
	d.closeReadingRoom()
	d.limitFirstYears()
	d.suspend()
	d.helpAtTheDesk()
	d.readAudit()
}

// run runs a command of the binary on the host of the database, and returns its output.
func (d *dayAtWork) run(args ...string) (string, error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), waitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program("dlsms"), args...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+d.Postgres.AdminURL())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// appoint makes the first admin on the host. The admin opens a branch and appoints its librarian.
func (d *dayAtWork) appoint() {
	d.t.Helper()
	first := d.student(d.t)
	if out, err := d.run("grant", "--role", "admin", "--user", first.User.GetStudentId()); err != nil {
		d.t.Fatalf("grant: %v\n%s", err, out)
	}
	d.admin = d.login(d.t, first.User.GetStudentId(), password)
	if d.admin.User.GetRole() != dlsmsv1.Role_ROLE_ADMIN {
		d.t.Fatalf("the role is %s", d.admin.User.GetRole())
	}
	eventually(d.t, "the token of before the grant ends", func() bool {
		_, err := first.Admin.ListBranches(d.t.Context(), &dlsmsv1.ListBranchesRequest{})
		return e2e.Reason(err) == "TOKEN_REVOKED"
	})

	branch, err := d.admin.Admin.UpsertBranch(d.t.Context(), &dlsmsv1.UpsertBranchRequest{
		Code: d.branch, Name: "North Library", Timezone: "Europe/Berlin",
	})
	if !need(d.admin, "branch", branch, err).GetCreated() {
		d.t.Error("the branch is not new")
	}
	user := d.student(d.t)
	role, err := d.admin.Admin.SetRole(d.t.Context(), &dlsmsv1.SetRoleRequest{
		StudentId: user.User.GetStudentId(), Role: dlsmsv1.Role_ROLE_LIBRARIAN, Branches: []string{d.branch},
		Reason: "new librarian of the branch",
	})
	need(d.admin, "role", role, err)
	d.librarian = d.login(d.t, user.User.GetStudentId(), password)
	_, err = d.librarian.Admin.SetWeeklyHours(d.t.Context(), &dlsmsv1.SetWeeklyHoursRequest{
		Branch: "main", AlwaysOpen: true,
	})
	refused(d.t, err, "BRANCH_REQUIRED")
	_, err = d.librarian.Admin.UpsertBranch(d.t.Context(), &dlsmsv1.UpsertBranchRequest{
		Code: "south", Name: "South Library", Timezone: "Europe/Berlin",
	})
	refused(d.t, err, "ROLE_REQUIRED")
}

// seatFile returns a seat file with 60 seats in the reading room and 5 in the hall.
func seatFile() string {
	var b strings.Builder
	b.WriteString("branch,area,label,amenities,x_cm,y_cm,angle,desk,out_of_service\n")
	for i := range 65 {
		area := "Reading Room"
		if i >= 60 {
			area = "Hall"
		}
		fmt.Fprintf(&b, "north,%s,N-%02d,power_outlet|window,%d,%d,0,D-%d,false\n", area, i+1, 100*(i%10), 100*(i/10), i/4)
	}
	return b.String()
}

// sendFile sends a seat file over HTTP.
func (d *dayAtWork) sendFile(file, query string) (status int, body string) {
	d.t.Helper()
	return d.http(http.MethodPost, "/v1/admin/seats:import?"+query, file)
}

// http sends a request of the librarian, and returns the status and the body of the answer.
func (d *dayAtWork) http(method, path, body string) (status int, answer string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://"+d.HTTPAddr()+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.librarian.Token)
	req.Header.Set("Content-Type", "text/csv")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// importSeats sends a file with faults, then a good one: first as a dry run, then for good. The
// export is the file that was imported.
func (d *dayAtWork) importSeats() {
	d.t.Helper()
	good := seatFile()
	faulty := strings.Replace(good,
		"north,Reading Room,N-03,power_outlet|window,200", "north,Reading Room,N-02,lamp,-2", 1)
	status, answer := d.sendFile(faulty, "dryRun=true")
	if status != http.StatusBadRequest {
		d.t.Fatalf("the faulty file: %d %s", status, answer)
	}
	for _, want := range []string{"line 4", "label", "amenities", "x_cm"} {
		if !strings.Contains(answer, want) {
			d.t.Errorf("the answer to the faulty file does not name %q: %s", want, answer)
		}
	}
	if list := seats(d.t, d.system, &dlsmsv1.GetSeatsRequest{Branch: d.branch}); len(list) != 0 {
		d.t.Errorf("the faulty file made %d seats", len(list))
	}
	var plan struct {
		Created, Updated, Same, Retired int
		Fingerprint                     string
	}
	read := func(status int, answer string) {
		d.t.Helper()
		if err := json.Unmarshal([]byte(answer), &plan); status != http.StatusOK || err != nil {
			d.t.Fatalf("%d %s: %v", status, answer, err)
		}
	}
	read(d.sendFile(good, "dryRun=true"))
	if plan.Created != 65 || plan.Fingerprint == "" {
		d.t.Errorf("the dry run says %+v", plan)
	}
	query := url.Values{"fingerprint": {plan.Fingerprint}, "reason": {"opening"}}
	read(d.sendFile(good, query.Encode()))
	eventually(d.t, "the seats are shown", func() bool {
		list := seats(d.t, d.system, &dlsmsv1.GetSeatsRequest{Branch: d.branch})
		slices.SortFunc(list, func(a, b *dlsmsv1.Seat) int { return strings.Compare(a.GetLabel(), b.GetLabel()) })
		d.seats = nil
		for _, s := range list {
			d.seats = append(d.seats, s.GetId())
		}
		return len(list) == 65
	})
	status, exported := d.http(http.MethodGet, "/v1/admin/seats:export?branch=north", "")
	// The export begins with a byte order mark, for spreadsheet programs.
	if status != http.StatusOK || strings.TrimPrefix(exported, "\ufeff") != good {
		d.t.Errorf("the export is not the file that was imported: %d\n%.2000s", status, exported)
	}
	read(d.sendFile(exported, "dryRun=true"))
	if plan.Same != 65 || plan.Created+plan.Updated+plan.Retired > 0 {
		d.t.Errorf("the export would change seats: %+v", plan)
	}
}

// setHours sets the hours of the week, and closes the branch on two days.
func (d *dayAtWork) setHours() {
	d.t.Helper()
	var week []*dlsmsv1.OpeningHours
	for day := range int32(7) {
		week = append(week, &dlsmsv1.OpeningHours{Weekday: day + 1, Opens: "00:00", Closes: "24:00"})
	}
	hours, err := d.librarian.Admin.SetWeeklyHours(d.t.Context(), &dlsmsv1.SetWeeklyHoursRequest{
		Branch: d.branch, Hours: week, Reason: "open day and night",
	})
	if got := need(d.librarian, "hours", hours, err).GetHours(); len(got) != 7 {
		d.t.Errorf("the hours are %v", got)
	}
	noon := time.Now().Add(6 * 24 * time.Hour).In(berlin(d.t))
	noon = time.Date(noon.Year(), noon.Month(), noon.Day(), 12, 0, 0, 0, noon.Location())
	first, last := noon.Format(time.DateOnly), noon.AddDate(0, 0, 1).Format(time.DateOnly)
	days, err := d.librarian.Admin.SetDays(d.t.Context(), &dlsmsv1.SetDaysRequest{
		Branch: d.branch, FirstDay: first, LastDay: last, Open: []*dlsmsv1.TimeSpan{{Opens: "08:00", Closes: "10:00"}},
		Reason: "exam week",
	})
	if got := need(d.librarian, "days", days, err).GetDays(); len(got) != 2 || got[0].GetDay() != first {
		d.t.Errorf("the days are %v", got)
	}
	visitor := d.student(d.t)
	refused(d.t, visitor.tryToBook(d.seats[0], window{noon, noon.Add(time.Hour)}), "BRANCH_CLOSED")
	morning := noon.Add(-4 * time.Hour)
	visitor.cancel(visitor.book(d.seats[0], window{morning, morning.Add(time.Hour)}).GetId())
	eventually(d.t, "GetBranches shows the days", func() bool {
		for _, b := range d.branches() {
			if b.GetCode() == d.branch {
				return len(b.GetSpecialDays()) == 2 && b.GetSpecialDays()[0].GetDay() == first
			}
		}
		return false
	})
}

func berlin(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func (d *dayAtWork) branches() []*dlsmsv1.Branch {
	d.t.Helper()
	resp, err := d.anonymous().Seats.GetBranches(d.t.Context(), &dlsmsv1.GetBranchesRequest{})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.GetBranches()
}

const bookingsInClosure = 50

// closeReadingRoom closes an area with reservations, after a look at the impact, and opens it again.
func (d *dayAtWork) closeReadingRoom() {
	d.t.Helper()
	w := tomorrow(2, 4)
	visitors := d.users(d.t, bookingsInClosure+2)
	inParallel(d.t, bookingsInClosure, 8, func(i int) error { return student{visitors[i], d.t}.tryToBook(d.seats[i], w) })
	waiting := student{visitors[bookingsInClosure+1], d.t}
	entry := waiting.wait(d.seats[0], w)

	req := &dlsmsv1.CreateClosureRequest{
		Branch: d.branch, Area: "Reading Room", StartTime: timestamppb.New(w.start), EndTime: timestamppb.New(w.end),
		Note:       map[string]string{"en": "The carpet is being replaced.", "de": "Der Teppich wird ersetzt."},
		OnBookings: dlsmsv1.BookingAction_BOOKING_ACTION_CANCEL, RequestId: "carpet", ValidateOnly: true, Reason: "carpet",
	}
	shown, err := d.librarian.Admin.CreateClosure(d.t.Context(), req)
	impact := need(d.librarian, "preview", shown, err).GetImpact()
	if impact.GetReservations() != bookingsInClosure || len(impact.GetFirst()) != bookingsInClosure ||
		impact.GetWaitlistEntries() != 1 || len(impact.GetDays()) == 0 {
		d.t.Errorf("the impact is %d reservations, %d listed, %d entries, days %v", impact.GetReservations(),
			len(impact.GetFirst()), impact.GetWaitlistEntries(), impact.GetDays())
	}

	// In the meantime, another student reserves a seat in the area.
	late := student{visitors[bookingsInClosure], d.t}
	late.book(d.seats[bookingsInClosure], w)
	req.ValidateOnly, req.ExpectedReservations = false, impact.GetReservations()
	_, err = d.librarian.Admin.CreateClosure(d.t.Context(), req)
	refused(d.t, err, "CHANGED_SINCE_CHECK")
	if got := e2e.RefusalOf(err).Metadata["reservations"]; got != "51" {
		d.t.Errorf("the number of reservations is %q, want 51", got)
	}
	req.ExpectedReservations = bookingsInClosure + 1
	made, err := d.librarian.Admin.CreateClosure(d.t.Context(), req)
	closure := need(d.librarian, "closure", made, err).GetClosure()
	again, err := d.librarian.Admin.CreateClosure(d.t.Context(), req)
	if got := need(d.librarian, "repeated closure", again, err).GetClosure().GetId(); got != closure.GetId() {
		d.t.Errorf("the repeated call made closure %d, want %d", got, closure.GetId())
	}

	for i := range bookingsInClosure + 1 {
		told := student{visitors[i], d.t}.subscribe().next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY)
		if told.GetNote()["de"] != "Der Teppich wird ersetzt." ||
			told.GetStatus() != dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED {
			d.t.Errorf("the notification is %v", told)
		}
		if seat := told.GetSuggestedSeat(); seat == nil || seat.GetArea() == "Reading Room" {
			d.t.Errorf("the suggested seat is %v", seat)
		}
		if n := len(student{visitors[i], d.t}.notifications(0)); n != 1 {
			d.t.Errorf("%d notifications, want 1", n)
		}
	}
	eventually(d.t, "the sweep is done", func() bool {
		list, err := d.librarian.Admin.ListClosures(d.t.Context(), &dlsmsv1.ListClosuresRequest{Branch: d.branch})
		sweep := need(d.librarian, "closures", list, err).GetClosures()[0].GetSweep()
		return sweep.GetDone() && sweep.GetEnded() == bookingsInClosure+1 && sweep.GetLeft() == 0
	})
	refused(d.t, late.tryToBook(d.seats[3], w), "SEAT_CLOSED")
	if seat := d.seat(d.seats[3], w); seat.GetSeat().GetAvailable() || len(seat.GetClosures()) != 1 {
		d.t.Errorf("the closed seat is %v", seat)
	}

	lift := &dlsmsv1.UpdateClosureRequest{ClosureId: closure.GetId(), Lift: true, Reason: "the carpet arrived early"}
	lifted, err := d.librarian.Admin.UpdateClosure(d.t.Context(), lift)
	if need(d.librarian, "lift", lifted, err).GetClosure().GetLiftedAt() == nil {
		d.t.Error("the closure is not lifted")
	}
	eventually(d.t, "the waitlist is served", func() bool {
		return waiting.entry(entry.GetId()).GetStatus() == dlsmsv1.WaitlistStatus_WAITLIST_STATUS_OFFERED
	})
	eventually(d.t, "the seats are free", func() bool { return d.seat(d.seats[3], w).GetSeat().GetAvailable() })
	late.book(d.seats[3], w)
}

func (d *dayAtWork) seat(id int64, w window) *dlsmsv1.GetSeatResponse {
	d.t.Helper()
	resp, err := d.anonymous().Seats.GetSeat(d.t.Context(), &dlsmsv1.GetSeatRequest{
		SeatId: id, StartTime: timestamppb.New(w.start), EndTime: timestamppb.New(w.end),
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp
}

// limitFirstYears sets a policy for a group of users.
func (d *dayAtWork) limitFirstYears() {
	d.t.Helper()
	user, other := d.student(d.t), d.student(d.t)
	users, err := d.admin.Admin.UpsertUsers(d.t.Context(), &dlsmsv1.UpsertUsersRequest{
		Users: []*dlsmsv1.UserSpec{{StudentId: user.User.GetStudentId(), Group: proto.String("first-year")}},
	})
	if got := need(d.admin, "users", users, err).GetChanged(); got != 1 {
		d.t.Errorf("%d users changed, want 1", got)
	}
	policy := &dlsmsv1.SetPolicyRequest{Policy: &dlsmsv1.Policy{
		Branch: d.branch, Group: "first-year",
		Rules: &dlsmsv1.PolicyRules{MaxReservation: durationpb.New(time.Hour)},
	}}
	set, err := d.librarian.Admin.SetPolicy(d.t.Context(), policy)
	need(d.librarian, "policy", set, err)
	w := tomorrow(6, 8)
	refused(d.t, user.tryToBook(d.seats[0], w), "WINDOW_NOT_ALLOWED")
	check := &dlsmsv1.CheckReservationRequest{
		SeatId: d.seats[0], StartTime: timestamppb.New(w.start), EndTime: timestamppb.New(w.end),
	}
	found, err := user.Reservations.CheckReservation(d.t.Context(), check)
	if broken := need(user, "check", found, err).GetBroken(); len(broken) != 1 ||
		broken[0].GetReason() != "WINDOW_NOT_ALLOWED" || broken[0].GetMetadata()["max_reservation"] != "3600" {
		d.t.Errorf("the broken rules are %v", broken)
	}
	other.book(d.seats[0], w)
	found, err = user.Reservations.CheckReservation(d.t.Context(), check)
	if broken := need(user, "check", found, err).GetBroken(); len(broken) != 2 || broken[1].GetReason() != "SEAT_TAKEN" {
		d.t.Errorf("the broken rules are %v", broken)
	}
	user.book(d.seats[1], window{w.start, w.start.Add(time.Hour)})
}

// suspend lets a student miss two reservations, and forgives them.
func (d *dayAtWork) suspend() {
	d.t.Helper()
	limit, days := int32(2), int32(30)
	set, err := d.librarian.Admin.SetPolicy(d.t.Context(), &dlsmsv1.SetPolicyRequest{Policy: &dlsmsv1.Policy{
		Branch: d.branch,
		Rules: &dlsmsv1.PolicyRules{
			Grace: durationpb.New(0), StrikeLimit: &limit, StrikeDays: &days, SuspensionDays: []int32{7, 30},
		},
	}})
	need(d.librarian, "policy", set, err)
	user := d.student(d.t)
	for i := range 2 {
		missed := user.book(d.seats[10+i], fromNow(time.Hour)).GetId()
		eventually(d.t, "the reservation is a no-show", func() bool {
			return user.reservation(missed).GetStatus() == dlsmsv1.ReservationStatus_RESERVATION_STATUS_NO_SHOW
		})
	}
	standing := func() *dlsmsv1.GetStandingResponse {
		got, err := user.Reservations.GetStanding(d.t.Context(), &dlsmsv1.GetStandingRequest{})
		return need(user, "standing", got, err)
	}
	eventually(d.t, "the student is suspended", func() bool { return standing().GetSuspendedUntil() != nil })
	got := standing()
	if left := time.Until(got.GetSuspendedUntil().AsTime()); left < 6*24*time.Hour || left > 7*24*time.Hour {
		d.t.Errorf("the suspension ends in %s, want 7 days", left)
	}
	if len(got.GetStrikes()) != 2 || got.GetAskAtBranch() != d.branch {
		d.t.Errorf("the standing is %v", got)
	}
	refused(d.t, user.tryToBook(d.seats[12], tomorrow(1, 2)), "SUSPENDED")

	forgiven, err := d.librarian.Desk.ForgiveStrikes(d.t.Context(), &dlsmsv1.ForgiveStrikesRequest{
		Branch: d.branch, StartTime: timestamppb.New(time.Now().Add(-time.Hour)),
		EndTime: timestamppb.New(time.Now().Add(time.Minute)), Reason: "the scanner was out of order",
	})
	if need(d.librarian, "forgiveness", forgiven, err).GetForgiven() != 2 || forgiven.GetLifted() != 1 {
		d.t.Errorf("the answer is %v", forgiven)
	}
	user.book(d.seats[12], tomorrow(1, 2))
}

// helpAtTheDesk books and cancels for a student.
func (d *dayAtWork) helpAtTheDesk() {
	d.t.Helper()
	user := d.student(d.t)
	found, err := d.librarian.Desk.FindUsers(d.t.Context(), &dlsmsv1.FindUsersRequest{StudentId: user.User.GetStudentId()})
	people := need(d.librarian, "search", found, err).GetUsers()
	if len(people) != 1 || people[0].GetId() != user.id() {
		d.t.Fatalf("found %v", people)
	}
	w := tomorrow(10, 12)
	book := &dlsmsv1.BookForRequest{
		UserId: user.id(), SeatId: d.seats[20], StartTime: timestamppb.New(w.start), EndTime: timestamppb.New(w.end),
		RequestId: "desk-1", Reason: "asked at the desk",
	}
	booked, err := d.librarian.Desk.BookFor(d.t.Context(), book)
	r := need(d.librarian, "booking for a user", booked, err).GetReservation()
	again, err := d.librarian.Desk.BookFor(d.t.Context(), book)
	if got := need(d.librarian, "repeated booking", again, err).GetReservation(); got.GetId() != r.GetId() {
		d.t.Errorf("the repeated call made %v, want %v", got, r)
	}
	sub := user.subscribe()
	told := sub.next(0, dlsmsv1.NotificationKind_NOTIFICATION_KIND_RESERVED_BY_LIBRARY)
	if told.GetReason() != "asked at the desk" || told.GetReservationId() != r.GetId() {
		d.t.Errorf("the notification is %v", told)
	}
	cancelled, err := d.librarian.Desk.CancelFor(d.t.Context(), &dlsmsv1.CancelForRequest{
		ReservationId: r.GetId(), Reason: "the student called",
	})
	if got := need(d.librarian, "cancellation", cancelled, err).GetReservation().GetStatus(); got !=
		dlsmsv1.ReservationStatus_RESERVATION_STATUS_CANCELLED {
		d.t.Errorf("the status is %s", got)
	}
	sub.next(told.GetId(), dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY)
}

// readAudit checks that the audit log has the changes of the day, and that a librarian of another
// branch does not see them.
func (d *dayAtWork) readAudit() {
	d.t.Helper()
	log, err := d.librarian.Admin.ListAudit(d.t.Context(), &dlsmsv1.ListAuditRequest{Branch: d.branch, PageSize: 500})
	var actions []string
	for _, e := range need(d.librarian, "audit log", log, err).GetEntries() {
		actions = append(actions, e.GetAction())
		if e.GetAt() == nil || e.GetObject() == "" || e.GetRole() == "" {
			d.t.Errorf("the entry lacks a field: %v", e)
		}
	}
	for action, want := range map[string]int{
		"UpsertBranch": 1, "SetWeeklyHours": 1, "SetDays": 1, "CreateClosure": 1, "UpdateClosure": 1, "SetPolicy": 2,
		"ForgiveStrikes": 1, "BookFor": 1, "CancelFor": 1, "ImportSeats": 1,
	} {
		n := 0
		for _, a := range actions {
			if a == action {
				n++
			}
		}
		if n != want {
			d.t.Errorf("the audit log has %d entries of %s, want %d", n, action, want)
		}
	}
	if !slices.IsSortedFunc(log.GetEntries(), func(a, b *dlsmsv1.AuditEntry) int { return int(b.GetId() - a.GetId()) }) {
		d.t.Error("the audit log is not sorted, newest first")
	}
	user := d.student(d.t)
	role, err := d.admin.Admin.SetRole(d.t.Context(), &dlsmsv1.SetRoleRequest{
		StudentId: user.User.GetStudentId(), Role: dlsmsv1.Role_ROLE_LIBRARIAN, Branches: []string{"science"},
	})
	need(d.admin, "role", role, err)
	elsewhere := d.login(d.t, user.User.GetStudentId(), password)
	_, err = elsewhere.Admin.ListAudit(d.t.Context(), &dlsmsv1.ListAuditRequest{Branch: d.branch})
	refused(d.t, err, "BRANCH_REQUIRED")
	log, err = elsewhere.Admin.ListAudit(d.t.Context(), &dlsmsv1.ListAuditRequest{})
	for _, e := range need(elsewhere, "audit log", log, err).GetEntries() {
		if e.GetBranch() != "science" {
			d.t.Errorf("a librarian of science sees %v", e)
		}
	}
}
