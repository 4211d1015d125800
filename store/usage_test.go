package store_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// usagePlace has the rows of a generated month: two branches in different time zones.
type usagePlace struct {
	db     *storetest.DB
	seats  []usageSeat
	users  []usageUser
	random *rand.Rand

	next   int64 // id of the next reservation or waitlist entry
	tables map[string][][]any
	visits []usageVisit
	closed []usageClosure
}

type usageSeat struct {
	id     int64
	branch *usageBranch
	area   string
}

type usageBranch struct {
	id    int64
	code  string
	zone  *time.Location
	hours [2]int // of each day, local; equal: always open
}

type usageUser struct {
	id    int64
	group string
}

// usageEvent is one row of reservation_events, as far as reports read it.
type usageEvent struct {
	at        time.Time
	kind      string
	proof     string
	byLibrary bool
}

// usageVisit is a reservation with its events.
type usageVisit struct {
	seat       usageSeat
	user       usageUser
	start, end time.Time
	events     []usageEvent
	joined     time.Time // of the waitlist entry; zero: none
}

type usageClosure struct {
	branch     *usageBranch
	area       string
	start, end time.Time
}

func newUsagePlace(t *testing.T, seed uint64) *usagePlace {
	t.Helper()
	db := storetest.NewDB(t)
	p := &usagePlace{
		db: db, random: rand.New(rand.NewPCG(seed, 1)), next: 1, tables: map[string][][]any{},
	}
	for i, b := range []struct {
		zone  string
		hours [2]int
	}{{"Europe/Berlin", [2]int{8, 22}}, {"Asia/Kolkata", [2]int{0, 0}}} {
		zone, err := time.LoadLocation(b.zone)
		if err != nil {
			t.Fatal(err)
		}
		branch := &usageBranch{code: fmt.Sprintf("b%d", i), zone: zone, hours: b.hours}
		branch.id = storetest.Value[int64](t, db, `
			INSERT INTO branches (library_id, code, name, timezone) VALUES (1, $1, 'Branch', $2) RETURNING id`,
			branch.code, b.zone)
		if b.hours[0] != b.hours[1] {
			db.Exec(t, `INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
				SELECT 1, $1, d, make_time($2::int, 0, 0), make_time($3::int, 0, 0) FROM generate_series(1, 7) d`,
				branch.id, b.hours[0], b.hours[1])
		}
		for j := range 6 {
			area := []string{"Hall", "Quiet"}[j%2]
			id := storetest.Value[int64](t, db, `
				INSERT INTO seats (library_id, branch_id, area, label) VALUES (1, $1, $2, $3) RETURNING id`,
				branch.id, area, fmt.Sprint("A-", j))
			p.seats = append(p.seats, usageSeat{id, branch, area})
		}
	}
	for i, id := range db.Users(t, 12) {
		group := []string{"", "staff", "law"}[i%3]
		db.Exec(t, `UPDATE users SET user_group = $2 WHERE id = $1`, id, group)
		p.users = append(p.users, usageUser{id, group})
	}
	return p
}

func (p *usagePlace) minutes(from, to int) time.Duration {
	return time.Duration(from)*time.Minute + p.below(time.Duration(to-from)*time.Minute).Truncate(time.Millisecond)
}

// below returns a random duration below d.
func (p *usagePlace) below(d time.Duration) time.Duration {
	return time.Duration(p.random.Int64N(int64(d)))
}

// month generates the visits of each seat from begin to end, one after another.
func (p *usagePlace) month(begin, end time.Time) {
	for _, seat := range p.seats {
		for at := begin.Add(p.minutes(0, 600)); at.Before(end); {
			v := p.visit(seat, at)
			p.visits = append(p.visits, v)
			at = latestTime(v.end, v.start.Add(time.Hour)).Add(p.minutes(0, 200))
		}
	}
}

