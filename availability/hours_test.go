package availability

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// zones are time zones that change their clocks in different ways: at 2:00, at 1:00 UTC, at
// midnight, by half an hour, and not at all.
var zones = []string{"America/New_York", "Europe/Berlin", "America/Asuncion", "Australia/Lord_Howe", "Asia/Kolkata"}

// changeOvers has two days of each zone: a day on which the clocks skip time, and a day on which
// they repeat time. Asia/Kolkata has no such days.
var changeOvers = map[string][2]time.Time{
	"America/New_York":    {date(2026, 3, 8), date(2026, 11, 1)},
	"Europe/Berlin":       {date(2026, 3, 29), date(2026, 10, 25)},
	"America/Asuncion":    {date(2023, 10, 1), date(2024, 3, 24)},
	"Australia/Lord_Howe": {date(2026, 10, 4), date(2026, 4, 5)},
	"Asia/Kolkata":        {date(2026, 3, 29), date(2026, 10, 25)},
}

func date(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

// drawHours generates opening hours of a week. A branch without hours is always open.
func drawHours(t *rapid.T) (out []library.OpenHours) {
	if rapid.IntRange(0, 3).Draw(t, "always open") == 0 {
		return nil
	}
	for day := range 7 {
		for _, h := range drawDay(t) {
			h.Weekday = time.Weekday(day)
			out = append(out, h)
		}
	}
	return out
}

// drawDay generates the opening hours of a day in steps of 15 minutes. They do not overlap, and many
// end on the next day. Each opening is longer than the time that the clocks skip. A shorter opening
// could end before it begins, and Postgres refuses such a range.
func drawDay(t *rapid.T) (out []library.OpenHours) {
	opens := 0
	for range rapid.IntRange(0, 2).Draw(t, "openings") {
		opens += rapid.IntRange(0, 40).Draw(t, "opens")
		closes := opens + rapid.IntRange(5, 96).Draw(t, "open for")
		if opens > 95 {
			break
		}
		if closes > 96 {
			closes -= 96
		}
		const quarter = 15 * time.Minute
		out = append(out, library.OpenHours{Opens: time.Duration(opens) * quarter, Closes: time.Duration(closes) * quarter})
		if closes <= opens {
			break
		}
		opens = closes
	}
	return out
}

// drawDays generates exceptional days around a date.
func drawDays(t *rapid.T, around time.Time) (out []library.DayHours) {
	for day := -3; day <= 5; day++ {
		if rapid.IntRange(0, 2).Draw(t, "exceptional") == 0 {
			out = append(out, library.DayHours{Day: int(around.Unix()/secondsPerDay) + day, Open: drawDay(t)})
		}
	}
	return out
}

// writeDays writes exceptional days to the database.
func writeDays(t *testing.T, db *storetest.DB, days []library.DayHours) {
	t.Helper()
	db.Exec(t, `DELETE FROM branch_days`)
	for _, d := range days {
		db.Exec(t, `INSERT INTO branch_days (library_id, branch_id, day, opens, closes)
			SELECT 1, 1, date '1970-01-01' + $1::int, time '00:00' + make_interval(mins => o),
				CASE c WHEN 1440 THEN time '24:00' ELSE time '00:00' + make_interval(mins => c) END
			FROM (SELECT 1) one LEFT JOIN unnest($2::int[], $3::int[]) x (o, c) ON true`,
			d.Day, minutesOf(d.Open, true), minutesOf(d.Open, false))
	}
}

func minutesOf(hours []library.OpenHours, opens bool) (out []int) {
	for _, h := range hours {
		at := h.Closes
		if opens {
			at = h.Opens
		}
		out = append(out, int(at/time.Minute))
	}
	return out
}

// TestHoursAgreeWithPostgres generates windows around the days on which the clocks change, for random
// opening hours of the week and of single dates. The read model and the database must agree which of
// these windows are within the opening hours.
func TestHoursAgreeWithPostgres(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Exec(t, `INSERT INTO branches (library_id, id, code, name, timezone)
		OVERRIDING SYSTEM VALUE VALUES (1, 1, 'b', 'B', 'UTC')`)
	n, open := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(rt, "zone")
		branch := library.Branch{Code: "b", Timezone: zone, Hours: drawHours(rt)}
		db.Exec(t, `UPDATE branches SET timezone = $1`, zone)
		db.Exec(t, `DELETE FROM branch_hours`)
		for _, h := range branch.Hours {
			db.Exec(t, `INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
				VALUES (1, 1, $1, time '00:00' + make_interval(mins => $2),
					CASE $3::int WHEN 1440 THEN time '24:00' ELSE time '00:00' + make_interval(mins => $3::int) END)`,
				(int(h.Weekday)+6)%7+1, int(h.Opens/time.Minute), int(h.Closes/time.Minute))
		}
		day := changeOvers[zone][rapid.IntRange(0, 1).Draw(rt, "leap")]
		branch.Days = drawDays(rt, day)
		writeDays(t, db, branch.Days)
		c := newCalendar(branch)
		for range 20 {
			start := day.Add(time.Duration(rapid.IntRange(-4*30, 4*54).Draw(rt, "start")) * 15 * time.Minute)
			end := start.Add(time.Duration(rapid.IntRange(1, 100).Draw(rt, "length")) * 15 * time.Minute)
			want := storetest.Value[bool](t, db, `SELECT dlsms_open(1, 1, tstzrange($1, $2))`, start, end)
			got := true
			if c != nil {
				w := window{start.UnixMicro(), end.UnixMicro()}
				at := w.hours(c).at(w.start)
				got = at.start <= w.start && w.end <= at.end
			}
			if got != want {
				rt.Fatalf("%s, %v to %v, hours %v, days %v: %v, in Postgres %v",
					zone, start, end, branch.Hours, branch.Days, got, want)
			}
			if n++; got {
				open++
			}
		}
	})
	if n > 0 && (open < n/20 || open > n*19/20) {
		t.Errorf("%d of %d windows were open, want 5%% to 95%%", open, n)
	}
}

