package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// streams measures the time from a change to its server-sent event on many streams.
func (s *study) streams(ctx context.Context) error {
	for _, name := range []string{nameB, nameC} {
		m, changes, err := s.streamsOf(ctx, s.byName(name))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.progress("server-sent events, %s: %d changes to %d streams, P50 %s, P99 %s", name, changes, s.scale.streams,
			millis(m.percentile(50)), millis(m.percentile(99)))
		s.result.add(kind{scenario: streaming, clients: s.scale.streams}, s.byName(name), []measurement{m})
	}
	return nil
}

func (s *study) streamsOf(ctx context.Context, c *contender) (m measurement, changes int, err error) {
	students, err := c.sys.addUsers(ctx, "watched-", 49)
	if err != nil {
		return m, 0, err
	}
	seats, err := c.sys.seats(ctx)
	if err != nil {
		return m, 0, err
	}
	booking, err := c.dial()
	if err != nil {
		return m, 0, err
	}
	defer booking.close()

	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{fault: make(chan error, 1)}
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	defer w.ending.Store(true)
	for i := range s.scale.streams / streamsPerAddress {
		from := dialHTTP(c.addr, fmt.Sprintf("127.0.1.%d", i+1), false)
		defer from.close()
		for range streamsPerAddress {
			events, err := from.watch(ctx)
			if err != nil {
				return m, 0, fmt.Errorf("open a stream: %w", err)
			}
			readers.Go(func() { w.ended(w.readEvents(events)) })
		}
	}
	if err := w.untilReady(ctx, s.scale.streams); err != nil {
		return m, 0, err
	}
	before, err := partsOf(c, 0)
	if err != nil {
		return m, 0, err
	}
	began := time.Now()
	changes, err = w.change(ctx, booking, s.scale.streams, seats, students, s.scale.streamTime)
	if err != nil {
		return m, 0, err
	}
	after, err := partsOf(c, 0)
	slices.Sort(w.latencies)
	m.sample = sample{calls: len(w.latencies), seconds: time.Since(began).Seconds(), latencies: w.latencies}
	m.parts = after.minus(before)
	return m, changes, err
}

// seatEvent is the data of the events snapshot and change.
type seatEvent struct {
	Snapshot *struct {
		More bool `json:"more"`
	} `json:"snapshot"`
	Change *struct {
		ID        int64 `json:"id,string"`
		Available bool  `json:"available"`
	} `json:"change"`
}

// readEvents reads server-sent events until the stream ends, and returns why it ended.
func (w *watcher) readEvents(body io.ReadCloser) error {
	defer func() { _ = body.Close() }()
	lines := bufio.NewReader(body)
	for first := true; ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		now := time.Now()
		if bytes.HasPrefix(line, []byte("event: error")) {
			return errors.New("the stream has an event error")
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		var event seatEvent
		if err := json.Unmarshal(data, &event); err != nil {
			return err
		}
		if event.Snapshot != nil && !event.Snapshot.More && first {
			first = false
			w.ready.Add(1)
		}
		if event.Change != nil {
			w.received(event.Change.ID, event.Change.Available, now)
		}
	}
}
