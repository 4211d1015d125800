package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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

// close adds a closure.
func (p *usagePlace) close(t *testing.T, c usageClosure) {
	t.Helper()
	p.db.Exec(t, `INSERT INTO closures (library_id, branch_id, area, during, on_bookings)
		VALUES (1, $1, NULLIF($2, ''), tstzrange($3, $4), 'KEEP')`, c.branch.id, c.area, c.start, c.end)
	p.closed = append(p.closed, c)
}
