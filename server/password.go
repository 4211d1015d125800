package server

import (
	"context"
	"fmt"
	"time"

	"github.com/dlsms/dlsms/store"
)

// passwords hashes and compares. At cost 12 either takes about a quarter of a second of a core, so only a few run at once, and the
// others wait, though not for long: a login rush must leave the seats fast.
type passwords struct {
	cost  int
	slots *slots
	dummy string // the hash of no password
}

func newPasswords(cost, atOnce int) (*passwords, error) {
	dummy, err := bcryptHash("a password that nobody has", cost)
	if err != nil {
		return nil, fmt.Errorf("BCRYPT_COST: %w", err)
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
func (p *passwords) hash(ctx context.Context, password string) (hash string, err error) {
	err = p.inTurn(ctx, func() (err error) {
		hash, err = bcryptHash(password, p.cost)
		return err
	})
	return hash, err
}

// compare returns nil if the password is the one of the hash, else ErrBadCredentials; call it in turn. An empty hash is that of a user who
// doesn't exist, and takes as long as any.
func (p *passwords) compare(hash, password string) error {
	exists := hash != ""
	if !exists {
		hash = p.dummy
	}
	matches, err := bcryptMatches(hash, password)
	if err != nil {
		return err
	}
	if !exists || !matches {
		return store.ErrBadCredentials
	}
	return nil
}
