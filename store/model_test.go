package store_test

import (
	"maps"
	"slices"
	"time"

	"github.com/dlsms/dlsms/library"
)

// model is the store in plain Go: the rules of the specification about reservations and the
// waitlist, without locks, snapshots or SQL. Times are minutes after noon. Users and seats are
// numbers from 0. The ids of reservations and entries are those that the store returned.
type model struct {
	now          int
	rules        library.Policy
	reservations map[int64]*modelReservation
	entries      map[int64]*modelEntry
	outOfService map[int]bool
	// newHolds are the holds of new offers. The ids of their reservations are still to be read.
	newHolds []*modelReservation
}

type modelReservation struct {
	id                  int64
	user, seat          int
	from, to            int
	status              library.ReservationStatus
	confirmed, deadline int
	offeredTo           int // when the offer expires
	entry               *modelEntry
	reminded            bool
	cancelled           bool // by the user, not by the end of an offer
}

type modelEntry struct {
	id         int64
	user, seat int
	from, to   int
	status     library.WaitlistStatus
	hold       *modelReservation
}

func minutes(d time.Duration) int { return int(d / time.Minute) }

func overlap(from, to, from2, to2 int) bool { return from < to2 && from2 < to }

func (r *modelReservation) in(from, to int) bool {
	return r.status.Occupies() && overlap(r.from, r.to, from, to)
}

func (e *modelEntry) live() bool {
	return e.status == library.EntryWaiting || e.status == library.EntryOffered
}

// any reports whether fits is true for at least one reservation.
func (m *model) any(fits func(r *modelReservation) bool) bool {
	for _, r := range m.reservations {
		if fits(r) {
			return true
		}
	}
	return slices.ContainsFunc(m.newHolds, fits)
}

func (m *model) seatTaken(seat, from, to int, except *modelReservation) bool {
	return m.any(func(r *modelReservation) bool { return r != except && r.seat == seat && r.in(from, to) })
}

// userBusy reports whether the user has a reservation in the window, other than except. It ignores
// holds: a user with an offer may still book another seat.
func (m *model) userBusy(user, from, to int, except *modelReservation) bool {
	return m.any(func(r *modelReservation) bool {
		return r != except && r.user == user && r.status != library.Held && r.in(from, to)
	})
}

func (m *model) quotaUsed(user int) bool {
	n := 0
	for _, r := range m.reservations {
		if r.user == user && r.status.Occupies() && r.status != library.Held && r.to > m.now {
			n++
		}
	}
	return n >= m.rules.MaxUpcoming
}

func (m *model) windowFits(from, to int) bool {
	length := to - from
	return from >= m.now-minutes(m.rules.PastTolerance) && length >= minutes(m.rules.MinDuration) &&
		length <= minutes(m.rules.MaxDuration) && to > m.now
}

// fits reports whether an entry can get an offer.
func (m *model) fits(e *modelEntry) bool {
	return e.status == library.EntryWaiting && e.to-max(e.from, m.now) >= minutes(m.rules.MinDuration) &&
		!m.outOfService[e.seat] && !m.quotaUsed(e.user) &&
		!m.any(func(r *modelReservation) bool { return (r.seat == e.seat || r.user == e.user) && r.in(e.from, e.to) })
}

// offer makes offers, in FIFO order, to the entries for which match is true and which can get one.
// It returns the number of offers.
func (m *model) offer(match func(e *modelEntry) bool) (n int) {
	for _, id := range slices.Sorted(maps.Keys(m.entries)) {
		e := m.entries[id]
		if !match(e) || !m.fits(e) {
			continue
		}
		e.status = library.EntryOffered
		e.hold = &modelReservation{user: e.user, seat: e.seat, from: e.from, to: e.to, status: library.Held,
			offeredTo: min(m.now+minutes(m.rules.ClaimTime), e.to), entry: e}
		m.newHolds = append(m.newHolds, e.hold)
		n++
	}
	return n
}

