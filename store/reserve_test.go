package store_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// noon is the time of most tests, on a Monday.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// bundle is a database whose clock stands at noon, with a store, five seats and five users.
type bundle struct {
	*store.Store
	db    *storetest.DB
	seats []int64
	users []int64
	// deadlocked is the number of deadlocks that earlier tests caused in the database.
	deadlocked int
}

func setup(t *testing.T) bundle { return setupWith(t, library.DefaultPolicy()) }

func setupWith(t *testing.T, rules library.Policy) bundle {
	t.Helper()
	return setupIn(t, storetest.NewDB(t), rules)
}

func setupIn(t *testing.T, db *storetest.DB, rules library.Policy) bundle {
	t.Helper()
	db.FreezeClock(t, noon)
	return bundle{
		Store: db.Open(t, rules), db: db, seats: db.Seats(t, 5), users: db.Users(t, 5),
		deadlocked: storetest.Value[int](t, db, countDeadlocks),
	}
}

// at returns the time some minutes after noon.
func at(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }

// reserve reserves a seat for a user. from and to are minutes after noon.
func (b bundle) reserve(t *testing.T, user, seat, from, to int) library.Reservation {
	t.Helper()
	r, err := b.Reserve(t.Context(), library.Booking{UserID: b.users[user], SeatID: b.seats[seat],
		StartTime: at(from), EndTime: at(to)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// wantRefusal checks the message and the metadata of an error as well.
func wantRefusal(t *testing.T, err error, want *library.Error) {
	t.Helper()
	wantErr(t, err, want)
	if got, ok := errors.AsType[*library.Error](err); ok {
		wantEqual(t, "message", got.Message, want.Message)
		wantEqual(t, "metadata", got.Metadata, want.Metadata)
	}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.reserve(t, 0, 0, 30, 90)
	deadline := at(45)
	want := library.Reservation{
		ID: got.ID, SeatRef: library.SeatRef{SeatID: b.seats[0], Branch: "branch-0", Area: "Area", Label: "A-1"},
		UserID:    b.users[0],
		StartTime: at(30), EndTime: at(90), Status: library.Confirmed, CheckInOpensAt: at(15),
		CheckInDeadline: &deadline, CreatedAt: noon, CheckInRule: library.CheckInNone,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("reserved (-want +got):\n%s", diff)
	}
	stored, err := b.Reservation(t.Context(), b.users[0], got.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, stored, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("stored (-answered +stored):\n%s", diff)
	}
}

func TestReserveRefuses(t *testing.T) {
	t.Parallel()
	rules := library.DefaultPolicy()
	rules.MaxUpcoming = 2
	for name, tc := range map[string]struct {
		from, to int
		change   func(t *testing.T, b bundle, booking *library.Booking)
		want     error
	}{
		"an unknown seat": {from: 0, to: 60, want: library.ErrSeatNotFound, change: func(_ *testing.T, _ bundle,
			k *library.Booking) {
			k.SeatID = 1 << 40
		}},
		"an unknown user": {from: 0, to: 60, want: library.ErrTokenInvalid, change: func(_ *testing.T, _ bundle,
			k *library.Booking) {
			k.UserID = 1 << 40
		}},
		"the past":          {from: -2, to: 60, want: library.ErrWindowNotAllowed},
		"too far ahead":     {from: 14*24*60 + 1, to: 14*24*60 + 61, want: library.ErrWindowNotAllowed},
		"too short":         {from: 0, to: 14, want: library.ErrWindowNotAllowed},
		"too long":          {from: 0, to: 12*60 + 1, want: library.ErrWindowNotAllowed},
		"a reversed window": {from: 60, to: 0, want: library.Invalid()},
		"an empty window":   {from: 60, to: 60, want: library.Invalid()},
		"a seat out of service": {from: 0, to: 60, want: library.ErrSeatOutOfService, change: func(t *testing.T,
			b bundle, _ *library.Booking) {
			b.db.Exec(t, `UPDATE seats SET out_of_service = true`)
		}},
		"a seat that is taken": {from: 0, to: 60, want: library.ErrSeatTaken, change: func(t *testing.T, b bundle,
			_ *library.Booking) {
			b.reserve(t, 1, 0, 59, 90)
		}},
		"a user who is busy": {from: 0, to: 60, want: library.ErrUserBusy, change: func(t *testing.T, b bundle,
			_ *library.Booking) {
			b.reserve(t, 0, 1, 59, 90)
		}},
		"a user who has two": {from: 0, to: 60, want: library.ErrTooManyReservations, change: func(t *testing.T,
			b bundle, _ *library.Booking) {
			b.reserve(t, 0, 1, 60, 90)
			b.reserve(t, 0, 1, 90, 120)
		}},
		"a branch that is closed": {from: 0, to: 8 * 60, want: library.ErrBranchClosed, change: func(t *testing.T,
			b bundle, _ *library.Booking) {
			b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '20:00' FROM branches`)
		}},
		"a branch closed that day": {from: 24 * 60, to: 25 * 60, want: library.ErrBranchClosed,
			change: func(t *testing.T, b bundle, _ *library.Booking) {
				b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '20:00' FROM branches`)
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupWith(t, rules)
			booking := library.Booking{UserID: b.users[0], SeatID: b.seats[0], StartTime: at(tc.from), EndTime: at(tc.to)}
			if tc.change != nil {
				tc.change(t, b, &booking)
			}
			before := storetest.Value[int](t, b.db, `SELECT count(*) FROM reservations`)
			_, err := b.Reserve(t.Context(), booking)
			wantErr(t, err, tc.want)
			if after := storetest.Value[int](t, b.db, `SELECT count(*) FROM reservations`); after != before {
				t.Errorf("%d reservations, before %d", after, before)
			}
		})
	}
}

func TestReserveTouchingWindowsAndAfterCancel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 0, 0, 0, 60)
	middle := b.reserve(t, 1, 0, 60, 120)
	b.reserve(t, 2, 0, 120, 180)
	if _, err := b.Cancel(t.Context(), b.users[1], middle.ID); err != nil {
		t.Fatal(err)
	}
	b.reserve(t, 3, 0, 60, 120)
}

