package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// clock sets the database's clock to a number of minutes after noon and stops it there.
func (b bundle) clock(t *testing.T, minutes int) {
	t.Helper()
	b.db.FreezeClock(t, at(minutes))
}

// history returns the kinds of a reservation's events.
func (b bundle) history(t *testing.T, id int64) []string {
	t.Helper()
	return storetest.Rows[string](t, b.db, `
		SELECT kind FROM reservation_events WHERE reservation_id = $1 ORDER BY version`, id)
}

// everything returns all rows of reservations, waitlist entries and events as text. Tests compare
// the rows from before and after a refused call, which must change nothing.
func (b bundle) everything(t *testing.T) []string {
	t.Helper()
	return storetest.Rows[string](t, b.db, `
		SELECT r::text FROM reservations r
		UNION ALL SELECT w::text FROM waitlist_entries w
		UNION ALL SELECT e::text FROM reservation_events e
		ORDER BY 1`)
}

// sameTimes makes cmp treat two times as equal if they are the same instant in different zones.
var sameTimes = cmp.Comparer(time.Time.Equal)

func wantEqual[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got, sameTimes); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// verbs are the calls of a user on a reservation. Extend asks for an end that is an hour after the
// present end.
var verbs = map[string]func(t *testing.T, b bundle, user int64, r library.Reservation) (library.Reservation, error){
	"Cancel": func(t *testing.T, b bundle, user int64, r library.Reservation) (library.Reservation, error) {
		return b.Cancel(t.Context(), user, r.ID)
	},
	"CheckIn": func(t *testing.T, b bundle, user int64, r library.Reservation) (library.Reservation, error) {
		return b.CheckIn(t.Context(), user, r.ID, nil)
	},
	"CheckOut": func(t *testing.T, b bundle, user int64, r library.Reservation) (library.Reservation, error) {
		return b.CheckOut(t.Context(), user, r.ID)
	},
	"Extend": func(t *testing.T, b bundle, user int64, r library.Reservation) (library.Reservation, error) {
		return b.Extend(t.Context(), user, r.ID, r.EndTime.Add(time.Hour))
	},
}

// outcome is the expected result of a verb: either an error, or the status in the answer and the
// event that the verb writes. The event is "" if the verb changes nothing.
type outcome struct {
	err    error
	status library.ReservationStatus
	event  string
}

// outcomes is the state diagram as a table: the outcome of each verb for a reservation in each
// status. A repeated verb returns the first answer again.
var outcomes = map[library.ReservationStatus]map[string]outcome{
	library.Held: {
		"Cancel": {err: library.ErrNotConfirmed}, "CheckIn": {err: library.ErrNotConfirmed},
		"CheckOut": {err: library.ErrNotCheckedIn}, "Extend": {err: library.ErrNotConfirmed},
	},
	library.Confirmed: {
		"Cancel":   {status: library.Cancelled, event: "CANCELLED"},
		"CheckIn":  {status: library.CheckedIn, event: "CHECKED_IN"},
		"CheckOut": {err: library.ErrNotCheckedIn}, "Extend": {status: library.Confirmed, event: "EXTENDED"},
	},
	library.CheckedIn: {
		"Cancel": {err: library.ErrNotConfirmed}, "CheckIn": {status: library.CheckedIn},
		"CheckOut": {status: library.Completed, event: "CHECKED_OUT"},
		"Extend":   {status: library.CheckedIn, event: "EXTENDED"},
	},
	library.Completed: {
		"Cancel": {err: library.ErrNotConfirmed}, "CheckIn": {status: library.CheckedIn},
		"CheckOut": {status: library.Completed}, "Extend": {err: library.ErrNotConfirmed},
	},
	library.Cancelled: {
		"Cancel": {status: library.Cancelled}, "CheckIn": {err: library.ErrNotConfirmed},
		"CheckOut": {err: library.ErrNotCheckedIn}, "Extend": {err: library.ErrNotConfirmed},
	},
	library.NoShow: {
		"Cancel": {err: library.ErrNotConfirmed}, "CheckIn": {err: library.ErrCheckInTooLate},
		"CheckOut": {err: library.ErrNotCheckedIn}, "Extend": {err: library.ErrNotConfirmed},
	},
}