// visit generates a reservation that starts at a time, and one of the ways in which it can end.
func (p *usagePlace) visit(seat usageSeat, start time.Time) usageVisit {
	v := usageVisit{
		seat: seat, user: p.users[p.random.IntN(len(p.users))], start: start, end: start.Add(p.minutes(20, 300)),
	}
	add := func(at time.Time, kind string) {
		v.events = append(v.events, usageEvent{at: at, kind: kind})
	}
	last := func() *usageEvent { return &v.events[len(v.events)-1] }
	if p.random.IntN(5) == 0 { // by an offer
		v.joined = start.Add(-p.minutes(10, 3000))
		offered := start.Add(p.minutes(-8, 4))
		add(offered, "OFFERED")
		if p.random.IntN(3) == 0 {
			add(offered.Add(10*time.Minute), []string{"OFFER_EXPIRED", "DECLINED"}[p.random.IntN(2)])
			return v
		}
		add(offered.Add(p.minutes(0, 10)), "CLAIMED")
	} else {
		add(start.Add(-p.minutes(0, 5000)), "RESERVED")
	}
	begin := latestTime(start, last().at)
	switch p.random.IntN(8) {
	case 0:
		add(begin.Add(15*time.Minute), "NO_SHOW")
		return v
	case 1:
		add(last().at.Add(p.below(begin.Add(5*time.Minute).Sub(last().at))), "CANCELLED")
		last().byLibrary = p.random.IntN(3) == 0
		return v
	}
	add(latestTime(last().at, start.Add(p.minutes(-10, 12))), "CHECKED_IN")
	last().proof = []string{"", "NONE", "SEAT", "SCREEN", "SEAT_AND_SCREEN", "DESK", "ARRIVAL"}[p.random.IntN(7)]
	if p.random.IntN(6) == 0 {
		add(last().at.Add(time.Minute), "EXTENDED")
		v.end = v.end.Add(p.minutes(10, 60))
	}
	if !v.end.After(last().at) {
		v.end = last().at.Add(10 * time.Minute)
	}
	if p.random.IntN(2) == 0 {
		add(last().at.Add(p.below(v.end.Sub(last().at))), "CHECKED_OUT")
	} else {
		add(v.end.Add(p.below(3*time.Second)), "COMPLETED")
	}
	return v
}

func latestTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// write inserts the rows of all visits as they were at a time: later events have not happened.
func (p *usagePlace) write(t *testing.T, now time.Time) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.db.UnguardedURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	// The foreign keys of reservations and waitlist entries refer to each other.
	if _, err := conn.Exec(t.Context(), `SET session_replication_role = replica`); err != nil {
		t.Fatal(err)
	}
	var reservations, events, entries [][]any
	for i := range p.visits {
		v := &p.visits[i]
		v.events = slices.DeleteFunc(v.events, func(e usageEvent) bool { return e.at.After(now) })
		if len(v.events) == 0 {
			continue
		}
		id := p.next
		p.next++
		var entry *int64
		if !v.joined.IsZero() {
			entry = &id
			status, ended := "OFFERED", (*time.Time)(nil)
			if len(v.events) > 1 {
				ended = &v.events[1].at
				status = map[string]string{"CLAIMED": "CLAIMED", "DECLINED": "LEFT", "OFFER_EXPIRED": "EXPIRED"}[v.events[1].kind]
			}
			var expires *time.Time
			if status == "OFFERED" {
				at := v.events[0].at.Add(10 * time.Minute)
				expires = &at
			}
			entries = append(entries, []any{int64(1), id, v.seat.id, v.user.id, window(v), status, int32(1), id, expires,
				v.joined, ended})
		}
		row, rows := v.rows(id, entry)
		reservations, events = append(reservations, row), append(events, rows...)
	}
	p.copy(t, conn, "reservations", []string{
		"library_id", "id", "seat_id", "user_id", "entry_id", "during", "status", "version", "check_in_opens_at",
		"check_in_deadline", "offer_expires_at", "created_at", "checked_in_at", "ended_at",
		"proof", "screen_id",
	}, reservations)
	p.copy(t, conn, "reservation_events", []string{
		"library_id", "at", "kind", "notifies", "by_library", "proof", "screen_id", "reservation_id", "version",
		"seat_id", "user_id",
		"entry_id", "during", "status", "check_in_opens_at", "created_at",
	}, events)
	p.copy(t, conn, "waitlist_entries", []string{
		"library_id", "id", "seat_id", "user_id", "during", "status", "joined_position", "reservation_id",
		"offer_expires_at", "created_at", "ended_at",
	}, entries)
}

