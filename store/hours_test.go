package store_test

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// changeOvers are the days of 2026 on which clocks change, in zones of different kinds. Lord Howe
// changes by half an hour, Santiago and Cairo change at midnight, and Lord Howe and Santiago are in
// the southern hemisphere.
var changeOvers = []struct {
	zone string
	days []time.Time // the days on which clocks go forward and back
}{
	{"Europe/Berlin", days("2026-03-29", "2026-10-25")},
	{"America/New_York", days("2026-03-08", "2026-11-01")},
	{"Australia/Lord_Howe", days("2026-10-04", "2026-04-05")},
	{"America/Santiago", days("2026-09-06", "2026-04-05")},
	{"Africa/Cairo", days("2026-04-24", "2026-10-30")},
}

func days(dates ...string) (list []time.Time) {
	for _, d := range dates {
		day, err := time.Parse(time.DateOnly, d)
		if err != nil {
			panic(err)
		}
		list = append(list, day)
	}
	return list
}

// instant returns the moment at which the clocks of a zone show a local time. local has this date
// and time, written as a time in UTC. If the clocks show the time twice, instant returns the later
// moment. If they skip it, instant uses the offset from before the change. Postgres reads local
// times in this way.
func instant(local time.Time, zone *time.Location) time.Time {
	var found []time.Time
	var offsets []int
	for _, near := range []time.Duration{-48 * time.Hour, 48 * time.Hour} {
		_, offset := local.Add(near).In(zone).Zone()
		offsets = append(offsets, offset)
		at := local.Add(-time.Duration(offset) * time.Second)
		if _, there := at.In(zone).Zone(); there == offset {
			found = append(found, at)
		}
	}
	if len(found) == 0 {
		return local.Add(-time.Duration(offsets[0]) * time.Second)
	}
	return slices.MaxFunc(found, time.Time.Compare)
}

// opening is one row of branch_hours, in minutes after midnight.
type opening struct{ weekday, opens, closes int }

// openAllAlong reports whether the branch is open during the whole window. It is a second
// implementation in Go, with which the test compares that of Postgres.
func openAllAlong(hours []opening, zone *time.Location, from, to time.Time) bool {
	if len(hours) == 0 {
		return true
	}
	type stretch struct{ from, to time.Time }
	var open []stretch
	first, last := from.UTC().Truncate(24*time.Hour).AddDate(0, 0, -3), to.AddDate(0, 0, 3)
	for day := first; day.Before(last); day = day.AddDate(0, 0, 1) {
		for _, h := range hours {
			if (int(day.Weekday())+6)%7+1 != h.weekday {
				continue
			}
			closes := h.closes
			if closes <= h.opens {
				closes += 24 * 60
			}
			s := stretch{
				instant(day.Add(time.Duration(h.opens)*time.Minute), zone),
				instant(day.Add(time.Duration(closes)*time.Minute), zone),
			}
			if s.from.Before(s.to) {
				open = append(open, s)
			}
		}
	}
	slices.SortFunc(open, func(a, b stretch) int { return cmp.Or(a.from.Compare(b.from), a.to.Compare(b.to)) })
	reached := from // the branch is open from `from` to reached
	for _, s := range open {
		if !s.from.After(reached) && s.to.After(reached) {
			reached = s.to
		}
	}
	return !reached.Before(to)
}

