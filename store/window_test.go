package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/store/storetest"
)

// A bound of a span is a number of minutes after noon, or one of these values. storable relies on
// their order.
const (
	null     = 1000
	infinity = 1001
	eternity = 1002 // -infinity
)

// span is a range that a statement tries to store.
type span struct {
	from, to int32
	bounds   int32 // index into bounds; len(bounds) means NULL instead of a range
}

var bounds = []string{"[)", "[]", "()", "(]"}

// storable reports whether a reservation may have this range: finite, not empty and half open.
func (s span) storable() bool {
	return s.from < s.to && s.to < null && s.bounds == 0
}

func (s span) overlaps(o span) bool { return s.from < o.to && o.from < s.to }

func randomSpan(random *rand.Rand) span {
	from := random.Int32N(24)
	s := span{from: from, to: from + 1 + random.Int32N(8)}
	switch random.IntN(24) {
	case 0:
		s.to = s.from // empty
	case 1:
		s.from, s.to = s.to, s.from // reversed
	case 2:
		s.from = null + random.Int32N(3)
	case 3:
		s.to = null + random.Int32N(3)
	case 4:
		s.bounds = 1 + random.Int32N(4)
	}
	return s
}

// TestWindows inserts 100,000 random pairs of windows, each pair at one seat. Postgres must accept
// exactly the windows that the model in Go accepts. The model accepts a valid window, except if it
// is the second of a pair and overlaps the first, and the first is not cancelled.
func TestWindows(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Altered()
	// This turns off the foreign keys, because the test has no 100,000 seats and users. The CHECKs
	// and the exclusion constraint still apply.
	db.Exec(t, `SET session_replication_role = replica`)
	// The test takes a third of the time without these indexes.
	db.Exec(t, `
		DROP INDEX reservations_user_live, reservations_user_start, reservations_deadline_due, reservations_end_due`)
	db.Exec(t, fmt.Sprintf(`
		CREATE FUNCTION edge(minutes int) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
			SELECT CASE minutes WHEN %d THEN NULL WHEN %d THEN 'infinity' WHEN %d THEN '-infinity'
				ELSE timestamptz '2026-03-02 12:00Z' + minutes * interval '1 min' END
		$$`, null, infinity, eternity))
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const pairs = 100_000
	statuses := []string{"CONFIRMED", "CHECKED_IN", "CONFIRMED", "CANCELLED"}
	spans := make([][2]span, pairs)
	first := make([]int32, pairs) // the status of the first window of each pair: an index into statuses
	var from, to, bound, status []int32
	var storable []bool
	for i := range spans {
		spans[i] = [2]span{randomSpan(random), randomSpan(random)}
		first[i] = random.Int32N(int32(len(statuses)))
		for j, s := range spans[i] {
			from, to = append(from, s.from), append(to, s.to)
			bound, storable = append(bound, s.bounds), append(storable, s.storable())
			status = append(status, first[i]*int32(1-j))
		}
	}
	db.Exec(t, `
		CREATE TEMP TABLE tries AS
		SELECT (i - 1) / 2 AS seat, (i - 1) % 2 AS place, edge(f) AS lo, edge(u) AS hi, ($6::text[])[b + 1] AS bounds,
			($7::text[])[s + 1] AS status, storable
		FROM unnest($1::int[], $2::int[], $3::int[], $4::int[], $5::bool[]) WITH ORDINALITY x (f, u, b, s, storable, i)`,
		from, to, bound, status, storable, bounds, statuses)

	const insert = `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
			created_at, checked_in_at, ended_at)
		SELECT 1, seat, 1, CASE WHEN bounds IS NOT NULL THEN tstzrange(lo, hi, bounds) END, status, now(), now(), now(),
			CASE status WHEN 'CHECKED_IN' THEN now() END, CASE status WHEN 'CANCELLED' THEN now() END
		FROM tries `
	// Each window that the model refuses is inserted by a statement of its own. Postgres reports
	// SQLSTATE 22000 for a reversed range, 23502 for NULL, and 23514 for a range that violates the
	// CHECK.
	db.Exec(t, `
		CREATE FUNCTION pg_temp.refusal(a_seat bigint, a_place bigint) RETURNS text LANGUAGE plpgsql AS $$
		BEGIN
			`+insert+` WHERE seat = a_seat AND place = a_place;
			RETURN 'none';
		EXCEPTION WHEN OTHERS THEN
			RETURN SQLSTATE;
		END $$`)
	db.Exec(t, `CREATE INDEX ON tries (seat, place); ANALYZE tries`)
	refusals := storetest.Rows[string](t, db, `
		SELECT DISTINCT pg_temp.refusal(seat, place) FROM tries WHERE NOT storable ORDER BY 1`)
	wantEqual(t, "refusals of windows that the model refuses", refusals, []string{"22000", "23502", "23514"})

	db.Exec(t, insert+`WHERE storable AND place = 0`)
	stored := map[int64]bool{}
	for _, seat := range storetest.Rows[int64](t, db, insert+`
		WHERE storable AND place = 1 ORDER BY seat ON CONFLICT DO NOTHING RETURNING seat_id`) {
		stored[seat] = true
	}
	both, refused := 0, 0
	for i, pair := range spans {
		a, b := pair[0], pair[1]
		want := b.storable() && !(a.storable() && statuses[first[i]] != "CANCELLED" && a.overlaps(b))
		if got := stored[int64(i)]; got != want {
			t.Fatalf("%s %+v, then %+v: stored %v, want %v", statuses[first[i]], a, b, got, want)
		}
		if a.storable() && b.storable() {
			if want {
				both++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d pairs stored, %d overlapping windows refused", both, refused)
	if both < pairs/10 || refused < pairs/10 {
		t.Error("too few pairs were stored or refused, so the test proves little")
	}
	// The waitlist has the same rules for windows.
	for _, s := range []string{
		`tstzrange(now(), NULL)`, `tstzrange(NULL, now())`, `tstzrange(now(), 'infinity')`,
		`'empty'`, `tstzrange(now(), now() + interval '1 h', '[]')`, `NULL`,
	} {
		_, err := dbExec(t, db, `
			INSERT INTO waitlist_entries (library_id, seat_id, user_id, during, joined_position, created_at)
			SELECT 1, 1, 1,`+s+`, 1, now()`)
		if err == nil {
			t.Errorf("an entry with the window %s was stored", s)
		}
	}
}

// dbExec runs a statement that may fail, on a connection of its own.
func dbExec(t *testing.T, db *storetest.DB, sql string) (int64, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	tag, err := conn.Exec(t.Context(), `SET session_replication_role = replica`)
	if err == nil {
		tag, err = conn.Exec(t.Context(), sql)
	}
	return tag.RowsAffected(), err
}
