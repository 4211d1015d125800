package e2e_test

import (
	"bufio"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// openStream opens a stream of server-sent events through nginx.
func (s *system) openStream(ctx context.Context, t *testing.T, uri string, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTPAddr()+uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s: %s %v", uri, resp.Status, resp.Header)
	}
	return resp
}

// TestLastEventIDResumes cuts a subscription after every event, while notifications are made. The
// next stream has the same URL and the id of the last event, as a browser sends it: no notification
// is lost or comes twice.
func TestLastEventIDResumes(t *testing.T) {
	t.Parallel()
	s := shared(t)
	u, seat := s.student(t), s.branch(t, 1).seats[0]
	const visits = 10
	var visiting errgroup.Group
	visiting.Go(func() error {
		for range visits {
			if err := visitSeat(t.Context(), u.Client, seat); err != nil {
				return err
			}
		}
		return nil
	})
	var got []int64
	last := ""
	for len(got) < visits {
		ctx, cut := context.WithTimeout(t.Context(), waitTimeout)
		headers := bearer(u)
		if last != "" {
			headers = append(headers, "Last-Event-ID", last)
		}
		events := e2e.NewEventReader(s.openStream(ctx, t, "/v1/notifications:subscribe?afterId=0", headers...).Body)
		event, err := events.Next()
		cut()
		if err != nil {
			t.Fatalf("after %d of %d notifications: %v", len(got), visits, err)
		}
		id, err := strconv.ParseInt(event.ID, 10, 64)
		if err != nil || event.Type != "notification" {
			t.Fatalf("%+v", event)
		}
		got, last = append(got, id), event.ID
	}
	if err := visiting.Wait(); err != nil {
		t.Fatal(err)
	}
	want, err := allNotificationIDs(t.Context(), u.Client)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the streams delivered %v, want %v (%v)", got, want, err)
	}
}

// visitSeat books a seat, checks in and checks out, which makes one notification.
func visitSeat(ctx context.Context, u *e2e.Client, seat int64) error {
	booked, err := u.Reservations.CreateReservation(ctx, fromNow(time.Hour).booking(seat))
	if err != nil {
		return err
	}
	id := booked.GetReservation().GetId()
	if _, err := u.Reservations.CheckIn(ctx, &dlsmsv1.CheckInRequest{ReservationId: id}); err != nil {
		return err
	}
	_, err = u.Reservations.CheckOut(ctx, &dlsmsv1.CheckOutRequest{ReservationId: id})
	return err
}

// TestSilentStreamsSendComments waits for the heartbeats of streams without events.
func TestSilentStreamsSendComments(t *testing.T) {
	t.Parallel()
	s := shared(t)
	u, code := s.student(t), s.branch(t, 1).code
	for _, uri := range []string{"/v1/seats:watch?branch=" + code, "/v1/notifications:subscribe"} {
		t.Run(uri[strings.LastIndex(uri, "/")+1:], func(t *testing.T) {
			t.Parallel()
			lines := bufio.NewScanner(s.openStream(within(t, waitTimeout), t, uri, bearer(u)...).Body)
			first := ""
			for lines.Scan() {
				if first == "" {
					first = lines.Text()
				}
				if strings.HasPrefix(lines.Text(), ":") {
					break
				}
			}
			if err := lines.Err(); err != nil || !strings.HasPrefix(lines.Text(), ":") {
				t.Errorf("no comment: %v", err)
			}
			if first != "retry: 2000" {
				t.Errorf("the stream begins with %q", first)
			}
		})
	}
}
