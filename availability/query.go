package availability

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/dlsms/dlsms/library"
)

// Query says which seats, and what about them. Its zero value is all seats at this instant.
type Query struct {
	Branch    string  // code; empty: all
	Area      string  // name; empty: all
	Amenities []int16 // numbers of the enum dlsms.v1.Amenity; a seat must have all of them
	// Start and End are the window, to the microsecond; both zero: this instant.
	Start, End time.Time
	// AvailableOnly leaves out seats that are not available. A Watch ignores it, and what is below.
	AvailableOnly bool
	// AfterID and Limit make pages: at most Limit seats (0: all) with ids above AfterID.
	AfterID int64
	Limit   int
}

// Page is one page of seats, in the order of their ids. It is shared with others who asked the same: treat it as read-only.
type Page struct {
	Seats []SeatView
	// Total is how many seats match branch, area and amenities on all pages, and Available how many of those are available.
	Total, Available int
	// NextAfterID is the AfterID of the next page; 0: this is the last one.
	NextAfterID int64
	// AsOf is the time, by Postgres's clock, that this is true of.
	AsOf time.Time
	// Generation and ValidUntil say how long the same question has this answer, but for its AsOf: while the Generation is the same and AsOf
	// before ValidUntil. A zero ValidUntil is never.
	Generation uint64
	ValidUntil time.Time

	memo *memo
}

// Memo returns what compute returns. It is computed once for an answer, and again only when the answer changed: who encodes answers keeps the
// bytes here. The AsOf must not go into it, since that moves on. All callers must compute the same kind of thing.
func (p Page) Memo(compute func() any) any { return p.memo.get(compute) }

// BranchView is one branch, with its seats counted.
type BranchView struct {
	Code     string
	Name     string
	Timezone string   // IANA
	Areas    []string // sorted; shared: treat as read-only
	// Hours are its opening hours, in the order of weekday (Sunday is 0) and time; shared: treat as read-only.
	Hours []library.OpenHours
	// Open says whether it is open. ClosesAt is set while it is, unless it never closes; OpensAt while it is not, unless it never opens.
	Open              bool
	ClosesAt, OpensAt time.Time
	// SeatCount is how many seats it has, AvailableCount how many of them are free at this instant.
	SeatCount, AvailableCount int
}

// Busy is a span of time, half open, for which a seat is reserved or held.
type Busy struct{ Start, End time.Time }

// busyAhead is how far a look at one seat without a window tells of its bookings: as far ahead as one may book.
const busyAhead = 14 * microsPerDay

// filter is the part of a query that time has no part in, comparable.
type filter struct {
	branch, area string
	amenities    string // two bytes each, sorted, without repeats
}

func newFilter(q Query) filter {
	f := filter{branch: q.Branch, area: q.Area}
	if len(q.Amenities) > 0 {
		sorted := slices.Compact(slices.Sorted(slices.Values(q.Amenities)))
		packed := make([]byte, 0, 2*len(sorted))
		for _, a := range sorted {
			packed = binary.BigEndian.AppendUint16(packed, uint16(a)) //nolint:gosec // all 16 bits are there
		}
		f.amenities = string(packed)
	}
	return f
}

func (f filter) matches(s *seat) bool {
	if f.branch != "" && s.branch != f.branch || f.area != "" && s.Area != f.area {
		return false
	}
	for i := 0; i < len(f.amenities); i += 2 {
		if !slices.Contains(s.Amenities, int16(f.amenities[i])<<8|int16(f.amenities[i+1])) {
			return false
		}
	}
	return true
}

// newWindow returns the window of a question: every microsecond that the times touch.
func newWindow(start, end time.Time) (window, error) {
	if start.IsZero() && end.IsZero() {
		return present, nil
	}
	w := window{start.UnixMicro(), end.UnixMicro()}
	if end.Nanosecond()%1000 != 0 {
		w.end++
	}
	if start.IsZero() || end.IsZero() || w.end <= w.start {
		return window{}, library.Invalid(library.FieldViolation{Field: "end_time", Message: "set both times, and the end after the start, or neither"})
	}
	return w, nil
}

// ask returns the window of a question, and a world that is as fresh as it may expect. It refuses a window that has passed: what was free
// then is not known.
func (m *Model) resolve(ctx context.Context, start, end time.Time) (window, *world, error) {
	about, err := newWindow(start, end)
	if err != nil {
		return window{}, nil, err
	}
	w, err := m.current(ctx)
	if err != nil {
		return window{}, nil, err
	}
	if about != present && about.end <= w.now-m.options.PastTolerance.Microseconds() {
		refused := library.ErrWindowNotAllowed.With("now", w.asOf.UTC().Format(time.RFC3339Nano))
		refused.Fields = []library.FieldViolation{{Field: "end_time", Message: "is in the past"}}
		return window{}, nil, refused
	}
	return about, w, nil
}

