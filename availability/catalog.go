package availability

import (
	"cmp"
	"maps"
	"slices"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
)

// changed returns the catalog with the changes, or c itself if nothing differs. Most changes
// concern a few seats: only these become new objects, and the rest is shared. If a seat or branch
// is added or deleted, the whole catalog is indexed again, from memory.
func (c *catalog) changed(ch store.CatalogChanges) *catalog {
	seats := map[int64]library.Seat{}
	for _, s := range ch.Seats {
		seats[s.ID] = s
	}
	branches := map[int64]library.Branch{}
	for _, b := range ch.Branches {
		branches[b.ID] = b
	}
	deleted := c.deleted(ch, seats)
	if len(deleted) > 0 || !c.samePlaces(ch) {
		return newCatalog(c.read(ch, seats, branches, deleted), c)
	}
	next := &catalog{branches: c.branches, seats: c.seats, byCode: c.byCode, byID: c.byID, index: c.index}
	for _, r := range branches {
		next.changeBranch(r, c)
	}
	next.changeSeats(ch.Seats, c)
	if slices.Equal(next.branches, c.branches) && slices.Equal(next.seats, c.seats) {
		return c
	}
	return next
}

// deleted returns the ids of the seats of c that were deleted or retired, or cannot be read any
// more.
func (c *catalog) deleted(ch store.CatalogChanges, changed map[int64]library.Seat) map[int64]bool {
	deleted := map[int64]bool{}
	for _, id := range slices.Concat(ch.Unreadable, ch.Retired) {
		if _, ok := c.position[id]; ok {
			deleted[id] = true
		}
	}
	exists := map[int64]bool{}
	for _, id := range ch.SeatIDs {
		exists[id] = true
	}
	for _, b := range ch.Branches {
		if was := c.byID[b.ID]; was != nil {
			for _, i := range was.seats {
				id := c.seats[i].ID
				if _, ok := changed[id]; !ok && !exists[id] {
					deleted[id] = true
				}
			}
		}
	}
	return deleted
}

// samePlaces reports whether the changes add no branch and no seat, delete no branch, and move no
// branch or seat to another position. For deleted seats, see the method deleted.
func (c *catalog) samePlaces(ch store.CatalogChanges) bool {
	added := func(id int64) bool { return c.byID[id] == nil }
	if len(ch.BranchIDs) != len(c.branches) || slices.ContainsFunc(ch.BranchIDs, added) {
		return false
	}
	for _, b := range ch.Branches {
		if c.byID[b.ID].Code != b.Code { // branches are in the order of their codes
			return false
		}
	}
	for _, s := range ch.Seats {
		if was := c.seat(s.ID); was == nil || was.BranchID != s.BranchID {
			return false
		}
	}
	return true
}

// read returns all rows of the catalog with the changes.
func (c *catalog) read(
	ch store.CatalogChanges, seats map[int64]library.Seat, branches map[int64]library.Branch, deleted map[int64]bool,
) library.Catalog {
	var read library.Catalog
	for _, id := range ch.BranchIDs {
		if b, ok := branches[id]; ok {
			read.Branches = append(read.Branches, b)
		} else if was := c.byID[id]; was != nil {
			read.Branches = append(read.Branches, was.Branch)
		}
	}
	slices.SortFunc(read.Branches, func(a, b library.Branch) int { return cmp.Compare(a.Code, b.Code) })
	for _, s := range c.seats {
		if _, ok := seats[s.ID]; !ok && !deleted[s.ID] {
			read.Seats = append(read.Seats, s.Seat)
		}
	}
	for _, s := range seats {
		read.Seats = append(read.Seats, s)
	}
	slices.SortFunc(read.Seats, func(a, b library.Seat) int { return cmp.Compare(a.ID, b.ID) })
	return read
}

// changeBranch replaces a branch in c, and its seats if its opening hours or closures differ. If c
// shares a slice or map with old, changeBranch copies it first.
func (c *catalog) changeBranch(r library.Branch, old *catalog) {
	was := old.byID[r.ID]
	b := &branch{Branch: r, calendar: was.calendar, closed: was.closed, areas: was.areas, seats: was.seats}
	sameHours, sameTimes := was.calendar.isOf(r), sameSpans(was.Closures, r.Closures)
	if sameHours && sameTimes && was.equal(r) {
		return
	}
	if !sameHours {
		b.calendar = newCalendar(r)
	}
	if !sameTimes {
		b.closed = newClosed(r.Closures)
	}
	if !sameHours || !sameTimes {
		c.ownSeats(old)
		for _, i := range b.seats {
			c.seats[i] = newSeat(c.seats[i].Seat, b, c.seats[i])
		}
	}
	c.putBranch(b, old)
}

// equal reports whether r has the same values as the branch.
func (b *branch) equal(r library.Branch) bool {
	return b.Name == r.Name && b.Timezone == r.Timezone && slices.Equal(b.Hours, r.Hours) &&
		slices.EqualFunc(b.Days, r.Days, sameDay) && sameClosures(b.Closures, r.Closures) &&
		maps.Equal(b.Announcement, r.Announcement) && b.AnnouncedUntil.Equal(r.AnnouncedUntil) &&
		maps.Equal(b.Floors, r.Floors)
}

// changeSeats replaces seats in c. No seat changes its branch. If c shares a slice or map with old,
// changeSeats copies it first.
func (c *catalog) changeSeats(changed []library.Seat, old *catalog) {
	moved := map[int64]bool{} // branches with a seat that changed its area
	for _, r := range changed {
		i := c.position[r.ID]
		was := c.seats[i]
		s := newSeat(r, c.byID[r.BranchID], was)
		if s == was {
			continue
		}
		c.ownSeats(old)
		c.seats[i] = s
		if s.Area != was.Area {
			moved[r.BranchID] = true
		}
	}
	for id := range moved {
		b := *c.byID[id]
		b.areas = nil
		for _, i := range b.seats {
			b.addArea(c.seats[i].Area)
		}
		c.putBranch(&b, old)
	}
}

// putBranch replaces the branch with the id of b. If c shares its branches with old, putBranch
// copies them first.
func (c *catalog) putBranch(b *branch, old *catalog) {
	if len(c.branches) > 0 && &c.branches[0] == &old.branches[0] {
		c.branches, c.byCode, c.byID = slices.Clone(c.branches), maps.Clone(c.byCode), maps.Clone(c.byID)
	}
	c.branches[slices.Index(c.branches, c.byID[b.ID])] = b
	c.byCode[b.Code], c.byID[b.ID] = b, b
}

// ownSeats copies the slice of seats if c shares it with old.
func (c *catalog) ownSeats(old *catalog) {
	if len(c.seats) > 0 && &c.seats[0] == &old.seats[0] {
		c.seats = slices.Clone(c.seats)
	}
}