func TestReserveWithoutStartBeginsNow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r, err := b.Reserve(t.Context(), library.Booking{UserID: b.users[0], SeatID: b.seats[0], EndTime: at(30)})
	if err != nil {
		t.Fatal(err)
	}
	if !r.StartTime.Equal(noon) || !r.CheckInDeadline.Equal(at(15)) {
		t.Errorf("starts %v, check-in until %v", r.StartTime, r.CheckInDeadline)
	}
}

func TestReserveInsideOpeningHours(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '14:00' FROM branches`)
	b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, 1, '14:00', '2:00' FROM branches`)
	b.reserve(t, 0, 0, 0, 12*60) // 13:00 to 1:00 in Berlin, across two openings and midnight
}

func TestRepeatedReserveReturnsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	booking := library.Booking{UserID: b.users[0], SeatID: b.seats[0], StartTime: at(10), EndTime: at(60),
		RequestID: "once"}
	first, err := b.Reserve(t.Context(), booking)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Extend(t.Context(), b.users[0], first.ID, at(90)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Cancel(t.Context(), b.users[0], first.ID); err != nil {
		t.Fatal(err)
	}
	again, err := b.Reserve(t.Context(), booking)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("the second answer (-first +second):\n%s", diff)
	}
	other := booking
	other.EndTime = at(70)
	_, err = b.Reserve(t.Context(), other)
	wantErr(t, err, library.ErrRequestIDReused)
	other = booking
	other.UserID = b.users[1] // a request_id is valid for one user
	if _, err := b.Reserve(t.Context(), other); err != nil {
		t.Error(err)
	}
}

// batches is a tracer that counts the batches of SQL statements that are sent to Postgres. While
// armed is set, it panics instead.
type batches struct {
	armed atomic.Bool
	n     atomic.Int64
}

