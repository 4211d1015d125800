package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]*Snapshot{
		"10:20:10,14,15":          {Xmax: 20, InProgress: []uint64{10, 14, 15}},
		"10:10:":                  {Xmax: 10, InProgress: []uint64{}},
		"1:18446744073709551615:": {Xmax: 1<<64 - 1, InProgress: []uint64{}},
		"":                        nil,
		"10:20":                   nil,
		"10:x:":                   nil,
		"10:20:12,":               {Xmax: 20, InProgress: []uint64{12}},
		"10:20:12,y":              nil,
		"10:-1:":                  nil,
		"10:20:1:2":               nil,
	} {
		got, err := parseSnapshot(text, 1)
		if (err == nil) != (want != nil) {
			t.Errorf("%q: %+v, %v", text, got, err)
			continue
		}
		if want != nil && (got.Xmax != want.Xmax || !slices.Equal(got.InProgress, want.InProgress) || got.InProgress == nil) {
			t.Errorf("%q: %+v, want %+v", text, got, *want)
		}
	}
}

func TestSnapshotAfter(t *testing.T) {
	t.Parallel()
	older, newer, other := Snapshot{Xmax: 5, connID: 1}, Snapshot{Xmax: 6, connID: 1}, Snapshot{Xmax: 7, connID: 2}
	if !newer.After(older) || !newer.After(newer) || older.After(newer) || !older.After(Snapshot{}) ||
		other.After(older) || older.After(other) {
		t.Error("After returned a wrong result for one of the pairs")
	}
}

// FuzzParseSnapshot checks that parseSnapshot never panics. If parseSnapshot accepts a text, the
// test formats the snapshot and parses it again. The result must be the same snapshot.
func FuzzParseSnapshot(f *testing.F) {
	for _, text := range []string{"10:20:10,14,15", "10:10:", "1:18446744073709551615:", "", ":::", "1:2:,,3", "a:b:c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSnapshot(text, 1)
		if err != nil {
			return
		}
		var xips []string
		for _, x := range s.InProgress {
			xips = append(xips, fmt.Sprint(x))
		}
		again, err := parseSnapshot(fmt.Sprintf("1:%d:%s", s.Xmax, strings.Join(xips, ",")), 1)
		if err != nil || again.Xmax != s.Xmax || !slices.Equal(again.InProgress, s.InProgress) {
			t.Errorf("%q is read as %+v, which is read as %+v, %v", text, s, again, err)
		}
	})
}