func window(v *usageVisit) string {
	return fmt.Sprintf("[%s,%s)", v.start.Format(time.RFC3339Nano), v.end.Format(time.RFC3339Nano))
}

// rows returns the row of the reservation, and those of its events.
func (v *usageVisit) rows(id int64, entry *int64) (row []any, events [][]any) {
	status := "CONFIRMED"
	var deadline, checkedIn, ended, expires *time.Time
	var proved *string
	var shownBy *int64
	due := v.start.Add(15 * time.Minute)
	deadline = &due
	for i := range v.events {
		e := &v.events[i]
		switch e.kind {
		case "OFFERED":
			status, deadline = "HELD", nil
			at := e.at.Add(10 * time.Minute)
			expires = &at
		case "CLAIMED":
			status, deadline, expires = "CONFIRMED", &due, nil
		case "OFFER_EXPIRED", "DECLINED":
			status, ended, expires = "CANCELLED", &e.at, nil
		case "CHECKED_IN":
			status, checkedIn = "CHECKED_IN", &e.at
		case "CHECKED_OUT", "COMPLETED":
			status, ended = "COMPLETED", &e.at
		case "CANCELLED", "NO_SHOW":
			status, ended = e.kind, &e.at
		}
		var proof *string
		var screen *int64
		if e.proof != "" {
			proof, proved = &e.proof, &e.proof
		}
		if e.proof == "SCREEN" || e.proof == "SEAT_AND_SCREEN" {
			screen, shownBy = &id, &id
		}
		events = append(events, []any{int64(1), e.at, e.kind, false, e.byLibrary, proof, screen, id, int64(i + 1), v.seat.id,
			v.user.id, entry, window(v), status, v.start, v.events[0].at})
	}
	return []any{int64(1), id, v.seat.id, v.user.id, entry, window(v), status, int64(len(v.events)), v.start, deadline,
		expires, v.events[0].at, checkedIn, ended, proved, shownBy}, events
}

// copy inserts rows into a table.
func (p *usagePlace) copy(t *testing.T, conn *pgx.Conn, table string, columns []string, rows [][]any) {
	t.Helper()
	sql := "INSERT INTO " + table + " ("
	values := ") OVERRIDING SYSTEM VALUE VALUES ("
	for i, c := range columns {
		sep := ", "
		if i == 0 {
			sep = ""
		}
		sql += sep + c
		values += sep + fmt.Sprintf("$%d", i+1)
	}
	sql += values + ")"
	for some := range slices.Chunk(rows, 2000) {
		batch := &pgx.Batch{}
		for _, row := range some {
			batch.Queue(sql, row...)
		}
		if err := conn.SendBatch(t.Context(), batch).Close(); err != nil {
			t.Fatalf("%s: %v", table, err)
		}
	}
}