// inStatus makes a reservation of the user from noon to one o'clock and brings it into a status.
// The clock must show noon at the call. For NO_SHOW, inStatus moves the clock to 12:15. For HELD,
// the user with the number other reserves the seat first and cancels, so that the user gets an
// offer.
func (b bundle) inStatus(t *testing.T, user, other, seat int, status library.ReservationStatus) library.Reservation {
	t.Helper()
	if status == library.Held {
		entry := b.offeredBy(t, other, user, seat, 0, 60)
		r, err := b.Reservation(t.Context(), b.users[user], entry.ReservationID)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := b.reserve(t, user, seat, 0, 60)
	switch status {
	case library.CheckedIn:
		mustDo(t, b.checkIn, b.users[user], r.ID)
	case library.Completed:
		mustDo(t, b.checkIn, b.users[user], r.ID)
		mustDo(t, b.CheckOut, b.users[user], r.ID)
	case library.Cancelled:
		mustDo(t, b.Cancel, b.users[user], r.ID)
	case library.NoShow:
		b.clock(t, 15)
		if n, _, err := b.MarkNoShows(t.Context(), 10); err != nil || n != 1 {
			t.Fatalf("%d no-shows, %v", n, err)
		}
	case library.Held, library.Confirmed:
	}
	return r
}

func TestVerbsInEachStatus(t *testing.T) {
	t.Parallel()
	for status, byVerb := range outcomes {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.seats = b.db.Seats(t, len(verbs))
			b.users = b.db.Users(t, 2*len(verbs)+1)
			stranger := b.users[2*len(verbs)]
			i := 0
			for name, verb := range verbs {
				b.clock(t, 0)
				r := b.inStatus(t, 2*i, 2*i+1, i, status)
				user, want := b.users[2*i], byVerb[name]
				i++

				before := b.everything(t)
				_, err := verb(t, b, stranger, r)
				wantErr(t, err, library.ErrReservationNotFound)
				wantEqual(t, name+" by a stranger changed", b.everything(t), before)

				history := b.history(t, r.ID)
				got, err := verb(t, b, user, r)
				if want.err != nil {
					wantErr(t, err, want.err)
					if refusal, ok := errors.AsType[*library.Error](err); !ok || refusal.Metadata["status"] != string(status) {
						t.Errorf("%s: the error does not state the status: %v", name, err)
					}
					wantEqual(t, name+" was refused and changed", b.everything(t), before)
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if got.Status != want.status {
					t.Errorf("%s: answered %s, want %s", name, got.Status, want.status)
				}
				if want.event != "" {
					history = append(history, want.event)
				} else {
					wantEqual(t, name+" again changed", b.everything(t), before)
				}
				wantEqual(t, name+": history", b.history(t, r.ID), history)
			}
			storetest.CheckInvariants(t, b.db)
		})
	}
}

// mustDo calls a verb, such as Cancel, and returns its answer. The call must succeed.
func mustDo(
	t *testing.T, verb func(ctx context.Context, userID, id int64) (library.Reservation, error), user, id int64,
) library.Reservation {
	t.Helper()
	r, err := verb(t.Context(), user, id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestUnknownReservation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, verb := range verbs {
		_, err := verb(t, b, b.users[0], library.Reservation{ID: 1 << 40, EndTime: at(60)})
		if !errors.Is(err, library.ErrReservationNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := b.Reservation(t.Context(), b.users[0], 1<<40)
	wantErr(t, err, library.ErrReservationNotFound)
}

func TestCheckInWindow(t *testing.T) {
	t.Parallel()
	instant := time.Microsecond
	for name, tc := range map[string]struct {
		at   time.Time
		want error
	}{
		"just before it opens":    {at(45).Add(-instant), library.ErrCheckInTooEarly},
		"when it opens":           {at(45), nil},
		"at the start":            {at(60), nil},
		"just before it closes":   {at(75).Add(-instant), nil},
		"when it closes":          {at(75), library.ErrCheckInTooLate},
		"after it closed":         {at(90), library.ErrCheckInTooLate},
		"after the end":           {at(121), library.ErrCheckInTooLate},
		"as soon as it is booked": {noon, library.ErrCheckInTooEarly},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := b.reserve(t, 0, 0, 60, 120)
			b.db.FreezeClock(t, tc.at)
			got, err := b.CheckIn(t.Context(), b.users[0], r.ID, nil)
			if !errors.Is(err, tc.want) || tc.want == nil && (err != nil || !got.CheckedInAt.Equal(tc.at)) {
				t.Errorf("answered %+v, %v; want %v", got, err, tc.want)
			}
		})
	}
}

func TestDeadlineOfShortReservationIsItsEnd(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.Grace = time.Hour
	b := setupWith(t, rules)
	r := b.reserve(t, 0, 0, 0, 30)
	if !r.CheckInDeadline.Equal(at(30)) {
		t.Errorf("the deadline is %v, not the end of the reservation", r.CheckInDeadline)
	}
	b.clock(t, 30)
	_, err := b.CheckIn(t.Context(), b.users[0], r.ID, nil)
	wantErr(t, err, library.ErrCheckInTooLate)
}

func TestRepeatedCallsReturnFirstAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	user := b.users[0]
	r := b.reserve(t, 0, 0, 0, 60)
	b.clock(t, 5)
	checkedIn := mustDo(t, b.checkIn, user, r.ID)
	b.clock(t, 10)
	if _, err := b.Extend(t.Context(), user, r.ID, at(90)); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "checked in again after an extension", mustDo(t, b.checkIn, user, r.ID), checkedIn)
	b.clock(t, 20)
	checkedOut := mustDo(t, b.CheckOut, user, r.ID)
	b.clock(t, 30)
	wantEqual(t, "checked in again after the check-out", mustDo(t, b.checkIn, user, r.ID), checkedIn)
	wantEqual(t, "checked out again", mustDo(t, b.CheckOut, user, r.ID), checkedOut)

	r = b.reserve(t, 1, 0, 60, 120)
	cancelled := mustDo(t, b.Cancel, b.users[1], r.ID)
	b.clock(t, 40)
	wantEqual(t, "cancelled again", mustDo(t, b.Cancel, b.users[1], r.ID), cancelled)
	stored, err := b.Reservation(t.Context(), b.users[1], r.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "stored", stored, cancelled)
	storetest.CheckInvariants(t, b.db)
}

