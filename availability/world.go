package availability

import (
	"cmp"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/dlsms/dlsms/library"
)

// world is the state as of one snapshot of Postgres. It never changes.
type world struct {
	*catalog
	*answers // shared by all worlds of the generation

	taken occupancy
	// generation grows when the catalog or a booking changes. The worlds of one generation differ
	// only in their time and number.
	generation uint64
	// number grows with each world.
	number uint64
	// asOf is the time of the state, by Postgres's clock; now is the same in microseconds.
	asOf time.Time
	now  int64
}

// at returns the window of a question, with the present replaced by the time of w.
func (w *world) at(ask window) window {
	if ask == present {
		ask = instant(w.now)
	}
	return ask
}

// catalog holds the branches and seats, indexed. It never changes.
type catalog struct {
	branches []*branch // by code
	seats    []*seat   // by id
	byCode   map[string]*branch
	byID     map[int64]*branch
	plans    sync.Map // FloorPlan by branch code: see world.plan
	*index
}

// index holds the position of each seat. Catalogs with the same seats at the same positions share
// it.
type index struct{ position map[int64]int } // in catalog.seats, by seat id

// branch is one branch of the catalog.
type branch struct {
	library.Branch
	calendar *calendar // nil: never closes
	closed   *closed   // nil: no closures
	areas    []string  // sorted
	seats    []int     // positions of its seats
}

// newCatalog returns the catalog of the rows in read. It reuses the objects of old that have not
// changed; old may be nil.
func newCatalog(read library.Catalog, old *catalog) *catalog {
	c := &catalog{byCode: map[string]*branch{}, byID: map[int64]*branch{}}
	for _, r := range read.Branches {
		b := &branch{Branch: r, closed: newClosed(r.Closures)}
		if was := old.branch(r.Code); was != nil && was.calendar.isOf(r) {
			b.calendar = was.calendar
		} else {
			b.calendar = newCalendar(r)
		}
		c.branches, c.byCode[r.Code], c.byID[r.ID] = append(c.branches, b), b, b
	}
	for _, r := range read.Seats {
		if b := c.byID[r.BranchID]; b != nil {
			c.seats = append(c.seats, newSeat(r, b, old.seat(r.ID)))
		}
	}
	for i, s := range c.seats {
		b := c.byID[s.BranchID]
		b.seats = append(b.seats, i)
		b.addArea(s.Area)
	}
	if old != nil && slices.EqualFunc(c.seats, old.seats, func(a, b *seat) bool { return a.ID == b.ID }) {
		c.index = old.index
		return c
	}
	c.index = &index{make(map[int64]int, len(c.seats))}
	for i, s := range c.seats {
		c.position[s.ID] = i
	}
	return c
}

// newSeat returns the seat of the row r, in the branch b. The parameter was is the previous seat
// with this id, or nil. If it equals the new seat, newSeat returns it, so that both catalogs share
// one object.
func newSeat(r library.Seat, b *branch, was *seat) *seat {
	r.Amenities = slices.Clone(r.Amenities)
	slices.Sort(r.Amenities)
	r.Amenities = slices.Compact(r.Amenities)
	s := &seat{Seat: r, branch: b.Code, calendar: b.calendar, closed: b.closed.of(r)}
	if was != nil && was.equal(s) {
		return was
	}
	return s
}

func (b *branch) addArea(area string) {
	if i, found := slices.BinarySearch(b.areas, area); !found {
		b.areas = slices.Insert(b.areas, i, area)
	}
}

func (c *catalog) branch(code string) *branch {
	if c == nil {
		return nil
	}
	return c.byCode[code]
}

func (c *catalog) seat(id int64) *seat {
	if c == nil {
		return nil
	}
	if i, ok := c.position[id]; ok {
		return c.seats[i]
	}
	return nil
}

