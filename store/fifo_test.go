package store_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// Before a release, run TestModel for longer: go test ./store -run TestModel -model.steps 20000.
var modelSteps = flag.Int("model.steps", 1000, "how many random operations each run of TestModel does")

// TestModel makes random calls to a store and to its model. It compares answers and states after
// each call.
func TestModel(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{uint64(time.Now().UnixNano()), 1} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rules := library.DefaultPolicy()
			rules.MaxUpcoming, rules.MaxWaiting, rules.MaxWaitingPerSeat, rules.MaxWaitlist = 4, 4, 2, 6
			b := setupWith(t, rules)
			p := &play{
				bundle: b, t: t, random: rand.New(rand.NewPCG(seed, 0)), done: map[string]int{},
				model: &model{
					rules: rules, reservations: map[int64]*modelReservation{}, entries: map[int64]*modelEntry{},
					outOfService: map[int]bool{},
				},
			}
			p.bundle.seats, p.bundle.users = p.bundle.seats[:3], b.db.Users(t, 9)
			conn, err := pgx.Connect(t.Context(), b.db.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			p.conn = conn
			for p.step = range *modelSteps {
				p.next()
				p.compare()
				if t.Failed() {
					t.Fatalf("seed %d, step %d: %s", seed, p.step, p.last)
				}
			}
			for p.model.pending() { // the worker skips steps at random, so some are still due
				p.worker()
			}
			p.compareAll()
			storetest.CheckInvariants(t, b.db)
			p.checkCoverage(seed == 1)
		})
	}
}

// play is one run of random operations.
type play struct {
	bundle
	t      *testing.T
	conn   *pgx.Conn
	random *rand.Rand
	model  *model
	step   int
	last   string
	done   map[string]int // counts of outcomes, by operation and reason
}

// answered compares the error that the store returned with the error that the model returned. what
// begins with the name of the call. answered returns true if both calls succeeded.
func (p *play) answered(what string, got, want error) bool {
	p.t.Helper()
	p.last = fmt.Sprintf("at %d: %s: %v", p.model.now, what, got)
	reason := "ok"
	if e, ok := errors.AsType[*library.Error](want); ok {
		reason = e.Reason
	}
	var verb string
	if _, err := fmt.Sscan(what, &verb); err != nil {
		p.t.Fatal(err)
	}
	p.done[verb+" "+reason]++
	if want == nil && got != nil || want != nil && !errors.Is(got, want) {
		p.t.Errorf("%s: answered %v, the model says %v", what, got, want)
	}
	return want == nil && !p.t.Failed()
}

// window returns a random window that begins now or soon.
func (p *play) window() (from, to int) {
	from = p.model.now + 5*p.random.IntN(12) - 1
	return from, from + 15 + 15*p.random.IntN(6)
}

// oneOf returns a random row. In 7 of 8 cases, it chooses only from the rows for which live is
// true. It returns false if there is no such row.
func oneOf[T any](p *play, rows map[int64]T, live func(T) bool) (T, bool) {
	ids := slices.Sorted(maps.Keys(rows))
	if p.random.IntN(8) > 0 {
		ids = slices.DeleteFunc(ids, func(id int64) bool { return !live(rows[id]) })
	}
	if len(ids) == 0 {
		var none T
		return none, false
	}
	return rows[ids[p.random.IntN(len(ids))]], true
}