func TestCheckOutFreesTheRestOfTheWindow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 0, 60)
	mustDo(t, b.checkIn, b.users[0], r.ID)
	b.clock(t, 20)
	out := mustDo(t, b.CheckOut, b.users[0], r.ID)
	if out.Status != library.Completed || !out.EndedAt.Equal(at(20)) || !out.EndTime.Equal(at(60)) {
		t.Errorf("checked out: %+v", out)
	}
	b.reserve(t, 1, 0, 20, 60)
	b.reserve(t, 0, 1, 20, 60) // the check-out has freed the user, too
	storetest.CheckInvariants(t, b.db)
}

func TestCheckOutAfterWorkerCompleted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 0, 60)
	mustDo(t, b.checkIn, b.users[0], r.ID)
	b.clock(t, 60)
	if n, _, err := b.CompleteEnded(t.Context(), 10); err != nil || n != 1 {
		t.Fatalf("%d completed, %v", n, err)
	}
	completed, err := b.Reservation(t.Context(), b.users[0], r.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "checked out", mustDo(t, b.CheckOut, b.users[0], r.ID), completed)
	wantEqual(t, "history", b.history(t, r.ID), []string{"RESERVED", "CHECKED_IN", "COMPLETED"})
}

func TestExtend(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 0, 60)
	want := r
	want.EndTime = at(90)
	for range 2 { // in the second call the reservation already has that end, so nothing changes
		got, err := b.Extend(t.Context(), b.users[0], r.ID, at(90).Add(999)) // 999 ns, less than the precision of Postgres
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "extended", got, want)
		wantEqual(t, "history", b.history(t, r.ID), []string{"RESERVED", "EXTENDED"})
	}
	stored, err := b.Reservation(t.Context(), b.users[0], r.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "stored", stored, want)
	_, err = b.Reserve(t.Context(), library.Booking{
		UserID: b.users[1], SeatID: b.seats[0], StartTime: at(60), EndTime: at(90),
	})
	wantErr(t, err, library.ErrSeatTaken)
	storetest.CheckInvariants(t, b.db)
}

