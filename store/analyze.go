package store

import (
	"context"
	"sync"
	"sync/atomic"
)

// analyzer analyzes the tables while they are small. A session fixes the plan of a statement after
// five runs. On a fresh database, the planner knows nothing about the tables at that time, not even
// that all rows belong to one library. With 10,000 reservations, each booking then scanned all of
// them twice, until autovacuum analyzed the table a minute later. ANALYZE makes the sessions plan
// again.
type analyzer struct {
	rows    atomic.Int64 // added by this store
	running sync.WaitGroup
}

// analyzeTables runs after 32, 256, 2,048 and 16,384 added rows. After the first run, the planner
// knows how the rows are distributed. The later runs follow changes of the distribution. For larger
// tables, autovacuum is enough.
const analyzeTables = `
	ANALYZE (SKIP_LOCKED) reservations, reservation_events, waitlist_entries, seats, users, branches`

// rowAdded counts a row that was added to one of these tables. It does not wait for the ANALYZE,
// which blocks no call. If the ANALYZE fails, the next one repeats it.
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
