package store

import (
	"context"
	"sync"
	"sync/atomic"
)

// growth has the tables analyzed while they are young. Sessions settle for the plans of their statements after five runs, and on a fresh
// database they do so knowing nothing, not even that all rows are of one library: with 10,000 reservations each booking then walked all of
// them, twice, until autovacuum came by, which takes a minute. An ANALYZE makes the sessions plan anew.
type growth struct {
	rows      atomic.Int64 // that this store has added
	analyzing sync.WaitGroup
}

// After 32 rows the planner knows how rows are spread; the later ones are for what has become of them. Then autovacuum does it.
const analyzeTables = `ANALYZE (SKIP_LOCKED) reservations, reservation_events, waitlist_entries, seats, users, branches`

// grew notes that a row was added to a table that grows. It does not wait for the ANALYZE, which is in nobody's way and may fail.
func (s *Store) grew(ctx context.Context) {
	switch s.growth.rows.Add(1) {
	case 32, 256, 2048, 16384:
		s.growth.analyzing.Go(func() {
			ctx, cancel := budget(ctx)
			defer cancel()
			_, _ = s.background.Exec(ctx, analyzeTables)
		})
	}
}
