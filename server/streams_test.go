package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/server/identity"
	"github.com/dlsms/dlsms/store/storetest"
)

// subscribe opens a subscription and returns when the server has it.
func subscribe(t *testing.T, s *testServer, ctx context.Context) grpc.ServerStreamingClient[dlsmsv1.SubscribeResponse] { //nolint:revive // the context is of the call
	t.Helper()
	stream, err := s.notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	return stream
}

// TestStreamsEndWithTheirToken is the promise: on every replica within 5 seconds.
func TestStreamsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	const promised = 5 * time.Second
	for name, test := range map[string]struct {
		end    func(t *testing.T, s *testServer, ctx context.Context) //nolint:revive // the context is of the call
		reason string
	}{
		"logout": {func(t *testing.T, s *testServer, ctx context.Context) {
			t.Helper()
			if _, err := s.auth.Logout(ctx, &dlsmsv1.LogoutRequest{}); err != nil {
				t.Fatal(err)
			}
		}, "TOKEN_REVOKED"},
		"another password": {func(t *testing.T, s *testServer, ctx context.Context) {
			t.Helper()
			if _, err := s.auth.ChangePassword(ctx, &dlsmsv1.ChangePasswordRequest{CurrentPassword: testPassword, NewPassword: "battery staple"}); err != nil {
				t.Fatal(err)
			}
		}, "TOKEN_REVOKED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := storetest.NewDB(t)
			one, two := startOn(t, db, nil, nil), startOn(t, db, nil, nil) // without Redis
			one.register(t, "S2021001")
			other := bearing(t.Context(), one.login(t, "S2021001", testPassword))
			ctx := bearing(t.Context(), one.login(t, "S2021001", testPassword))
			streams := []grpc.ServerStreamingClient[dlsmsv1.SubscribeResponse]{subscribe(t, one, ctx), subscribe(t, two, ctx)}
			bystander := subscribe(t, two, other)

			test.end(t, one, ctx)
			began := time.Now()
			for i, stream := range streams {
				want(t, ended(t, stream), codes.Unauthenticated, test.reason)
				if took := time.Since(began); took > promised {
					t.Errorf("the stream on replica %d ended after %v", i+1, took)
				}
			}
			_, err := two.notify.GetWaitlist(ctx, &dlsmsv1.GetWaitlistRequest{})
			want(t, err, codes.Unauthenticated, test.reason)

			_, err = two.notify.GetWaitlist(other, &dlsmsv1.GetWaitlistRequest{})
			if name == "logout" {
				if err != nil {
					t.Errorf("another token of the user ended as well: %v", err)
				}
			} else {
				want(t, err, codes.Unauthenticated, test.reason)
				want(t, ended(t, bystander), codes.Unauthenticated, test.reason)
			}
		})
	}
}

func TestStreamsEndWhenTheTokenExpires(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.TokenTTL = 3 * time.Second })
	stream := subscribe(t, s, s.student(t))
	want(t, ended(t, stream), codes.Unauthenticated, "TOKEN_EXPIRED")
}

func TestStreamsEndWhenTheServerStops(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	subscription := subscribe(t, s, s.student(t))
	watch, err := s.seats.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	probe, err := healthpb.NewHealthClient(s.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := probe.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatal(resp, err)
	}
	began := time.Now()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("open streams held up the shutdown for %v", took)
	}
	want(t, ended(t, subscription), codes.Unavailable, "UNAVAILABLE")
	want(t, ended(t, watch), codes.Unavailable, "UNAVAILABLE")
	want(t, ended(t, probe), codes.Unavailable, "UNAVAILABLE")
}

// TestWatchesOfACampus: behind one address, or in one /64, watches with a good token count against their users; the others, and those of a user
// who has too many, against the address.
func TestWatchesOfACampus(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Streams = edge.StreamLimits{PerAddress: 2, PerUser: 2} })
	one, two, ended := s.student(t), s.student(t), s.student(t)
	if _, err := s.auth.Logout(ended, &dlsmsv1.LogoutRequest{}); err != nil {
		t.Fatal(err)
	}
	nobody := t.Context()
	for i, test := range []struct {
		ctx     context.Context
		address string
		reason  string
	}{
		{nobody, "2001:db8:1:2::1", ""}, {ended, "2001:db8:1:2:ffff::1", ""}, {bearing(nobody, "nonsense"), "2001:db8:1:2::3", "OVERLOADED"},
		{one, "2001:db8:1:2::1", ""}, {one, "2001:db8:1:2::1", ""}, {one, "2001:db8:1:2::1", "OVERLOADED"}, {two, "2001:db8:1:2::1", ""},
		{nobody, "2001:db8:1:3::1", ""}, {one, "2001:db8:1:3::1", ""}, {one, "2001:db8:1:3::1", "OVERLOADED"},
	} {
		ctx := metadata.AppendToOutgoingContext(test.ctx, "x-real-ip", test.address)
		stream, err := s.seats.WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if reasonOf(err) != test.reason {
			t.Errorf("watch %d, from %s: %v", i+1, test.address, err)
		}
	}
	subscribe(t, s, one) // watches take nothing from it
	s.conn.Close()
	eventually(t, "an end of all streams", func() bool { return s.edge.Stats().Streams == 0 })
	if n := s.edge.Stats().StreamKeys; n != 0 {
		t.Errorf("%d counts are left", n)
	}
}

