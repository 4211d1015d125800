package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/store"
)

// TestRevocationsInPages reads half a million revocations of one transaction, as after a restore.
// Each page takes far less than logConnTimeout. A revocation that is committed between two pages
// comes with a later page or with the next read.
func TestRevocationsInPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 500_000
	b.db.Exec(t, `SET session_replication_role = replica`) // no look-up of the user for each row
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
	if _, err := late.Exec(t.Context(), revoke, b.users[0], at(60)); err != nil { // it has its transaction id now
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
		t.Errorf("%d were read, %d of them not yet committed", len(seen), seen["late"])
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
		t.Errorf("%d were read, late %d times, meanwhile %d times", len(seen), seen["late"], seen["meanwhile"])
	}
	if pages := read(); pages != 1 || len(seen) != n+2 {
		t.Errorf("with nothing new, %d pages", pages)
	}
}