// freed makes the offers after reservations have ended: first those of their seats, then those of
// other seats for which their users wait.
func (m *model) freed(ended ...*modelReservation) {
	seats, users := map[int]bool{}, map[int]bool{}
	for _, r := range ended {
		seats[r.seat], users[r.user] = true, true
	}
	m.offer(func(e *modelEntry) bool { return seats[e.seat] })
	waitedFor := map[int]bool{}
	for _, e := range m.entries {
		if users[e.user] && m.fits(e) {
			waitedFor[e.seat] = true
		}
	}
	m.offer(func(e *modelEntry) bool { return waitedFor[e.seat] })
}

// confirm confirms a reservation now and sets its deadline.
func (m *model) confirm(r *modelReservation) {
	r.status, r.confirmed = library.Confirmed, m.now
	m.setDeadline(r)
}

func (m *model) setDeadline(r *modelReservation) {
	r.deadline = min(max(r.from, r.confirmed)+minutes(m.rules.Grace), r.to)
}

func (m *model) reserve(user, seat, from, to int) error {
	switch {
	case to <= from:
		return library.Invalid()
	case !m.windowFits(from, to):
		return library.ErrWindowNotAllowed
	case m.outOfService[seat]:
		return library.ErrSeatOutOfService
	case m.seatTaken(seat, from, to, nil):
		return library.ErrSeatTaken
	case m.userBusy(user, from, to, nil):
		return library.ErrUserBusy
	case m.quotaUsed(user):
		return library.ErrTooManyReservations
	}
	return nil
}

func (m *model) join(user, seat, from, to int) error {
	waiting := func(e *modelEntry) bool {
		return e.user == user && e.seat == seat && e.live() && overlap(e.from, e.to, from, to)
	}
	switch {
	case to <= from:
		return library.Invalid()
	case !m.windowFits(from, to):
		return library.ErrWindowNotAllowed
	case m.outOfService[seat]:
		return library.ErrSeatOutOfService
	case slices.ContainsFunc(slices.Collect(maps.Values(m.entries)), waiting):
		return library.ErrAlreadyWaiting
	case !m.seatTaken(seat, from, to, nil):
		return library.ErrSeatAvailable
	case m.any(func(r *modelReservation) bool { return r.seat == seat && r.user == user && r.in(from, to) }):
		return library.ErrUserBusy
	case m.live(func(e *modelEntry) bool { return e.user == user }) >= m.rules.MaxWaiting:
		return library.ErrTooManyReservations
	case m.live(func(e *modelEntry) bool { return e.user == user && e.seat == seat }) >= m.rules.MaxWaitingPerSeat:
		return library.ErrTooManyReservations
	case m.live(func(e *modelEntry) bool { return e.seat == seat }) >= m.rules.MaxWaitlist:
		return library.ErrWaitlistFull
	}
	return nil
}

// live counts the live entries for which match is true.
func (m *model) live(match func(e *modelEntry) bool) (n int) {
	for _, e := range m.entries {
		if e.live() && match(e) {
			n++
		}
	}
	return n
}

func (m *model) cancel(r *modelReservation) error {
	switch r.status {
	case library.Confirmed:
		r.status, r.cancelled = library.Cancelled, true
		m.freed(r)
	case library.Cancelled:
		if !r.cancelled {
			return library.ErrNotConfirmed
		}
	case library.Held, library.CheckedIn, library.Completed, library.NoShow:
		return library.ErrNotConfirmed
	}
	return nil
}

func (m *model) checkIn(r *modelReservation) error {
	switch r.status {
	case library.CheckedIn, library.Completed:
		return nil
	case library.NoShow:
		return library.ErrCheckInTooLate
	case library.Held, library.Cancelled:
		return library.ErrNotConfirmed
	case library.Confirmed:
	}
	switch {
	case m.now < r.from-minutes(m.rules.CheckInLead):
		return library.ErrCheckInTooEarly
	case m.now >= r.deadline:
		return library.ErrCheckInTooLate
	}
	r.status = library.CheckedIn
	return nil
}