func (p *batches) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (p *batches) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (p *batches) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	if p.armed.Load() {
		panic("armed")
	}
	p.n.Add(1)
	return ctx
}
func (p *batches) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (p *batches) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// TestPanicFailsOnlyItsBooking makes the store panic during a booking. The booking must fail, and
// the next one must succeed. So the panic ends neither the process nor the worker.
func TestPanicFailsOnlyItsBooking(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tracer := &batches{}
	s, err := store.Open(t.Context(), store.Config{URL: b.db.URL, MinConns: 1, MaxConns: 2,
		Policy: library.DefaultPolicy(), Tracer: tracer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	booking := library.Booking{UserID: b.users[0], SeatID: b.seats[0], StartTime: at(60), EndTime: at(120)}
	tracer.armed.Store(true)
	_, err = s.Reserve(t.Context(), booking)
	if known, ok := errors.AsType[*library.Error](err); err == nil || ok {
		t.Errorf("got %v, want an error that is not a library.Error", known)
	}
	tracer.armed.Store(false)
	if _, err := s.Reserve(t.Context(), booking); err != nil {
		t.Errorf("the next booking: %v", err)
	}
}

// TestLockedSeatDelaysOnlyItsBookings books while another session holds the lock of a seat. The
// bookings of this seat must wait together, in few transactions. A booking of another seat must not
// wait.
func TestLockedSeatDelaysOnlyItsBookings(t *testing.T) {
	t.Parallel()
	const rush = 64
	b := setup(t)
	b.users = b.db.Users(t, rush+1)
	tracer := &batches{}
	s, err := store.Open(t.Context(), store.Config{URL: b.db.URL, MinConns: 8, MaxConns: 16,
		Policy: library.DefaultPolicy(), Tracer: tracer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	b.db.Exec(t, `BEGIN`)
	b.db.Exec(t, `SELECT FROM seats WHERE id = $1 FOR NO KEY UPDATE`, b.seats[0])

	var won, taken atomic.Int64
	var all sync.WaitGroup
	for _, user := range b.users[:rush] {
		all.Go(func() {
			switch _, err := s.Reserve(t.Context(), library.Booking{UserID: user, SeatID: b.seats[0], StartTime: at(60),
				EndTime: at(120)}); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, library.ErrSeatTaken):
				taken.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	// The first booking is a batch of its own, and the next 32 bookings are the second batch. The
	// statements of each batch are sent twice: by the worker, and again by reserveSeat.
	const sent = 4
	storetest.Eventually(t, "the bookings wait", func() bool { return tracer.n.Load() >= sent })
	if _, err := s.Reserve(t.Context(), library.Booking{UserID: b.users[rush], SeatID: b.seats[1], StartTime: at(60),
		EndTime: at(120)}); err != nil {
		t.Errorf("another seat: %v", err)
	}
	b.db.Exec(t, `COMMIT`)
	all.Wait()
	if won.Load() != 1 || taken.Load() != rush-1 {
		t.Errorf("of %d bookings, %d succeeded and %d failed with ErrSeatTaken", rush, won.Load(), taken.Load())
	}
	if n := tracer.n.Load(); n >= rush {
		t.Errorf("%d bookings took %d transactions", rush+1, n)
	}
	storetest.CheckInvariants(t, b.db)
}

// TestReserveRefusesTokenOfAnotherUser books with a token that does not agree with the user's row.
// The call must get neither a new booking nor the answer to an earlier one.
func TestReserveRefusesTokenOfAnotherUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var token library.Identity
	token.ID = b.users[0]
	token.StudentID = storetest.Value[string](t, b.db, `SELECT student_id FROM users WHERE id = $1`, token.ID)
	token.TokenGeneration = storetest.Value[int64](t, b.db, `SELECT token_generation FROM users WHERE id = $1`, token.ID)
	booking := library.Booking{UserID: token.ID, SeatID: b.seats[0], StartTime: at(60), EndTime: at(120),
		RequestID: "one", Token: &token}
	first, err := b.Reserve(t.Context(), booking)
	if err != nil {
		t.Fatal(err)
	}
	other, older, newer := token, token, token
	other.StudentID = "S9"
	older.TokenGeneration--
	newer.TokenGeneration++
	for _, c := range []struct {
		token library.Identity
		want  error
	}{{other, library.ErrTokenInvalid}, {older, library.ErrTokenRevoked}, {newer, library.ErrTokenInvalid}} {
		again, next := booking, booking
		again.Token, next.Token = &c.token, &c.token
		next.RequestID, next.StartTime, next.EndTime = "two", at(240), at(300)
		for _, attempt := range []library.Booking{again, next} {
			if r, err := b.Reserve(t.Context(), attempt); !errors.Is(err, c.want) || r.ID != 0 {
				t.Errorf("%+v, request %s: %+v, %v", c.token, attempt.RequestID, r, err)
			}
		}
	}
	again, err := b.Reserve(t.Context(), booking)
	if err != nil || again.ID != first.ID {
		t.Errorf("the user's own token: %+v, %v", again, err)
	}
	if n := storetest.Value[int](t, b.db, `SELECT count(*) FROM reservations`); n != 1 {
		t.Errorf("%d reservations", n)
	}
}
