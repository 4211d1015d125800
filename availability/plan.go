package availability

import (
	"context"
	"time"

	"github.com/dlsms/dlsms/library"
)

// FloorPlan is the floor plan of a branch. Callers share it, so it is read-only.
type FloorPlan struct {
	// Places are those of all seats of the branch, in the order of their ids.
	Places []SeatPlace
	// Areas are those of these seats, sorted by name.
	Areas []PlanArea
	// AsOf is the time of the plan, by Postgres's clock. Fresh is as in Page.
	AsOf  time.Time
	Fresh bool

	memo *memo
}

// SeatPlace is the place of a seat.
type SeatPlace struct {
	SeatID int64
	library.SeatPlace
}

// PlanArea is an area and its floor.
type PlanArea struct {
	Name  string
	Floor string // empty: not known
}

// Memo returns the result of compute, which encodes Places and Areas. compute runs once for each
// encoding, and again only after the catalog has changed. All callers pass the same function for an
// encoding.
func (p FloorPlan) Memo(e Encoding, compute func() any) any { return p.memo.get(e, compute) }

// FloorPlan returns the floor plan of a branch. It fails with ErrBranchNotFound, ErrUnavailable or
// the error of ctx.
func (m *Model) FloorPlan(ctx context.Context, branch string) (FloorPlan, error) {
	w, err := m.current(ctx)
	if err != nil {
		return FloorPlan{}, err
	}
	b := w.byCode[branch]
	if b == nil {
		return FloorPlan{}, library.BranchNotFound(branch)
	}
	p := w.plan(b)
	p.AsOf, p.Fresh = w.asOf, w.fresh
	return p, nil
}

// plan returns the plan of a branch without its time. The catalog keeps it, because many readers ask
// for the same plan, and bookings do not change it.
func (c *catalog) plan(b *branch) FloorPlan {
	if p, ok := c.plans.Load(b.Code); ok {
		return p.(FloorPlan) // by the Store below
	}
	p := FloorPlan{Places: make([]SeatPlace, len(b.seats)), Areas: make([]PlanArea, len(b.areas)), memo: new(memo)}
	for i, position := range b.seats {
		s := c.seats[position]
		p.Places[i] = SeatPlace{s.ID, s.SeatPlace}
	}
	for i, area := range b.areas {
		p.Areas[i] = PlanArea{area, b.Floors[area]}
	}
	kept, _ := c.plans.LoadOrStore(b.Code, p)
	return kept.(FloorPlan)
}
