package store_test

import (
	"slices"
	"testing"

	"github.com/dlsms/dlsms/store"
)

// join puts a user in line for a seat and a window from one minute after noon to another.
func (b bundle) join(t *testing.T, user, seat, from, to int) store.Entry {
	t.Helper()
	e, err := b.JoinWaitlist(t.Context(), store.Booking{UserID: b.users[user], SeatID: b.seats[seat], StartTime: at(from), EndTime: at(to)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// entry returns an entry of the user's as it is now.
func (b bundle) entry(t *testing.T, user int, id int64) store.Entry {
	t.Helper()
	list, err := b.Waitlist(t.Context(), b.users[user])
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(e store.Entry) bool { return e.ID == id })
	if i < 0 {
		t.Fatalf("user %d has no entry %d", user, id)
	}
	return list[i]
}

// offered returns an entry of the user's with an offer for a seat that is free in the window.
func (b bundle) offered(t *testing.T, user, seat, from, to int) store.Entry {
	t.Helper()
	return b.offeredBy(t, len(b.users)-1, user, seat, from, to)
}

// offeredBy is offered, with the other user taking the seat and giving it up.
func (b bundle) offeredBy(t *testing.T, other, user, seat, from, to int) store.Entry {
	t.Helper()
	taken := b.reserve(t, other, seat, from, to)
	e := b.join(t, user, seat, from, to)
	mustDo(t, b.Cancel, b.users[other], taken.ID)
	if e = b.entry(t, user, e.ID); e.Status != store.EntryOffered {
		t.Fatalf("no offer: %+v", e)
	}
	return e
}
