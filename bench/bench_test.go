package main

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
)

func TestParseStatReadsAnyProcessName(t *testing.T) {
	t.Parallel()
	p, err := parseStat("17 (nginx: worker (1)) S 5 17 17 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 99 1 2")
	if want := (process{17, 5, 1240 * time.Millisecond}); err != nil || p != want {
		t.Errorf("got %+v, %v; want %+v", p, err, want)
	}
	for _, broken := range []string{
		"", "17", "17 (x)", "x (y) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "17 (y) S 1 1 1 1 1 1 1 1 1 1 x 1 1 1",
	} {
		if _, err := parseStat(broken); err == nil {
			t.Errorf("%q is accepted", broken)
		}
	}
}

func TestTreeTimeCountsDescendants(t *testing.T) {
	t.Parallel()
	all := []process{{1, 0, time.Hour}, {10, 1, 1}, {12, 11, 4}, {11, 10, 2}, {13, 1, time.Hour}}
	if got := treeTime(all, 10); got != 7 {
		t.Errorf("got %d, want the time of 10, 11 and 12: 7", got)
	}
}

func TestPercentilesAndMedian(t *testing.T) {
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
		t.Error("the median is not the middle value, or a percentile of no latencies is not 0")
	}
}

// TestSlotsAreFreeOfConflicts checks that no seat and no user is booked twice for the same time,
// and that no user gets more than ten bookings.
func TestSlotsAreFreeOfConflicts(t *testing.T) {
	t.Parallel()
	students := users{ids: make([]int64, 60)}
	students.signed = append(students.signed, make([]*metadata.MD, 60)...)
	d, err := newSlots([]int64{1, 2, 3, 4, 5}, students, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	taken, of := map[string]bool{}, map[int64]int{}
	for n := range d.capacity() {
		r := d.request(n)
		user := n % int64(len(students.ids))
		for _, subject := range []string{fmt.Sprint("seat ", r.GetSeatId()), fmt.Sprint("user ", user)} {
			key := fmt.Sprint(subject, " at ", r.GetStartTime().AsTime())
			if taken[key] {
				t.Fatalf("booking %d: %s again", n, key)
			}
			taken[key] = true
		}
		if of[user]++; of[user] > 10 {
			t.Fatalf("user %d has %d bookings", user, of[user])
		}
	}
	if _, err := d.take(d.capacity() + 1); err == nil {
		t.Error("take returns more slots than there are")
	}
	if _, err := newSlots(make([]int64, 61), students, time.Now()); err == nil {
		t.Error("newSlots accepts more seats than users")
	}
}

// TestSlotsAreBookableAtAnyHour checks that all slots can be booked, whatever the hour at which the
// benchmark runs.
func TestSlotsAreBookableAtAnyHour(t *testing.T) {
	t.Parallel()
	const mostAhead = 14 * 24 * time.Hour // the default of MAX_AHEAD
	for hour := range 24 {
		now := time.Date(2027, 3, 1, hour, 59, 59, 0, time.UTC)
		d, err := newSlots([]int64{1}, users{ids: make([]int64, 1000)}, now)
		if err != nil {
			t.Fatal(err)
		}
		first, last := d.request(0), d.request(d.capacity()-1)
		if !first.GetStartTime().AsTime().After(now.Add(time.Hour)) || last.GetStartTime().AsTime().Sub(now) > mostAhead {
			t.Errorf("at %s the slots are from %s to %s", now, first.GetStartTime().AsTime(), last.GetStartTime().AsTime())
		}
	}
}
