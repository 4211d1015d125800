package server

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/dlsms/dlsms/store"
)

// passwords hashes and compares. At cost 12 either takes about a quarter of a second of a core, so only a few run at once, and the
// others wait, though not for long: a login rush must leave the seats fast.
type passwords struct {
	cost  int
	slots *slots
	dummy []byte // the hash of no password
}

func newPasswords(cost, atOnce int) (*passwords, error) {
	if cost < bcrypt.MinCost || cost > bcrypt.MaxCost { // outside of which the library takes another one, silently
		return nil, fmt.Errorf("BCRYPT_COST is %d: it must be %d to %d", cost, bcrypt.MinCost, bcrypt.MaxCost)
	}
	dummy, err := bcrypt.GenerateFromPassword([]byte("a password that nobody has"), cost)
	if err != nil {
		return nil, err
	}
	return &passwords{cost: cost, slots: newSlots(atOnce, 2*time.Second, 500*time.Millisecond), dummy: dummy}, nil
}

// inTurn runs f, which hashes or compares, when it is its turn. It fails with ErrOverloaded when too many wait.
func (p *passwords) inTurn(ctx context.Context, f func() error) error {
	if err := p.slots.take(ctx); err != nil {
		return err
	}
	defer p.slots.release()
	return f()
}

// hash returns the bcrypt hash of a password, when it is its turn. It fails with ErrOverloaded when too many wait.
func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	var hash []byte
	err := p.inTurn(ctx, func() (err error) {
		defer processors.lend()()
		givingWay(func() { hash, err = bcrypt.GenerateFromPassword([]byte(password), p.cost) })
		return err
	})
	return string(hash), err
}

// compare returns nil if the password is the one of the hash, else ErrBadCredentials; call it in turn. An empty hash is that of a user who
// doesn't exist, and takes as long as any.
func (p *passwords) compare(hash, password string) (err error) {
	defer processors.lend()()
	known := []byte(hash)
	if hash == "" {
		known = p.dummy
	}
	givingWay(func() { err = bcrypt.CompareHashAndPassword(known, []byte(password)) })
	if hash == "" || errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return store.ErrBadCredentials
	}
	return err
}

// processors gives every password at work a processor of Go's on top of GOMAXPROCS. Work of a quarter of a second in one go leaves a
// replica with one processor, its share of a small machine, a look at the network every 10 ms or so: an echo over loopback then took 40 ms
// at the median. With one more, the operating system shares the cores out, which it does a thousand times a second.
var processors = lender{processors: runtime.GOMAXPROCS}

type lender struct {
	processors func(n int) (before int) // 0 asks

	mu   sync.Mutex
	own  int // processors while none is lent
	lent int
}

// lend adds a processor and returns what takes it back.
func (l *lender) lend() (takeBack func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lent == 0 {
		l.own = l.processors(0)
	}
	l.lent++
	l.processors(l.own + l.lent)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lent--
		l.processors(l.own + l.lent)
	}
}
