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

// subscribe opens a subscription and returns when the server has accepted it.
func subscribe(
	t *testing.T, s *testServer, ctx context.Context,
) grpc.ServerStreamingClient[dlsmsv1.SubscribeResponse] {
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

// TestStreamsEndWithToken: when a token ends, its streams end on every replica within 5 seconds.
func TestStreamsEndWithToken(t *testing.T) {
	t.Parallel()
	const promised = 5 * time.Second
	for name, test := range map[string]struct {
		end    func(t *testing.T, s *testServer, ctx context.Context)
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
			if _, err := s.auth.ChangePassword(ctx, &dlsmsv1.ChangePasswordRequest{
				CurrentPassword: testPassword, NewPassword: "battery staple",
			}); err != nil {
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
			streams := []grpc.ServerStreamingClient[dlsmsv1.SubscribeResponse]{
				subscribe(t, one, ctx), subscribe(t, two, ctx),
			}
			otherStream := subscribe(t, two, other)

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
				want(t, ended(t, otherStream), codes.Unauthenticated, test.reason)
			}
		})
	}
}

func TestStreamsEndWhenTokenExpires(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.TokenTTL = 3 * time.Second })
	stream := subscribe(t, s, s.student(t))
	want(t, ended(t, stream), codes.Unauthenticated, "TOKEN_EXPIRED")
}

func TestStreamsEndOnShutdown(t *testing.T) {
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
		t.Errorf("open streams delayed the shutdown by %v", took)
	}
	want(t, ended(t, subscription), codes.Unavailable, "UNAVAILABLE")
	want(t, ended(t, watch), codes.Unavailable, "UNAVAILABLE")
	want(t, ended(t, probe), codes.Unavailable, "UNAVAILABLE")
}

// TestWatchesCountPerUserBehindOneAddress opens watches behind one address or /64 network. A watch
// with a valid token counts against the limit of its user. Two kinds of watches count against the
// address: watches without a valid token, and watches of a user that has reached its limit.
func TestWatchesCountPerUserBehindOneAddress(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Streams = edge.StreamLimits{PerAddress: 2, PerUser: 2} })
	one, two, ended := s.student(t), s.student(t), s.student(t)
	if _, err := s.auth.Logout(ended, &dlsmsv1.LogoutRequest{}); err != nil {
		t.Fatal(err)
	}
	anonymous := t.Context()
	for i, test := range []struct {
		ctx     context.Context
		address string
		reason  string
	}{
		{anonymous, "2001:db8:1:2::1", ""},
		{ended, "2001:db8:1:2:ffff::1", ""},
		{bearing(anonymous, "nonsense"), "2001:db8:1:2::3", "OVERLOADED"},
		{one, "2001:db8:1:2::1", ""},
		{one, "2001:db8:1:2::1", ""},
		{one, "2001:db8:1:2::1", "OVERLOADED"},
		{two, "2001:db8:1:2::1", ""},
		{anonymous, "2001:db8:1:3::1", ""},
		{one, "2001:db8:1:3::1", ""},
		{one, "2001:db8:1:3::1", "OVERLOADED"},
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
	subscribe(t, s, one) // subscriptions have a limit of their own
	s.conn.Close()
	eventually(t, "all streams have ended", func() bool { return s.edge.Stats().Streams == 0 })
	if n := s.edge.Stats().StreamKeys; n != 0 {
		t.Errorf("%d counts are left", n)
	}
}