func TestStreamLimits(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Streams = edge.StreamLimits{Total: 5, PerAddress: 2, PerUser: 2} })
	watchFrom := func(address string) error {
		stream, err := s.seats.WatchSeats(metadata.AppendToOutgoingContext(t.Context(), "x-real-ip", address), &dlsmsv1.WatchSeatsRequest{})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	me := s.student(t)
	first, hangUp := context.WithCancel(me)
	subscribe(t, s, first)
	subscribe(t, s, me)
	one := subscribeErr(t, s, me)
	want(t, one, codes.ResourceExhausted, "OVERLOADED")

	for i, test := range []struct {
		address string
		reason  string
	}{{"192.0.2.1", ""}, {"192.0.2.1", ""}, {"192.0.2.1", "OVERLOADED"}, {"192.0.2.2", ""}, {"192.0.2.3", "OVERLOADED"}} { // the last one: 5 in all
		if err := watchFrom(test.address); reasonOf(err) != test.reason {
			t.Errorf("watch %d, from %s: %v", i+1, test.address, err)
		}
	}
	// Who hangs up makes room.
	hangUp()
	eventually(t, "room after one hung up", func() bool { return s.edge.Stats().Streams == 4 })
	subscribe(t, s, me)
	// No key is remembered for longer than its streams.
	s.conn.Close()
	eventually(t, "an end of all streams", func() bool { return s.edge.Stats().Streams == 0 })
	if n := s.edge.Stats().StreamKeys; n != 0 {
		t.Errorf("%d counts are left", n)
	}
}

