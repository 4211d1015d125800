package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestRevocationsInPages reads half a million revocations of one transaction, as after a restore.
// The test commits further revocations between two pages and after the last page. A later page or
// the next read must return each of these, and no revocation may be returned twice.
func TestRevocationsInPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 500_000
	b.db.Exec(t, `SET session_replication_role = replica`) // turns off the foreign key, so that the INSERT is fast
	b.db.Exec(t, `INSERT INTO revocations (library_id, user_id, jti, expires_at)
		SELECT 1, $1, lpad(i::text, 22, '0'), $2 FROM generate_series(1, $3::int) i`, b.users[0], at(60), n)
	b.db.Exec(t, `INSERT INTO revocations (library_id, user_id, jti, expires_at)
		SELECT 1, $1, 'expired ' || i, $2 FROM generate_series(1, 20000) i`, b.users[0], at(-60))
	b.db.Exec(t, `RESET session_replication_role`)
	late, err := pgx.Connect(t.Context(), b.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close(t.Context())
	const revoke = `INSERT INTO revocations (library_id, user_id, jti, expires_at) VALUES (1, $1, 'late', $2)`
	if _, err := late.Exec(t.Context(), `BEGIN`); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Exec(t.Context(), revoke, b.users[0], at(60)); err != nil { // this transaction now has its id
		t.Fatal(err)
	}

	seen := map[string]int{}
	var snapshot store.Snapshot
	read := func() (pages int) {
		t.Helper()
		for more := true; more; pages++ {
			page, err := b.Revocations(t.Context(), snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Revocations) > 10_000 || !page.Snapshot.After(snapshot) {
				t.Fatalf("page %d has %d rows", pages, len(page.Revocations))
			}
			for _, r := range page.Revocations {
				seen[r.JTI]++
			}
			if pages == 3 {
				if err := b.RevokeToken(t.Context(), b.users[0], "meanwhile", at(60)); err != nil {
					t.Fatal(err)
				}
			}
			snapshot, more = page.Snapshot, page.More
		}
		return pages
	}
	began := time.Now()
	pages := read()
	t.Logf("%d pages took %v", pages, time.Since(began))
	if pages < n/10_000 {
		t.Errorf("%d pages", pages)
	}
	if len(seen) < n || seen["late"] != 0 {
		t.Errorf("%d revocations were read, %d of them not yet committed", len(seen), seen["late"])
	}
	if _, err := late.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	read()
	for i := range n {
		if jti := fmt.Sprintf("%022d", i+1); seen[jti] != 1 {
			t.Fatalf("%s was read %d times", jti, seen[jti])
		}
	}
	if len(seen) != n+2 || seen["late"] != 1 || seen["meanwhile"] != 1 {
		t.Errorf("%d revocations, late %d times, meanwhile %d times", len(seen), seen["late"], seen["meanwhile"])
	}
	if pages := read(); pages != 1 || len(seen) != n+2 {
		t.Errorf("a read with nothing new has %d pages", pages)
	}
}

func TestRevocationsMissNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	insert := fmt.Sprintf(`INSERT INTO revocations (library_id, user_id, jti, expires_at)
		VALUES (1, %d, $1::bigint::text, '%s')`, b.users[0], at(60).Format(time.RFC3339))
	w := b.writers(t, 4)
	var snapshot store.Snapshot
	var want []string
	read := func() {
		t.Helper()
		log, err := b.Revocations(t.Context(), snapshot)
		if err != nil {
			t.Fatal(err)
		}
		snapshot = log.Snapshot
		var got []string
		for _, r := range log.Revocations {
			if r.UserID != b.users[0] || !r.ExpiresAt.Equal(at(60)) || r.Generation != 0 {
				t.Errorf("%+v", r)
			}
			got = append(got, r.JTI)
		}
		slices.Sort(got)
		slices.Sort(want)
		wantEqual(t, "revocations", got, want)
		want = nil
	}
	for range 600 {
		for _, id := range w.randomly(t, random, insert) {
			want = append(want, fmt.Sprint(id))
		}
		if random.IntN(4) == 0 {
			read()
		}
	}
	read()
}

