package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// retain runs all parts of the retention once, with batches of some rows. It returns the number of
// changed rows of each part that has changed some.
func (b bundle) retain(t *testing.T, months, limit int) map[string]int {
	t.Helper()
	before, err := b.OldBefore(t.Context(), months)
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string]int{}
	for _, part := range store.RetentionParts {
		var after store.OldRow
		for {
			rows, err := b.FindOld(t.Context(), part, before, after, limit)
			if err != nil {
				t.Fatalf("%s: %v", part.Name, err)
			}
			if len(rows) == 0 {
				break
			}
			after = rows[len(rows)-1]
			var ids []int64
			for _, r := range rows {
				ids = append(ids, r.ID)
			}
			n, busy, err := b.Retain(t.Context(), part, before, ids)
			if err != nil || busy {
				t.Fatalf("%s: busy %v, %v", part.Name, busy, err)
			}
			if n > 0 {
				changed[part.Name] += n
			}
		}
	}
	return changed
}

// textsWith returns the tables and columns of text, or of JSON, in which a word occurs.
func textsWith(t *testing.T, db *storetest.DB, word string) (found []string) {
	t.Helper()
	for _, column := range storetest.Rows[string](t, db, `
		SELECT format('%I.%I', c.table_name, c.column_name) FROM information_schema.columns c
		JOIN information_schema.tables t USING (table_schema, table_name)
		WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE'
			AND c.data_type IN ('text', 'jsonb', 'ARRAY', 'character varying')
		ORDER BY 1`) {
		table, name, _ := strings.Cut(column, ".")
		if n := storetest.Value[int](t, db, fmt.Sprintf(
			`SELECT count(*) FROM %s WHERE %s::text ILIKE '%%' || $1 || '%%'`, table, name), word); n > 0 {
			found = append(found, fmt.Sprintf("%s (%d)", column, n))
		}
	}
	return found
}

// person gives user 0 personal data with words that occur nowhere else, and writes them wherever
// staff or clients can: names, reasons and request ids. Then it returns the words.
func (b bundle) person(t *testing.T) (words []string) {
	t.Helper()
	admin := b.actor(t, 4, library.RoleAdmin, nil)
	b.db.Exec(t, `UPDATE users SET student_id = 'Ada.L', name = 'Ada Lovelace' WHERE id = $1`, b.users[0])
	text := func(s string) *string { return &s }
	order := by(admin, "Lovelace moved")
	order.RequestID = "about-Ada.L"
	if _, err := b.UpsertPeople(t.Context(), order, []library.PersonChange{{
		StudentID: "Ada.L", Email: text("ada@x.example"), Card: text("CARD-1815"), Group: text("maths"),
	}}); err != nil {
		t.Fatal(err)
	}
	return []string{"lovelace", "ada.l", "ada@x", "card-1815"}
}

