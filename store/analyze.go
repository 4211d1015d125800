package store

import (
	"context"
	"sync"
	"sync/atomic"
)

// analyzer runs ANALYZE while the tables are small. After five runs of a statement, a session of
// Postgres keeps one plan for it. On a fresh database, the planner makes this plan without
// statistics: it does not even know that all rows belong to one library. With such a plan and
// 10,000 reservations, each booking read the whole table twice, until autovacuum analyzed the table
// a minute later. After an ANALYZE, the sessions make new plans.
type analyzer struct {
	rows    atomic.Int64 // added by this store
	running sync.WaitGroup
}

// analyzeTables runs when this store has added 32, 256, 2,048 and 16,384 rows. After the first run,
// the planner knows how the rows are distributed. The later runs follow changes of the
// distribution. For larger tables, autovacuum is enough.
const analyzeTables = `
	ANALYZE (SKIP_LOCKED) reservations, reservation_events, waitlist_entries, seats, users, branches`

// rowAdded counts a row that this store has added to one of the tables in analyzeTables, and starts
// an ANALYZE when one is due. It does not wait for the ANALYZE, which blocks no call. It ignores a
// failure, because another ANALYZE follows after more rows.
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