func (p *play) next() {
	ctx, m := p.t.Context(), p.model
	user, seat := p.random.IntN(len(p.users)), p.random.IntN(len(p.seats))
	from, to := p.window()
	reservation, hasReservation := oneOf(p, m.reservations, func(r *modelReservation) bool { return r.status.Occupies() })
	entry, hasEntry := oneOf(p, m.entries, (*modelEntry).live)
	dice := p.random.IntN(100)
	if hasReservation && p.random.IntN(4) > 0 && dice < 34 { // a seat and window near an existing reservation
		seat = reservation.seat
		from = max(m.now-1, reservation.from+5*(p.random.IntN(5)-2))
		to = from + 15 + 15*p.random.IntN(4)
	}
	booking := library.Booking{UserID: p.users[user], SeatID: p.seats[seat], StartTime: at(from), EndTime: at(to)}
	switch {
	case dice < 10:
		want := m.reserve(user, seat, from, to)
		r, err := p.Reserve(ctx, booking)
		if p.answered(fmt.Sprintf("reserve seat %d for user %d in %d to %d", seat, user, from, to), err, want) {
			m.reservations[r.ID] = &modelReservation{id: r.ID, user: user, seat: seat, from: from, to: to}
			m.confirm(m.reservations[r.ID])
		}
	case dice < 34:
		want := m.join(user, seat, from, to)
		e, err := p.JoinWaitlist(ctx, booking)
		if p.answered(fmt.Sprintf("join seat %d for user %d in %d to %d", seat, user, from, to), err, want) {
			m.entries[e.ID] = &modelEntry{id: e.ID, user: user, seat: seat, from: from, to: to, status: library.EntryWaiting}
		}
	case dice < 40 && hasReservation:
		want := m.cancel(reservation)
		_, err := p.Cancel(ctx, p.users[reservation.user], reservation.id)
		p.answered(fmt.Sprint("cancel ", reservation.id), err, want)
	case dice < 52 && hasReservation:
		want := m.checkIn(reservation)
		_, err := p.CheckIn(ctx, p.users[reservation.user], reservation.id, nil)
		p.answered(fmt.Sprint("checkin ", reservation.id), err, want)
	case dice < 55 && hasReservation:
		want := m.checkOut(reservation)
		_, err := p.CheckOut(ctx, p.users[reservation.user], reservation.id)
		p.answered(fmt.Sprint("checkout ", reservation.id), err, want)
	case dice < 59 && hasReservation:
		end := reservation.to + 5*(p.random.IntN(5)-1)
		want := m.extend(reservation, end)
		_, err := p.Extend(ctx, p.users[reservation.user], reservation.id, at(end))
		p.answered(fmt.Sprintf("extend %d to %d", reservation.id, end), err, want)
	case dice < 63 && hasEntry:
		want := m.leave(entry)
		_, err := p.LeaveWaitlist(ctx, p.users[entry.user], entry.id)
		p.answered(fmt.Sprint("leave ", entry.id), err, want)
	case dice < 76 && hasEntry:
		want := m.claim(entry)
		_, _, err := p.ClaimOffer(ctx, p.users[entry.user], entry.id)
		p.answered(fmt.Sprint("claim ", entry.id), err, want)
	case dice < 78:
		out := len(m.outOfService) == 0
		for seat = range m.outOfService {
			delete(m.outOfService, seat)
		}
		if out {
			m.outOfService[seat] = true
		}
		p.db.Exec(p.t, `UPDATE seats SET out_of_service = $2 WHERE id = $1`, p.seats[seat], out)
		p.last = fmt.Sprintf("seat %d out of service: %v", seat, out)
		p.worker()
	default:
		m.now += p.random.IntN(12)
		p.clock(p.t, m.now)
		p.last = fmt.Sprintf("the clock at %d", m.now)
		p.worker()
	}
}

// worker runs the steps of the worker. It skips some of them at random, like a slow worker.
func (p *play) worker() {
	m := p.model
	for _, s := range []struct {
		name  string
		store func(context.Context, int) (int, bool, error)
		model func() int
	}{
		{"complete", p.CompleteEnded, func() int {
			return m.end(library.CheckedIn, library.Completed, func(r *modelReservation) int { return r.to })
		}},
		{"noshow", p.MarkNoShows, func() int {
			return m.end(library.Confirmed, library.NoShow, func(r *modelReservation) int { return r.deadline })
		}},
		{"expireoffer", p.ExpireOffers, func() int {
			return m.end(library.Held, library.Cancelled, func(r *modelReservation) int { return r.offeredTo })
		}},
		{"expirewaiting", p.ExpireWaiting, m.expireWaiting},
		{"sweep", p.OfferFreeSeats, func() int { return m.offer(func(*modelEntry) bool { return true }) }},
		{"remind", p.RemindOfCheckIn, m.remind},
	} {
		if p.random.IntN(5) == 0 {
			continue
		}
		got, _, err := s.store(p.t.Context(), 100)
		p.learn()
		want := s.model()
		p.learn()
		if err != nil || got != want {
			p.t.Errorf("%s: %d done, %v; the model says %d", s.name, got, err, want)
		}
		p.done[s.name] += want
	}
}

