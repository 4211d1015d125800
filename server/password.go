package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/dlsms/dlsms/library"
)

// passwords hashes and compares. At cost 12 either takes about a quarter of a second of a core, so only a few run at once, and the
// others wait, though not for long: a login rush must leave the seats fast.
type passwords struct {
	cost   int
	atOnce int
	turns  *turns
	dummy  []byte // the hash of no password
	// timed is called with the duration of each hash and each comparison, without the wait for a turn.
	timed func(time.Duration)
}

// passwordPatience is how long a call waits for its turn.
const passwordPatience = 2 * time.Second

func newPasswords(cost, atOnce int) (*passwords, error) {
	if cost < bcrypt.MinCost || cost > bcrypt.MaxCost { // outside of which the library takes another one, silently
		return nil, fmt.Errorf("BCRYPT_COST is %d: it must be %d to %d", cost, bcrypt.MinCost, bcrypt.MaxCost)
	}
	dummy, err := bcrypt.GenerateFromPassword([]byte("a password that nobody has"), cost)
	if err != nil {
		return nil, err
	}
	atOnce = max(1, atOnce)
	return &passwords{
		cost: cost, atOnce: atOnce, turns: newTurns(atOnce, passwordPatience), dummy: dummy, timed: func(time.Duration) {},
	}, nil
}

// inUse returns how many passwords are hashed or compared.
func (p *passwords) inUse() int {
	p.turns.mu.Lock()
	defer p.turns.mu.Unlock()
	return p.atOnce - p.turns.free
}

// inTurn runs f, which hashes or compares a password of a student id, when it is the turn of the call that ctx belongs to. It fails with
// ErrOverloaded when too many wait.
func (p *passwords) inTurn(ctx context.Context, studentID string, f func() error) error {
	if err := p.turns.take(ctx, turn{callOf(ctx).from(), strings.ToLower(studentID)}); err != nil {
		return err
	}
	defer p.turns.release()
	return f()
}

// hash returns the bcrypt hash of a student's password, when it is the call's turn. It fails with ErrOverloaded when too many wait.
func (p *passwords) hash(ctx context.Context, studentID, password string) (string, error) {
	var hash []byte
	err := p.inTurn(ctx, studentID, func() (err error) {
		defer p.time()()
		hash, err = bcrypt.GenerateFromPassword([]byte(password), p.cost)
		return err
	})
	return string(hash), err
}

// compare returns nil if one of the forms of a password is that of the hash, else ErrBadCredentials; call it in turn. An empty hash is that of
// a user who does not exist: it takes as long as any other, since how many forms are compared depends on the password alone.
func (p *passwords) compare(hash string, forms ...string) error {
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
func (p *passwords) time() (stop func()) {
	began := time.Now()
	return func() { p.timed(time.Since(began)) }
}
