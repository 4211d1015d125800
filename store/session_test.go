package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/store/storetest"
)

// withParameters adds parameters to a URL.
func withParameters(t *testing.T, databaseURL string, parameters ...string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for _, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		q.Set(name, value)
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

// TestSessionsBehindAPooler opens sessions through a pooler that drops unknown start-up parameters,
// on a database with other settings. Every session must still have the settings that it needs.
func TestSessionsBehindAPooler(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	for _, setting := range []string{
		`default_transaction_isolation = 'serializable'`, `default_transaction_read_only = on`, `statement_timeout = 0`,
		`lock_timeout = 0`,
		`idle_in_transaction_session_timeout = 0`, `idle_session_timeout = '1min'`, `timezone = 'Asia/Tokyo'`,
		`plan_cache_mode = 'force_custom_plan'`,
		`enable_seqscan = on`, `client_encoding = 'LATIN1'`,
	} {
		db.Exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET `+strings.ReplaceAll(setting, "'",
			"''")+`', current_database()); END $$`)
	}
	pooler := storetest.NewPooler(t, db.URL)
	if _, err := migrations.Up(t.Context(), pooler.URL); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{URL: pooler.URL, MinConns: 3, MaxConns: 3,
		Policy: library.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if dropped := pooler.Dropped(); len(dropped) > 0 {
		t.Errorf("the sessions have start-up parameters, which PgBouncer refuses by default: %v", dropped)
	}
	pool, log := store.SessionSettings()
	store.EachSession(t.Context(), t, s, func(kind string, conn *pgx.Conn) {
		want := pool
		if kind == "log" {
			want = log
		}
		for name, value := range want {
			var same bool
			var got string
			// Postgres shows the value 5000 as 5s, so Postgres compares the values.
			err := conn.QueryRow(t.Context(), `SELECT got, got = set_config($1, $2, true)
				FROM (SELECT current_setting($1) AS got OFFSET 0) c`,
				name, value).Scan(&got, &same)
			if err != nil || !same {
				t.Errorf("%s: %s is %q, want %q (%v)", kind, name, got, value, err)
			}
		}
		var level string
		if err := conn.QueryRow(t.Context(), `SHOW transaction_isolation`).Scan(&level); err != nil ||
			level != "read committed" {
			t.Errorf("%s: the isolation level is %q (%v)", kind, level, err)
		}
	})
}

// TestPrepareSession checks that prepareSession refuses a session whose settings differ from those
// that it has set.
func TestPrepareSession(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), storetest.NewDB(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	pool, _ := store.SessionSettings()
	if err := store.PrepareSession(t.Context(), conn, pool); err != nil {
		t.Error(err)
	}
	custom := maps.Clone(pool)
	custom["dlsms.test"] = "on" // a setting with a dot in its name needs no declaration
	if err := store.PrepareSession(t.Context(), conn, custom); err != nil {
		t.Error(err)
	}
	lost := maps.Clone(pool)
	// Postgres resets transaction_read_only at the end of the transaction that sets it. Behind a
	// pooler that resets sessions, every setting is lost in this way.
	lost["transaction_read_only"] = "on"
	if err := store.PrepareSession(t.Context(), conn, lost); err == nil || !strings.Contains(err.Error(),
		"transaction_read_only") {
		t.Errorf("a setting that did not last: %v", err)
	}
}

// TestSessionOnAStandby opens a store on a standby. The error must name the cause and allow a
// retry. If the URL has the standby and the primary, the store must find the primary.
func TestSessionOnAStandby(t *testing.T) {
	t.Parallel()
	db, _ := storetest.NewCluster(t)
	other, pg := storetest.NewCluster(t)
	for _, db := range []*storetest.DB{db, other} {
		db.Exec(t, `CREATE ROLE twin SUPERUSER LOGIN PASSWORD 'twin'`)
	}
	storetest.MakeStandby(t, pg)
	_, err := store.Open(t.Context(), store.Config{URL: other.URL, MinConns: 1, MaxConns: 1,
		Policy: library.DefaultPolicy()})
	if !errors.Is(err, library.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "read only") {
		t.Errorf("a standby: %v", err)
	}
	// The store finds the primary, although the standby is the first host.
	hosts := ""
	for _, db := range []*storetest.DB{other, db} {
		u, err := url.Parse(db.URL)
		if err != nil {
			t.Fatal(err)
		}
		hosts += "," + u.Host
	}
	both := "postgres://twin:twin@" + hosts[1:] + "/dlsms?sslmode=disable"
	s, err := store.Open(t.Context(), store.Config{URL: both, MinConns: 1, MaxConns: 1, Policy: library.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestOpenDespiteSilentFirstHost opens a store with two hosts in the URL, of which the first never
// answers. Open must leave time for the second host.
func TestOpenDespiteSilentFirstHost(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	both, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	both.Host = silent.Addr().String() + "," + both.Host
	if _, err := migrations.Up(t.Context(), both.String()); err != nil {
		t.Error(err)
	}
	s, err := store.Open(t.Context(), store.Config{URL: both.String(), MinConns: 1, MaxConns: 1,
		Policy: library.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestParseURL checks that the strings that ParseURL accepts work in the migrations and the store.
// The error for any other string must give a reason and must not contain the password.
func TestParseURL(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	service := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(service, fmt.Appendf(nil, "[library]\nhost=%s\nport=%s\n", u.Hostname(), u.Port()),
		0o600); err != nil {
		t.Fatal(err)
	}
	for name, connString := range map[string]string{
		"pool parameters": withParameters(t, db.URL, "pool_max_conns=10", "pool_min_conns=1",
			"pool_max_conn_lifetime=1h", "pool_max_conn_idle_time=1m",
			"pool_health_check_period=1m", "pool_max_conn_lifetime_jitter=1m"),
		"keywords and values": fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=disable",
			u.Hostname(), u.Port(), u.User.Username(), password, u.Path[1:]),
		"a service file": fmt.Sprintf("service=library servicefile=%s user=%s password=%s dbname=%s sslmode=disable",
			service, u.User.Username(), password, u.Path[1:]),
		"sslmode=prefer":       withParameters(t, db.URL, "sslmode=prefer"),
		"connect_timeout":      withParameters(t, db.URL, "connect_timeout=5"),
		"target_session_attrs": withParameters(t, db.URL, "target_session_attrs=primary"),
		"an application name":  withParameters(t, db.URL, "application_name=mine"),
		"a timeout of its own": withParameters(t, db.URL, "statement_timeout=1"),
		"options": withParameters(t, db.URL,
			"options=-c statement_timeout=1s -c default_transaction_isolation=serializable"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := migrations.Up(t.Context(), connString); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(t.Context(), store.Config{URL: connString, MinConns: 1, MaxConns: 2,
				Policy: library.DefaultPolicy()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.LoadWorld(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range []struct{ url, want string }{
		{"postgres://user:s3cret word@host/db", "not a Postgres URL"},
		{"postgres://user:s3cret/word@host/db", "not a Postgres URL"},
		{"host=h password='s3cret", "not a Postgres URL"},
		{"postgres://user:s3cret@host/db?pool_max_connections=3", "pool_max_connections"},
		{"postgres://user:s3cret@host/db?pool_max_conns=none", "not a Postgres URL"},
		{"postgres://user:s3cret@host/db?default_query_exec_mode=simple_protocol", "default_query_exec_mode"},
		{"postgres://user:s3cret@host/db?default_query_exec_mode=exec", "default_query_exec_mode"},
		{"postgres://user:s3cret@host/db?default_query_exec_mode=fast", "not a Postgres URL"},
		{"postgres://user:s3cret@host/db?statement_cache_capacity=0", "statement_cache_capacity"},
		{"postgres://user:s3cret@host/db?default_query_exec_mode=cache_describe&description_cache_capacity=0",
			"description_cache_capacity"},
		{"postgres://user:s3cret@host/db?sslmode=verify-full&sslrootcert=/no/such.crt", "/no/such.crt"},
		{"postgres://user:s3cret@host/db?service=none&servicefile=/no/such.conf", "not a Postgres URL"},
		{"postgres://user:s3cret@host/db?target_session_attrs=none", "not a Postgres URL"},
	} {
		_, err := store.ParseURL(c.url)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", c.url, err)
		}
	}
}

// TestSettingsAreNoStartUpParameters checks that session settings in the URL are not sent as
// start-up parameters, which a pooler may refuse.
func TestSettingsAreNoStartUpParameters(t *testing.T) {
	t.Parallel()
	settings, _ := store.SessionSettings()
	for name := range settings {
		config, err := store.ParseURL("postgres://user:password@host/db?" + name + "=1")
		if err != nil {
			t.Fatal(err)
		}
		if value, sent := config.ConnConfig.RuntimeParams[name]; sent {
			t.Errorf("%s=%s is sent", name, value)
		}
	}
}

// TestExecModes calls every method of the store in each mode that ParseURL accepts.
func TestExecModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			db := storetest.NewDB(t)
			db.FreezeClock(t, noon)
			through := withParameters(t, db.URL, "default_query_exec_mode="+mode)
			if _, err := migrations.Up(t.Context(), through); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(t.Context(), store.Config{URL: through, MinConns: 1, MaxConns: 4,
				Policy: library.DefaultPolicy()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			b := bundle{Store: s, db: db, seats: db.Seats(t, 5), users: db.Users(t, 5)}
			for range 3 { // in the first round pgx fills its caches, and then it uses them
				b.everyVerb(t)
			}
		})
	}
}

// everyVerb calls the methods of the store and expects success.
func (b bundle) everyVerb(t *testing.T) {
	t.Helper()
	do := func(name string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	ctx, waiting := t.Context(), b.db.Users(t, 1)[0]
	b.clock(t, 0)

	user, err := b.RegisterUser(ctx, library.NewUser{
		StudentID: fmt.Sprintf("S%d", waiting), Name: "Name", Email: "a@b.example", PasswordHash: "hash",
		Role: library.RoleStudent,
	})
	do("RegisterUser", err)
	_, err = b.Credentials(ctx, user.StudentID)
	do("Credentials", err)
	_, err = b.CredentialsByID(ctx, user.ID)
	do("CredentialsByID", err)
	log, err := b.Revocations(ctx, store.Snapshot{})
	do("Revocations", err)
	_, err = b.ChangePassword(ctx, user.ID, "hash", "other", noon.Add(time.Hour))
	do("ChangePassword", err)
	do("RevokeToken", b.RevokeToken(ctx, user.ID, fmt.Sprint("jti-", user.ID), noon.Add(time.Hour)))
	if log, err = b.Revocations(ctx, log.Snapshot); err != nil || len(log.Revocations) != 2 {
		t.Errorf("revoked: %+v, %v", log.Revocations, err)
	}

	world, err := b.LoadWorld(ctx)
	do("LoadWorld", err)
	everything, err := b.Changes(ctx, store.Snapshot{})
	do("Changes", err)
	if len(everything.Catalog.Seats) != len(world.Seats) || len(everything.Catalog.SeatIDs) != len(world.Seats) {
		t.Errorf("the catalog: %+v", everything.Catalog)
	}
	visit, err := b.Reserve(ctx, library.Booking{UserID: b.users[0], SeatID: b.seats[0], EndTime: at(60),
		RequestID: fmt.Sprint("r-", user.ID)})
	do("Reserve", err)
	_, err = b.Reservation(ctx, b.users[0], visit.ID)
	do("Reservation", err)
	_, err = b.CheckIn(ctx, b.users[0], visit.ID, nil)
	do("CheckIn", err)
	_, err = b.Extend(ctx, b.users[0], visit.ID, at(90))
	do("Extend", err)
	entry, err := b.JoinWaitlist(ctx, library.Booking{
		UserID: waiting, SeatID: b.seats[0], StartTime: at(30), EndTime: at(80), RequestID: fmt.Sprint("j-", user.ID),
	})
	do("JoinWaitlist", err)
	left, err := b.JoinWaitlist(ctx, library.Booking{UserID: b.users[1], SeatID: b.seats[0], StartTime: at(30),
		EndTime: at(80)})
	do("JoinWaitlist", err)
	_, err = b.LeaveWaitlist(ctx, b.users[1], left.ID)
	do("LeaveWaitlist", err)
	_, err = b.CheckOut(ctx, b.users[0], visit.ID)
	do("CheckOut", err)
	_, claimed, err := b.ClaimOffer(ctx, waiting, entry.ID)
	do("ClaimOffer", err)
	_, err = b.Waitlist(ctx, waiting)
	do("Waitlist", err)
	_, err = b.Cancel(ctx, waiting, claimed.ID)
	do("Cancel", err)
	list, err := b.Reservations(ctx, waiting, store.ViewAll, store.ReservationCursor{}, 10)
	do("Reservations", err)
	if len(list) != 1 {
		t.Errorf("%d reservations", len(list))
	}
	_, _, err = b.NextDue(ctx, time.Hour)
	do("NextDue", err)
	for name, step := range map[string]func(context.Context, int) (int, bool, error){
		"CompleteEnded": b.CompleteEnded, "ExpireOffers": b.ExpireOffers, "ExpireWaiting": b.ExpireWaiting,
		"ForgetRevocations": b.ForgetRevocations,
		"MarkNoShows":       b.MarkNoShows, "OfferFreeSeats": b.OfferFreeSeats, "RemindOfCheckIn": b.RemindOfCheckIn,
	} {
		_, _, err := step(ctx, 10)
		do(name, err)
	}
	b.reserve(t, 2, 1, 0, 60) // a no-show
	b.clock(t, 20)
	if n, _, err := b.MarkNoShows(ctx, 10); err != nil || n != 1 {
		t.Errorf("%d no-shows, %v", n, err)
	}
	_, _, err = b.CancelFor(ctx, byHost("closed"), b.reserve(t, 3, 2, 20, 60).ID)
	do("CancelFor", err)
	_, err = b.EraseUser(ctx, user.StudentID)
	do("EraseUser", err)
	told, err := b.Notifications(ctx, waiting, 0, 10)
	do("Notifications", err)
	if len(told) != 1 {
		t.Errorf("%d notifications", len(told))
	}
	changes, err := b.Changes(ctx, world.Snapshot)
	do("Changes", err)
	if len(changes.Events) < 7 {
		t.Errorf("%d events", len(changes.Events))
	}
	_, err = b.Seed(ctx, "hash")
	do("Seed", err)
	_, err = b.DurabilityFaults(ctx)
	do("DurabilityFaults", err)
	do("Ping", b.Ping(ctx))
}
