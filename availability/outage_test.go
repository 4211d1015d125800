package availability

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/stack"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/migrations"
)

// TestRecoversAfterPostgresRestart starts a separate Postgres, stops it, and later kills it. After
// each restart, reads must see new bookings again.
func TestRecoversAfterPostgresRestart(t *testing.T) {
	t.Parallel()
	pg, err := stack.StartPostgres(t.Context(), stack.PostgresConfig{Unsafe: true, Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Stop(context.Background()) })
	if _, err := migrations.Up(t.Context(), pg.DatabaseURL()); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{URL: pg.DatabaseURL(), MinConns: 1, MaxConns: 4, Policy: freeRules()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.Seed(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	source := &countingSource{Source: s}
	m := startModel(t, source, feed.Options{MaxStaleness: 1500 * time.Millisecond})
	read := func() (Page, error) { return m.Seats(t.Context(), Query{AvailableOnly: true}) }
	users := 0
	for _, end := range []struct {
		how string
		do  func() error
	}{
		{"stopped", func() error { return pg.Process.Stop(t.Context()) }},
		{"killed", pg.Kill},
	} {
		lastGood := time.Now()
		good, err := read()
		if err != nil {
			t.Fatal(err)
		}
		loads := source.loads.Load()
		if err := end.do(); err != nil {
			t.Fatal(err)
		}
		// Until MaxStaleness, queries are answered from memory, with the time of the state as AsOf.
		// Then queries fail.
		stale := 0
		pace := time.NewTicker(10 * time.Millisecond)
		for ; ; <-pace.C {
			began := time.Now()
			p, err := read()
			if err != nil {
				if !errors.Is(err, library.ErrUnavailable) {
					t.Fatal(err)
				}
				if age := time.Since(lastGood); age < 1500*time.Millisecond {
					t.Errorf("%s: %v after %v, before MaxStaleness", end.how, err, age)
				}
				break
			}
			if p.Fresh && stale > 0 {
				t.Errorf("%s: without Postgres, a page says that it is fresh", end.how)
			}
			if !p.Fresh {
				stale++
			}
			if stale > 1 && time.Since(began) > 500*time.Millisecond {
				t.Errorf("%s: an answer from memory took %v", end.how, time.Since(began))
			}
			// The feed may have refreshed once more before Postgres ended.
			if len(p.Seats) != len(good.Seats) || p.AsOf.Before(good.AsOf) || p.AsOf.Sub(good.AsOf) > time.Second {
				t.Fatalf("%s: %d seats as of %v, before the end %d as of %v",
					end.how, len(p.Seats), p.AsOf, len(good.Seats), good.AsOf)
			}
			if began.Sub(lastGood) > 10*time.Second {
				t.Fatalf("%s: after 10 s, reads are still answered from memory", end.how)
			}
		}
		if stale < 10 {
			t.Errorf("%s: %d answers from memory, want at least 10", end.how, stale)
		}

		if err := pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		for ; ; <-pace.C {
			p, err := read()
			if err == nil {
				if !p.Fresh || !p.AsOf.After(good.AsOf.Add(time.Second)) {
					t.Errorf("%s: after the restart, a read has the old time %v, or is not fresh", end.how, p.AsOf)
				}
				break
			}
			if time.Since(back) > 5*time.Second {
				t.Fatalf("%s: 5 s after the restart, reads still fail: %v", end.how, err)
			}
		}
		pace.Stop()
		t.Logf("%s: %d answers from memory; fresh answers %v after the restart", end.how, stale, time.Since(back))
		if source.loads.Load() == loads {
			t.Errorf("%s: the state was not loaded again", end.how)
		}
		// Readers see acknowledged bookings again.
		users++
		r, err := s.Reserve(t.Context(), library.Booking{
			UserID: int64(users), SeatID: good.Seats[0].ID, EndTime: time.Now().Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		if p, err := read(); err != nil || p.Seats[0].ID == r.SeatID {
			t.Errorf("%s: a read does not see the booking after the restart: %v", end.how, err)
		}
	}
}
