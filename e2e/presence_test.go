package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/labels"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/store/storetest"
)

const screenScope = dlsmsv1.KeyScope_KEY_SCOPE_SCREEN

// require sets the rule of check-in for a branch.
func (s student) require(branch string, rule dlsmsv1.CheckInRule) {
	s.t.Helper()
	set, err := s.admin().SetPolicy(s.t.Context(), &dlsmsv1.SetPolicyRequest{
		Policy: &dlsmsv1.Policy{Branch: branch, Rules: &dlsmsv1.PolicyRules{CheckIn: rule}},
	})
	need(s, "policy", set, err)
}

// setScreen adds a screen to a branch, or changes it.
func (s student) setScreen(branch, name string, off bool) *dlsmsv1.Screen {
	s.t.Helper()
	set, err := s.admin().UpsertScreen(s.t.Context(), &dlsmsv1.UpsertScreenRequest{Branch: branch, Name: name, Off: &off})
	return need(s, "screen", set, err).GetScreen()
}

// tryCodes checks in with codes, and returns the reservation and the error of the call.
func (s student) tryCodes(id int64, code, label string) (*dlsmsv1.Reservation, error) {
	resp, err := s.Reservations.CheckIn(s.t.Context(), &dlsmsv1.CheckInRequest{
		ReservationId: id, PresenceCode: code, LabelCode: label,
	})
	return resp.GetReservation(), err
}

// display is a screen that follows its state, as a program on a screen does.
type display struct {
	t      *testing.T
	stream dlsmsv1.ScreenService_WatchScreenClient
	state  *dlsmsv1.ScreenState
	ahead  time.Duration // of the server's clock
}

// screenOf opens the stream of a screen with a service key, and reads its first state.
func (s *system) screenOf(t *testing.T, key, name string) *display {
	t.Helper()
	return openScreen(t, s.anonymous().WithToken(key), name)
}

// screenAt does the same for the only screen of a branch, over a connection.
func screenAt(t *testing.T, over grpc.ClientConnInterface, key string) *display {
	t.Helper()
	return openScreen(t, e2e.Anonymous(over).WithToken(key), "")
}

func openScreen(t *testing.T, key *e2e.Client, name string) *display {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*waitTimeout)
	t.Cleanup(cancel)
	stream, err := dlsmsv1.NewScreenServiceClient(key.Conn()).
		WatchScreen(ctx, &dlsmsv1.WatchScreenRequest{Screen: name})
	if err != nil {
		t.Fatal(err)
	}
	d := &display{t: t, stream: stream}
	d.next()
	return d
}

// next reads the next state.
func (d *display) next() {
	d.t.Helper()
	for {
		m, err := d.stream.Recv()
		if err != nil {
			d.t.Fatal(err)
		}
		if m.GetState() != nil {
			d.state, d.ahead = m.GetState(), time.Until(m.GetServerTime().AsTime())
			return
		}
	}
}

// shown returns what the screen shows now, or nil if it has no valid code.
func (d *display) shown() (shown *dlsmsv1.ScreenCode) { return d.at(time.Now().Add(d.ahead)) }

func (d *display) at(now time.Time) (shown *dlsmsv1.ScreenCode) {
	for _, c := range d.state.GetCodes() {
		if !now.Before(c.GetValidFrom().AsTime()) && now.Before(c.GetValidUntil().AsTime()) {
			shown = c
		}
	}
	return shown
}

// presenceBranch is a branch with the screen Entrance, whose service key is key.
type presenceBranch struct {
	branch
	librarian student
	key       string
}

func (s *system) presenceBranch(t *testing.T, seats int) presenceBranch {
	t.Helper()
	b := presenceBranch{branch: s.branch(t, seats), librarian: s.withRole(t, adminRole)}
	b.librarian.setScreen(b.code, "Entrance", false)
	_, b.key = b.librarian.key(b.code, screenScope)
	return b
}

