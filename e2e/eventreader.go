package e2e

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"
)

// Event is a server-sent event.
type Event struct {
	Type string // "message" unless the server set another
	Data string
	ID   string // of this event or the last one that had an id
}

// EventReader reads server-sent events as the HTML standard prescribes it for browsers (9.2.6,
// Interpreting an event stream).
type EventReader struct {
	// Retry is the last reconnection time that the server sent, 0 before it.
	Retry  time.Duration
	lines  *bufio.Reader
	begun  bool   // the byte order mark was looked for
	cr     bool   // the last byte was a CR: an LF that follows belongs to it
	lastID string // the id of the last event
	nextID string // of the event that is being read
}

// NewEventReader returns a reader of the events in the body of an answer.
func NewEventReader(body io.Reader) *EventReader { return &EventReader{lines: bufio.NewReader(body)} }

// Next returns the next event. It skips comments, which keep a silent stream open. At the end of the
// stream it returns io.EOF; an event that is not complete then is dropped.
func (r *EventReader) Next() (Event, error) {
	var data strings.Builder
	kind := ""
	for {
		line, err := r.line()
		if err != nil {
			return Event{}, err
		}
		if line == "" {
			r.lastID = r.nextID
			if data.Len() == 0 {
				kind = ""
				continue
			}
			if kind == "" {
				kind = "message"
			}
			return Event{Type: kind, Data: strings.TrimSuffix(data.String(), "\n"), ID: r.lastID}, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			kind = value
		case "data":
			data.WriteString(value)
			data.WriteByte('\n')
		case "id":
			if !strings.Contains(value, "\x00") {
				r.nextID = value
			}
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
				r.Retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
}

// line returns the next line without its end, which is CR, LF or both. A line without an end is
// none.
func (r *EventReader) line() (string, error) {
	if !r.begun {
		r.begun = true
		if mark, _ := r.lines.Peek(3); bytes.Equal(mark, []byte("\ufeff")) {
			_, _ = r.lines.Discard(3)
		}
	}
	var line []byte
	for {
		b, err := r.lines.ReadByte()
		if err != nil {
			return "", err
		}
		afterCR := r.cr
		r.cr = b == '\r'
		switch {
		case b == '\n' && afterCR: // the second half of an end
		case b == '\r' || b == '\n':
			return strings.ToValidUTF8(string(line), "\ufffd"), nil
		default:
			line = append(line, b)
		}
	}
}
