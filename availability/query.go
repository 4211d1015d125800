package availability

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"sort"
	"time"

	"github.com/dlsms/dlsms/library"
)

// Query selects seats and a window. The zero Query selects all seats at the present instant.
type Query struct {
	Branch    string  // code; empty: all branches
	Area      string  // name; empty: all areas
	Amenities []int16 // numbers of the enum dlsms.v1.Amenity; a seat must have all of them
	// Start and End are the window, to the microsecond. If both are zero, the window is the present
	// instant.
	Start, End time.Time
	// AvailableOnly leaves out seats that are not available. A Watch ignores AvailableOnly, AfterID
	// and Limit.
	AvailableOnly bool
	// AfterID and Limit select a page: at most Limit seats (0: all) with ids above AfterID.
	AfterID int64
	Limit   int
}

// Page is one page of seats, in the order of their ids. Readers of the same query share it, so it
// is read-only.
type Page struct {
	Seats []SeatView
	// Total is the number of seats on all pages that match branch, area and amenities. Available is
	// the number of available seats among them.
	Total, Available int
	// NextAfterID is the AfterID of the next page, or 0 on the last page.
	NextAfterID int64
	// AsOf is the time of the page, by Postgres's clock.
	AsOf time.Time
	// Fresh says that the page includes every change that was committed before the call. It is false
	// while Postgres does not answer.
	Fresh bool
	// Generation and ValidUntil tell whether a later answer to the same query is equal, apart from
	// its AsOf. It is equal if its Generation is the same and its AsOf is before ValidUntil. A zero
	// ValidUntil sets no limit.
	Generation uint64
	ValidUntil time.Time

	memo *memo
}

// Memo returns the result of compute, which encodes the page. compute runs once for each encoding,
// and again only after the answer has changed. Its result must not depend on AsOf, which changes
// with each refresh. All callers pass the same function for an encoding.
func (p Page) Memo(e Encoding, compute func() any) any { return p.memo.get(e, compute) }

// BranchView is one branch with the number of its seats.
type BranchView struct {
	Code     string
	Name     string
	Timezone string   // IANA
	Areas    []string // sorted; shared and read-only
	// Hours are the opening hours, in the order of weekday (Sunday is 0) and time; shared and
	// read-only.
	Hours []library.OpenHours
	// Days are the dates with their own opening hours, from today on, sorted. Closures have not
	// ended; they are sorted by start. Announcement has not ended; nil means none. All are shared and
	// read-only.
	Days         []library.DayHours
	Closures     []library.Closure
	Announcement library.Texts
	// Open says whether the branch is open at AsOf. ClosesAt is set if the branch is open, unless
	// it never closes. OpensAt is set if the branch is closed, unless it never opens.
	Open              bool
	ClosesAt, OpensAt time.Time
	// SeatCount is the number of seats, AvailableCount the number of seats that are available at
	// AsOf.
	SeatCount, AvailableCount int
}

// Busy is a half-open span of time in which a seat is reserved or held.
type Busy struct{ Start, End time.Time }

// SeatDetail is one seat with what is known about its times.
type SeatDetail struct {
	SeatView

	// Busy are the bookings that overlap the window, in the order of time.
	Busy []Busy
	// Closures are the closures of the seat that overlap the window, in the order of their start.
	Closures []library.Closure
	// AsOf is the time of the answer, by Postgres's clock.
	AsOf time.Time
}

// busyAhead is how far ahead Seat returns bookings if the query has no window: as far ahead as
// clients may book.
const busyAhead = 14 * microsPerDay

// filter is the part of a query that does not depend on time. It is comparable.
type filter struct {
	branch, area string
	amenities    string // two bytes each, sorted, without duplicates
}