func subscribeErr(t *testing.T, s *testServer, ctx context.Context) error { //nolint:revive // the context is of the call
	t.Helper()
	stream, err := s.notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

// TestSubscriptionsLeaveRoom: when all subscriptions read at once, and can't get on, others still find connections to Postgres.
func TestSubscriptionsLeaveRoom(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	me := s.student(t)
	for range 3 { // more than there are connections
		another := s.student(t)
		for range 8 {
			subscribe(t, s, another)
		}
	}
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE reservation_events`); err != nil {
		t.Fatal(err)
	}
	s.config.Wakeups.Notify(nil)
	eventually(t, "a subscription that waits", func() bool { return s.config.Store.PoolStat().AcquiredConns() > 0 })
	for range 50 {
		ctx, cancel := context.WithTimeout(me, 2*time.Second) // less than anybody waits for a lock
		_, err := s.reservation.GetReservations(ctx, &dlsmsv1.GetReservationsRequest{})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestStreamsLeaveNothingBehind opens streams whose clients vanish, and looks for goroutines that are left.
func TestStreamsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	var handlers dlsmsv1.NotifyServiceServer
	s := startWith(t, func(all *services) { handlers = all.notify })
	running := func() int {
		buf := make([]byte, 16<<20)
		return strings.Count(string(buf[:runtime.Stack(buf, true)]), fmt.Sprintf("(*notifyService).Subscribe(%p,", handlers))
	}
	me := s.student(t)
	open, hangUp := context.WithCancel(me)
	subscribe(t, s, open)
	if n := running(); n != 1 {
		t.Fatalf("of one stream there are %d goroutines: this test looks for the wrong thing", n)
	}
	hangUp()
	for range 200 {
		ctx, cancel := context.WithCancel(me)
		stream, err := s.notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{}) // refused when the last ones have not left yet
		if err != nil {
			t.Fatal(err)
		}
		_, _ = stream.Header()
		cancel()
	}
	eventually(t, "an end of all streams", func() bool { return s.edge.Stats().Streams == 0 && running() == 0 })
}

func TestShutdownFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	entered, finish := make(chan struct{}, 1), make(chan struct{})
	s := startWith(t, func(all *services) {
		all.seat = fakeSeats{Branches: func(ctx context.Context) error {
			entered <- struct{}{}
			select {
			case <-finish:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
	})
	running := make(chan error, 1)
	go func() {
		_, err := s.seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{})
		running <- err
	}()
	<-entered
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(t.Context()) }()
	eventually(t, "a closed listener", func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-down:
		t.Fatalf("the server is down while a call runs: %v", err)
	default:
	}
	close(finish)
	if err := <-running; err != nil {
		t.Errorf("the call that ran was cut off: %v", err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	entered, finish := make(chan struct{}, 1), make(chan struct{})
	defer close(finish)
	s := startWith(t, func(all *services) {
		all.seat = fakeSeats{Branches: func(context.Context) error {
			entered <- struct{}{}
			<-finish // whatever the context says
			return nil
		}}
	})
	s.drain = 300 * time.Millisecond
	running := make(chan error, 1)
	go func() {
		_, err := s.seats.GetBranches(t.Context(), &dlsmsv1.GetBranchesRequest{})
		running <- err
	}()
	<-entered
	began := time.Now()
	if err := s.Shutdown(t.Context()); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("a shutdown that cut off a call says %v", err)
	}
	if took := time.Since(began); took < s.drain || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := <-running; status.Code(err) != codes.Unavailable {
		t.Errorf("the call that was cut off: %v", err)
	}
	s.drain = within // for the cleanup, which finds nothing left to do
}

// TestStreamsThatOpenLate: between the end of the streams and that of the server, none slips in.
func TestStreamsThatOpenLate(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.streams.EndAll(library.ErrUnavailable)
	stream, err := s.seats.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); errors.Is(err, io.EOF) || reasonOf(err) != "UNAVAILABLE" {
		t.Errorf("a stream opened late: %v", err)
	}
}

// TestSubscriptionOutlivesAnOutage has Postgres end the connection in the midst of a subscription's read.
func TestSubscriptionOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	me, seat := s.student(t), db.Seats(t, 1)[0]
	over := func() { // there is something to tell
		r, err := s.reservation.CreateReservation(me, &dlsmsv1.CreateReservationRequest{SeatId: seat, EndTime: timestamppb.New(time.Now().Add(time.Hour))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.reservation.CheckIn(me, &dlsmsv1.CheckInRequest{ReservationId: r.GetReservation().GetId()}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.reservation.CheckOut(me, &dlsmsv1.CheckOutRequest{ReservationId: r.GetReservation().GetId()}); err != nil {
			t.Fatal(err)
		}
	}
	stream := subscribe(t, s, me)
	told := func() {
		if got, err := stream.Recv(); err != nil || got.GetNotification().GetKind() != dlsmsv1.NotificationKind_NOTIFICATION_KIND_COMPLETED {
			t.Fatalf("%v, %v", got, err)
		}
	}
	over()
	told()

	db.Exec(t, `BEGIN`)
	db.Exec(t, `LOCK reservation_events`)
	s.config.Wakeups.Notify(nil)
	eventually(t, "a read that is cut off", func() bool {
		db.Exec(t, `SELECT pg_stat_clear_snapshot()`)
		return len(storetest.Rows[bool](t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%r.notifies%'`)) > 0
	})
	db.Exec(t, `COMMIT`)
	over()
	told()
}

// TestARevokedStreamGetsNothingNew: a replica that was kept from the log of revocations reads it before it tells a subscriber anything.
func TestARevokedStreamGetsNothingNew(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	u, seat := s.register(t, "S2021001"), db.Seats(t, 1)[0]
	stream := subscribe(t, s, bearing(t.Context(), s.login(t, "S2021001", testPassword)))
	eventually(t, "a subscription", func() bool { return s.edge.Stats().Streams == 1 })

	db.Exec(t, `BEGIN`)
	db.Exec(t, `LOCK revocations`)
	eventually(t, "a replica that knows too little", func() bool { return s.revoked.Check(identity.Caller{UserID: u.GetId()}) != nil })
	r, err := s.config.Store.Reserve(t.Context(), library.Booking{UserID: u.GetId(), SeatID: seat, EndTime: time.Now().Add(time.Hour)})
	if err == nil {
		_, err = s.config.Store.CheckIn(t.Context(), u.GetId(), r.ID)
	}
	if err == nil {
		_, err = s.config.Store.CheckOut(t.Context(), u.GetId(), r.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.config.Wakeups.Notify(nil)
	over := time.Now()
	eventually(t, "a look at the seats since then", func() bool {
		resp, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
		return err == nil && time.Since(over) > time.Second && resp.GetAsOf().AsTime().After(over)
	})
	db.Exec(t, `INSERT INTO revocations (library_id, user_id, generation, expires_at)
		SELECT 1, id, token_generation + 1, now() + interval '1 day' FROM users WHERE id = $1`, u.GetId())
	db.Exec(t, `COMMIT`)
	if got, err := stream.Recv(); reasonOf(err) != "TOKEN_REVOKED" {
		t.Errorf("the stream got %v, %v", got, err)
	}
}
