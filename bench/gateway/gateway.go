package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// services are the URLs of the services.
type services struct{ auth, seat, reservation, notify *url.URL }

// gateway passes requests to the services, and caches lists of available seats.
type gateway struct {
	cache                           *redis.Client
	auth, seat, reservation, notify http.Handler
}

const (
	keyPrefix = "seats:available:"
	// cacheTime is the age after which Redis drops a list.
	cacheTime = 60 * time.Second
)

// key returns the key of the list of a branch. The list of all branches has an empty branch.
func key(branch string) string { return keyPrefix + branch }

func newGateway(cache *redis.Client, s services) *gateway {
	g := &gateway{cache: cache}
	// The default keeps two connections to a host. The other ones would be opened for each request.
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, IdleConnTimeout: time.Minute}
	proxy := func(to *url.URL, modify func(*http.Response) error) http.Handler {
		return &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(to)
				r.SetXForwarded()
				r.Out.Header.Del("Accept-Encoding") // the cache has lists without compression
			},
			Transport:      transport,
			BufferPool:     &buffers{},
			ModifyResponse: modify,
		}
	}
	g.auth, g.notify = proxy(s.auth, nil), proxy(s.notify, nil)
	g.seat, g.reservation = proxy(s.seat, g.store), proxy(s.reservation, g.forget)
	return g
}

// ServeHTTP passes the request to the service of its path.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/v1/auth/"):
		g.auth.ServeHTTP(w, r)
	case path == "/v1/branches" || strings.HasPrefix(path, "/v1/seats"):
		g.serveSeats(w, r)
	case strings.HasPrefix(path, "/v1/reservations"):
		g.reservation.ServeHTTP(w, r)
	case strings.HasPrefix(path, "/v1/waitlist") || strings.HasPrefix(path, "/v1/notifications"):
		g.notify.ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

// branchKey is the key of a request's context for the branch whose list it asks for.
type branchKey struct{}

// serveSeats answers from the cache, or passes the request to the seat service.
func (g *gateway) serveSeats(w http.ResponseWriter, r *http.Request) {
	branch, ok := listOf(r)
	if !ok {
		g.seat.ServeHTTP(w, r)
		return
	}
	list, err := g.cache.Get(r.Context(), key(branch)).Bytes()
	if err != nil { // it has no list, or Redis does not answer
		g.seat.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), branchKey{}, branch)))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(list) // a client that disconnected needs no answer
}

// listOf returns the branch that a request names, if it asks for the list of the seats that are
// available now. For all other requests, ok is false.
func listOf(r *http.Request) (branch string, ok bool) {
	if r.Method != http.MethodGet || r.URL.Path != "/v1/seats" {
		return "", false
	}
	query := r.URL.Query()
	for name := range query {
		if name != "branch" && name != "availableOnly" {
			return "", false
		}
	}
	return query.Get("branch"), query.Get("availableOnly") == "true"
}

// store puts the list that the seat service has returned into the cache.
func (g *gateway) store(resp *http.Response) error {
	branch, ok := resp.Request.Context().Value(branchKey{}).(string)
	if !ok || resp.StatusCode != http.StatusOK {
		return nil
	}
	list, err := body(resp)
	if err != nil {
		return err
	}
	_ = g.cache.Set(resp.Request.Context(), key(branch), list, cacheTime).Err() // without Redis, nothing is cached
	return nil
}

// forget deletes the lists of the branch of a reservation that was made or cancelled, before the
// client gets the answer.
func (g *gateway) forget(resp *http.Response) error {
	path := resp.Request.URL.Path
	changes := resp.Request.Method == http.MethodPost && (path == "/v1/reservations" || strings.HasSuffix(path, ":cancel"))
	if !changes || resp.StatusCode/100 != 2 {
		return nil
	}
	answer, err := body(resp)
	if err != nil {
		return err
	}
	var made struct {
		Reservation struct {
			Seat struct {
				Branch string `json:"branch"`
			} `json:"seat"`
		} `json:"reservation"`
	}
	if err := json.Unmarshal(answer, &made); err != nil {
		return err
	}
	// The reservation is made: a client that disconnects must not keep its list, and the client must
	// get the answer even if Redis does not answer.
	ctx := context.WithoutCancel(resp.Request.Context())
	_ = g.cache.Del(ctx, key(made.Reservation.Seat.Branch), key("")).Err()
	return nil
}

// body returns the body of a response, which stays readable.
func body(resp *http.Response) ([]byte, error) {
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return b, err
}

// buffers are buffers that requests use in turn.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get returns a buffer.
func (b *buffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return *buffer
	}
	return make([]byte, bufferSize)
}

// Put takes a buffer back.
func (b *buffers) Put(buffer []byte) { b.pool.Put(&buffer) }
