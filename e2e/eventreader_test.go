package e2e

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestEventReader reads streams of the examples and rules of the HTML standard.
func TestEventReader(t *testing.T) {
	t.Parallel()
	message := func(data, id string) Event { return Event{Type: "message", Data: data, ID: id} }
	for name, test := range map[string]struct {
		stream string
		want   []Event
		retry  time.Duration
	}{
		"several lines of data": {"data: YHOO\ndata: +2\ndata: 10\n\n", []Event{message("YHOO\n+2\n10", "")}, 0},
		"ids": {
			": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
			[]Event{message("first event", "1"), message("second event", ""), message(" third event", "")}, 0,
		},
		"data without a value":  {"data\n\ndata\ndata\n\ndata:", []Event{message("", ""), message("\n", "")}, 0},
		"at most one space":     {"data:test\n\ndata: test\n\n", []Event{message("test", ""), message("test", "")}, 0},
		"types do not last":     {"event: a\ndata: 1\n\ndata: 2\n\n", []Event{{"a", "1", ""}, message("2", "")}, 0},
		"an event without data": {"event: a\nid: 7\n\ndata: 2\n\n", []Event{message("2", "7")}, 0},
		"ids last":              {"id: 7\ndata: 1\n\ndata: 2\n\n", []Event{message("1", "7"), message("2", "7")}, 0},
		"an id with NUL": {
			"id: 7\ndata: 1\n\nid: 8\x00\ndata: 2\n\n", []Event{message("1", "7"), message("2", "7")}, 0,
		},
		"ends of lines": {
			"data: 1\r\ndata: 2\rdata: 3\n\r\ndata: 4\r\rdata: 5\n\n",
			[]Event{message("1\n2\n3", ""), message("4", ""), message("5", "")}, 0,
		},
		"retry":                    {"retry: 2000\n\nretry: 3s\nretry: -1\n: a\n:\n\n", nil, 2 * time.Second},
		"unknown fields":           {"datum: 1\nDATA: 2\n data: 3\n\n", nil, 0},
		"a byte order mark":        {"\ufeffdata: 1\n\n\ufeffdata: 2\n\n", []Event{message("1", "")}, 0},
		"an event without its end": {"data: 1\n\ndata: 2\n", []Event{message("1", "")}, 0},
		"a line without its end":   {"data: 1\n\ndata: 2", []Event{message("1", "")}, 0},
		"a colon in the value":     {"data: a: b\n\n", []Event{message("a: b", "")}, 0},
		"bytes that are not UTF-8": {"data: a\xffb\n\n", []Event{message("a\ufffdb", "")}, 0},
	} {
		for how, body := range map[string]io.Reader{
			"at once": strings.NewReader(test.stream), "by byte": iotest.OneByteReader(strings.NewReader(test.stream)),
		} {
			r := NewEventReader(body)
			var got []Event
			e, err := r.Next()
			for ; err == nil; e, err = r.Next() {
				got = append(got, e)
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, how, diff)
			}
			if r.Retry != test.retry {
				t.Errorf("%s, %s: retry after %s, want %s", name, how, r.Retry, test.retry)
			}
		}
	}
}