// TestCheckInWithAScreen is the day of a student in a branch with a screen.
func TestCheckInWithAScreen(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, s *system) {
		b := s.presenceBranch(t, 3)
		b.librarian.require(b.code, dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN)
		a, friend := s.student(t), s.student(t)
		r := a.book(b.seats[0], fromNow(time.Hour))
		if r.GetCheckIn() != dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN {
			t.Errorf("the reservation asks for %v", r.GetCheckIn())
		}
		_, err := a.tryCodes(r.GetId(), "", "")
		refused(t, err, "PRESENCE_REQUIRED")
		if got := e2e.RefusalOf(err).Metadata["check_in"]; got != "SCREEN" {
			t.Errorf("the metadata asks for %q", got)
		}
		screen := s.screenOf(t, b.key, "")
		if screen.state.GetName() != "Entrance" || screen.state.GetBranch().GetSeatCount() != 3 ||
			len(screen.state.GetCodes()) != 21 {
			t.Errorf("the screen shows %v", screen.state)
		}
		_, err = a.tryCodes(r.GetId(), wrongDigits(screen), "")
		refused(t, err, "PRESENCE_INVALID")
		got, err := a.tryCodes(r.GetId(), screen.shown().GetCode(), "")
		got = need(a, "check-in", got, err)
		if got.GetProof() != dlsmsv1.Proof_PROOF_SCREEN || got.GetScreen() != "Entrance" {
			t.Errorf("the proof is %v of %q", got.GetProof(), got.GetScreen())
		}
		// Another user in the room reads the same picture.
		other := friend.book(b.seats[1], fromNow(time.Hour))
		if _, err := friend.tryCodes(other.GetId(), screen.shown().GetDigits(), ""); err != nil {
			t.Error(err)
		}
		overview, err := b.librarian.desk().GetUserOverview(t.Context(), &dlsmsv1.GetUserOverviewRequest{UserId: a.id()})
		seen := need(b.librarian, "overview", overview, err).GetReservations()
		if len(seen) != 1 || seen[0].GetProof() != dlsmsv1.Proof_PROOF_SCREEN || seen[0].GetScreen() != "Entrance" {
			t.Errorf("the desk sees %v", seen)
		}
		a.checkOut(r.GetId())
		usage, err := b.librarian.Report.GetUsage(t.Context(), &dlsmsv1.GetUsageRequest{
			// The test may run at midnight, and the days of the report are those in Berlin.
			From: time.Now().AddDate(0, 0, -1).Format(time.DateOnly), To: time.Now().AddDate(0, 0, 1).Format(time.DateOnly),
			By: dlsmsv1.UsageBy_USAGE_BY_AREA, Branch: b.code,
		})
		rows := need(b.librarian, "report", usage, err).GetRows()
		if len(rows) != 1 || rows[0].GetCheckIns().GetScreen() != 2 || rows[0].GetCheckIns().GetTotal() != 2 {
			t.Errorf("the report has %v", rows)
		}
	})
}

// scan scans a code on a phone without a token.
func (s *system) scan(t *testing.T, code string) (*dlsmsv1.RecordScanResponse, error) {
	t.Helper()
	return s.anonymous().Reservations.RecordScan(t.Context(), &dlsmsv1.RecordScanRequest{Code: code})
}

