package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
)

// demoPassword is the password of all demo users. The README shows it.
const demoPassword = "password123"

type migrateCommand struct{}

// Run migrates the database to the schema of this binary.
func (migrateCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	if err := s.check(&s.DatabaseURL); err != nil {
		return err
	}
	result, err := migrations.Up(ctx, s.DatabaseURL)
	if err != nil {
		return err
	}
	if result.Schema > result.Newest {
		fmt.Fprintf(out, "the database has schema %d, of a newer release than this one, which has %d\n",
			result.Schema, result.Newest)
	}
	if result.Moved {
		fmt.Fprintln(out, movedOn)
	}
	if len(result.Applied) == 0 {
		fmt.Fprintln(out, "the database is up to date")
		return nil
	}
	fmt.Fprintf(out, "applied migrations %v\n", result.Applied)
	return nil
}

// movedOn is the message about a database that was restored, copied or failed over.
const movedOn = "the database was restored, copied or failed over: new ids begin far above all earlier ones"

type seedCommand struct{}

// Run adds the demo data.
func (seedCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	db, err := s.openStore(ctx, &s.BcryptCost)
	if err != nil {
		return err
	}
	defer db.Close()
	added, err := seedDemo(ctx, db, s.BcryptCost)
	if err != nil {
		return fmt.Errorf("seed (has the database been migrated?): %w", err)
	}
	fmt.Fprintf(out, "added %d branches, %d seats, %d users\n", added.Branches, added.Seats, added.Users)
	return nil
}

// seedDemo adds the demo data. All demo users share one password hash, because their password is
// public.
func seedDemo(ctx context.Context, db *store.Store, cost int) (store.Seeded, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(demoPassword), cost)
	if err != nil {
		return store.Seeded{}, err
	}
	return db.Seed(ctx, string(hash))
}

// open opens the database for a command that ends reservations. The command may offer the freed
// seats to the waitlist. An offer depends on CLAIM_MINUTES and CHECK_IN_LEAD, so open checks these
// settings too.
func (s *settings) open(ctx context.Context) (*store.Store, error) {
	return s.openStore(ctx, &s.ClaimTime, &s.CheckInLead)
}

// openStore checks DATABASE_URL and the settings used, and opens the database for a command. A command
// makes one request at a time, so one connection for requests is enough.
func (s *settings) openStore(ctx context.Context, used ...any) (*store.Store, error) {
	if err := s.check(append(used, &s.DatabaseURL)...); err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Config{URL: s.DatabaseURL, MinConns: 1, MaxConns: 1, Policy: s.rules()})
	switch {
	case store.Unavailable(err):
		return nil, fmt.Errorf("open the database (does Postgres run, at the address in DATABASE_URL?): %w", err)
	case err != nil:
		return nil, fmt.Errorf("open the database (has it been migrated? dlsms migrate does that): %w", err)
	}
	return db, nil
}

type cancelCommand struct {
	Reservation int64  `arg:"" help:"Id of the reservation."`
	Reason      string `placeholder:"TEXT" help:"Reason, which the user sees, at most 500 characters."`
}

// checkReason checks a reason for the change log and the audit log.
func checkReason(reason string) error {
	tooLong := utf8.RuneCountInString(reason) > store.MaxReason
	if tooLong || !utf8.ValidString(reason) || strings.ContainsRune(reason, 0) {
		return fmt.Errorf("--reason: must be text of at most %d characters", store.MaxReason)
	}
	return nil
}

// Run cancels a reservation for its user.
func (c *cancelCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	if err := checkReason(c.Reason); err != nil {
		return err
	}
	db, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	order := library.Order{Actor: library.Host, Action: "cancel", Reason: c.Reason}
	r, changed, err := db.CancelFor(ctx, order, c.Reservation)
	switch {
	case err != nil:
		return fmt.Errorf("cancel reservation %d: %w", c.Reservation, err)
	case !changed:
		fmt.Fprintf(out, "reservation %d is %s already: nothing to do\n", r.ID, r.Status)
	default:
		fmt.Fprintf(out, "reservation %d of user %d is %s\n", r.ID, r.UserID, r.Status)
	}
	return nil
}

type eraseCommand struct {
	StudentID string `arg:"" name:"student-id" help:"Student id of the user, in upper or lower case."`
}

// Run erases the data of a user: see store.Store.EraseUser.
func (c *eraseCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	db, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	erased, err := db.EraseUser(ctx, c.StudentID)
	switch {
	case errors.Is(err, library.ErrUserNotFound):
		fmt.Fprintf(out, "no user has the student id %q: nothing to do\n", c.StudentID)
	case err != nil:
		return fmt.Errorf("erase: %w", err)
	default:
		fmt.Fprintf(out, "user %d is erased and has the student id %s now; "+
			"reservations ended: %d, waitlist entries left: %d\n",
			erased.UserID, erased.StudentID, erased.Reservations, erased.Entries)
	}
	return nil
}

type healthCommand struct{}

// healthcheckTimeout is below the timeout of the health check in docker-compose.yml (3 s), so the
// command can still print its error.
const healthcheckTimeout = 2 * time.Second

// Run asks the replica at GRPC_ADDR for its health, or at ADMIN_ADDR if it serves no clients.
func (healthCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	if err := s.check(&s.Services); err != nil {
		return err
	}
	if !s.Services.clients() {
		return checkAdminPort(ctx, s.AdminAddr, out)
	}
	addr, err := dialable(s.GRPCAddr)
	if err != nil {
		return fmt.Errorf("GRPC_ADDR: %w", err)
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", addr, err)
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return errors.New(addr + " is " + resp.GetStatus().String())
	}
	fmt.Fprintln(out, addr, "is", resp.GetStatus())
	return nil
}

func checkAdminPort(ctx context.Context, listen string, out io.Writer) error {
	addr, err := dialable(listen)
	if err != nil {
		return fmt.Errorf("ADMIN_ADDR: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", addr, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not serving", addr)
	}
	fmt.Fprintln(out, addr, "is SERVING")
	return nil
}

// dialable returns the address to dial for an address to listen on. For ":9090", which listens on
// all interfaces, it returns "127.0.0.1:9090".
func dialable(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}
