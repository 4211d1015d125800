package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/presence"
	"github.com/dlsms/dlsms/server/edge"
	"github.com/dlsms/dlsms/store"
)

// adminService changes the library. Its methods are in the files admin_*.go, one for each noun.
type adminService struct {
	dlsmsv1.UnsafeAdminServiceServer

	store *store.Store
	hints *Hints
	codes *presence.Codes
}

// change is a request of staff that changes something.
type change interface {
	GetValidateOnly() bool
	GetReason() string
}

// order returns the order of a staff call. action is the name of the RPC.
func (c *check) order(ctx context.Context, action string, req change) library.Order {
	return library.Order{
		Actor:        edge.Caller(ctx).Actor(),
		Action:       action,
		Reason:       c.text("reason", req.GetReason(), 0, store.MaxReason),
		RequestID:    edge.CallID(ctx),
		ValidateOnly: req.GetValidateOnly(),
	}
}

// count checks a number that is not negative.
func (c *check) count(field string, v int32) int {
	if v < 0 {
		c.fault(field, "must be 0 or above")
	}
	return int(v)
}

// disruptive is a request that may make reservations impossible.
type disruptive interface {
	GetOnBookings() dlsmsv1.BookingAction
	GetExpectedReservations() int32
	GetNote() map[string]string
}

func (c *check) disruption(req disruptive) library.Disruption {
	return library.Disruption{
		OnBookings: c.bookingAction(req.GetOnBookings()),
		Expected:   c.count("expected_reservations", req.GetExpectedReservations()),
		Note:       c.languages("note", req.GetNote()),
	}
}

func (c *check) bookingAction(v dlsmsv1.BookingAction) library.BookingAction {
	if enum(c, "on_bookings", v) == dlsmsv1.BookingAction_BOOKING_ACTION_CANCEL {
		return library.CancelBookings
	}
	return library.KeepBookings
}

// Limits of texts for students.
const (
	maxLanguages = 10
	maxText      = 500 // characters
)

var languageTag = regexp.MustCompile(`^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$`)

// languages checks a text by language.
func (c *check) languages(field string, texts map[string]string) library.Texts {
	if len(texts) > maxLanguages {
		c.fault(field, fmt.Sprintf("must have at most %d languages", maxLanguages))
		return nil
	}
	for _, language := range slices.Sorted(maps.Keys(texts)) {
		at := field + "[" + language + "]"
		if !languageTag.MatchString(language) {
			c.fault(field, fmt.Sprintf("%.20q is not a language such as en or pt-BR", language))
			continue
		}
		before := len(c.faults)
		c.text(at, texts[language], 1, maxText)
		if len(c.faults) == before && strings.TrimSpace(texts[language]) == "" {
			c.fault(at, "must not be blank")
		}
	}
	return texts
}

// maxFaultsOverGRPC is the number of violations in a gRPC status. nginx refuses trailers of more than
// 4 KiB.
const maxFaultsOverGRPC = 10

// reportable is err for requests with many values. Over gRPC, it reports the first violations and the
// number of the others.
func (c *check) reportable(ctx context.Context) error { return reportable(ctx, c.err()) }

func reportable(ctx context.Context, err error) error {
	e, ok := errors.AsType[*library.Error](err)
	if !ok || len(e.Fields) <= maxFaultsOverGRPC || edge.IsHTTP(ctx) {
		return err
	}
	return e.WithFields(append(e.Fields[:maxFaultsOverGRPC:maxFaultsOverGRPC], library.FieldViolation{
		Field: "request", Message: fmt.Sprintf("has %d more faults", len(e.Fields)-maxFaultsOverGRPC),
	})...)
}

// count converts a number of seats, reservations, users or lines, which is far below 2^31.
func count(n int) int32 { return int32(n) } //nolint:gosec // see above

func impactProto(i library.Impact) *dlsmsv1.Impact {
	out := &dlsmsv1.Impact{
		Reservations:    count(i.Reservations),
		CheckedIn:       count(i.CheckedIn),
		WaitlistEntries: count(i.Entries),
	}
	for _, d := range i.Days {
		out.Days = append(out.Days, &dlsmsv1.DayCount{
			Day: d.Day.Format(time.DateOnly), Reservations: count(d.Reservations),
		})
	}
	for _, r := range i.First {
		out.First = append(out.First, affectedProto(r))
	}
	return out
}
