package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/dlsms/dlsms/e2e"
)

// halfRequest is the part of a request over HTTP that a client sends. The rest never follows.
type halfRequest struct {
	name, text string
	// answers are the statuses that the replica may answer. If there are none, it closes the
	// connection without an answer.
	answers []int
}

// The request needs no token, so that the replica does not answer 401.
const (
	halfHeaders  = "POST /v1/auth/verify HTTP/1.1\r\nHost: chaos\r\nContent-Type: application/json\r\n"
	wholeHeaders = halfHeaders + "Content-Length: 64\r\n\r\n"
)

// halfRequests are the parts that each replica always waits for.
var halfRequests = []halfRequest{
	{"a part of its headers", halfHeaders, nil},
	{"its headers", wholeHeaders, timedOut},
	{"a part of its body", wholeHeaders + `{"accessToken": `, timedOut},
}

// timedOut are the answers to a body that does not arrive: that it did not arrive in time, or that
// the replica stops or is overloaded.
var timedOut = []int{http.StatusRequestTimeout, http.StatusServiceUnavailable}

// sendHalfHTTP sends the part to a replica again and again until ctx ends, each time on a new
// connection. It is a violation if the replica does not end the request in time, or gives an answer
// that is not one of part.answers.
func (s *system) sendHalfHTTP(ctx context.Context, replica int, part halfRequest, found *violations) {
	for ctx.Err() == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.ReplicaHTTPAddr(replica))
		if err == nil {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			if err := s.awaitEnd(ctx, conn, replica, part); err != nil {
				found.add(checkLiveness, "a request over HTTP with only %s: %v", part.name, err)
			}
			stop()
			_ = conn.Close()
		}
		sleep(ctx, retryAfter) // the replica may be down
	}
}

// awaitEnd sends the part and waits until the replica ends the request. As in halfSender, the time in
// which a fault stops the replica must not be included. So awaitEnd asks the admin port of the
// replica each pollInterval, and counts the answers. The request must end within maxAcks answers.
func (s *system) awaitEnd(ctx context.Context, conn net.Conn, replica int, part halfRequest) error {
	if _, err := io.WriteString(conn, part.text); err != nil {
		return nil // the replica ended
	}
	ended := make(chan error, 1)
	go func() { ended <- checkTimeout(conn, part) }()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for acks := 0; acks <= maxAcks; {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.runs(ctx, replica) {
			acks++
		}
	}
	return fmt.Errorf("it is still open after %s in which the replica ran", time.Duration(maxAcks)*pollInterval)
}

// checkTimeout reads the answer to an incomplete request until the connection ends. It returns nil
// if the connection ends without an answer, because the replica may have been killed.
func checkTimeout(conn net.Conn, part halfRequest) error {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil
	}
	if !slices.Contains(part.answers, resp.StatusCode) {
		return fmt.Errorf("the answer is %s, want one of %v: %s", resp.Status, part.answers, body)
	}
	_, err = e2e.CheckProblem(&http.Request{}, resp, body)
	return err
}

// runs waits until the process of a replica answers on its admin port, and reports whether it did.
func (s *system) runs(ctx context.Context, replica int) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.AdminAddr(replica)+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	return err == nil
}
