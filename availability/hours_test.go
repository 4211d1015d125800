package availability

import (
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

// drawHours generates opening hours in steps of 15 minutes. The openings of a day do not overlap,
// and many end on the next day. Each opening is longer than the time that the clocks skip. A
// shorter opening could end before it begins, and Postgres refuses such a range.
func drawHours(t *rapid.T) []library.OpenHours {
	var out []library.OpenHours
	for day := range 7 {
		opens := 0
		for range rapid.IntRange(0, 2).Draw(t, "openings") {
			opens += rapid.IntRange(1, 40).Draw(t, "opens")
			closes := opens + rapid.IntRange(5, 48).Draw(t, "open for")
			if opens > 95 {
				break
			}
			if closes > 96 {
				closes -= 96
			}
			const quarter = 15 * time.Minute
			out = append(out, library.OpenHours{
				Weekday: time.Weekday(day), Opens: time.Duration(opens) * quarter, Closes: time.Duration(closes) * quarter,
			})
			if closes <= opens {
				break
			}
			opens = closes
		}
	}
	return out
}

// TestHoursAgreeWithPostgres generates windows around the days on which the clocks change. The read
// model and the database must agree which of these windows are within the opening hours.
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
				rt.Fatalf("%s, %v to %v, hours %v: %v, in Postgres %v", zone, start, end, branch.Hours, got, want)
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