func TestStreamLimits(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.Streams = edge.StreamLimits{Total: 5, PerAddress: 2, PerUser: 2} })
	watchFrom := func(address string) error {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-real-ip", address)
		stream, err := s.seats.WatchSeats(ctx, &dlsmsv1.WatchSeatsRequest{})
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
	}{
		{"192.0.2.1", ""}, {"192.0.2.1", ""}, {"192.0.2.1", "OVERLOADED"},
		{"192.0.2.2", ""}, {"192.0.2.3", "OVERLOADED"}, // there are 5 streams in total
	} {
		if err := watchFrom(test.address); reasonOf(err) != test.reason {
			t.Errorf("watch %d, from %s: %v", i+1, test.address, err)
		}
	}
	// A client that hangs up frees its place.
	hangUp()
	eventually(t, "4 streams are open", func() bool { return s.edge.Stats().Streams == 4 })
	subscribe(t, s, me)
	// Keys without streams are deleted.
	s.conn.Close()
	eventually(t, "all streams have ended", func() bool { return s.edge.Stats().Streams == 0 })
	if n := s.edge.Stats().StreamKeys; n != 0 {
		t.Errorf("%d counts are left", n)
	}
}

func subscribeErr(t *testing.T, s *testServer, ctx context.Context) error {
	t.Helper()
	stream, err := s.notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

// TestSubscriptionsDoNotTakeAllConnections blocks the reads of many subscriptions at the same time.
// Other calls still get connections to Postgres.
func TestSubscriptionsDoNotTakeAllConnections(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	me := s.student(t)
	for range 3 { // 24 subscriptions, and 16 connections to Postgres
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
	eventually(t, "a subscription reads and waits for the lock", func() bool {
		return s.config.Store.PoolStat().AcquiredConns() > 0
	})
	waiting := func() int {
		return storetest.Value[int](t, db, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%r.notifies%'`)
	}
	for done := 0; done < 50; {
		ctx, cancel := context.WithTimeout(me, 2*time.Second)              // less than any lock timeout
		_, err := s.notify.GetWaitlist(ctx, &dlsmsv1.GetWaitlistRequest{}) // does not read events
		cancel()
		// A busy machine may delay a call, too. Only subscriptions that wait for the lock are a fault.
		if n := waiting(); n > s.config.DBConns/4 {
			t.Fatalf("%d subscriptions wait for the lock, the call: %v", n, err)
		}
		if err == nil {
			done++
		}
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestStreamsLeakNoGoroutines opens streams, cancels them, and counts the goroutines of their
// handlers.
func TestStreamsLeakNoGoroutines(t *testing.T) {
	t.Parallel()
	var handlers dlsmsv1.NotifyServiceServer
	s := startWith(t, func(all *services) { handlers = all.notify })
	running := func() int {
		buf := make([]byte, 16<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		return strings.Count(stacks, fmt.Sprintf("(*notifyService).Subscribe(%p,", handlers))
	}
	me := s.student(t)
	open, hangUp := context.WithCancel(me)
	subscribe(t, s, open)
	if n := running(); n != 1 {
		t.Fatalf("one stream has %d goroutines: this test searches for the wrong text", n)
	}
	hangUp()
	for range 200 {
		ctx, cancel := context.WithCancel(me)
		// The server may refuse this stream, if earlier streams have not ended yet.
		stream, err := s.notify.Subscribe(ctx, &dlsmsv1.SubscribeRequest{})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = stream.Header()
		cancel()
	}
	eventually(t, "all streams have ended", func() bool { return s.edge.Stats().Streams == 0 && running() == 0 })
}

func TestShutdownWaitsForRunningCalls(t *testing.T) {
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
	eventually(t, "the listener is closed", func() bool {
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
		t.Errorf("the shutdown cancelled a call that ran: %v", err)
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
			<-finish // the handler ignores its context
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
		t.Errorf("a shutdown that cut off a call returned %v", err)
	}
	if took := time.Since(began); took < s.drain || took > 5*time.Second {
		t.Errorf("the shutdown took %v", took)
	}
	if err := <-running; status.Code(err) != codes.Unavailable {
		t.Errorf("the call that was cut off: %v", err)
	}
	s.drain = within // for the cleanup, which shuts down again
}

// TestNoStreamOpensDuringShutdown: after the server has ended its streams, it accepts no new one.
func TestNoStreamOpensDuringShutdown(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.streams.EndAll(library.ErrUnavailable)
	stream, err := s.seats.WatchSeats(t.Context(), &dlsmsv1.WatchSeatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); errors.Is(err, io.EOF) || reasonOf(err) != "UNAVAILABLE" {
		t.Errorf("a stream that opened during the shutdown: %v", err)
	}
}

// TestSubscriptionSurvivesOutage ends the connection to Postgres during a read of a subscription.
// The subscription still delivers the next notification.
func TestSubscriptionSurvivesOutage(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	me, seat := s.student(t), db.Seats(t, 1)[0]
	complete := func() { // creates a notification
		r, err := s.reservation.CreateReservation(me, &dlsmsv1.CreateReservationRequest{
			SeatId: seat, EndTime: timestamppb.New(time.Now().Add(time.Hour)),
		})
		if err != nil {
			t.Fatal(err)
		}
		id := r.GetReservation().GetId()
		if _, err := s.reservation.CheckIn(me, &dlsmsv1.CheckInRequest{ReservationId: id}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.reservation.CheckOut(me, &dlsmsv1.CheckOutRequest{ReservationId: id}); err != nil {
			t.Fatal(err)
		}
	}
	stream := subscribe(t, s, me)
	receive := func() {
		got, err := stream.Recv()
		if err != nil || got.GetNotification().GetKind() != dlsmsv1.NotificationKind_NOTIFICATION_KIND_COMPLETED {
			t.Fatalf("the stream got %v, %v; want a COMPLETED notification", got, err)
		}
	}
	complete()
	receive()

	db.Exec(t, `BEGIN`)
	db.Exec(t, `LOCK reservation_events`)
	s.config.Wakeups.Notify(nil)
	eventually(t, "a read of the subscription is cut off", func() bool {
		db.Exec(t, `SELECT pg_stat_clear_snapshot()`)
		return len(storetest.Rows[bool](t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%r.notifies%'`)) > 0
	})
	db.Exec(t, `COMMIT`)
	complete()
	receive()
}

// TestRevokedStreamReceivesNothing: while a replica cannot read the revocation list, it sends no
// notification. When it can read the list again, it ends the revoked stream.
func TestRevokedStreamReceivesNothing(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s := startOn(t, db, nil, nil)
	u, seat := s.register(t, "S2021001"), db.Seats(t, 1)[0]
	stream := subscribe(t, s, bearing(t.Context(), s.login(t, "S2021001", testPassword)))
	eventually(t, "the subscription is open", func() bool { return s.edge.Stats().Streams == 1 })

	db.Exec(t, `BEGIN`)
	db.Exec(t, `LOCK revocations`)
	eventually(t, "the revocation list of the replica is too old", func() bool {
		return s.revoked.Check(identity.Caller{UserID: u.GetId()}) != nil
	})
	r, err := s.config.Store.Reserve(t.Context(), library.Booking{
		UserID: u.GetId(), SeatID: seat, EndTime: time.Now().Add(time.Hour),
	})
	if err == nil {
		_, err = s.config.Store.CheckIn(t.Context(), u.GetId(), r.ID, nil)
	}
	if err == nil {
		_, err = s.config.Store.CheckOut(t.Context(), u.GetId(), r.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.config.Wakeups.Notify(nil)
	notified := time.Now()
	eventually(t, "a later refresh has read the change", func() bool {
		resp, err := s.seats.GetSeats(t.Context(), &dlsmsv1.GetSeatsRequest{})
		return err == nil && time.Since(notified) > time.Second && resp.GetAsOf().AsTime().After(notified)
	})
	db.Exec(t, `INSERT INTO revocations (library_id, user_id, generation, expires_at)
		SELECT 1, id, token_generation + 1, now() + interval '1 day' FROM users WHERE id = $1`, u.GetId())
	db.Exec(t, `COMMIT`)
	if got, err := stream.Recv(); reasonOf(err) != "TOKEN_REVOKED" {
		t.Errorf("the stream got %v, %v", got, err)
	}
}