// bruteForce counts the figures of a report hour by hour and event by event, from the generated visits
// alone.
func (p *usagePlace) bruteForce(q library.UsageQuery, now time.Time) []library.UsageRow {
	rows := map[library.UsageKey]*library.UsageFigures{}
	waits := map[library.UsageKey][]int{}
	at := func(when time.Time, seat usageSeat, group string) (library.UsageKey, *library.UsageFigures) {
		key, in := usageKeyOf(q, when, seat, group)
		if !in || when.After(now) {
			return key, &library.UsageFigures{}
		}
		if rows[key] == nil {
			rows[key] = &library.UsageFigures{}
		}
		return key, rows[key]
	}
	for i := range p.visits {
		v := &p.visits[i]
		var confirmed, arrived, ended time.Time
		for _, e := range v.events {
			key, f := at(e.at, v.seat, v.user.group)
			switch e.kind {
			case "RESERVED":
				confirmed = e.at
				f.Reservations++
			case "CLAIMED":
				confirmed = e.at
				f.Reservations++
				f.Claims++
			case "OFFERED":
				f.Offers++
				if _, in := usageKeyOf(q, e.at, v.seat, v.user.group); in {
					waits[key] = append(waits[key], int(e.at.Sub(v.joined)/time.Minute))
				}
			case "CHECKED_IN":
				arrived = e.at
				countCheckIn(f, e.proof)
			case "NO_SHOW":
				ended = e.at
				f.NoShows++
			case "CANCELLED":
				ended = e.at
				if e.byLibrary {
					f.CancelledByLibrary++
				} else {
					f.Cancelled++
				}
			case "CHECKED_OUT", "COMPLETED":
				ended = e.at
			}
		}
		if !v.joined.IsZero() && len(v.events) > 0 {
			_, f := at(v.joined, v.seat, v.user.group)
			f.Joins++
		}
		if confirmed.IsZero() {
			continue
		}
		until := v.end
		for _, limit := range []time.Time{ended, now} {
			if !limit.IsZero() && limit.Before(until) {
				until = limit
			}
		}
		p.addSpan(at, v, latestTime(v.start, confirmed), until,
			func(f *library.UsageFigures) *int64 { return &f.ReservedSeconds })
		if !arrived.IsZero() {
			p.addSpan(at, v, latestTime(v.start, latestTime(confirmed, arrived)), until,
				func(f *library.UsageFigures) *int64 { return &f.UsedSeconds })
		}
	}
	p.bruteForceOpen(q, now, at)
	var out []library.UsageRow
	for key, f := range rows {
		if w := waits[key]; len(w) > 0 {
			slices.Sort(w)
			median := time.Duration(w[(len(w)-1)/2]) * time.Minute
			f.MedianWait = &median
		}
		if *f != (library.UsageFigures{}) {
			out = append(out, library.UsageRow{UsageKey: key, UsageFigures: *f})
		}
	}
	slices.SortFunc(out, func(a, b library.UsageRow) int {
		return cmp.Or(a.StartTime.Compare(b.StartTime), a.Day.Compare(b.Day), a.Weekday-b.Weekday, a.Hour-b.Hour,
			cmp.Compare(a.Branch, b.Branch), cmp.Compare(a.Area, b.Area), cmp.Compare(a.Group, b.Group))
	})
	return out
}

// addSpan adds the seconds of a span to a figure of each hour.
func (p *usagePlace) addSpan(
	at func(time.Time, usageSeat, string) (library.UsageKey, *library.UsageFigures),
	v *usageVisit, from, until time.Time, figure func(*library.UsageFigures) *int64,
) {
	from, until = from.Truncate(time.Second), until.Truncate(time.Second)
	for from.Before(until) {
		next := from.Truncate(time.Hour).Add(time.Hour)
		if next.After(until) {
			next = until
		}
		_, f := at(from, v.seat, v.user.group)
		*figure(f) += int64(next.Sub(from) / time.Second)
		from = next
	}
}

// bruteForceOpen counts the minutes for which seats were open, minute by minute. The opening hours and
// closures of a usagePlace begin and end at whole minutes.
func (p *usagePlace) bruteForceOpen(
	q library.UsageQuery, now time.Time,
	at func(time.Time, usageSeat, string) (library.UsageKey, *library.UsageFigures),
) {
	if q.By == library.UsageByGroup {
		return
	}
	for _, seat := range p.seats {
		for m := q.FirstDay.AddDate(0, 0, -1); m.Before(q.LastDay.AddDate(0, 0, 2)) && m.Before(now); m = m.Add(time.Minute) {
			local := m.In(seat.branch.zone).Hour()
			hours := seat.branch.hours
			open := hours[0] == hours[1] || local >= hours[0] && local < hours[1]
			for _, c := range p.closed {
				if c.branch == seat.branch && (c.area == "" || c.area == seat.area) && !m.Before(c.start) && m.Before(c.end) {
					open = false
				}
			}
			if open {
				_, f := at(m, seat, "")
				f.OpenSeconds += 60
			}
		}
	}
}

func countCheckIn(f *library.UsageFigures, proof string) {
	f.CheckIns++
	switch proof {
	case "SEAT":
		f.CheckInsSeat++
	case "SCREEN":
		f.CheckInsScreen++
	case "SEAT_AND_SCREEN":
		f.CheckInsBoth++
	case "DESK":
		f.CheckInsDesk++
	case "ARRIVAL":
		f.CheckInsArrival++
	}
}

