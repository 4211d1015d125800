package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// staff measures the effect of the tools for staff on students: bookings under policies, a closure
// of a branch with many reservations, and an import of many seats.
func (b *bench) staff(ctx context.Context) error {
	admin, err := b.newAdmin(ctx)
	if err != nil {
		return err
	}
	for _, measure := range []func(context.Context, *e2e.Client) error{b.policies, b.closure, b.seatImport} {
		if err := measure(ctx, admin); err != nil {
			return err
		}
	}
	return nil
}

// demoPassword is the password of the users that addUsers adds.
const demoPassword = "password123"

// newAdmin adds a user with the role ADMIN and logs in.
func (b *bench) newAdmin(ctx context.Context) (*e2e.Client, error) {
	if _, err := b.ours.addUsers(ctx, "admin-", 1); err != nil {
		return nil, err
	}
	if _, err := b.ours.db.Exec(ctx, `UPDATE users SET role = 'ADMIN' WHERE student_id = 'admin-0'`); err != nil {
		return nil, err
	}
	return e2e.Anonymous(b.ours.conn).Login(ctx, "admin-0", demoPassword)
}

// The rules in force in the scenario of policies: policies for groups and areas, and closures of the
// branch that have not ended.
const (
	policyGroups = 40
	liveClosures = 10
)