// TestScanBeforeTheLogin scans the screen on a phone without a token, logs in, and checks in. Codes
// of earlier times, which follow from the secret, stand for a login that takes long.
func TestScanBeforeTheLogin(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, s *system) {
		b := s.presenceBranch(t, 3)
		b.librarian.require(b.code, dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN)
		screen := s.screenOf(t, b.key, "")
		scan, err := s.scan(t, screen.shown().GetCode())
		if err != nil {
			t.Fatal(err)
		}
		if scan.GetBranch() != b.code || scan.GetScreen() != "Entrance" {
			t.Errorf("the scan is of %q in %q", scan.GetScreen(), scan.GetBranch())
		}
		if valid := time.Until(scan.GetValidUntil().AsTime()) - screen.ahead; valid < time.Minute || valid > 4*time.Minute {
			t.Errorf("the scan is valid for %v", valid)
		}
		a := s.student(t)
		r := a.book(b.seats[0], fromNow(time.Hour))
		got, err := a.tryCodes(r.GetId(), scan.GetScanCode(), "")
		got = need(a, "check-in", got, err)
		if got.GetProof() != dlsmsv1.Proof_PROOF_SCREEN || got.GetScreen() != "Entrance" {
			t.Errorf("the proof is %v of %q", got.GetProof(), got.GetScreen())
		}
		// Another user may use the same scan, as all users in the room may use the same picture.
		other := s.student(t)
		if _, err := other.tryCodes(other.book(b.seats[1], fromNow(time.Hour)).GetId(), scan.GetScanCode(), ""); err != nil {
			t.Error(err)
		}

		entrance := library.Screen{ID: b.librarian.setScreen(b.code, "Entrance", false).GetId()}
		codes := s.presence(t)
		ago := func(d time.Duration) (code, scan string) {
			at := time.Now().Add(screen.ahead - d)
			code = codes.Show(entrance.ID, at, 0)[0].Code
			made, err := codes.Scan(library.ScreenNow{Screen: entrance, Now: at}, code)
			if err != nil {
				t.Fatal(err)
			}
			return code, made.Code
		}
		slow := s.student(t)
		r = slow.book(b.seats[2], fromNow(time.Hour))
		_, expired := ago(4 * time.Minute)
		code, valid := ago(time.Minute)
		_, err = s.scan(t, code)
		refused(t, err, "PRESENCE_EXPIRED")
		for _, old := range []string{code, expired} {
			_, err = slow.tryCodes(r.GetId(), old, "")
			refused(t, err, "PRESENCE_EXPIRED")
		}
		got, err = slow.tryCodes(r.GetId(), valid, "")
		if need(slow, "check-in", got, err).GetProof() != dlsmsv1.Proof_PROOF_SCREEN {
			t.Errorf("the proof is %v", got.GetProof())
		}

		for _, code := range []string{scan.GetScanCode(), screen.shown().GetDigits(), s.label(t, b, b.seats[0])} {
			_, err = s.scan(t, code)
			refused(t, err, "PRESENCE_INVALID")
		}
	})
}

// wrongDigits returns digits that the screen does not show within five minutes.
func wrongDigits(d *display) string {
	for _, digits := range []string{"00000000", "11111111", "22222222"} {
		wrong := true
		for _, c := range d.state.GetCodes() {
			wrong = wrong && c.GetDigits() != digits
		}
		if wrong {
			return digits
		}
	}
	return "33333333"
}

// TestSitDownByLabel opens a seat by its label, reserves it from now on, and checks in with the label.
func TestSitDownByLabel(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, s *system) {
		b := s.presenceBranch(t, 2)
		b.librarian.require(b.code, dlsmsv1.CheckInRule_CHECK_IN_RULE_SEAT)
		first, second := s.label(t, b, b.seats[0]), s.label(t, b, b.seats[1])
		a := s.student(t)
		open := func(c *e2e.Client, code string, want dlsmsv1.SeatAction) *dlsmsv1.GetSeatByLabelResponse {
			t.Helper()
			got, err := c.Seats.GetSeatByLabel(t.Context(), &dlsmsv1.GetSeatByLabelRequest{Code: code})
			if err != nil || got.GetAction() != want {
				t.Errorf("the label opens %v, want %v: %v", got, want, err)
			}
			return got
		}
		got := open(s.anonymous(), first, dlsmsv1.SeatAction_SEAT_ACTION_SIT_DOWN)
		if got.GetSeat().GetId() != b.seats[0] {
			t.Errorf("the label names seat %d, want %d", got.GetSeat().GetId(), b.seats[0])
		}
		r := a.book(b.seats[0], fromNow(time.Hour))
		if got := open(a.Client, first, dlsmsv1.SeatAction_SEAT_ACTION_CHECK_IN); got.GetReservationId() != r.GetId() {
			t.Errorf("the reservation is %d, want %d", got.GetReservationId(), r.GetId())
		}
		if open(s.anonymous(), first, dlsmsv1.SeatAction_SEAT_ACTION_CHOOSE_ANOTHER).GetSeat().GetNextAvailableAt() == nil {
			t.Error("the label does not tell when the seat is free again")
		}
		_, err := a.tryCodes(r.GetId(), second, "")
		refused(t, err, "PRESENCE_ELSEWHERE")
		seated, err := a.tryCodes(r.GetId(), first, "")
		if need(a, "check-in", seated, err).GetProof() != dlsmsv1.Proof_PROOF_SEAT {
			t.Errorf("the proof is %v", seated.GetProof())
		}
		open(a.Client, first, dlsmsv1.SeatAction_SEAT_ACTION_STAY)
		_, err = s.anonymous().Seats.GetSeatByLabel(t.Context(), &dlsmsv1.GetSeatByLabelRequest{Code: "x" + first[1:]})
		refused(t, err, "PRESENCE_INVALID")
	})
}

