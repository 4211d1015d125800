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

// Passwords hashes and compares. At cost 12 either takes about a quarter of a second of a core, so only a few run at once, and the
// others wait, though not for long: a login rush must leave the seats fast.
type Passwords struct {
	cost        int
	concurrency int
	slots       *fairSlots
	dummy       []byte // the hash of no password
	// Observe is called with the duration of each hash and each comparison, without the wait for a turn.
	Observe func(time.Duration)
}

// PasswordWait is how long a call waits for its turn.
const PasswordWait = 2 * time.Second

func NewPasswords(cost, concurrency int, maxWait time.Duration) (*Passwords, error) {
	if cost < bcrypt.MinCost || cost > bcrypt.MaxCost { // outside of which the library takes another one, silently
		return nil, fmt.Errorf("BCRYPT_COST is %d: it must be %d to %d", cost, bcrypt.MinCost, bcrypt.MaxCost)
	}
	dummy, err := bcrypt.GenerateFromPassword([]byte("a password that nobody has"), cost)
	if err != nil {
		return nil, err
	}
	concurrency = max(1, concurrency)
	return &Passwords{
		cost: cost, concurrency: concurrency, slots: newFairSlots(concurrency, maxWait), dummy: dummy, Observe: func(time.Duration) {},
	}, nil
}

// InUse returns how many passwords are hashed or compared.
func (p *Passwords) InUse() int {
	p.slots.mu.Lock()
	defer p.slots.mu.Unlock()
	return p.concurrency - p.slots.free
}

// WithSlot runs f, which hashes or compares a password of a student id, when it is the turn of the call that ctx belongs to. It fails with
// ErrOverloaded when too many wait.
func (p *Passwords) WithSlot(ctx context.Context, address, studentID string, f func() error) error {
	if err := p.slots.take(ctx, requester{address, strings.ToLower(studentID)}); err != nil {
		return err
	}
	defer p.slots.release()
	return f()
}

// Hash returns the bcrypt hash of a student's password, when it is the call's turn. It fails with ErrOverloaded when too many wait.
func (p *Passwords) Hash(ctx context.Context, address, studentID, password string) (string, error) {
	var hash []byte
	err := p.WithSlot(ctx, address, studentID, func() (err error) {
		defer p.time()()
		hash, err = bcrypt.GenerateFromPassword([]byte(password), p.cost)
		return err
	})
	return string(hash), err
}

// Compare returns nil if one of the forms of a password is that of the hash, else ErrBadCredentials; call it in turn. An empty hash is that of
// a user who does not exist: it takes as long as any other, since how many forms are compared depends on the password alone.
func (p *Passwords) Compare(hash string, forms ...string) error {
	known := []byte(hash)
	if hash == "" {
		known = p.dummy
	}
	for _, form := range forms {
		done := p.time()
		err := bcrypt.CompareHashAndPassword(known, []byte(form))
		done()
		if err == nil && hash != "" {
			return nil
		}
		if err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) && hash != "" {
			return err
		}
	}
	return library.ErrBadCredentials
}

// time starts a clock, and returns what stops it.
func (p *Passwords) time() (stop func()) {
	began := time.Now()
	return func() { p.Observe(time.Since(began)) }
}