// policies measures CreateReservation in a branch with policies and closures, against a branch
// without them.
func (b *bench) policies(ctx context.Context, admin *e2e.Client) error {
	const clients = 50
	ruled := *b.ours
	ruled.name = ours + " with policies"
	subjects := [2]*subject{&ruled, b.ours}
	slotsOf := map[*subject]*slots{}
	for i, s := range subjects {
		branch := []string{"ruled", "unruled"}[i]
		made, err := b.newSlotsIn(ctx, b.ours, branch, 1)
		if err != nil {
			return err
		}
		slotsOf[s] = made
	}
	limit, upcoming := int32(3), int32(10)
	rules := &dlsmsv1.PolicyRules{StrikeLimit: &limit, MaxUpcoming: &upcoming}
	scopes := []*dlsmsv1.Policy{{Branch: "ruled", Rules: rules}}
	for i := range policyGroups {
		p := &dlsmsv1.Policy{Branch: "ruled", Group: fmt.Sprintf("group-%d", i), Rules: rules}
		if i%4 == 0 {
			p.Area = fmt.Sprintf("Area %d", i%5)
		}
		scopes = append(scopes, p)
	}
	for _, p := range scopes {
		if _, err := admin.Admin.SetPolicy(ctx, &dlsmsv1.SetPolicyRequest{Policy: p}); err != nil {
			return fmt.Errorf("set a policy: %w", err)
		}
	}
	// The users of both branches get a group, so that the same rows are rewritten.
	if _, err := b.ours.db.Exec(ctx, `
		UPDATE users SET user_group = 'group-' || id % $1 WHERE library_id = 1 AND student_id ~ '^(un)?ruled-'`,
		policyGroups); err != nil {
		return err
	}
	for i := range liveClosures {
		start := time.Now().AddDate(0, 0, 30+i)
		if _, err := admin.Admin.CreateClosure(ctx, &dlsmsv1.CreateClosureRequest{
			Branch: "ruled", StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(time.Hour)),
		}); err != nil {
			return fmt.Errorf("make a closure: %w", err)
		}
	}
	c, err := b.compare(ctx, "CreateReservation", clients, subjects, func(s *subject) (load, error) {
		return b.bookingLoad(slotsOf[s], clients)
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("CreateReservation under %d policies and %d closures", len(scopes), liveClosures)
	b.report.atMost(name+": CPU for a call, divided by that without", c.cpu, 1.1)
	return nil
}

// beside runs a load alone, and then again while a change is made. It reports the ratio of the P99.
func (b *bench) beside(
	ctx context.Context, name string, loadOf func() (load, error), change func(context.Context) error, most float64,
) error {
	var p99 [2]time.Duration
	for i, scenario := range []string{name + ", alone", name} {
		l, err := loadOf()
		if err != nil {
			return err
		}
		changed := make(chan error, 1)
		if i == 0 {
			changed <- nil
		} else {
			go func() {
				sleep(ctx, b.warm+time.Second)
				changed <- change(ctx)
			}()
		}
		s, err := l.run(ctx, b.ours)
		if err := errors.Join(err, <-changed, s.failure()); err != nil {
			return fmt.Errorf("%s: %w", scenario, err)
		}
		b.report.add(summary(scenario, l.clients, b.ours, []sample{s}))
		p99[i] = s.percentile(99)
		b.progress("%s: P99 %s", scenario, millis(p99[i]))
	}
	b.report.atMost(name+": P99, divided by that alone", p99[1].Seconds()/p99[0].Seconds(), most)
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// closedReservations is the number of reservations inside the closure.
const closedReservations = 3000

// closure closes a branch with many reservations, while others book elsewhere.
func (b *bench) closure(ctx context.Context, admin *e2e.Client) error {
	const rate = 200
	seats, err := b.ours.addBranch(ctx, "closed", closedReservations/5)
	if err != nil {
		return err
	}
	students, err := b.ours.addUsers(ctx, "closed-", len(seats))
	if err != nil {
		return err
	}
	// Five reservations of each seat and each user, on different days.
	if _, err := b.ours.db.Exec(ctx, `
		WITH made AS (
			INSERT INTO reservations (library_id, seat_id, user_id, during, status,
				check_in_opens_at, check_in_deadline, created_at)
			SELECT 1, s.id, u.id, tstzrange(t, t + interval '1 hour'), 'CONFIRMED', t, t + interval '15 minutes', now()
			FROM unnest($1::bigint[], $2::bigint[]) AS p (seat, usr)
			JOIN seats s ON s.id = p.seat JOIN users u ON u.id = p.usr
			CROSS JOIN generate_series(date_trunc('hour', now()) + interval '1 day', now() + interval '5 days 12 hours',
				interval '1 day') t
			RETURNING *
		)
		INSERT INTO reservation_events (library_id, at, kind, notifies, reservation_id, version, seat_id, user_id, during,
			status, occupies, check_in_opens_at, check_in_deadline, created_at)
		SELECT library_id, created_at, 'RESERVED', false, id, version, seat_id, user_id, during, status, occupies,
			check_in_opens_at, check_in_deadline, created_at FROM made`, seats, students.ids); err != nil {
		return err
	}
	slots, err := b.newSlotsIn(ctx, b.ours, "beside", 2)
	if err != nil {
		return err
	}
	var took time.Duration
	var told int32
	err = b.beside(ctx, "CreateReservation, 200 a second, while a branch is closed", func() (load, error) {
		l, err := b.bookingLoad(slots, 20)
		l.rps = rate
		return l, err
	}, func(ctx context.Context) error {
		began := time.Now()
		defer func() { took = time.Since(began) }()
		req := &dlsmsv1.CreateClosureRequest{
			Branch: "closed", OnBookings: dlsmsv1.BookingAction_BOOKING_ACTION_CANCEL, RequestId: "bench", ValidateOnly: true,
		}
		shown, err := admin.Admin.CreateClosure(ctx, req)
		if err != nil {
			return err
		}
		req.ValidateOnly, req.ExpectedReservations = false, shown.GetImpact().GetReservations()
		if _, err := admin.Admin.CreateClosure(ctx, req); err != nil {
			return err
		}
		for ctx.Err() == nil {
			list, err := admin.Admin.ListClosures(ctx, &dlsmsv1.ListClosuresRequest{Branch: "closed"})
			if err != nil {
				return err
			}
			if sweep := list.GetClosures()[0].GetSweep(); sweep.GetDone() {
				told = sweep.GetEnded()
				return nil
			}
			sleep(ctx, 50*time.Millisecond)
		}
		return ctx.Err()
	}, 2)
	if err != nil {
		return err
	}
	b.report.goal(fmt.Sprintf("a closure with %d reservations inside: time until all were cancelled", told),
		"≤ 30 s", took.Round(100*time.Millisecond).String(), took <= 30*time.Second && told == closedReservations)
	return nil
}

// importedSeats is the number of seats in the imported file.
const importedSeats = 10_000

// seatImport imports a file of seats while clients read other seats.
func (b *bench) seatImport(ctx context.Context, admin *e2e.Client) error {
	if _, err := admin.Admin.UpsertBranch(ctx, &dlsmsv1.UpsertBranchRequest{
		Code: "imported", Name: "Imported", Timezone: "Europe/Berlin",
	}); err != nil {
		return err
	}
	var file strings.Builder
	file.WriteString("branch,area,label,amenities\n")
	for i := range importedSeats {
		fmt.Fprintf(&file, "imported,Area %d,I-%d,window|monitor\n", i%20, i)
	}
	var took time.Duration
	err := b.beside(ctx, "GetSeats of a branch, 200 a second, while seats are imported", func() (load, error) {
		return load{
			method: getSeats, request: sameMessage(&dlsmsv1.GetSeatsRequest{Branch: "main"}),
			clients: 20, rps: 200, warm: b.warm, measure: b.measure,
		}, nil
	}, func(ctx context.Context) error {
		fingerprint, err := b.sendFile(ctx, admin, file.String(), url.Values{"dryRun": {"true"}})
		if err != nil {
			return err
		}
		began := time.Now()
		_, err = b.sendFile(ctx, admin, file.String(), url.Values{"fingerprint": {fingerprint}})
		took = time.Since(began)
		return err
	}, 1.5)
	if err != nil {
		return err
	}
	b.report.goal(fmt.Sprintf("import of %d seats", importedSeats), "≤ 5 s", took.Round(10*time.Millisecond).String(),
		took <= 5*time.Second)
	return nil
}

// sendFile sends a seat file over HTTP and returns the fingerprint in the answer.
func (b *bench) sendFile(ctx context.Context, admin *e2e.Client, file string, query url.Values) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://"+b.ours.HTTPAddr()+"/v1/admin/seats:import?"+query.Encode(), strings.NewReader(file))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+admin.Token)
	req.Header.Set("Content-Type", "text/csv")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var answer struct{ Fingerprint string }
	if err := json.Unmarshal(text, &answer); err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("import: %s: %.300s", resp.Status, text)
	}
	return answer.Fingerprint, nil
}
