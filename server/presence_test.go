package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/labels"
	"github.com/dlsms/dlsms/presence"
	"github.com/dlsms/dlsms/store/storetest"
)

// entrance is a replica with a branch, its seats, and the screen Entrance.
type entrance struct {
	*testServer

	db    *storetest.DB
	codes *presence.Codes
	seats []int64
}

const entranceID = 1

// scanTime is the time of the first scan, by the database's clock.
var scanTime = time.Date(2026, 3, 2, 12, 0, 20, 0, time.UTC)

func startEntrance(t *testing.T, seats int, change func(*Config)) *entrance {
	t.Helper()
	made, err := presence.New([]string{"a secret of a test"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	e := &entrance{db: storetest.NewDB(t), codes: made}
	e.seats = e.db.Seats(t, seats)
	e.db.Exec(t, `INSERT INTO screens (library_id, id, branch_id, name) SELECT 1, $2, branch_id, 'Entrance'
		FROM seats WHERE id = $1`, e.seats[0], entranceID)
	e.db.FreezeClock(t, scanTime)
	e.testServer = startOn(t, e.db, func(c *Config) {
		c.Codes = made
		if change != nil {
			change(c)
		}
	}, nil)
	return e
}

// scan scans a code without a token.
func (e *entrance) scan(t *testing.T, code string) (*dlsmsv1.RecordScanResponse, error) {
	t.Helper()
	return e.reservation.RecordScan(t.Context(), &dlsmsv1.RecordScanRequest{Code: code})
}

// shown returns the code that the screen shows at a time after scanTime.
func (e *entrance) shown(after time.Duration) string {
	return e.codes.Show(entranceID, scanTime.Add(after), 0)[0].Code
}

// visitor registers a user, reserves a seat from scanTime on, and returns a function that checks in
// with a code.
func (e *entrance) visitor(t *testing.T, studentID string, seat int64) func(code string) (*dlsmsv1.Reservation, error) {
	t.Helper()
	e.register(t, studentID)
	me := bearing(t.Context(), e.login(t, studentID, testPassword))
	made, err := e.reservation.CreateReservation(me, &dlsmsv1.CreateReservationRequest{
		SeatId: seat, StartTime: timestamppb.New(scanTime), EndTime: timestamppb.New(scanTime.Add(time.Hour)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(code string) (*dlsmsv1.Reservation, error) {
		got, err := e.reservation.CheckIn(me, &dlsmsv1.CheckInRequest{
			ReservationId: made.GetReservation().GetId(), PresenceCode: code,
		})
		return got.GetReservation(), err
	}
}

// TestScanBeforeTheLogin scans the screen without a token, and checks in when the code of the screen
// has expired. The clock of the database goes from one limit to the next.
func TestScanBeforeTheLogin(t *testing.T) {
	t.Parallel()
	e := startEntrance(t, 2, nil)
	first, second := e.visitor(t, "S2021001", e.seats[0]), e.visitor(t, "S2021002", e.seats[1])
	scan, err := e.scan(t, "https://library.example/c/"+e.shown(0))
	if err != nil {
		t.Fatal(err)
	}
	if until := scan.GetValidUntil().AsTime(); !until.Equal(scanTime.Add(3 * time.Minute)) {
		t.Errorf("the scan is valid until %v", until)
	}
	if scan.GetScreen() != "Entrance" || !strings.HasPrefix(scan.GetBranch(), "branch-") {
		t.Errorf("the scan is of the screen %q in %q", scan.GetScreen(), scan.GetBranch())
	}

	e.db.FreezeClock(t, scanTime.Add(time.Minute))
	_, err = first(e.shown(0))
	want(t, err, codes.FailedPrecondition, "PRESENCE_EXPIRED")
	_, err = e.scan(t, e.shown(0))
	want(t, err, codes.FailedPrecondition, "PRESENCE_EXPIRED")
	got, err := first(scan.GetScanCode())
	if err != nil || got.GetProof() != dlsmsv1.Proof_PROOF_SCREEN || got.GetScreen() != "Entrance" {
		t.Errorf("the check-in: %v, %v", got, err)
	}

	e.db.FreezeClock(t, scanTime.Add(3*time.Minute+presence.ClockTolerance))
	_, err = second(scan.GetScanCode())
	want(t, err, codes.FailedPrecondition, "PRESENCE_EXPIRED")
	e.db.FreezeClock(t, scanTime.Add(3*time.Minute+presence.ClockTolerance-time.Microsecond))
	if _, err := second(scan.GetScanCode()); err != nil { // the scan is not used up
		t.Error(err)
	}
}

func TestRefusedScans(t *testing.T) {
	t.Parallel()
	e := startEntrance(t, 1, nil)
	scan, err := e.scan(t, e.shown(0))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ code, reason, message string }{
		"no code":        {"", "INVALID_FIELDS", "code"},
		"a long code":    {strings.Repeat("A", 301), "INVALID_FIELDS", "code"},
		"a wrong code":   {"x" + e.shown(0)[1:], "PRESENCE_INVALID", "the code is wrong"},
		"digits":         {e.codes.Show(entranceID, scanTime, 0)[0].Digits, "PRESENCE_INVALID", "log in"},
		"a label":        {e.codes.Label(e.seats[0]), "PRESENCE_INVALID", "does not expire"},
		"a scan":         {scan.GetScanCode(), "PRESENCE_INVALID", "this is a scan already"},
		"the next code":  {e.shown(time.Minute), "PRESENCE_INVALID", "the code is wrong"},
		"an old code":    {e.shown(-time.Minute), "PRESENCE_EXPIRED", "scan the code that the screen shows now"},
		"no such screen": {e.codes.Show(2, scanTime, 0)[0].Code, "PRESENCE_INVALID", "the code is wrong"},
	} {
		code := codes.FailedPrecondition
		if tc.reason == "INVALID_FIELDS" {
			code = codes.InvalidArgument
		}
		_, err := e.scan(t, tc.code)
		if want(t, err, code, tc.reason); err != nil && !strings.Contains(err.Error(), tc.message) {
			t.Errorf("%s: %v, want %q", name, err, tc.message)
		}
	}
	e.db.Exec(t, `UPDATE screens SET off = true`)
	_, err = e.scan(t, e.shown(0))
	want(t, err, codes.FailedPrecondition, "PRESENCE_INVALID")

	without := start(t, nil)
	_, err = without.reservation.RecordScan(t.Context(), &dlsmsv1.RecordScanRequest{Code: e.shown(0)})
	want(t, err, codes.FailedPrecondition, "PRESENCE_OFF")
}

// TestGuessedScansCauseNoQuery locks the screens. A call that reads them must wait, and only the code
// of a screen makes a call read them.
func TestGuessedScansCauseNoQuery(t *testing.T) {
	t.Parallel()
	e := startEntrance(t, 1, nil)
	e.db.Exec(t, `BEGIN`)
	e.db.Exec(t, `LOCK TABLE screens IN ACCESS EXCLUSIVE MODE`)
	for _, code := range []string{"x" + e.shown(0)[1:], "12345678", e.codes.Label(e.seats[0]), strings.Repeat("A", 31)} {
		_, err := e.scan(t, code)
		want(t, err, codes.FailedPrecondition, "PRESENCE_INVALID")
	}
	done := make(chan error, 1)
	go func() {
		_, err := e.scan(t, e.shown(0))
		done <- err
	}()
	e.db.EventuallyLocked(t, "FROM screens")
	e.db.Exec(t, `ROLLBACK`)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestScansAreLimitedByAddress checks that scans have a limit of their own: logins of the address go
// on, and so do scans of other addresses.
func TestScansAreLimitedByAddress(t *testing.T) {
	t.Parallel()
	e := startEntrance(t, 1, func(c *Config) { c.Limits.PerAddressPerMinute = 3 })
	scan := func(ctx context.Context, code string) error {
		_, err := e.reservation.RecordScan(ctx, &dlsmsv1.RecordScanRequest{Code: code})
		return err
	}
	login := func(ctx context.Context) error {
		_, err := e.auth.Login(ctx, &dlsmsv1.LoginRequest{StudentId: "unknown", Password: testPassword})
		return err
	}
	campus := fromAddress(t, "192.0.2.1")
	for _, code := range []string{e.shown(0), e.shown(0)} {
		if err := scan(campus, code); err != nil {
			t.Error(err)
		}
	}
	want(t, scan(campus, "12345678"), codes.FailedPrecondition, "PRESENCE_INVALID") // wrong codes count, too
	want(t, scan(campus, e.shown(0)), codes.ResourceExhausted, "RATE_LIMITED")
	for range 3 {
		want(t, login(campus), codes.Unauthenticated, "BAD_CREDENTIALS")
	}
	want(t, login(campus), codes.ResourceExhausted, "RATE_LIMITED")
	if err := scan(fromAddress(t, "192.0.2.2"), e.shown(0)); err != nil {
		t.Errorf("another address: %v", err)
	}
}

// TestQRCodesForAPage reads the codes of a screen and of labels as a page does that draws the QR codes
// itself.
func TestQRCodesForAPage(t *testing.T) {
	t.Parallel()
	e := startEntrance(t, 2, nil)
	e.register(t, "A0001")
	e.db.Exec(t, `UPDATE users SET role = 'ADMIN'`)
	e.db.Exec(t, `UPDATE branches SET name = 'Main Library'`)
	staff := dlsmsv1.NewAdminServiceClient(e.conn)
	me := bearing(t.Context(), e.login(t, "A0001", testPassword))
	key, err := staff.CreateKey(me, &dlsmsv1.CreateKeyRequest{
		Name: "Screen", Branch: "branch-0", Scopes: []dlsmsv1.KeyScope{dlsmsv1.KeyScope_KEY_SCOPE_SCREEN}, Reason: "new",
	})
	if err != nil {
		t.Fatal(err)
	}
	watch := func(link string) ([]*dlsmsv1.ScreenCode, error) {
		ctx, cancel := context.WithCancel(bearing(t.Context(), key.GetSecret()))
		defer cancel()
		stream, err := dlsmsv1.NewScreenServiceClient(e.conn).WatchScreen(ctx, &dlsmsv1.WatchScreenRequest{Link: link})
		if err != nil {
			return nil, err
		}
		first, err := stream.Recv()
		return first.GetState().GetCodes(), err
	}
	const link = "HTTPS://LIBRARY.EXAMPLE/C/"
	withLink, err := watch(link)
	if err != nil {
		t.Fatal(err)
	}
	without, err := watch("")
	if err != nil || len(withLink) != 21 || len(without) != 21 {
		t.Fatalf("%d and %d codes, %v", len(withLink), len(without), err)
	}
	for i, code := range withLink {
		qr, err := labels.Encode(link + code.GetCode())
		if err != nil || code.GetQrPath() != qr.Path || int(code.GetQrSize()) != qr.Size || qr.Size != 29 {
			t.Errorf("code %d has %d modules, want %d: %v", i, code.GetQrSize(), qr.Size, err)
		}
		code.QrPath, code.QrSize = "", 0
		if !proto.Equal(code, without[i]) {
			t.Errorf("without a link, code %d is %v, want %v", i, without[i], code)
		}
	}
	_, err = watch("library.example")
	want(t, err, codes.InvalidArgument, "INVALID_FIELDS")

	request := &dlsmsv1.MakeLabelsRequest{Branch: "branch-0", Link: link, ItemsOnly: true}
	made, err := staff.MakeLabels(me, request)
	if err != nil {
		t.Fatal(err)
	}
	expected := &dlsmsv1.MakeLabelsResponse{Labels: 2}
	for i, label := range storetest.Rows[string](t, e.db, `SELECT label FROM seats ORDER BY id`) {
		code := e.codes.Label(e.seats[i])
		qr, err := labels.Encode(link + code)
		if err != nil {
			t.Fatal(err)
		}
		expected.Items = append(expected.Items, &dlsmsv1.SeatLabel{
			SeatId: e.seats[i], Label: label, Area: "Area", BranchName: "Main Library", Code: code,
			QrPath: qr.Path, QrSize: count(qr.Size),
		})
	}
	if diff := cmp.Diff(expected, made, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	request.ItemsOnly = false
	if page, err := staff.MakeLabels(me, request); err != nil || len(page.GetItems()) != 0 || len(page.GetContent()) == 0 {
		t.Errorf("a page has %d items and %d bytes: %v", len(page.GetItems()), len(page.GetContent()), err)
	}
	request.Link = "library.example"
	_, err = staff.MakeLabels(me, request)
	want(t, err, codes.InvalidArgument, "INVALID_FIELDS")
}