// TestOpenWhenClocksChange compares dlsms_open and dlsms_hours with openAllAlong, around the days
// on which clocks change in five zones, for random opening hours.
func TestOpenWhenClocksChange(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Seats(t, 1)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	open, closed := 0, 0
	for _, c := range changeOvers {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		db.Exec(t, `UPDATE branches SET timezone = $1`, c.zone)
		for _, day := range c.days {
			for range 12 {
				hours := randomHours(random, day)
				db.Exec(t, `DELETE FROM branch_hours`)
				for _, h := range hours {
					db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, $1, time '0:00' + $2::int * interval '1 min',
						CASE $3::int WHEN 1440 THEN time '24:00' ELSE time '0:00' + $3 * interval '1 min' END
					FROM branches`, h.weekday, h.opens, h.closes)
				}
				var from, to []time.Time
				for range 150 {
					start := day.Add(time.Duration(random.IntN(4*24*12)-24*12) * 5 * time.Minute)
					from, to = append(from, start), append(to, start.Add(time.Duration(1+random.IntN(60))*5*time.Minute))
				}
				got := storetest.Rows[bool](t, db, `
					SELECT dlsms_open(1, (SELECT id FROM branches), tstzrange(f, u))
					FROM unnest($1::timestamptz[], $2::timestamptz[]) WITH ORDINALITY x (f, u, i) ORDER BY i`, from, to)
				// dlsms_hours of the whole span must give the same result for each window.
				at := storetest.Rows[bool](t, db, `
					SELECT (hours @> tstzrange(f, u)) IS NOT FALSE
					FROM (
						SELECT dlsms_hours(1, id, (
							SELECT tstzrange(min(f), max(u))
							FROM unnest($1::timestamptz[], $2::timestamptz[]) x (f, u))) AS hours
						FROM branches) h,
						unnest($1, $2) WITH ORDINALITY x (f, u, i) ORDER BY i`, from, to)
				wantEqual(t, "dlsms_hours and dlsms_open", at, got)
				for i := range got {
					want := openAllAlong(hours, zone, from[i], to[i])
					if got[i] != want {
						t.Fatalf("%s, hours %+v, from %v to %v: open %v, want %v", c.zone, hours, from[i].In(zone), to[i].In(zone),
							got[i], want)
					}
					if want {
						open++
					} else {
						closed++
					}
				}
			}
		}
	}
	t.Logf("%d open, %d closed", open, closed)
	if open < closed/10 {
		t.Error("the branch was open during too few windows")
	}
}

// randomHours returns opening hours for five days: the given day, two days before it and two days
// after it. No two of them have the same weekday and the same time of opening.
func randomHours(random *rand.Rand, day time.Time) (hours []opening) {
	seen := map[[2]int]bool{}
	for around := -2; around <= 2; around++ {
		weekday := (int(day.AddDate(0, 0, around).Weekday())+6)%7 + 1
		h := opening{weekday, 10 * random.IntN(144), 10 * random.IntN(145)}
		switch random.IntN(5) {
		case 0:
			h.opens, h.closes = 0, 24*60 // all day
		case 1:
			h.opens, h.closes = 8*60, 2*60 // into the night
		case 2: // two openings in the night, of which the second begins when the first ends
			hours = append(hours, opening{weekday, 0, h.opens % 300})
			h.opens %= 300
		}
		hours = append(hours, h)
	}
	return slices.DeleteFunc(hours, func(h opening) bool {
		key := [2]int{h.weekday, h.opens}
		again := seen[key]
		seen[key] = true
		return again
	})
}

// TestReserveWhenClocksChange books consecutive half-hours while the clocks change. Each
// reservation must last half an hour of real time, even if local clocks skip or repeat an hour.
func TestReserveWhenClocksChange(t *testing.T) {
	t.Parallel()
	for _, c := range changeOvers {
		t.Run(c.zone, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.db.Exec(t, `UPDATE branches SET timezone = $1`, c.zone)
			for _, day := range slices.SortedFunc(slices.Values(c.days), time.Time.Compare) {
				first := day.Add(-12 * time.Hour)
				b.db.FreezeClock(t, first)
				b.users = b.db.Users(t, 7)
				for i := range 14 * 2 * 2 { // the 28 hours include the change in each zone
					start := first.Add(time.Duration(i) * 30 * time.Minute)
					booking := library.Booking{
						UserID: b.users[i%7], SeatID: b.seats[0], StartTime: start, EndTime: start.Add(30 * time.Minute),
					}
					r, err := b.Reserve(t.Context(), booking)
					if err != nil {
						t.Fatalf("%v: %v", start, err)
					}
					if !r.StartTime.Equal(start) || r.EndTime.Sub(r.StartTime) != 30*time.Minute ||
						!r.CheckInOpensAt.Equal(start.Add(-15*time.Minute)) ||
						!r.CheckInDeadline.Equal(start.Add(15*time.Minute)) {
						t.Errorf("booked %+v", r)
					}
					booking.UserID = b.users[(i+1)%7]
					booking.StartTime, booking.EndTime = start.Add(15*time.Minute), start.Add(45*time.Minute)
					if _, err := b.Reserve(t.Context(), booking); !errors.Is(err, library.ErrSeatTaken) {
						t.Errorf("a booking that overlaps another one: %v", err)
					}
				}
				longest := library.Booking{
					UserID: b.users[0], SeatID: b.seats[1],
					StartTime: day.AddDate(0, 0, 2), EndTime: day.AddDate(0, 0, 2).Add(12 * time.Hour),
				}
				r, err := b.Reserve(t.Context(), longest)
				if err != nil {
					t.Fatal(err)
				}
				mustDo(t, b.Cancel, b.users[0], r.ID)
				b.db.FreezeClock(t, first.Add(29*time.Hour))
				if n, _, err := b.MarkNoShows(t.Context(), 1000); err != nil || n != 56 {
					t.Errorf("%d no-shows, %v", n, err)
				}
				storetest.CheckInvariants(t, b.db)
			}
		})
	}
}

// TestHoursInsideSkippedHour opens a branch inside the hour that the clocks skip and closes it soon
// after. The branch does not open on that day, and no booking fails with an internal error.
func TestHoursInsideSkippedHour(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.FreezeClock(t, time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC))
	for weekday := 1; weekday <= 7; weekday++ {
		b.db.Exec(t, `INSERT INTO branch_hours SELECT 1, id, $1, '2:30', '3:10' FROM branches`, weekday)
	}
	for day, want := range map[int]error{29: library.ErrBranchClosed, 30: nil} { // the 29th is the change-over in Berlin
		start := time.Date(2026, 3, day, 0, 35, 0, 0, time.UTC)
		_, err := b.Reserve(t.Context(), library.Booking{
			UserID: b.users[0], SeatID: b.seats[0], StartTime: start, EndTime: start.Add(20 * time.Minute),
		})
		if !errors.Is(err, want) {
			t.Errorf("on day %d: got %v, want %v", day, err, want)
		}
	}
}