func newFilter(q Query) filter {
	f := filter{branch: q.Branch, area: q.Area}
	if len(q.Amenities) > 0 {
		sorted := slices.Compact(slices.Sorted(slices.Values(q.Amenities)))
		packed := make([]byte, 0, 2*len(sorted))
		for _, a := range sorted {
			packed = binary.BigEndian.AppendUint16(packed, uint16(a)) //nolint:gosec // keeps all 16 bits
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

// newWindow returns the window of a query in microseconds. It rounds start down and end up.
func newWindow(start, end time.Time) (window, error) {
	if start.IsZero() && end.IsZero() {
		return present, nil
	}
	w := window{start.UnixMicro(), end.UnixMicro()}
	if end.Nanosecond()%1000 != 0 {
		w.end++
	}
	if start.IsZero() || end.IsZero() || w.end <= w.start {
		return window{}, library.Invalid(library.FieldViolation{
			Field: "end_time", Message: "set both times, and the end after the start, or neither",
		})
	}
	return w, nil
}

// resolve returns the window of a query, and the current world. It refuses a window in the past,
// because the read model has no bookings from then.
func (m *Model) resolve(ctx context.Context, start, end time.Time) (window, current, error) {
	about, err := newWindow(start, end)
	if err != nil {
		return window{}, current{}, err
	}
	w, err := m.current(ctx)
	if err != nil {
		return window{}, current{}, err
	}
	if about != present && about.end <= w.now-m.options.PastTolerance.Microseconds() {
		refused := library.ErrWindowNotAllowed.With("now", w.asOf.UTC().Format(time.RFC3339Nano))
		refused.Fields = []library.FieldViolation{{Field: "end_time", Message: "is in the past"}}
		return window{}, current{}, refused
	}
	return about, w, nil
}

// Seats answers a query. It fails with ErrBranchNotFound, ErrUnavailable, ErrWindowNotAllowed for a
// window in the past, Invalid for times that are not a window, or the error of ctx.
func (m *Model) Seats(ctx context.Context, q Query) (Page, error) {
	about, w, err := m.resolve(ctx, q.Start, q.End)
	if err != nil {
		return Page{}, err
	}
	if q.Branch != "" && w.byCode[q.Branch] == nil {
		return Page{}, library.BranchNotFound(q.Branch)
	}
	p := w.page(question{
		filter: newFilter(q), window: about, availableOnly: q.AvailableOnly, after: q.AfterID, limit: max(q.Limit, 0),
	})
	p.Fresh = w.fresh
	return p, nil
}

// page answers a question about w. Two kinds of answers are cached while they are true, because
// many readers ask for the same answer: answers about the present, and snapshots of watches.
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

// initialSeats is the initial capacity of an answer, in seats.
const initialSeats = 64

func (w *world) compute(q question) *answer {
	about := w.at(q.window)
	capacity := min(cmp.Or(q.limit, initialSeats), initialSeats)
	p := Page{Seats: make([]SeatView, 0, capacity), Generation: w.generation, memo: new(memo)}
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
		holds = never // the window does not move with time
	}
	if holds != never {
		p.ValidUntil = timeOf(holds)
	}
	return &answer{page: p, until: holds}
}

// Seat returns one seat with its bookings and closures that overlap the window. Without a window,
// these are the ones of the next 14 days. It fails with ErrSeatNotFound, or like Seats.
func (m *Model) Seat(ctx context.Context, id int64, start, end time.Time) (SeatDetail, error) {
	about, w, err := m.resolve(ctx, start, end)
	if err != nil {
		return SeatDetail{}, err
	}
	i, ok := w.position[id]
	if !ok {
		return SeatDetail{}, library.ErrSeatNotFound
	}
	s, taken := w.seats[i], w.taken.at(i)
	shown := w.at(about)
	st, _ := shown.stateOf(s, taken)
	if about == present {
		shown.end = shown.start + busyAhead
	}
	d := SeatDetail{SeatView: s.view(st), AsOf: w.asOf}
	for _, b := range taken {
		if b.overlaps(shown) {
			d.Busy = append(d.Busy, Busy{timeOf(b.start), timeOf(b.end)})
		}
	}
	for _, c := range w.byID[s.BranchID].Closures {
		if c.Closes(s.Seat) && closureWindow(c).overlaps(shown) {
			d.Closures = append(d.Closures, c)
		}
	}
	return d, nil
}

func (w window) overlaps(o window) bool { return w.start < o.end && o.start < w.end }

// Branches returns all branches in the order of their codes, and the time of the answer by
// Postgres's clock. It fails with ErrUnavailable or the error of ctx.
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
		v := BranchView{
			Code: b.Code, Name: b.Name, Timezone: b.Timezone, Areas: b.areas, Hours: b.Hours,
			SeatCount: len(b.seats), Open: true,
		}
		if hours := now.hours(b.calendar); hours != nil {
			open := hours.at(now.start)
			a.until = min(a.until, open.end)
			switch {
			case open.start > now.start:
				a.until = min(a.until, open.start)
				v.Open, v.OpensAt = false, timeUnlessNever(open.start)
			default:
				v.ClosesAt = timeUnlessNever(open.end)
			}
		}
		b.addNotices(&v, a, now.start)
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

// addNotices adds to v what students are to know about the branch at the time now. It limits the
// answer a to the time until which this is true.
func (b *branch) addNotices(v *BranchView, a *answer, now int64) {
	if b.calendar != nil && b.calendar.location != nil && len(b.Days) > 0 {
		_, offset := time.UnixMicro(now).In(b.calendar.location).Zone()
		today := floorDiv(now/1_000_000+int64(offset), secondsPerDay)
		i := sort.Search(len(b.Days), func(i int) bool { return int64(b.Days[i].Day) >= today })
		if v.Days = b.Days[i:]; len(v.Days) > 0 {
			a.until = min(a.until, b.calendar.midnight(today+1))
		}
	}
	for _, c := range b.Closures {
		if w := closureWindow(c); w.end > now {
			v.Closures = append(v.Closures, c)
			a.until = min(a.until, w.end)
		}
	}
	switch ends := b.AnnouncedUntil.UnixMicro(); {
	case b.AnnouncedUntil.IsZero():
		v.Announcement = b.Announcement
	case ends > now:
		v.Announcement = b.Announcement
		a.until = min(a.until, ends)
	}
}