// Seats answers a query. It fails with ErrBranchNotFound, ErrUnavailable, ErrWindowNotAllowed for a window that has passed, Invalid for one
// that is none, or the error of ctx.
func (m *Model) Seats(ctx context.Context, q Query) (Page, error) {
	about, w, err := m.resolve(ctx, q.Start, q.End)
	if err != nil {
		return Page{}, err
	}
	if q.Branch != "" && w.byCode[q.Branch] == nil {
		return Page{}, library.ErrBranchNotFound.With("branch", q.Branch)
	}
	return w.page(question{filter: newFilter(q), window: about, availableOnly: q.AvailableOnly, after: q.AfterID, limit: max(q.Limit, 0)}), nil
}

// page answers a question about w. Questions about the present are asked again and again, so their answers are kept while they hold.
func (w *world) page(q question) Page {
	var a *answer
	if q.window == present || q.watched {
		a = w.cached(q, w.now, func() *answer { return w.compute(q) })
	} else {
		a = w.compute(q)
	}
	p := a.page
	p.AsOf = w.asOf
	return p
}

// initialSeats is how many seats an answer has room for before it grows.
const initialSeats = 64

func (w *world) compute(q question) *answer {
	about := w.at(q.window)
	p := Page{Seats: make([]SeatView, 0, min(cmp.Or(q.limit, initialSeats), initialSeats)), Generation: w.generation, memo: new(memo)}
	holds := int64(never)
	limit := cmp.Or(q.limit, len(w.seats))
	for i := range w.matching(q.filter) {
		s := w.seats[i]
		st, until := about.stateOf(s, w.taken.at(i))
		holds = min(holds, until)
		p.Total++
		if st.available {
			p.Available++
		}
		switch {
		case q.availableOnly && !st.available || s.ID <= q.after:
		case len(p.Seats) < limit:
			p.Seats = append(p.Seats, s.view(st))
		default:
			p.NextAfterID = p.Seats[limit-1].ID
		}
	}
	if q.window != present {
		holds = never // the window stays where it is
	}
	if holds != never {
		p.ValidUntil = timeOf(holds)
	}
	return &answer{page: p, until: holds}
}

// Seat answers about one seat, with the bookings that overlap the window, in the order of time; without a window, those of the coming 14 days.
// It fails with ErrSeatNotFound, or as Seats does.
func (m *Model) Seat(ctx context.Context, id int64, start, end time.Time) (SeatView, []Busy, time.Time, error) {
	about, w, err := m.resolve(ctx, start, end)
	if err != nil {
		return SeatView{}, nil, time.Time{}, err
	}
	i, ok := w.position[id]
	if !ok {
		return SeatView{}, nil, time.Time{}, library.ErrSeatNotFound
	}
	shown := w.at(about)
	taken := w.taken.at(i)
	st, _ := shown.stateOf(w.seats[i], taken)
	if about == present {
		shown.end = shown.start + busyAhead
	}
	var busy []Busy
	for _, b := range taken {
		if b.start < shown.end && b.end > shown.start {
			busy = append(busy, Busy{timeOf(b.start), timeOf(b.end)})
		}
	}
	return w.seats[i].view(st), busy, w.asOf, nil
}

// Branches returns all branches in the order of their codes. It fails with ErrUnavailable or the error of ctx.
func (m *Model) Branches(ctx context.Context) ([]BranchView, time.Time, error) {
	w, err := m.current(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	a := w.cached(question{branches: true}, w.now, w.computeBranches)
	return slices.Clone(a.branches), w.asOf, nil
}

func (w *world) computeBranches() *answer {
	a := &answer{until: never}
	now := w.at(present)
	for _, b := range w.branches {
		v := BranchView{Code: b.Code, Name: b.Name, Timezone: b.Timezone, Areas: b.areas, Hours: b.Hours, SeatCount: len(b.seats), Open: true}
		if hours := now.hours(b.calendar); hours != nil {
			open := hours.at(now.start)
			if v.Open = open.start <= now.start; v.Open {
				v.ClosesAt = timeOf(open.end)
				a.until = min(a.until, open.end)
			} else if open.start != never {
				v.OpensAt = timeOf(open.start)
				a.until = min(a.until, open.start)
			}
		}
		for _, i := range b.seats {
			st, until := now.stateOf(w.seats[i], w.taken.at(i))
			a.until = min(a.until, until)
			if st.available {
				v.AvailableCount++
			}
		}
		a.branches = append(a.branches, v)
	}
	return a
}