func (m *model) checkOut(r *modelReservation) error {
	switch r.status {
	case library.CheckedIn:
		r.status = library.Completed
		m.freed(r)
	case library.Completed:
	case library.Held, library.Confirmed, library.Cancelled, library.NoShow:
		return library.ErrNotCheckedIn
	}
	return nil
}

func (m *model) extend(r *modelReservation, to int) error {
	switch {
	case r.status != library.Confirmed && r.status != library.CheckedIn, r.to <= m.now:
		return library.ErrNotConfirmed
	case to == r.to:
		return nil
	case to < r.to:
		return library.Invalid()
	case to-r.from > minutes(m.rules.MaxDuration):
		return library.ErrWindowNotAllowed
	case m.outOfService[r.seat]:
		return library.ErrSeatOutOfService
	case m.seatTaken(r.seat, r.to, to, r):
		return library.ErrSeatTaken
	case m.userBusy(r.user, r.to, to, r):
		return library.ErrUserBusy
	}
	r.to = to
	if r.status == library.Confirmed {
		m.setDeadline(r)
	}
	return nil
}

func (e *modelEntry) ranOut(now int) bool {
	return e.status == library.EntryOffered && now >= e.hold.offeredTo || e.status == library.EntryExpired && e.hold != nil
}

func (m *model) leave(e *modelEntry) error {
	switch {
	case e.status == library.EntryLeft:
	case e.ranOut(m.now):
		return library.ErrOfferExpired
	case !e.live():
		return library.ErrNotOffered
	case e.status == library.EntryWaiting:
		e.status = library.EntryLeft
	default:
		e.status, e.hold.status = library.EntryLeft, library.Cancelled
		m.freed(e.hold)
	}
	return nil
}

func (m *model) claim(e *modelEntry) error {
	switch {
	case e.status == library.EntryClaimed:
		return nil
	case e.ranOut(m.now):
		return library.ErrOfferExpired
	case e.status != library.EntryOffered:
		return library.ErrNotOffered
	case m.outOfService[e.seat]:
		return library.ErrSeatOutOfService
	case m.userBusy(e.user, e.from, e.to, nil):
		return library.ErrUserBusy
	case m.quotaUsed(e.user):
		return library.ErrTooManyReservations
	}
	e.status = library.EntryClaimed
	m.confirm(e.hold)
	return nil
}

// end makes a transition that time causes. It changes the status from was to becomes for each
// reservation whose minute due(r) has come, and returns the number of these reservations.
func (m *model) end(was, becomes library.ReservationStatus, due func(r *modelReservation) int) int {
	var ended []*modelReservation
	for _, r := range m.reservations {
		if r.status == was && due(r) <= m.now {
			ended = append(ended, r)
		}
	}
	for _, r := range ended {
		r.status = becomes
		if was == library.Held {
			r.entry.status = library.EntryExpired
		}
	}
	m.freed(ended...)
	return len(ended)
}

func (m *model) expireWaiting() (n int) {
	for _, e := range m.entries {
		if e.status == library.EntryWaiting && e.to <= m.now {
			e.status = library.EntryExpired
			n++
		}
	}
	return n
}

func (m *model) remind() (n int) {
	for _, r := range m.reservations {
		if r.status == library.Confirmed && !r.reminded && r.deadline > m.now &&
			r.deadline <= m.now+minutes(m.rules.ReminderLead) {
			r.reminded = true
			n++
		}
	}
	return n
}

// pending reports whether any transition or offer is due.
func (m *model) pending() bool {
	return m.any(func(r *modelReservation) bool {
		return r.status == library.CheckedIn && r.to <= m.now || r.status == library.Confirmed && r.deadline <= m.now ||
			r.status == library.Held && r.offeredTo <= m.now
	}) || slices.ContainsFunc(slices.Collect(maps.Values(m.entries)), func(e *modelEntry) bool {
		return m.fits(e) || e.status == library.EntryWaiting && e.to <= m.now
	})
}

func (m *model) position(e *modelEntry) (n int32) {
	for _, f := range m.entries {
		if e.live() && f.live() && f.seat == e.seat && f.id <= e.id && overlap(f.from, f.to, e.from, e.to) {
			n++
		}
	}
	return n
}