// TestInstantsAgreeWithPostgres compares instantOf with AT TIME ZONE of Postgres, for local times
// around each change of the clocks.
func TestInstantsAgreeWithPostgres(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	for zone, days := range changeOvers {
		location, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		c := &calendar{location: location}
		for _, day := range days {
			first := day.Add(-26 * time.Hour)
			want := storetest.Rows[time.Time](t, db, `SELECT ($1::timestamp + i * interval '5 minutes') AT TIME ZONE $2
				FROM generate_series(0, 12 * 76) i ORDER BY i`, first, zone)
			for i, w := range want {
				local := first.Add(time.Duration(i) * 5 * time.Minute)
				if got := time.Unix(c.instantOf(local.Unix()), 0); !got.Equal(w) {
					t.Errorf("%s %s: %s, in Postgres %s", zone, local.Format(time.DateTime), got.UTC(), w.UTC())
				}
			}
		}
	}
}

func TestNeverCloses(t *testing.T) {
	t.Parallel()
	var week, allButOne []library.OpenHours
	for day := range 7 {
		week = append(week, library.OpenHours{Weekday: time.Weekday(day), Opens: 6 * time.Hour, Closes: 6 * time.Hour})
		allButOne = append(allButOne, library.OpenHours{Weekday: time.Weekday(day), Closes: 24 * time.Hour})
	}
	allButOne[3].Closes -= time.Minute
	for _, c := range []struct {
		name  string
		hours []library.OpenHours
		want  bool
	}{
		{"without hours", nil, true},
		{"from six to six every day", week, true},
		{"except a minute on Wednesday", allButOne, false},
		{"except Saturday", week[:6], false},
	} {
		if got := neverCloses(c.hours); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestExceptionalDaysFarApart checks openings that are longer than the margin of a schedule, and times
// without an opening that are longer than that.
func TestExceptionalDaysFarApart(t *testing.T) {
	t.Parallel()
	today := int(monday.Unix() / secondsPerDay)
	allDay := []library.OpenHours{{Closes: 24 * time.Hour}}
	var holidays, exams []library.DayHours
	for i := range 60 {
		holidays = append(holidays, library.DayHours{Day: today + i + 1})
		exams = append(exams, library.DayHours{Day: today + i, Open: allDay})
	}
	day := func(n float64) int64 { return monday.UnixMicro() + int64(n*microsPerDay) }
	for _, c := range []struct {
		name  string
		hours []library.OpenHours
		days  []library.DayHours
		at    int64
		want  window
	}{
		{"closed for 60 days", nineToFive, holidays, day(1), window{day(63 + 9.0/24), day(63 + 17.0/24)}},
		{"open day and night for 60 days", nineToFive, exams, day(1), window{day(0), day(60)}},
		{"always open, before a closed day", nil, holidays[39:40], day(1), window{math.MinInt64, day(40)}},
		{"always open, on a closed day", nil, holidays[39:40], day(40.5), window{day(41), never}},
		{"always open, years after", nil, holidays[39:40], day(4000), window{day(41), never}},
		{"between two closed days", nil, []library.DayHours{holidays[1], holidays[39]}, day(20), window{day(3), day(40)}},
		{"between two closed days of a week", nil, []library.DayHours{holidays[1], holidays[4]}, day(3),
			window{day(3), day(5)}},
	} {
		b := library.Branch{Timezone: "UTC", Hours: c.hours, Days: c.days}
		calendar := newCalendar(b)
		calendar.warm(monday.UnixMicro())
		if got := instant(c.at).hours(calendar).at(c.at); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		want := state{available: true}
		if c.want.start > c.at {
			want = state{next: c.want.start}
		}
		if st, _ := instant(c.at).stateOf(&seat{calendar: calendar}, nil); st != want {
			t.Errorf("%s: the state of a seat is %+v, want %+v", c.name, st, want)
		}
		if !calendar.isOf(b) {
			t.Errorf("%s: the calendar is not that of its branch", c.name)
		}
		b.Days = b.Days[1:]
		if calendar.isOf(b) {
			t.Errorf("%s: the calendar is that of a branch with other days", c.name)
		}
	}
}

// TestBranchInUnknownZoneNeverOpens checks branches with opening hours in an unknown time zone. The
// database refuses bookings there, so the read model must not show a free seat.
func TestBranchInUnknownZoneNeverOpens(t *testing.T) {
	t.Parallel()
	nine := library.OpenHours{Weekday: time.Monday, Opens: 9 * time.Hour, Closes: 17 * time.Hour}
	for _, zone := range []string{"Atlantis/Capital", "", "Local"} {
		c := newCalendar(library.Branch{Code: "b", Timezone: zone, Hours: []library.OpenHours{nine}})
		c.warm(monday.UnixMicro())
		noon := instant(minute(12 * 60).UnixMicro())
		if st, holds := noon.stateOf(&seat{calendar: c}, nil); st != (state{}) || holds != never {
			t.Errorf("%q: %+v until %d", zone, st, holds)
		}
		if newCalendar(library.Branch{Code: "b", Timezone: zone}) != nil {
			t.Errorf("%q: a branch without hours is not always open", zone)
		}
	}
}