// sheet reads the labels of a branch as a browser does.
func (s *system) sheet(t *testing.T, b presenceBranch, query string) (page string, header http.Header) {
	t.Helper()
	url := "http://" + s.HTTPAddr() + "/v1/admin/labels?branch=" + b.code + query
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.librarian.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v\n%s", resp.Status, err, text)
	}
	return string(text), resp.Header
}

// label returns the code of the label of a seat, as the sheet prints it.
func (s *system) label(t *testing.T, b presenceBranch, seatID int64) string {
	t.Helper()
	page, _ := s.sheet(t, b, fmt.Sprintf("&seatIds=%d", seatID))
	_, rest, _ := strings.Cut(page, "<small>")
	code, _, _ := strings.Cut(rest, "</small>")
	if len(code) != 31 {
		t.Fatalf("the sheet has the code %q", code)
	}
	return code
}

func TestSheetOfLabels(t *testing.T) {
	t.Parallel()
	s := shared(t)
	b := s.presenceBranch(t, 2)
	page, header := s.sheet(t, b, "&link=https://library.example/s/")
	if strings.Count(page, "<svg") != 2 {
		t.Errorf("the page has %d codes\n%s", strings.Count(page, "<svg"), page)
	}
	if got := header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("the type is %s", got)
	}
	if got := header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") {
		t.Errorf("the policy is %q", got)
	}
	over, err := e2e.Anonymous(conn(t, s, 0)).WithToken(b.librarian.Token).Admin.MakeLabels(t.Context(),
		&dlsmsv1.MakeLabelsRequest{Branch: b.code, Link: "https://library.example/s/"})
	if err != nil || string(over.GetContent()) != page || over.GetLabels() != 2 {
		t.Errorf("over gRPC, the page is another one: %v", err)
	}
}

// TestPageDrawsTheCodes follows a screen with a link over gRPC and HTTP, and checks in with the code. It
// reads the labels as data.
func TestPageDrawsTheCodes(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, s *system) {
		b := s.presenceBranch(t, 2)
		b.librarian.require(b.code, dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN)
		ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
		defer cancel()
		const link = "HTTPS://LIBRARY.EXAMPLE/C/"
		key := s.anonymous().WithToken(b.key)
		stream, err := dlsmsv1.NewScreenServiceClient(key.Conn()).WatchScreen(ctx, &dlsmsv1.WatchScreenRequest{Link: link})
		if err != nil {
			t.Fatal(err)
		}
		d := &display{t: t, stream: stream}
		d.next()
		for _, code := range d.state.GetCodes() {
			qr, err := labels.Encode(link + code.GetCode())
			if err != nil || code.GetQrPath() != qr.Path || int(code.GetQrSize()) != qr.Size {
				t.Errorf("the code has %d modules, want %d: %v", code.GetQrSize(), qr.Size, err)
			}
		}
		a := s.student(t)
		r := a.book(b.seats[0], fromNow(time.Hour))
		if _, err := a.tryCodes(r.GetId(), link+d.shown().GetCode(), ""); err != nil {
			t.Error(err)
		}

		var items dlsmsv1.MakeLabelsResponse
		s.send(t, "GET", "/v1/admin/labels?itemsOnly=true&branch="+b.code, "", bearer(b.librarian)...).message(200, &items)
		if len(items.GetItems()) != 2 || items.GetItems()[0].GetCode() != s.label(t, b, items.GetItems()[0].GetSeatId()) {
			t.Errorf("the labels are %v", &items)
		}
	})
}

