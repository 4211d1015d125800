package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// Pooler acts like PgBouncer in session mode when PgBouncer is set to ignore unknown start-up
// parameters.
type Pooler struct {
	// URL is the connection string of the database through the pooler.
	URL string

	ctx context.Context // the test's

	mu      sync.Mutex
	dropped map[string]bool
}

// NewPooler puts a pooler in front of a database.
func NewPooler(t testing.TB, databaseURL string) *Pooler {
	t.Helper()
	p := &Pooler{ctx: t.Context(), dropped: map[string]bool{}}
	p.URL = inFront(t, databaseURL, p.serve)
	return p
}

// Dropped returns the names of the start-up parameters that the pooler has dropped.
func (p *Pooler) Dropped() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name := range p.dropped {
		names = append(names, name)
	}
	return names
}

// passed lists the start-up parameters that the pooler passes on to Postgres, which needs them to
// choose the database.
var passed = map[string]bool{"user": true, "database": true}

func (p *Pooler) serve(client net.Conn, postgres string) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(p.ctx, "tcp", postgres)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	startup, err := p.startup(client)
	if err != nil {
		return
	}
	if _, err := server.Write(startup); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	_, _ = io.Copy(server, client)
}

// startup reads a StartupMessage and returns it without the dropped parameters. The message has its
// length, the version, and the parameters. Each name and each value ends in a zero byte.
func (p *Pooler) startup(client io.Reader) ([]byte, error) {
	head := make([]byte, 8)
	if _, err := io.ReadFull(client, head); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head)-8)
	if _, err := io.ReadFull(client, body); err != nil {
		return nil, err
	}
	words := bytes.Split(bytes.TrimRight(body, "\x00"), []byte{0})
	kept := head
	for i := 0; i+1 < len(words); i += 2 {
		name := string(words[i])
		if !passed[name] {
			p.mu.Lock()
			p.dropped[name] = true
			p.mu.Unlock()
			continue
		}
		kept = append(append(append(append(kept, words[i]...), 0), words[i+1]...), 0)
	}
	kept = append(kept, 0)
	binary.BigEndian.PutUint32(kept, uint32(len(kept))) //nolint:gosec // it is shorter than before
	return kept, nil
}