func TestExtendRefuses(t *testing.T) {
	t.Parallel()
	extend := 90
	for name, tc := range map[string]struct {
		change func(t *testing.T, b bundle)
		to     int
		want   error
	}{
		"an earlier end": {to: 59, want: library.Invalid()},
		"more than 12 h": {to: 12*60 + 1, want: library.ErrWindowNotAllowed},
		"another's booking": {to: extend, want: library.ErrSeatTaken, change: func(t *testing.T, b bundle) {
			b.reserve(t, 1, 0, 89, 120)
		}},
		"the user's own other seat": {to: extend, want: library.ErrUserBusy,
			change: func(t *testing.T, b bundle) { b.reserve(t, 0, 1, 89, 120) }},
		"a seat that is held for a waiter": {to: extend, want: library.ErrSeatTaken, change: func(t *testing.T, b bundle) {
			taken := b.reserve(t, 1, 0, 60, 120)
			b.join(t, 2, 0, 75, 120)
			mustDo(t, b.Cancel, b.users[1], taken.ID)
		}},
		"a seat out of service": {to: extend, want: library.ErrSeatOutOfService,
			change: func(t *testing.T, b bundle) { b.db.Exec(t, `UPDATE seats SET out_of_service = true`) }},
		// 12:00 UTC is 13:00 in Berlin.
		"a branch that closes": {to: extend, want: library.ErrBranchClosed, change: func(t *testing.T, b bundle) {
			b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '14:29' FROM branches`)
		}},
		"a reservation that is over": {to: extend, want: library.ErrNotConfirmed, change: func(t *testing.T, b bundle) {
			b.clock(t, 60)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := b.reserve(t, 0, 0, 0, 60)
			mustDo(t, b.checkIn, b.users[0], r.ID)
			if tc.change != nil {
				tc.change(t, b)
			}
			before := b.everything(t)
			_, err := b.Extend(t.Context(), b.users[0], r.ID, at(tc.to))
			wantErr(t, err, tc.want)
			wantEqual(t, "refused and changed", b.everything(t), before)
		})
	}
}

// TestExtendIntoWindowOfWaiter extends a reservation into the window of a waitlist entry. The
// extension must succeed, because a waitlist entry does not keep the free part of its window from
// other users.
func TestExtendIntoWindowOfWaiter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 0, 60)
	b.join(t, 1, 0, 30, 120)
	if _, err := b.Extend(t.Context(), b.users[0], r.ID, at(90)); err != nil {
		t.Fatal(err)
	}
	storetest.CheckInvariants(t, b.db)
}

// TestExtendDespiteOfferForOtherSeat extends a reservation while its user has an offer for another
// seat, for a window that overlaps the extension. The extension must succeed, because an offer does
// not make its user busy. The claim of the offer must then fail.
func TestExtendDespiteOfferForOtherSeat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reserve(t, 0, 0, 0, 60)
	entry := b.offered(t, 0, 1, 60, 120)
	if _, err := b.Extend(t.Context(), b.users[0], r.ID, at(90)); err != nil {
		t.Fatal(err)
	}
	_, _, err := b.ClaimOffer(t.Context(), b.users[0], entry.ID)
	wantErr(t, err, library.ErrUserBusy)
}

func TestExtendMovesDeadlineLimitedByOldEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	claimed := b.offered(t, 1, 1, 0, 20) // at noon
	b.clock(t, 8)
	_, late, err := b.ClaimOffer(t.Context(), b.users[1], claimed.ID)
	if err != nil {
		t.Fatal(err)
	}
	booked := b.reserve(t, 0, 0, 7, 22) // begins one minute ago and has the minimum length
	b.clock(t, 12)
	for _, tc := range []struct {
		r                            library.Reservation
		user                         int
		before, after, deadlineAfter int
	}{
		{r: booked, user: 0, before: 22, after: 60, deadlineAfter: 23}, // booked at 12:08, plus 15 min
		{r: late, user: 1, before: 20, after: 60, deadlineAfter: 23},
		{r: late, user: 1, before: 20, after: 90, deadlineAfter: 23},
	} {
		if !tc.r.CheckInDeadline.Equal(at(tc.before)) {
			t.Errorf("before the extension check-in closes %v, want %v", tc.r.CheckInDeadline, at(tc.before))
		}
		got, err := b.Extend(t.Context(), b.users[tc.user], tc.r.ID, at(tc.after))
		if err != nil {
			t.Fatal(err)
		}
		if !got.CheckInDeadline.Equal(at(tc.deadlineAfter)) {
			t.Errorf("after the extension check-in closes %v, want %v", got.CheckInDeadline, at(tc.deadlineAfter))
		}
	}
	storetest.CheckInvariants(t, b.db)
}

func TestCancelFreesSeatAndUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 20 { // a cancelled row must never block again
		r := b.reserve(t, 0, 0, 0, 60)
		mustDo(t, b.Cancel, b.users[0], r.ID)
		r = b.reserve(t, 0, 1, 0, 60)
		mustDo(t, b.Cancel, b.users[0], r.ID)
	}
	storetest.CheckInvariants(t, b.db)
}