// TestWrongCodesAreLimited sends eleven wrong codes to three replicas. Redis counts them together.
func TestWrongCodesAreLimited(t *testing.T) {
	t.Parallel()
	s := shared(t)
	b := s.presenceBranch(t, 2)
	b.librarian.require(b.code, dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN)
	a := s.student(t)
	r := a.book(b.seats[0], fromNow(time.Hour))
	screen := s.screenOf(t, b.key, "Entrance")
	for range 10 {
		_, err := a.tryCodes(r.GetId(), wrongDigits(screen), "")
		refused(t, err, "PRESENCE_INVALID")
	}
	_, err := a.tryCodes(r.GetId(), screen.shown().GetCode(), "")
	refused(t, err, "RATE_LIMITED")
	_, err = a.tryCodes(r.GetId(), "", "") // a call without a code is no guess
	refused(t, err, "PRESENCE_REQUIRED")
	// Calls at the same time are counted before they are judged. With more calls at once, a busy Redis
	// answers too late, and each replica counts alone.
	hasty := s.student(t)
	visit := hasty.book(b.seats[1], fromNow(time.Hour))
	var judged atomic.Int64
	inParallel(t, 60, 6, func(int) error {
		_, err := hasty.tryCodes(visit.GetId(), wrongDigits(screen), "")
		switch e2e.Reason(err) {
		case "PRESENCE_INVALID":
			judged.Add(1)
		case "RATE_LIMITED":
		default:
			return err
		}
		return nil
	})
	if n := judged.Load(); n < 10 || n > 11 { // a token is back after 30 seconds
		t.Errorf("%d wrong codes were judged, want 10", n)
	}
	other := s.student(t)
	if _, err := other.tryCodes(noSuchID, screen.shown().GetCode(), ""); e2e.Reason(err) != "RESERVATION_NOT_FOUND" {
		t.Errorf("another user: %v", err)
	}
}

// TestScreenIsSwitchedOff checks that the codes of a screen are refused at once, that the stream tells
// the screen, and that it ends with the key.
func TestScreenIsSwitchedOff(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, s *system) {
		b := s.presenceBranch(t, 1)
		b.librarian.require(b.code, dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN)
		a := s.student(t)
		r := a.book(b.seats[0], fromNow(time.Hour))
		id, key := b.librarian.key(b.code, screenScope)
		screen := s.screenOf(t, key, "Entrance")
		b.librarian.setScreen(b.code, "Entrance", true)
		_, err := a.tryCodes(r.GetId(), screen.shown().GetCode(), "")
		refused(t, err, "PRESENCE_INVALID")
		for len(screen.state.GetCodes()) > 0 {
			screen.next()
		}
		b.librarian.setScreen(b.code, "Entrance", false)
		for len(screen.state.GetCodes()) == 0 {
			screen.next()
		}
		if _, err := a.tryCodes(r.GetId(), screen.shown().GetCode(), ""); err != nil {
			t.Error(err)
		}
		revoked, err := b.librarian.admin().RevokeKey(t.Context(), &dlsmsv1.RevokeKeyRequest{KeyId: id})
		need(b.librarian, "revocation", revoked, err)
		for err = nil; err == nil; {
			_, err = screen.stream.Recv()
		}
		refused(t, err, "TOKEN_REVOKED")
	})
}

// TestScreenLosesTheNetwork looks at the codes of a screen that gets no message any more. It shows
// valid codes for five minutes, and then none.
func TestScreenLosesTheNetwork(t *testing.T) {
	t.Parallel()
	s := shared(t)
	b := s.presenceBranch(t, 1)
	screen := s.screenOf(t, b.key, "")
	now := time.Now().Add(screen.ahead)
	for after := range 300 {
		at := now.Add(time.Duration(after) * time.Second)
		c := screen.at(at)
		if c == nil || at.Sub(c.GetValidFrom().AsTime()) >= 15*time.Second {
			t.Fatalf("after %d s, the screen shows %v", after, c)
		}
	}
	if c := screen.at(now.Add(6 * time.Minute)); c != nil {
		t.Errorf("after 6 minutes, the screen shows %v", c)
	}
}

