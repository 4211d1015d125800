package main

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	p, err := parseStat("17 (nginx: worker (1)) S 5 17 17 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 99 1 2")
	if want := (process{17, 5, 1240 * time.Millisecond}); err != nil || p != want {
		t.Errorf("got %+v, %v; want %+v", p, err, want)
	}
	for _, broken := range []string{"", "17", "17 (x)", "x (y) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "17 (y) S 1 1 1 1 1 1 1 1 1 1 x 1 1 1"} {
		if _, err := parseStat(broken); err == nil {
			t.Errorf("%q is taken", broken)
		}
	}
}

func TestFamily(t *testing.T) {
	t.Parallel()
	all := []process{{1, 0, time.Hour}, {10, 1, 1}, {12, 11, 4}, {11, 10, 2}, {13, 1, time.Hour}}
	if got := family(all, 10); got != 7 {
		t.Errorf("got %d, want that of 10, 11 and 12: 7", got)
	}
}

func TestPercentiles(t *testing.T) {
	t.Parallel()
	var s sample
	for i := range 100 {
		s.latencies = append(s.latencies, time.Duration(i+1))
	}
	for p, want := range map[float64]time.Duration{0: 1, 50: 51, 95: 96, 99: 100, 100: 100} {
		if got := s.percentile(p); got != want {
			t.Errorf("P%g is %d, want %d", p, got, want)
		}
	}
	if median([]int{3, 1, 2}) != 2 || median([]int{4, 1, 3, 2}) != 2 || (sample{}).percentile(99) != 0 {
		t.Error("the median is not the middle one, or nothing is not 0")
	}
}

// No seat and no user is booked twice by one desk, and nobody has more than ten bookings.
func TestDeskBooksNobodyTwice(t *testing.T) {
	t.Parallel()
	people := users{ids: make([]int64, 60)}
	people.signed = append(people.signed, make([]*metadata.MD, 60)...)
	d, err := newDesk([]int64{1, 2, 3, 4, 5}, people, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	taken, of := map[string]bool{}, map[int64]int{}
	for n := range d.room() {
		r := d.request(n)
		user := n % int64(len(people.ids))
		for _, who := range []string{fmt.Sprint("seat ", r.GetSeatId()), fmt.Sprint("user ", user)} {
			key := fmt.Sprint(who, " at ", r.GetStartTime().AsTime())
			if taken[key] {
				t.Fatalf("booking %d: %s again", n, key)
			}
			taken[key] = true
		}
		if of[user]++; of[user] > 10 {
			t.Fatalf("user %d has %d bookings", user, of[user])
		}
	}
	if _, err := d.take(d.room() + 1); err == nil {
		t.Error("more is taken than there is")
	}
	if _, err := newDesk(make([]int64, 61), people, time.Now()); err == nil {
		t.Error("more seats than users are taken")
	}
}

// TestDeskAtAnyTime: what it hands out can be booked, at whatever time of the day the benchmark runs.
func TestDeskAtAnyTime(t *testing.T) {
	t.Parallel()
	const mostAhead = 14 * 24 * time.Hour
	for hour := range 24 {
		now := time.Date(2027, 3, 1, hour, 59, 59, 0, time.UTC)
		d, err := newDesk([]int64{1}, users{ids: make([]int64, 1000)}, now)
		if err != nil {
			t.Fatal(err)
		}
		first, last := d.request(0), d.request(d.room()-1)
		if !first.GetStartTime().AsTime().After(now.Add(time.Hour)) || last.GetStartTime().AsTime().Sub(now) > mostAhead {
			t.Errorf("at %s it hands out from %s to %s", now, first.GetStartTime().AsTime(), last.GetStartTime().AsTime())
		}
	}
}