func (s *seat) equal(o *seat) bool {
	return s.sameView(o) && s.BranchID == o.BranchID && s.calendar == o.calendar &&
		slices.Equal(s.closed, o.closed) && s.SeatPlace.Equal(o.SeatPlace)
}

// sameView reports whether the SeatViews of both seats are equal, apart from the fields that depend
// on time.
func (s *seat) sameView(o *seat) bool {
	return s == o || s.ID == o.ID && s.branch == o.branch && s.Area == o.Area && s.Label == o.Label &&
		s.OutOfService == o.OutOfService && slices.Equal(s.Amenities, o.Amenities)
}

// matching returns the positions of the seats that match f, in id order.
func (c *catalog) matching(f filter) iter.Seq[int] {
	return func(yield func(int) bool) {
		if f.branch == "" {
			for i, s := range c.seats {
				if f.matches(s) && !yield(i) {
					return
				}
			}
			return
		}
		if b := c.byCode[f.branch]; b != nil {
			for _, i := range b.seats {
				if f.matches(c.seats[i]) && !yield(i) {
					return
				}
			}
		}
	}
}

// seatsPerChunk is a power of two, so that a division by it is a shift. A change of a seat copies
// the list of chunks and one chunk: 8 KB for 50,000 seats.
const seatsPerChunk = 64

// occupancy holds the bookings of the seats by position, in chunks. The next world shares all
// chunks without a change.
type occupancy []*chunk

type chunk [seatsPerChunk][]booking

func newOccupancy(seats []*seat, taken map[int64][]booking) occupancy {
	o := make(occupancy, (len(seats)+seatsPerChunk-1)/seatsPerChunk)
	for i := range o {
		o[i] = new(chunk)
	}
	for i, seat := range seats {
		o[i/seatsPerChunk][i%seatsPerChunk] = taken[seat.ID]
	}
	return o
}

func (o occupancy) at(position int) []booking {
	return o[position/seatsPerChunk][position%seatsPerChunk]
}

// put replaces the bookings at a position of o. o is a clone of old, so put first copies a chunk
// that they share.
func (o occupancy) put(old occupancy, position int, taken []booking) {
	i := position / seatsPerChunk
	if o[i] == old[i] {
		b := *old[i]
		o[i] = &b
	}
	o[i][position%seatsPerChunk] = taken
}

// pair holds the positions of one seat in two worlds, -1 in a world without the seat.
type pair struct{ before, after int }

// differences returns the seats that were added, deleted or changed between old and w. It does not
// return seats that changed only by the passing of time.
func differences(old, w *world) []pair {
	var out []pair
	if old.generation == w.generation {
		return nil
	}
	if old.catalog != w.catalog {
		for p := range pairs(old.catalog, w.catalog) {
			if p.before < 0 || p.after < 0 || old.seats[p.before] != w.seats[p.after] ||
				!slices.Equal(old.taken.at(p.before), w.taken.at(p.after)) {
				out = append(out, p)
			}
		}
		return out
	}
	for i := range w.taken {
		if old.taken[i] == w.taken[i] {
			continue
		}
		for j := range w.taken[i] {
			if !slices.Equal(old.taken[i][j], w.taken[i][j]) {
				out = append(out, pair{i*seatsPerChunk + j, i*seatsPerChunk + j})
			}
		}
	}
	return out
}

// pairs returns all seats of two catalogs, in id order.
func pairs(old, c *catalog) iter.Seq[pair] {
	return func(yield func(pair) bool) {
		i, j := 0, 0
		for i < len(old.seats) || j < len(c.seats) {
			var order int
			switch {
			case i == len(old.seats):
				order = 1
			case j == len(c.seats):
				order = -1
			default:
				order = cmp.Compare(old.seats[i].ID, c.seats[j].ID)
			}
			p := pair{-1, -1}
			if order <= 0 {
				p.before, i = i, i+1
			}
			if order >= 0 {
				p.after, j = j, j+1
			}
			if !yield(p) {
				return
			}
		}
	}
}
