package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// reads repeats the measurement of the original: ghz and hey with more and more clients.
func (s *study) reads(ctx context.Context) error {
	for _, clients := range s.scale.clients {
		err := s.inTurns(ctx, kind{scenario: reading, clients: clients}, s.contenders, s.scale.rounds,
			func(ctx context.Context, c *contender) (measurement, error) {
				return s.tools.run(ctx, c, clients, s.scale.warm, s.scale.measure)
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// equalRates measures latencies at the same rate of calls, with the same generator for both
// protocols.
func (s *study) equalRates(ctx context.Context) error {
	for _, rate := range s.scale.rates {
		err := s.inTurns(ctx, kind{scenario: atRate, rate: rate}, s.architectures(), s.scale.rateRounds,
			func(ctx context.Context, c *contender) (measurement, error) {
				a, err := c.dial()
				if err != nil {
					return measurement{}, err
				}
				defer a.close()
				return s.steady(ctx, c, a, rate)
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// steady reads seats at a rate.
func (s *study) steady(ctx context.Context, c *contender, a api, rate int) (measurement, error) {
	due := arrivals(float64(rate), s.scale.warm+s.scale.measure)
	began := time.Now()
	meter := startMeter(ctx, c, 0, began.Add(s.scale.warm), s.scale.measure)
	outcomes, err := openLoop(ctx, due, maxInFlight, func(ctx context.Context, _ int) error { return a.getSeats(ctx) })
	from, to, parts, meterErr := meter.result()
	if err = errors.Join(err, meterErr); err != nil {
		return measurement{}, err
	}
	return measurement{sampleOf(outcomes, from.Sub(began), to.Sub(began)), parts}, nil
}

// fastestBooking is a rate of bookings a second that no measured machine reaches.
const fastestBooking = 9000

// bookings measures CreateReservation of free seats, with the same generator for both protocols.
func (s *study) bookings(ctx context.Context) error {
	contenders := []*contender{s.byName(nameA), s.byName(nameB), s.byName(nameC), s.byName(nameD)}
	needed := int64((s.scale.warm+s.scale.measure).Seconds()*fastestBooking) + 1
	slotsOf := map[string]*slots{}
	for _, c := range contenders {
		const seats = 1000
		branch := "booked-" + code(c)
		ids, err := c.sys.addBranch(ctx, branch, seats)
		if err != nil {
			return err
		}
		all := needed * int64(s.scale.rounds*len(s.scale.bookClients))
		students, err := c.sys.addUsers(ctx, branch+"-", int(max(all/10+1, seats)))
		if err != nil {
			return err
		}
		if slotsOf[c.name], err = newSlots(ids, students, time.Now()); err != nil {
			return err
		}
	}
	for _, clients := range s.scale.bookClients {
		err := s.inTurns(ctx, kind{scenario: booking, clients: clients}, contenders, s.scale.rounds,
			func(ctx context.Context, c *contender) (measurement, error) {
				return s.bookOn(ctx, c, slotsOf[c.name], needed, clients)
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// bookOn books at most needed seats.
func (s *study) bookOn(ctx context.Context, c *contender, d *slots, needed int64, clients int) (measurement, error) {
	first, err := d.take(needed)
	if err != nil {
		return measurement{}, err
	}
	a, err := c.dial()
	if err != nil {
		return measurement{}, err
	}
	defer a.close()
	began := time.Now()
	meter := startMeter(ctx, c, 0, began.Add(s.scale.warm), s.scale.measure)
	outcomes, err := closedLoop(ctx, clients, s.scale.warm+s.scale.measure, func(ctx context.Context, n int64) error {
		if n >= needed {
			return fmt.Errorf("more than %d bookings a second: raise fastestBooking", fastestBooking)
		}
		_, err := a.book(ctx, d.sign(first+n), d.request(first+n))
		return err
	})
	from, to, parts, meterErr := meter.result()
	if err = errors.Join(err, meterErr); err != nil {
		return measurement{}, err
	}
	return measurement{sampleOf(outcomes, from.Sub(began), to.Sub(began)), parts}, nil
}

// freshness looks for stale answers.
func (s *study) freshness(ctx context.Context) error {
	for _, c := range s.architectures() {
		found, err := s.staleChecks(ctx, c, s.scale.stale)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		s.result.stale = append(s.result.stale, found)
	}
	return nil
}

// rushClients is the number of clients that log in during a rush, and rushRate the rate of reads.
const rushClients, rushRate = 100, 200

// rushApart is the rush with auth in a process of its own, with the weight that package stack gives
// it.
const rushApart = "auth apart, nice 10"

// loginRush measures reads at a low rate beside many logins.
func (s *study) loginRush(ctx context.Context) error {
	b, c := s.byName(nameB), s.byName(nameC)
	asShipped := func() error { return nil }
	for _, r := range []struct {
		name    string
		c       *contender
		prepare func() error
	}{
		{"monolith", b, asShipped},
		{rushApart, c, asShipped},
		{"auth apart, same weight", c, func() error { return sameWeight(c.sys.replica("auth").PID()) }},
	} {
		err := r.prepare()
		if errors.Is(err, os.ErrPermission) {
			s.progress("login rush, %s: not measured, since only root may raise the weight", r.name)
			continue
		}
		if err != nil {
			return err
		}
		found := rush{name: r.name}
		for round := range s.scale.rounds {
			if err := s.rushOnce(ctx, r.c, &found); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			last := len(found.idle) - 1
			s.progress("login rush, %s, round %d of %d: P99 of reads %s, without logins %s; %.1f logins a second",
				r.name, round+1, s.scale.rounds, millis(found.during[last].percentile(99)),
				millis(found.idle[last].percentile(99)), found.logins[last])
		}
		s.result.rushes = append(s.result.rushes, found)
	}
	return nil
}

// rushOnce adds one round to a rush.
func (s *study) rushOnce(ctx context.Context, c *contender, r *rush) error {
	a, err := c.dial()
	if err != nil {
		return err
	}
	defer a.close()
	idle, err := s.steady(ctx, c, a, rushRate)
	if err != nil {
		return err
	}
	stop := startLogins(ctx, a, rushClients)
	began := time.Now()
	during, err := s.steady(ctx, c, a, rushRate)
	elapsed := time.Since(began)
	admitted, _, other := stop()
	if err = errors.Join(err, other); err != nil {
		return err
	}
	for _, m := range []measurement{idle, during} {
		if err := m.failure(); err != nil {
			s.report.fault("reads beside logins, %s: %v", r.name, err)
		}
	}
	r.idle, r.during = append(r.idle, idle), append(r.during, during)
	r.logins = append(r.logins, float64(admitted)/elapsed.Seconds())
	return nil
}

// sameWeight gives a process the weight for processor time that this process has. The weight belongs
// to each thread, and a new thread has that of the thread that starts it.
func sameWeight(pid int) error {
	own, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	nice := 20 - own // the system call returns a number above 0
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	if err != nil || len(threads) == 0 {
		return fmt.Errorf("the process %d has no threads: %w", pid, errors.Join(err, os.ErrNotExist))
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			return err
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, nice); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("change the weight of the process %d: %w", pid, err)
		}
	}
	return nil
}

// decoding measures the size of the answer in both encodings, and the time that a client takes to
// decode it.
func (s *study) decoding(ctx context.Context) error {
	binary, _, err := answers(ctx, s.ours)
	if err != nil {
		return err
	}
	text, err := s.ours.jsonAnswer(ctx)
	if err != nil {
		return err
	}
	for _, d := range []struct {
		name   string
		answer []byte
		decode func() error
	}{
		{"protobuf, package proto", binary, func() error { return proto.Unmarshal(binary, &dlsmsv1.GetSeatsResponse{}) }},
		{"JSON, package encoding/json", text, func() error { return json.Unmarshal(text, &seatsJSON{}) }},
		{"JSON, package protojson", text, func() error { return protojson.Unmarshal(text, &dlsmsv1.GetSeatsResponse{}) }},
	} {
		each, err := timeOf(d.decode)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		s.progress("decode %s: %d bytes, %s", d.name, len(d.answer), micros(each))
		s.result.decoders = append(s.result.decoders, decoder{d.name, len(d.answer), each})
	}
	return nil
}

// seatsJSON is the answer of GetSeats as a Go client without protobuf would declare it.
type seatsJSON struct {
	Seats []struct {
		ID              string    `json:"id"`
		Branch          string    `json:"branch"`
		Area            string    `json:"area"`
		Label           string    `json:"label"`
		Amenities       []string  `json:"amenities"`
		Available       bool      `json:"available"`
		AvailableUntil  time.Time `json:"availableUntil"`
		NextAvailableAt time.Time `json:"nextAvailableAt"`
	} `json:"seats"`
	TotalCount     int       `json:"totalCount"`
	AvailableCount int       `json:"availableCount"`
	NextPageToken  string    `json:"nextPageToken"`
	AsOf           time.Time `json:"asOf"`
}

// timeOf returns the mean time of a call that takes microseconds.
func timeOf(do func() error) (time.Duration, error) {
	const calls = 2000
	began := time.Now()
	for range calls {
		if err := do(); err != nil {
			return 0, err
		}
	}
	return time.Since(began) / calls, nil
}
