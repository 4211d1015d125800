package store

import (
	"context"
	"sync"
	"sync/atomic"
)

// analyzer analyzes the tables while they are small. A session fixes the plan of a statement after
// five runs. On a fresh database the planner then knows nothing about the tables, not even that all
// rows belong to one library. With 10,000 reservations, each booking scanned all of them, twice,
// until autovacuum came a minute later. An ANALYZE makes the sessions plan again.
type analyzer struct {
	rows    atomic.Int64 // added by this store
	running sync.WaitGroup
}

// After 32 rows the planner knows how the rows are distributed. The later runs, up to 16,384 rows,
// follow changes of the distribution. After that, autovacuum is enough.
const analyzeTables = `
	ANALYZE (SKIP_LOCKED) reservations, reservation_events, waitlist_entries, seats, users, branches`

// rowAdded counts a row that was added to a growing table. It does not wait for the ANALYZE, which
// blocks no call. The ANALYZE may fail: a later one repeats it.
func (s *Store) rowAdded(ctx context.Context) {
	switch s.analyzer.rows.Add(1) {
	case 32, 256, 2048, 16384:
		s.analyzer.running.Go(func() {
			ctx, cancel := budget(ctx)
			defer cancel()
			_, _ = s.background.Exec(ctx, analyzeTables)
		})
	}
}
