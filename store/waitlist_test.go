package store_test

import (
	"context"
	"slices"
	"testing"

	"github.com/dlsms/dlsms/library"
)

// join puts a user in line for a seat and a window. from and to are minutes after noon.
func (b bundle) join(t *testing.T, user, seat, from, to int) library.WaitlistEntry {
	t.Helper()
	e, err := b.JoinWaitlist(t.Context(), library.Booking{
		UserID: b.users[user], SeatID: b.seats[seat], StartTime: at(from), EndTime: at(to),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// entry returns the present state of one of the user's entries.
func (b bundle) entry(t *testing.T, user int, id int64) library.WaitlistEntry {
	t.Helper()
	list, err := b.Waitlist(t.Context(), b.users[user])
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(e library.WaitlistEntry) bool { return e.ID == id })
	if i < 0 {
		t.Fatalf("user %d has no entry %d", user, id)
	}
	return list[i]
}

// offered makes an offer to a user for a seat and a window, and returns the entry. To do so, the
// last user of the bundle reserves the seat, the user joins the waitlist, and the last user
// cancels. from and to are minutes after noon.
func (b bundle) offered(t *testing.T, user, seat, from, to int) library.WaitlistEntry {
	t.Helper()
	return b.offeredBy(t, len(b.users)-1, user, seat, from, to)
}

// offeredBy does the same as offered, but the user with the number other reserves the seat and
// cancels.
func (b bundle) offeredBy(t *testing.T, other, user, seat, from, to int) library.WaitlistEntry {
	t.Helper()
	taken := b.reserve(t, other, seat, from, to)
	e := b.join(t, user, seat, from, to)
	mustDo(t, b.Cancel, b.users[other], taken.ID)
	if e = b.entry(t, user, e.ID); e.Status != library.EntryOffered {
		t.Fatalf("no offer: %+v", e)
	}
	return e
}

// TestWaitlistListsAtMost100EndedEntries joins and leaves 105 times. Waitlist must return the live
// entry and the newest 100 of the ended entries.
func TestWaitlistListsAtMost100EndedEntries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 4, 0, 0, 240)
	live := b.join(t, 0, 0, 0, 60)
	const most = 100
	var left []int64
	for range most + 5 {
		e := b.join(t, 0, 0, 60, 120)
		if _, err := b.LeaveWaitlist(t.Context(), b.users[0], e.ID); err != nil {
			t.Fatal(err)
		}
		left = append(left, e.ID)
	}
	list, err := b.Waitlist(t.Context(), b.users[0])
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, e := range list {
		got = append(got, e.ID)
	}
	wantEqual(t, "listed", got, append([]int64{live.ID}, left[5:]...))
}

// wantDone runs a step. The step must make want transitions and report that no more are due.
func wantDone(t *testing.T, want int, step func(ctx context.Context, limit int) (int, bool, error)) {
	t.Helper()
	n, more, err := step(t.Context(), 100)
	if err != nil || more || n != want {
		t.Fatalf("%d done, more %v, %v; want %d", n, more, err, want)
	}
}

func mustRead(t *testing.T, b bundle, user int, id int64) library.Reservation {
	t.Helper()
	r, err := b.Reservation(t.Context(), b.users[user], id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWaitlistOmitsEntriesAfterADay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 4, 0, 0, 60)
	e := b.join(t, 0, 0, 0, 60)
	if _, err := b.LeaveWaitlist(t.Context(), b.users[0], e.ID); err != nil {
		t.Fatal(err)
	}
	for minutes, want := range map[int]int{24*60 - 1: 1, 24 * 60: 0} {
		b.clock(t, minutes)
		list, err := b.Waitlist(t.Context(), b.users[0])
		if err != nil || len(list) != want {
			t.Errorf("after %d minutes: %v, %v", minutes, list, err)
		}
	}
}