// usageKeyOf returns the row of a report to which a moment belongs, and whether the report has it.
func usageKeyOf(q library.UsageQuery, at time.Time, seat usageSeat, group string) (library.UsageKey, bool) {
	hour := at.UTC().Truncate(time.Hour)
	local := hour.In(seat.branch.zone)
	day := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC)
	in := !day.Before(q.FirstDay) && !day.After(q.LastDay) && (q.Branch == "" || q.Branch == seat.branch.code) &&
		(q.Area == "" || q.Area == seat.area)
	switch q.By {
	case library.UsageByHour:
		return library.UsageKey{StartTime: hour}, in
	case library.UsageByDay:
		return library.UsageKey{Day: day}, in
	case library.UsageByWeekdayHour:
		return library.UsageKey{Weekday: int(local.Weekday()+6)%7 + 1, Hour: local.Hour()}, in
	case library.UsageByArea:
		return library.UsageKey{Branch: seat.branch.code, Area: seat.area}, in
	case library.UsageByGroup:
	}
	return library.UsageKey{Group: group}, in
}

// close adds a closure.
func (p *usagePlace) close(t *testing.T, c usageClosure) {
	t.Helper()
	p.db.Exec(t, `INSERT INTO closures (library_id, branch_id, area, during, on_bookings)
		VALUES (1, $1, NULLIF($2, ''), tstzrange($3, $4), 'KEEP')`, c.branch.id, c.area, c.start, c.end)
	p.closed = append(p.closed, c)
}

// countAll counts all hours that can be counted.
func countAll(t *testing.T, s *store.Store, hours int) {
	t.Helper()
	for {
		done, err := s.CountUsage(t.Context(), hours)
		if err != nil {
			t.Fatal(err)
		}
		if !done.More {
			return
		}
	}
}

var allUsage = []library.UsageBy{
	library.UsageByHour, library.UsageByDay, library.UsageByWeekdayHour, library.UsageByArea, library.UsageByGroup,
}

// wantUsage compares reports with the brute-force count.
func (p *usagePlace) wantUsage(t *testing.T, s *store.Store, q library.UsageQuery, now time.Time) {
	t.Helper()
	got, err := s.Usage(t.Context(), library.Host, q)
	if err != nil {
		t.Fatal(err)
	}
	if !got.CountedUntil.Equal(now) {
		t.Errorf("counted until %v, want %v", got.CountedUntil, now)
	}
	want := p.bruteForce(q, now)
	if len(want) == 0 || len(got.Rows) != len(want) {
		t.Fatalf("%v: %d rows, want %d", q, len(got.Rows), len(want))
	}
	for i := range want {
		if a, b := usageText(got.Rows[i]), usageText(want[i]); a != b {
			t.Fatalf("%v: row %d is\n%s\nwant\n%s", q, i, a, b)
		}
	}
}

func usageText(r library.UsageRow) string {
	median := "none"
	if r.MedianWait != nil {
		median = r.MedianWait.String()
	}
	f := r.UsageFigures
	f.MedianWait = nil
	return fmt.Sprintf("%+v %+v median %s", r.UsageKey, f, median)
}

// TestUsageEqualsBruteForce counts a month with each change of the clocks. It is still the last day of
// the month: the report has final hours, hours that are counted from events, and hours to come.
func TestUsageEqualsBruteForce(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]time.Time{
		"spring": time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
		"autumn": time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newUsagePlace(t, 7)
			end := begin.AddDate(0, 1, 0)
			p.close(t, usageClosure{
				p.seats[0].branch, "Quiet", begin.Add(50 * time.Hour), begin.Add(53*time.Hour + 20*time.Minute),
			})
			p.close(t, usageClosure{p.seats[0].branch, "", begin.Add(52 * time.Hour), begin.Add(60 * time.Hour)})
			p.month(begin, end)
			now := end.AddDate(0, 0, -1).Add(10*time.Hour + 37*time.Minute)
			p.db.FreezeClock(t, now)
			p.write(t, now)
			s := p.db.Open(t, library.DefaultPolicy())
			countAll(t, s, 17) // hours in a transaction
			for _, by := range allUsage {
				for _, q := range []library.UsageQuery{
					{FirstDay: begin.AddDate(0, 0, 3), LastDay: end},
					{FirstDay: begin, LastDay: end, Branch: "b0"},
					{FirstDay: begin.AddDate(0, 0, 1), LastDay: begin.AddDate(0, 0, 5), Area: "Quiet"},
					{FirstDay: end.AddDate(0, 0, -8), LastDay: end.AddDate(0, 0, -3)}, // the change of the clocks
				} {
					q.By = by
					p.wantUsage(t, s, q, now)
				}
			}
		})
	}
}

