package server

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

func seatsRequest() *dlsmsv1.GetSeatsRequest {
	return &dlsmsv1.GetSeatsRequest{
		Branch: "main", Area: "Reading room", Amenities: []dlsmsv1.Amenity{1}, AvailableOnly: true,
		StartTime: timestamppb.New(time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)),
		EndTime:   timestamppb.New(time.Date(2026, 3, 2, 13, 0, 0, 0, time.UTC)),
	}
}

func TestPageTokenRoundTrip(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]cursor{
		"id":          {ID: 49},
		"time and id": {ID: 1 << 62, Time: time.Date(2026, 3, 2, 12, 0, 0, 123456000, time.UTC)},
		"first":       {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := seatsRequest()
			req.PageToken = nextPageToken(req, at)
			req.PageSize = 7 // the page size may differ from page to page
			var c check
			size, got := c.page(req, 100, 1000)
			if err := c.err(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(at, got); diff != "" || size != 7 {
				t.Errorf("size %d, %s", size, diff)
			}
		})
	}
}

func TestPageTokenIsBoundToTheFilters(t *testing.T) {
	t.Parallel()
	token := nextPageToken(seatsRequest(), cursor{ID: 5})
	for name, change := range map[string]func(*dlsmsv1.GetSeatsRequest){
		"branch":         func(r *dlsmsv1.GetSeatsRequest) { r.Branch = "science" },
		"area":           func(r *dlsmsv1.GetSeatsRequest) { r.Area = "" },
		"amenities":      func(r *dlsmsv1.GetSeatsRequest) { r.Amenities = nil },
		"start":          func(r *dlsmsv1.GetSeatsRequest) { r.StartTime.Nanos = 1000 },
		"end":            func(r *dlsmsv1.GetSeatsRequest) { r.EndTime.Seconds++ },
		"available_only": func(r *dlsmsv1.GetSeatsRequest) { r.AvailableOnly = false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := seatsRequest()
			req.PageToken = token
			change(req)
			var c check
			c.page(req, 100, 1000)
			if diff := cmp.Diff([]string{"page_token"}, invalidFields(&c)); diff != "" {
				t.Error(diff)
			}
		})
	}
	other := &dlsmsv1.GetReservationsRequest{PageToken: token}
	var c check
	c.page(other, 100, 1000)
	if diff := cmp.Diff([]string{"page_token"}, invalidFields(&c)); diff != "" {
		t.Error(diff)
	}
}

// FuzzPageToken tests that no token causes a panic, and that an accepted cursor survives a round
// trip.
func FuzzPageToken(f *testing.F) {
	f.Add(nextPageToken(seatsRequest(), cursor{ID: 5}))
	f.Add(nextPageToken(seatsRequest(), cursor{ID: 5, Time: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)}))
	cut := append([]byte{pageTokenVersion}, filterHash(seatsRequest())...)
	f.Add(base64.RawURLEncoding.EncodeToString(append(cut, 0xff, 0xff))) // a varint without its end
	f.Add("")
	f.Add("=====")
	f.Fuzz(func(t *testing.T, token string) {
		req := seatsRequest()
		req.PageToken = token
		var c check
		_, at := c.page(req, 100, 1000)
		if c.err() != nil || token == "" {
			return
		}
		if at.ID < 0 {
			t.Errorf("%q became the cursor %v", token, at)
		}
		if again := nextPageToken(req, at); !at.Time.IsZero() && at.ID >= 0 {
			req2 := proto.CloneOf(req)
			req2.PageToken = again
			var c2 check
			if _, back := c2.page(req2, 100, 1000); back != at {
				t.Errorf("%v becomes %v", at, back)
			}
		}
	})
}