// learn copies the ids of new holds from the database to the model.
func (p *play) learn() {
	for _, hold := range p.model.newHolds {
		id := storetest.Value[int64](p.t, p.db, `
			SELECT COALESCE((SELECT reservation_id FROM waitlist_entries WHERE id = $1), 0)`, hold.entry.id)
		if id == 0 {
			p.t.Errorf("entry %d should have an offer", hold.entry.id)
			continue
		}
		hold.id = id
		p.model.reservations[id] = hold
	}
	p.model.newHolds = nil
}

// row is a reservation or a waitlist entry. compareRows compares the rows of the database with
// those of the model.
type row struct {
	Kind       string
	ID         int64
	User, Seat int64
	From, To   time.Time
	Status     string
	Until      *time.Time // the deadline, or the expiry of the offer
	Position   int32
	Reminded   bool
}

const modelRows = `
	SELECT 'reservation' AS kind, id, user_id AS user, seat_id AS seat, lower(during) AS from, upper(during) AS to, status,
		COALESCE(offer_expires_at, check_in_deadline) AS until, 0 AS position, reminded_at IS NOT NULL AS reminded
	FROM reservations WHERE occupies OR $1
	UNION ALL
	SELECT 'entry', id, user_id, seat_id, lower(during), upper(during), status, offer_expires_at,
		CASE WHEN live THEN (SELECT count(*) FROM waitlist_entries f
			WHERE f.live AND f.seat_id = w.seat_id AND f.id <= w.id AND f.during && w.during)::int ELSE 0 END, false
	FROM waitlist_entries w WHERE live OR $1
	ORDER BY 1, 2`

// compare compares the live rows.
func (p *play) compare() {
	p.t.Helper()
	p.learn()
	p.compareRows(false)
}

// compareAll compares all rows.
func (p *play) compareAll() {
	p.t.Helper()
	p.compareRows(true)
	for user := range p.users { // Waitlist computes the positions that users see
		list, err := p.Waitlist(p.t.Context(), p.users[user])
		if err != nil {
			p.t.Fatal(err)
		}
		for _, e := range list {
			if want := p.model.position(p.model.entries[e.ID]); e.Position != want {
				p.t.Errorf("entry %d is at %d, the model says %d", e.ID, e.Position, want)
			}
		}
	}
}

func (p *play) compareRows(all bool) {
	p.t.Helper()
	rows, err := p.conn.Query(p.t.Context(), modelRows, all)
	if err != nil {
		p.t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil {
		p.t.Fatal(err)
	}
	wantEqual(p.t, "the database, compared with the model", got, p.model.rows(p.users, p.seats, all))
}

func (m *model) rows(users, seats []int64, all bool) []row {
	out := []row{}
	for _, r := range m.reservations {
		if !all && !r.status.Occupies() {
			continue
		}
		var until *time.Time
		switch {
		case r.status == library.Held:
			until = new(at(r.offeredTo))
		case r.deadline != 0:
			until = new(at(r.deadline))
		}
		out = append(out, row{
			Kind: "reservation", ID: r.id, User: users[r.user], Seat: seats[r.seat], From: at(r.from), To: at(r.to),
			Status: string(r.status), Until: until, Reminded: r.reminded,
		})
	}
	for _, e := range m.entries {
		if !all && !e.live() {
			continue
		}
		w := row{
			Kind: "entry", ID: e.id, User: users[e.user], Seat: seats[e.seat], From: at(e.from), To: at(e.to),
			Status: string(e.status), Position: m.position(e),
		}
		if e.status == library.EntryOffered {
			w.Until = new(at(e.hold.offeredTo))
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b row) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	return out
}

// checkCoverage fails a run with few offers, because such a run proves nothing. It checks the other
// outcomes only for the fixed seed, because with a random seed some may be rare.
func (p *play) checkCoverage(fixedSeed bool) {
	p.t.Helper()
	offers := storetest.Value[int](p.t, p.db, `SELECT count(*) FROM reservation_events WHERE kind = 'OFFERED'`)
	p.t.Logf("%d offers; %v", offers, p.done)
	if offers < 20 {
		p.t.Errorf("only %d offers", offers)
	}
	if !fixedSeed {
		return
	}
	for _, what := range []string{
		"reserve ok", "reserve SEAT_TAKEN", "join ok", "join SEAT_AVAILABLE", "cancel ok", "checkin ok", "checkout ok",
		"extend ok", "leave ok", "claim ok", "noshow", "expireoffer", "expirewaiting", "complete", "remind",
	} {
		if p.done[what] < 3 {
			p.t.Errorf("%s: only %d times", what, p.done[what])
		}
	}
}