// TestRetention moves the rows of a person in every state, and checks that only what is old enough
// moves, and that nothing of the person is left.
func TestRetention(t *testing.T) {
	t.Parallel()
	b := setup(t)
	words := b.person(t)
	admin := b.actor(t, 4, library.RoleAdmin, nil)
	b.strikePolicy(t, 1, 1, 2)
	booked, err := b.Reserve(t.Context(), library.Booking{
		UserID: b.users[0], SeatID: b.seats[0], StartTime: at(0), EndTime: at(60), RequestID: "Ada.L-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.CheckInFor(t.Context(), by(admin, "Lovelace forgot her phone"), booked.ID); err != nil {
		t.Fatal(err)
	}
	b.reserve(t, 1, 1, 60, 120)
	waiting, err := b.JoinWaitlist(t.Context(), library.Booking{
		UserID: b.users[0], SeatID: b.seats[1], StartTime: at(60), EndTime: at(120), RequestID: "Ada.L-2",
	})
	if err != nil {
		t.Fatal(err)
	}
	b.offeredBy(t, 1, 0, 2, 180, 240) // the offer expires
	b.clock(t, 70)
	wantDone(t, 1, b.CompleteEnded)
	wantDone(t, 1, b.ExpireOffers)
	b.clock(t, 120)
	if _, _, err := b.MarkNoShows(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	wantDone(t, 1, b.ExpireWaiting)
	missed := b.miss(t, 0, 3, 300)
	b.judge(t)
	if _, err := b.SetSuspension(t.Context(), by(admin, "Lovelace was loud"), b.users[0], at(3*day)); err != nil {
		t.Fatal(err)
	}
	storetest.CheckInvariants(t, b.db)
	before := b.everything(t)

	b.clock(t, 29*day) // one month, and not 30 days
	if changed := b.retain(t, 1, 2); len(changed) > 0 {
		t.Errorf("before their time: %v", changed)
	}
	wantEqual(t, "rows before their time", b.everything(t), before)
	if _, err := b.Reserve(t.Context(), library.Booking{
		UserID: b.users[0], SeatID: b.seats[0], StartTime: at(0), EndTime: at(60), RequestID: "Ada.L-1",
	}); err != nil {
		t.Errorf("a repeated request: %v", err)
	}

	b.clock(t, 40*day)
	changed := b.retain(t, 1, 2)
	for _, part := range []string{"reservations", "entries", "suspensions", "audit", "people"} {
		if changed[part] == 0 {
			t.Errorf("nothing changed in %s: %v", part, changed)
		}
	}
	for _, word := range words {
		if found := textsWith(t, b.db, word); found != nil {
			t.Errorf("%q is left in %v", word, found)
		}
	}
	for _, table := range []string{
		"reservations", "waitlist_entries", "reservation_events", "strikes", "suspensions",
	} {
		if n := storetest.Value[int](t, b.db, `SELECT count(*) FROM `+table+` WHERE user_id = $1`, b.users[0]); n > 0 {
			t.Errorf("%s has %d rows of the person", table, n)
		}
	}
	wantEqual(t, "the users of the reservations", storetest.Rows[string](t, b.db, `
		SELECT DISTINCT concat_ws(' ', u.pseudonym, u.user_group) FROM reservations r JOIN users u ON u.id = r.user_id
		WHERE r.id = ANY ($1)`, []int64{booked.ID, missed.ID}), []string{"t maths"})
	wantEqual(t, "the entry", storetest.Value[bool](t, b.db, `
		SELECT anonymous FROM waitlist_entries WHERE id = $1`, waiting.ID), true)
	wantEqual(t, "the audit log keeps what is not personal", storetest.Value[bool](t, b.db, `
		SELECT bool_and(action <> '' AND role <> '' AND object <> '') FROM audit_log`), true)
	if again := b.retain(t, 1, 2); len(again) > 0 {
		t.Errorf("a second pass changed %v", again)
	}
	storetest.CheckInvariants(t, b.db)
	if _, err := b.RegisterUser(t.Context(), library.NewUser{
		StudentID: "Ada.L", Name: "Ada Lovelace", Email: "ada@x.example", PasswordHash: "", Role: library.RoleStudent,
	}); err != nil {
		t.Errorf("the student id cannot register again: %v", err)
	}
}

// TestRetentionKeepsWhatCounts leaves strikes that count, suspensions that last, staff, and people
// with a recent login or a recent visit.
func TestRetentionKeepsWhatCounts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 2, 100, 300)
	missed := b.miss(t, 0, 0, 0)
	b.miss(t, 1, 1, 30)
	b.miss(t, 1, 2, 120)
	if n := b.judge(t); n != 1 {
		t.Fatalf("%d users are suspended", n)
	}
	b.clock(t, 90*day)
	visit := b.reserve(t, 2, 3, 90*day, 90*day+60)
	if _, err := b.CheckIn(t.Context(), b.users[2], visit.ID, nil); err != nil {
		t.Fatal(err)
	}
	mustDo(t, b.CheckOut, b.users[2], visit.ID)
	if err := b.SaveLogin(t.Context(), b.users[3]); err != nil {
		t.Fatal(err)
	}
	b.actor(t, 4, library.RoleAdmin, nil)
	if changed := b.retain(t, 1, 10); changed["reservations"] != 0 || changed["suspensions"] != 0 {
		t.Errorf("moved %v", changed)
	}
	wantEqual(t, "people that are left", storetest.Rows[int64](t, b.db, `
		SELECT id FROM users WHERE blanked_at IS NULL ORDER BY id`), b.users[:5])
	if n := b.counting(t, 0); n != 1 {
		t.Errorf("%d strikes of user 0 count, want 1", n)
	}
	b.wantSuspended(t, 1, 135+300*day)

	b.clock(t, 101*day) // the strike of user 0 has expired
	if changed := b.retain(t, 1, 10); changed["reservations"] != 1 || changed["people"] != 1 {
		t.Errorf("moved %v, want the reservation of user 0 and the user", changed)
	}
	wantEqual(t, "anonymous", storetest.Value[bool](t, b.db, `
		SELECT anonymous FROM reservations WHERE id = $1`, missed.ID), true)
	b.wantSuspended(t, 1, 135+300*day)
	storetest.CheckInvariants(t, b.db)
}

