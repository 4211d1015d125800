package storetest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
)

// CutOff returns the URL of a way to the database on which the connection breaks once for each of words, when a client says it, and how many
// of them are still to come.
func CutOff(t testing.TB, databaseURL string, words ...string) (through string, left func() int) {
	t.Helper()
	c := &cutter{ctx: t.Context(), words: words}
	return inFront(t, databaseURL, c.pass), c.left
}

// inFront listens in front of a database and hands each client to serve, with the database's address, on a goroutine of its own. It returns the
// URL of this way to the database.
func inFront(t testing.TB, databaseURL string, serve func(client net.Conn, postgres string)) (through string) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	postgres := u.Host
	u.Host = l.Addr().String()
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go serve(client, postgres)
		}
	}()
	return u.String()
}

type cutter struct {
	ctx context.Context //nolint:containedctx // the test's

	mu    sync.Mutex
	words []string
}

func (c *cutter) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.words)
}

// pass passes on what a client says, and the answers, until it says one of the words.
func (c *cutter) pass(client net.Conn, postgres string) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(c.ctx, "tcp", postgres)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	piece := make([]byte, 64<<10)
	for {
		n, err := client.Read(piece)
		if err != nil || c.says(piece[:n]) {
			return
		}
		if _, err := server.Write(piece[:n]); err != nil {
			return
		}
	}
}

// says reports whether one of the words is in it, which is crossed out.
func (c *cutter) says(piece []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.words, func(word string) bool { return bytes.Contains(piece, []byte(word)) })
	if i < 0 {
		return false
	}
	c.words = slices.Delete(c.words, i, i+1)
	return true
}