func TestRevocations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	revoke := func(jti string, until int) {
		t.Helper()
		if err := b.RevokeToken(t.Context(), b.users[0], jti, at(until)); err != nil {
			t.Fatal(err)
		}
	}
	all := func() (got []store.Revocation) {
		t.Helper()
		log, err := b.Revocations(t.Context(), store.Snapshot{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range log.Revocations {
			log.Revocations[i].ExpiresAt = log.Revocations[i].ExpiresAt.UTC()
		}
		slices.SortFunc(log.Revocations, func(a, b store.Revocation) int { return a.ExpiresAt.Compare(b.ExpiresAt) })
		return log.Revocations
	}
	revoke("a", 10)
	revoke("a", 10) // to revoke a token twice is no error
	revoke("b", 20)
	user := b.users[0]
	generation, err := b.ChangePassword(t.Context(), user, "", "new", at(30))
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Revocation{
		{UserID: user, JTI: "a", ExpiresAt: at(10)}, {UserID: user, JTI: "b", ExpiresAt: at(20)}, {UserID: user,
			Generation: generation, ExpiresAt: at(30)},
	}
	wantEqual(t, "all", all(), want)
	wantErr(t, b.RevokeToken(t.Context(), 1<<40, "c", at(10)), library.ErrTokenInvalid)

	wantDone(t, 0, b.ForgetRevocations)
	b.clock(t, 10)
	wantEqual(t, "after the first has expired", all(), want[1:])
	wantDone(t, 0, b.ForgetRevocations) // kept for one more minute, because clocks differ
	b.clock(t, 22)
	n, more, err := b.ForgetRevocations(t.Context(), 1)
	if err != nil || n != 1 || !more {
		t.Errorf("%d forgotten, more %v, %v", n, more, err)
	}
	wantDone(t, 1, b.ForgetRevocations)
	wantEqual(t, "left in the table", storetest.Value[int](t, b.db, `SELECT count(*) FROM revocations`), 1)
	wantEqual(t, "not expired", all(), want[2:])
}

// TestForgetRevocationsKeepsTheLimit deletes one row at a time, with settings that leave the
// planner only nested loops. With such a plan, an earlier version of the query sometimes deleted
// two rows: it repeated its subquery for each row, and each repetition locked another row.
func TestForgetRevocationsKeepsTheLimit(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	s, err := store.Open(t.Context(), store.Config{
		URL:      db.URL + "&enable_hashjoin=off&enable_mergejoin=off&enable_hashagg=off&enable_sort=off&enable_material=off",
		MinConns: 1, MaxConns: 1, Policy: library.DefaultPolicy(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	const rows = 10
	db.Exec(t, `INSERT INTO revocations (library_id, user_id, jti, expires_at)
		SELECT 1, $1, i::text, now() - interval '1 h' FROM generate_series(1, $2) i`, db.Users(t, 1)[0], rows)
	for i := range rows {
		if n, more, err := s.ForgetRevocations(t.Context(), 1); n != 1 || !more || err != nil {
			t.Fatalf("%d: %d forgotten, more %v, %v", i, n, more, err)
		}
	}
}

// TestForgetRevocationsInThreeReplicas lets three replicas delete the same rows. None must wait for
// another, and each row must be deleted once.
func TestForgetRevocationsInThreeReplicas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := b.replicas(t, 3)
	const rows = 500
	b.db.Exec(t, `INSERT INTO revocations (library_id, user_id, jti, expires_at) SELECT 1, $1, i::text, $2
		FROM generate_series(1, $3) i`, b.users[0], at(-10), rows)
	forgotten := make([]int, 3)
	for _, err := range atOnce(3, func(i int) error {
		for more := true; more; {
			n, again, err := stores[i].ForgetRevocations(t.Context(), 20)
			if err != nil {
				return err
			}
			forgotten[i], more = forgotten[i]+n, again
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if sum := forgotten[0] + forgotten[1] + forgotten[2]; sum != rows {
		t.Errorf("%v forgotten of %d", forgotten, rows)
	}
}
