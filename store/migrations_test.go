package store_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestThreeReplicasMigrateAtOnce starts three replicas on an empty database: one of them applies
// every migration, and the others find nothing to do.
func TestThreeReplicasMigrateAtOnce(t *testing.T) {
	t.Parallel()
	for round := range 4 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			url := storetest.NewEmptyDB(t)
			applied := make([][]int64, 3)
			for _, err := range atOnce(3, func(i int) error {
				result, err := migrations.Up(t.Context(), url)
				applied[i] = result.Applied
				return err
			}) {
				if err != nil {
					t.Fatal(err)
				}
			}
			slices.SortFunc(applied, func(a, b []int64) int { return len(b) - len(a) })
			if len(applied[0]) == 0 || len(applied[1]) != 0 || len(applied[2]) != 0 {
				t.Errorf("applied: %v", applied)
			}
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			var tables int
			if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM reservations, libraries`).Scan(&tables); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMigrateSurvivesLostConnection runs Up through a proxy. The proxy breaks the connection at
// each of the first three statements that name goose_db_version. While it does so, Up must return
// an error for which Unavailable is true, so that the caller tries again. Then an Up without a
// broken connection must succeed.
func TestMigrateSurvivesLostConnection(t *testing.T) {
	t.Parallel()
	const word = "goose_db_version"
	through, left := storetest.CutOff(t, storetest.NewEmptyDB(t), word, word, word) // the pool tries three times
	if _, err := migrations.Up(t.Context(), through); err == nil || !store.Unavailable(err) {
		t.Errorf("after the first lost connections: %v", err)
	}
	for left() > 0 {
		if _, err := migrations.Up(t.Context(), through); err == nil || !store.Unavailable(err) {
			t.Fatalf("after another lost connection: %v", err)
		}
	}
	if _, err := migrations.Up(t.Context(), through); err != nil {
		t.Errorf("without a lost connection: %v", err)
	}
}

func TestSchemaHash(t *testing.T) {
	t.Parallel()
	first, err := migrations.Hash()
	if err != nil || len(first) != 16 {
		t.Errorf("%q, %v", first, err)
	}
	if again, _ := migrations.Hash(); again != first {
		t.Errorf("%q, then %q", first, again)
	}
}
