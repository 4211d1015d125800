package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/dlsms/dlsms/library"
)

// Passwords hashes and compares passwords. At cost 12, each operation takes a core for about a
// quarter of a second. Only a few operations run at the same time, so that reads of seats stay fast
// during many logins. Other operations wait for a bounded time.
type Passwords struct {
	cost        int
	concurrency int
	slots       *fairSlots
	dummy       []byte // stands in for the hash of a user that does not exist
	// Observe is called with the duration of each hash and each comparison, without the wait for a
	// slot. Set it before the first call.
	Observe func(time.Duration)
}

// PasswordWait is how long a call waits for a slot.
const PasswordWait = 2 * time.Second

// NewPasswords returns Passwords with a bcrypt cost and a number of slots. It fails if bcrypt does
// not support the cost. A call waits for a slot for at most maxWait.
func NewPasswords(cost, concurrency int, maxWait time.Duration) (*Passwords, error) {
	if cost < bcrypt.MinCost || cost > bcrypt.MaxCost { // bcrypt would silently use another cost
		return nil, fmt.Errorf("BCRYPT_COST is %d: it must be %d to %d", cost, bcrypt.MinCost, bcrypt.MaxCost)
	}
	dummy, err := bcrypt.GenerateFromPassword([]byte("a password that no user has"), cost)
	if err != nil {
		return nil, err
	}
	concurrency = max(1, concurrency)
	return &Passwords{
		cost: cost, concurrency: concurrency, slots: newFairSlots(concurrency, maxWait), dummy: dummy,
		Observe: func(time.Duration) {},
	}, nil
}

// InUse returns the number of slots in use.
func (p *Passwords) InUse() int {
	p.slots.mu.Lock()
	defer p.slots.mu.Unlock()
	return p.concurrency - p.slots.free
}

// WithSlot waits for a slot and runs f, which hashes or compares a password of the student. address
// is the key by which limits count the client. WithSlot fails with ErrOverloaded if no slot is free
// in time.
func (p *Passwords) WithSlot(ctx context.Context, address, studentID string, f func() error) error {
	if err := p.slots.acquire(ctx, requester{address, strings.ToLower(studentID)}); err != nil {
		return err
	}
	defer p.slots.release()
	return f()
}

// Hash waits for a slot and returns the bcrypt hash of a student's password. It fails with
// ErrOverloaded if no slot is free in time.
func (p *Passwords) Hash(ctx context.Context, address, studentID, password string) (string, error) {
	var hash []byte
	err := p.WithSlot(ctx, address, studentID, func() (err error) {
		defer p.startTimer()()
		hash, err = bcrypt.GenerateFromPassword([]byte(password), p.cost)
		return err
	})
	return string(hash), err
}

// Compare returns nil if the hash belongs to one of the forms of a password, and ErrBadCredentials
// otherwise. The caller must hold a slot: see WithSlot.
//
// For a user that does not exist, hash is empty. Compare then takes as long as for a wrong
// password: it compares the same forms with a dummy hash.
func (p *Passwords) Compare(hash string, forms ...string) error {
	known := []byte(hash)
	if hash == "" {
		known = p.dummy
	}
	for _, form := range forms {
		stop := p.startTimer()
		err := bcrypt.CompareHashAndPassword(known, []byte(form))
		stop()
		if err == nil && hash != "" {
			return nil
		}
		if err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) && hash != "" {
			return err
		}
	}
	return library.ErrBadCredentials
}

// startTimer measures an operation until stop is called.
func (p *Passwords) startTimer() (stop func()) {
	began := time.Now()
	return func() { p.Observe(time.Since(began)) }
}
