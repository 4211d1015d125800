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

// CutOff returns the URL of a proxy in front of the database. When a client sends one of words, the
// proxy breaks the connection of this client and removes the word from the list. So it breaks one
// connection for each element of words. left returns how many words remain.
func CutOff(t testing.TB, databaseURL string, words ...string) (through string, left func() int) {
	t.Helper()
	c := &cutter{ctx: t.Context(), words: words}
	return inFront(t, databaseURL, c.pass), c.left
}

// inFront listens in front of a database. It calls serve for each client on a goroutine of its own,
// with the address of the database. It returns the URL of the listener.
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
	ctx context.Context // the test's

	mu    sync.Mutex
	words []string
}

func (c *cutter) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.words)
}

// pass forwards data in both directions until the client sends one of the words.
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

// says reports whether piece contains one of the words, and removes this word from the list.
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