// TestUsageOfCalls makes one reservation of each kind with the methods of the store, and checks the
// report of each figure.
func TestUsageOfCalls(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	now := noon
	db.FreezeClock(t, now)
	seats, users := db.Seats(t, 4), db.Users(t, 4)
	s := db.Open(t, library.DefaultPolicy())
	ctx := t.Context()
	book := func(user, seat int) library.Reservation {
		t.Helper()
		r, err := s.Reserve(ctx, library.Booking{UserID: users[user], SeatID: seats[seat], EndTime: now.Add(2 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first := book(0, 0)
	_, err := s.CheckIn(ctx, users[0], first.ID, nil)
	must(err)
	book(1, 1) // becomes a no-show
	third := book(2, 2)
	for range 3 {
		_, err := s.Reserve(ctx, library.Booking{UserID: users[3], SeatID: seats[2], EndTime: now.Add(2 * time.Hour)})
		if err == nil {
			t.Fatal("a taken seat was booked")
		}
	}
	entry, err := s.JoinWaitlist(ctx, library.Booking{
		UserID: users[3], SeatID: seats[2], StartTime: now, EndTime: now.Add(2 * time.Hour),
	})
	must(err)
	now = now.Add(10 * time.Minute)
	db.FreezeClock(t, now)
	_, err = s.Cancel(ctx, users[2], third.ID)
	must(err)
	_, _, err = s.ClaimOffer(ctx, users[3], entry.ID)
	must(err)
	now = now.Add(20 * time.Minute)
	db.FreezeClock(t, now)
	for _, step := range store.DueSteps {
		if step.Name == "no_show" {
			_, _, err := s.Run(ctx, step, seats)
			must(err)
		}
	}
	_, err = s.CheckOut(ctx, users[0], first.ID)
	must(err)
	must(s.WriteRefusals(ctx))
	must(s.WriteRefusals(ctx)) // finds nothing to write
	now = now.Add(time.Minute) // a report does not have the events of its own moment
	db.FreezeClock(t, now)

	wait := 10 * time.Minute
	want := library.UsageFigures{
		// Seat 0 from 12:00 to 12:30, seat 1 until the no-show at 12:30, seat 2 until 12:10. The claim
		// at 12:10 took it again; its check-in was missed at 12:25, which the step saw at 12:30.
		// The branch is open from midnight in Berlin to 12:31.
		OpenSeconds: 4 * (13*3600 + 31*60), ReservedSeconds: 1800 + 1800 + 600 + 1200, UsedSeconds: 1800,
		Reservations: 4, CheckIns: 1, NoShows: 2, Cancelled: 1, RefusedTaken: 3, Joins: 1, Offers: 1, Claims: 1,
		MedianWait: &wait,
	}
	report := func() library.Usage {
		t.Helper()
		usage, err := s.Usage(ctx, library.Host, library.UsageQuery{
			FirstDay: dateOf(noon), LastDay: dateOf(noon), By: library.UsageByDay,
		})
		must(err)
		return usage
	}
	got := report()
	if len(got.Rows) != 1 || usageText(got.Rows[0]) != usageText(library.UsageRow{
		UsageKey: library.UsageKey{Day: dateOf(noon)}, UsageFigures: want,
	}) {
		t.Errorf("got %+v\nwant %+v", got.Rows, want)
	}

	// A day later, the sums say the same, also after the users of the reservations have changed.
	db.FreezeClock(t, now.Add(24*time.Hour))
	countAll(t, s, store.MaxUsageHours)
	db.Exec(t, `UPDATE reservations SET user_id = $1, request_id = NULL, request_hash = NULL`, users[0])
	db.Exec(t, `UPDATE reservation_events SET user_id = $1`, users[0])
	db.Exec(t, `UPDATE waitlist_entries SET user_id = $1`, users[0])
	db.Exec(t, `UPDATE users SET user_group = 'other'`)
	want.OpenSeconds = 4 * 11 * 3600 // from noon in UTC, the hour of the first event, to midnight in Berlin
	got = report()
	if len(got.Rows) != 1 || usageText(got.Rows[0]) != usageText(library.UsageRow{
		UsageKey: library.UsageKey{Day: dateOf(noon)}, UsageFigures: want,
	}) {
		t.Errorf("after a day: got %+v\nwant %+v", got.Rows, want)
	}
}

func dateOf(at time.Time) time.Time { return at.UTC().Truncate(24 * time.Hour) }

// TestUsageIsCountedOnce counts the same hours in many calls at the same time.
func TestUsageIsCountedOnce(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 11)
	begin := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	now := begin.AddDate(0, 0, 3)
	p.month(begin, now)
	p.db.FreezeClock(t, now)
	p.write(t, now)
	var all sync.WaitGroup
	for range 4 {
		s := p.db.Open(t, library.DefaultPolicy())
		all.Go(func() {
			for range 20 {
				if _, err := s.CountUsage(t.Context(), 5); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	s := p.db.Open(t, library.DefaultPolicy())
	countAll(t, s, 5)
	p.wantUsage(t, s, library.UsageQuery{FirstDay: begin, LastDay: now, By: library.UsageByGroup}, now)
}

// TestUsageAfterAWrongClock counts while the clock of the database is a day ahead. When it is set back,
// the hours that had not passed are counted again.
func TestUsageAfterAWrongClock(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 23)
	begin := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	now := begin.AddDate(0, 0, 2)
	p.month(begin, now)
	p.db.FreezeClock(t, now)
	p.write(t, now)
	s := p.db.Open(t, library.DefaultPolicy())
	countAll(t, s, 50)
	p.db.FreezeClock(t, now.AddDate(0, 0, 1))
	countAll(t, s, 50)
	p.db.FreezeClock(t, now.Add(time.Hour))
	countAll(t, s, 50)
	until := storetest.Value[time.Time](t, p.db, `SELECT counted_until FROM usage_progress`)
	if until.After(now.Add(time.Hour)) {
		t.Errorf("counted until %v, which is after now", until)
	}
	q := library.UsageQuery{FirstDay: begin.AddDate(0, 0, 1), LastDay: now, By: library.UsageByHour}
	p.wantUsage(t, s, q, now.Add(time.Hour))
}

// TestRetentionChangesNoSum makes a month anonymous, half of which has been counted before, and the
// rest is counted after it.
func TestRetentionChangesNoSum(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 19)
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	end := begin.AddDate(0, 1, 0)
	p.month(begin, end)
	p.db.FreezeClock(t, end)
	p.write(t, end)
	b := bundle{Store: p.db.Open(t, library.DefaultPolicy()), db: p.db}
	for range 40 {
		if _, err := b.CountUsage(t.Context(), 9); err != nil {
			t.Fatal(err)
		}
	}
	now := end.AddDate(0, 1, 1)
	p.db.FreezeClock(t, now)
	if moved := b.retain(t, 1, 100); moved["reservations"] < 500 {
		t.Errorf("only %v are anonymous", moved)
	}
	countAll(t, b.Store, 9)
	for _, by := range allUsage {
		p.wantUsage(t, b.Store, library.UsageQuery{FirstDay: begin, LastDay: end, By: by}, now)
	}
}

// TestUsageScope reads reports as librarians of some branches.
func TestUsageScope(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 13)
	begin := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	now := begin.AddDate(0, 0, 2)
	p.month(begin, now)
	p.db.FreezeClock(t, now)
	p.write(t, now)
	s := p.db.Open(t, library.DefaultPolicy())
	countAll(t, s, store.MaxUsageHours)
	own, other := p.seats[0].branch, p.seats[len(p.seats)-1].branch
	librarian := p.users[0].id
	p.db.Exec(t, `UPDATE users SET role = 'LIBRARIAN', branches = ARRAY[$2::bigint] WHERE id = $1`, librarian, own.id)
	actor := library.Actor{Role: library.RoleLibrarian, Token: &library.Identity{
		ID: librarian, StudentID: storetest.Value[string](t, p.db, `SELECT student_id FROM users WHERE id = $1`, librarian),
		TokenGeneration: storetest.Value[int64](t, p.db, `SELECT token_generation FROM users WHERE id = $1`, librarian),
	}}
	q := library.UsageQuery{FirstDay: begin, LastDay: now, By: library.UsageByArea}
	got, err := s.Usage(t.Context(), actor, q)
	if err != nil || len(got.Rows) != 2 || got.Rows[0].Branch != own.code || got.Rows[1].Branch != own.code {
		t.Errorf("%+v, %v", got.Rows, err)
	}
	q.Branch = other.code
	if _, err := s.Usage(t.Context(), actor, q); !errors.Is(err, library.ErrBranchRequired) {
		t.Errorf("another branch: %v", err)
	}
	q.Branch = "none"
	if _, err := s.Usage(t.Context(), actor, q); !errors.Is(err, library.ErrBranchNotFound) {
		t.Errorf("no branch: %v", err)
	}
	exported := 0
	export := library.ExportQuery{FirstDay: begin, LastDay: now}
	err = s.ExportReservations(t.Context(), actor, export, func(rows []library.ExportedReservation) error {
		for _, r := range rows {
			if r.Branch != own.code {
				t.Errorf("exported %+v", r)
			}
		}
		exported += len(rows)
		return nil
	})
	if err != nil || exported == 0 {
		t.Errorf("exported %d, %v", exported, err)
	}
	export.Branch = other.code
	err = s.ExportReservations(t.Context(), actor, export, func([]library.ExportedReservation) error { return nil })
	if !errors.Is(err, library.ErrBranchRequired) {
		t.Errorf("export of another branch: %v", err)
	}

	export.Branch = ""
	calls := 0
	err = s.ExportReservations(t.Context(), actor, export, func([]library.ExportedReservation) error {
		calls++
		p.db.Exec(t, `UPDATE users SET token_generation = token_generation + 1 WHERE id = $1`, actor.Token.ID)
		return nil
	})
	if !errors.Is(err, library.ErrTokenRevoked) || calls != 1 {
		t.Errorf("an export goes on for %d days after the end of its token: %v", calls, err)
	}
}

// TestExportReservations compares an export with the generated visits.
func TestExportReservations(t *testing.T) {
	t.Parallel()
	p := newUsagePlace(t, 17)
	begin := time.Date(2026, 3, 26, 0, 0, 0, 0, time.UTC)
	now := begin.AddDate(0, 0, 6)
	p.month(begin, now)
	p.db.FreezeClock(t, now)
	p.write(t, now)
	s := p.db.Open(t, library.DefaultPolicy())
	q := library.ExportQuery{FirstDay: begin.AddDate(0, 0, 1), LastDay: begin.AddDate(0, 0, 4)}
	var got []library.ExportedReservation
	calls := 0
	err := s.ExportReservations(t.Context(), library.Host, q, func(rows []library.ExportedReservation) error {
		calls++
		got = append(got, rows...)
		return nil
	})
	if err != nil || calls < 4 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	want := map[string]int{}
	number := 0
	for i := range p.visits {
		v := &p.visits[i]
		local := v.start.In(v.seat.branch.zone)
		on := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC)
		confirmed := slices.ContainsFunc(v.events, func(e usageEvent) bool {
			return e.kind == "RESERVED" || e.kind == "CLAIMED"
		})
		if confirmed && !on.Before(q.FirstDay) && !on.After(q.LastDay) {
			proof := ""
			for _, e := range v.events {
				proof += e.proof
			}
			want[fmt.Sprint(v.seat.branch.code, v.seat.area, v.user.id, v.user.group, v.start.UTC(), v.end.UTC(), proof)]++
			number++
		}
	}
	if len(got) != number || number < 50 {
		t.Errorf("exported %d, want %d", len(got), number)
	}
	for i, r := range got {
		key := fmt.Sprint(r.Branch, r.Area, r.UserID, r.Group, r.StartTime.UTC(), r.EndTime.UTC(), r.Proof)
		if want[key]--; want[key] < 0 {
			t.Errorf("not generated: %s", key)
		}
		if i > 0 && r.StartTime.Before(got[i-1].StartTime) {
			t.Errorf("row %d starts before row %d", i, i-1)
		}
		if (r.Status == library.CheckedIn || r.Status == library.Completed) != (r.CheckedInAt != nil) {
			t.Errorf("%+v", r)
		}
	}
	stop := errors.New("stop")
	err = s.ExportReservations(t.Context(), library.Host, q, func([]library.ExportedReservation) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("the error of emit: %v", err)
	}
}