// TestPresenceByTheDatabaseClock moves the clock of the database 10 minutes away from the clocks of
// three replicas, in each direction. Each replica still shows codes that all replicas accept: only the
// clock of the database counts. The clock of one process cannot be moved alone.
func TestPresenceByTheDatabaseClock(t *testing.T) {
	t.Parallel()
	s := start(t, stack.Config{Env: e2e.NoRateLimits()})
	b := s.presenceBranch(t, 1)
	b.librarian.require(b.code, dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN)
	a := s.student(t)
	for _, ahead := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		clock := storetest.Clock{From: time.Now().Add(ahead), Since: time.Now(), Speed: 1}
		s.exec(t, clock.SQL())
		for from := range 3 {
			screen := screenAt(t, conn(t, s, from), b.key)
			if off := screen.ahead - ahead; off.Abs() > time.Minute {
				t.Errorf("replica %d: the clock of the screen is %v ahead, want %v", from, screen.ahead, ahead)
			}
			for to := range 3 {
				resp, err := a.Reservations.CreateReservation(t.Context(), &dlsmsv1.CreateReservationRequest{
					SeatId: b.seats[0], EndTime: timestamppb.New(clock.At(time.Now()).Add(time.Hour)),
				})
				id := need(a, "reservation", resp, err).GetReservation().GetId()
				if _, err := (student{a.WithConn(conn(t, s, to)), t}).tryCodes(id, screen.shown().GetCode(), ""); err != nil {
					t.Errorf("%v ahead: a code of replica %d, at replica %d: %v", ahead, from, to, err)
				}
				a.checkOut(id)
			}
		}
	}
}

// TestRotationOfThePresenceSecret restarts three replicas one by one in each step of the rotation.
// Meanwhile each user must check in with what a screen shows, through any replica.
func TestRotationOfThePresenceSecret(t *testing.T) {
	t.Parallel()
	const before, after = "old:a1f4c09e7b3d58260ce1f7a94b6d2053", "new:5d0b72e9c14a8f63d7e20b95fa3c8146"
	env := e2e.NoRateLimits()
	env["PRESENCE_SECRET"] = before
	s := start(t, stack.Config{Env: env})
	b := s.presenceBranch(t, 1)
	b.librarian.require(b.code, dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN)
	a := s.student(t)
	checkIns := 0
	visit := func() {
		t.Helper()
		for from := range 3 {
			screen := screenAt(t, conn(t, s, from), b.key)
			to := student{a.WithConn(conn(t, s, (from+1)%3)), t}
			phone := student{e2e.Anonymous(conn(t, s, (from+2)%3)), t}
			scan, err := phone.Reservations.RecordScan(t.Context(), &dlsmsv1.RecordScanRequest{Code: screen.shown().GetCode()})
			code := need(phone, "scan", scan, err).GetScanCode()
			for _, code := range []string{screen.shown().GetCode(), screen.shown().GetDigits(), code} {
				r := a.book(b.seats[0], fromNow(time.Hour))
				if _, err := to.tryCodes(r.GetId(), code, ""); err != nil {
					t.Fatalf("a code of replica %d, at replica %d: %v", from, (from+1)%3, err)
				}
				a.checkOut(r.GetId())
				checkIns++
			}
		}
	}
	visit()
	for _, setting := range []string{before + "," + after, after + "," + before, after} {
		for i, r := range s.Replicas {
			r.Setenv("PRESENCE_SECRET", setting)
			if err := r.Restart(t.Context()); err != nil {
				t.Fatalf("replica %d: %v", i, err)
			}
			visit()
		}
	}
	t.Logf("%d check-ins", checkIns)
}