// TestLoginIsSavedOnceADay counts the versions of the row.
func TestLoginIsSavedOnceADay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	saved := func() string {
		t.Helper()
		if err := b.SaveLogin(t.Context(), b.users[0]); err != nil {
			t.Fatal(err)
		}
		return storetest.Value[string](t, b.db, `
			SELECT concat_ws(' ', last_login_at AT TIME ZONE 'UTC', xmin) FROM users WHERE id = $1`, b.users[0])
	}
	first := saved()
	b.clock(t, day)
	if again := saved(); again != first {
		t.Errorf("written again within a day: %s, then %s", first, again)
	}
	b.clock(t, day+1)
	if later := saved(); !strings.HasPrefix(later, at(day+1).Format(time.DateTime)) {
		t.Errorf("after a day: %s", later)
	}
	held, err := psql(t, b.db).Begin(t.Context())
	if err == nil {
		_, err = held.Exec(t.Context(), `SELECT FROM users WHERE id = $1 FOR UPDATE`, b.users[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	b.clock(t, 3*day)
	saved() // does not wait for the lock
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestRetentionUnderLoad runs the retention in three replicas while users reserve, wait, cancel and
// come back after a long time. The invariants hold, and each old row moves.
func TestRetentionUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.strikePolicy(t, 3, 1, 1)
	b.db.Exec(t, `UPDATE users SET user_group = CASE WHEN id % 2 = 0 THEN 'even' ELSE '' END`)
	replicas := b.replicas(t, 3)
	random := rand.New(rand.NewPCG(1, 2))
	const rounds = 6
	for round := range rounds {
		start := round * 20 * day
		b.clock(t, start)
		var g sync.WaitGroup
		for user := range b.users {
			seed := random.Uint64()
			g.Go(func() {
				own := rand.New(rand.NewPCG(seed, 3))
				for i := range 6 {
					b.visitAtRandomTime(t, replicas[user%3], own, user, start+i*120)
				}
			})
		}
		for _, s := range replicas {
			g.Go(func() { (bundle{Store: s, db: b.db}).retainTolerantly(t) })
		}
		g.Wait()
		b.clock(t, start+2*day)
		for _, step := range []func() (int, bool, error){
			func() (int, bool, error) { return b.CompleteEnded(t.Context(), 1000) },
			func() (int, bool, error) { return b.MarkNoShows(t.Context(), 1000) },
			func() (int, bool, error) { return b.ExpireOffers(t.Context(), 1000) },
			func() (int, bool, error) { return b.ExpireWaiting(t.Context(), 1000) },
		} {
			if _, _, err := step(); err != nil {
				t.Fatal(err)
			}
		}
		b.judge(t)
		storetest.CheckInvariants(t, b.db)
	}
	b.clock(t, (rounds-1)*20*day+35*day)
	b.retain(t, 1, 7)
	if n := storetest.Value[int](t, b.db, `SELECT count(*) FROM reservations`); n < 50 {
		t.Errorf("only %d reservations: the test does little", n)
	}
	wantEqual(t, "rows of persons", storetest.Value[int](t, b.db, `
		SELECT (SELECT count(*) FROM reservations WHERE NOT anonymous)
			+ (SELECT count(*) FROM waitlist_entries WHERE NOT anonymous)
			+ (SELECT count(*) FROM strikes k JOIN users u ON u.id = k.user_id WHERE NOT pseudonym)
			+ (SELECT count(*) FROM suspensions WHERE NOT anonymous)`), 0)
	wantEqual(t, "pseudonyms", storetest.Rows[string](t, b.db, `
		SELECT user_group FROM users WHERE pseudonym ORDER BY 1`), []string{"", "even"})
	storetest.CheckInvariants(t, b.db)
}

// retainTolerantly is retain for a replica that is not alone.
func (b bundle) retainTolerantly(t *testing.T) {
	t.Helper()
	before, err := b.OldBefore(t.Context(), 1)
	if err != nil {
		t.Error(err)
		return
	}
	for _, part := range store.RetentionParts {
		rows, err := b.FindOld(t.Context(), part, before, store.OldRow{}, 1000)
		if err != nil {
			t.Errorf("%s: %v", part.Name, err)
			return
		}
		for batch := range slices.Chunk(rows, 5) {
			var ids []int64
			for _, r := range batch {
				ids = append(ids, r.ID)
			}
			if _, _, err := b.Retain(t.Context(), part, before, ids); err != nil {
				t.Errorf("%s: %v", part.Name, err)
			}
		}
	}
}

// visitAtRandomTime reserves a seat, or waits for it, and may cancel or check in. Refusals are
// expected. from is in minutes after noon.
func (b bundle) visitAtRandomTime(t *testing.T, s *store.Store, random *rand.Rand, user, from int) {
	t.Helper()
	booking := library.Booking{
		UserID: b.users[user], SeatID: b.seats[random.IntN(2)], StartTime: at(from), EndTime: at(from + 60),
		RequestID: fmt.Sprintf("%d-%d", user, from),
	}
	r, err := s.Reserve(t.Context(), booking)
	if err != nil {
		_, _ = s.JoinWaitlist(t.Context(), booking)
		return
	}
	switch random.IntN(3) {
	case 0:
		_, err = s.Cancel(t.Context(), booking.UserID, r.ID)
	case 1:
		if from%day == 0 {
			_, err = s.CheckIn(t.Context(), booking.UserID, r.ID, nil)
		}
	}
	if err != nil {
		t.Error(err)
	}
}
