package server

import (
	"strings"
	"testing"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/library"
)

// TestNotificationsOfTheLibrary checks the kind and the text of notifications about what staff and
// sweeps do, and those of the same events when the user made them.
func TestNotificationsOfTheLibrary(t *testing.T) {
	t.Parallel()
	const (
		none      = dlsmsv1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED
		cancelled = dlsmsv1.NotificationKind_NOTIFICATION_KIND_CANCELLED_BY_LIBRARY
		completed = dlsmsv1.NotificationKind_NOTIFICATION_KIND_COMPLETED
		moved     = dlsmsv1.NotificationKind_NOTIFICATION_KIND_DEADLINE_MOVED
	)
	deadline := tuesday.Add(20 * time.Minute)
	for _, c := range []struct {
		kind           library.EventKind
		by, byLibrary  dlsmsv1.NotificationKind
		message        string // about the library's event, after the name of the seat
		notifiesAlways bool
	}{
		{library.EventCancelled, none, cancelled, " was yours from X. The library has cancelled the reservation.", false},
		{library.EventDeclined, none, cancelled, " was held for you from X. The library has withdrawn the offer.", false},
		{library.EventShortened, cancelled, cancelled, " is yours from X. The library ends the reservation then.", true},
		{library.EventCompleted, completed, cancelled, " was yours from X. The library has ended the reservation.", true},
		{library.EventCheckedOut, completed, cancelled, " was yours from X. The library has ended the reservation.", true},
		{library.EventReserved, none, dlsmsv1.NotificationKind_NOTIFICATION_KIND_RESERVED_BY_LIBRARY,
			" is yours from X. Staff have reserved it for you.", false},
		{library.EventCheckedIn, none, dlsmsv1.NotificationKind_NOTIFICATION_KIND_CHECKED_IN_BY_LIBRARY,
			" is yours from X. You were checked in by the library.", false},
		{library.EventRescheduled, moved, moved, " is yours from X. You can now check in until 12:20, because the system " +
			"was out of order.", true},
	} {
		n := library.Notification{
			Kind: c.kind, SeatRef: library.SeatRef{SeatID: 1, Branch: "main", Area: "Hall", Label: "H-1"}, Timezone: "UTC",
			StartTime: tuesday, EndTime: tuesday.Add(time.Hour), CheckInDeadline: &deadline,
			Reason: "The lift is broken.", Note: library.Texts{"en": "Use the stairs."},
			Suggested: &library.SeatRef{SeatID: 2, Branch: "main", Area: "Attic", Label: "A-2"},
		}
		if err := n.Validate(); (err == nil) != c.notifiesAlways {
			t.Errorf("%s of a user: %v", c.kind, err)
		}
		if got := notificationProto(n).GetKind(); got != c.by {
			t.Errorf("%s of a user: %v", c.kind, got)
		}
		n.ByLibrary = true
		if err := n.Validate(); err != nil {
			t.Errorf("%s: %v", c.kind, err)
		}
		got := notificationProto(n)
		if got.GetKind() != c.byLibrary || got.GetSuggestedSeat().GetId() != 2 || got.GetReason() != n.Reason {
			t.Errorf("%s: %v", c.kind, got)
		}
		text := "Seat H-1 in Hall (main)" + strings.Replace(c.message, "X", "Tue 2 Mar 12:00 to 13:00", 1) +
			" Use the stairs. Reason: The lift is broken. Seat A-2 in Attic (main) was free at that time."
		if got.GetMessage() != text {
			t.Errorf("%s: the message is %q, want %q", c.kind, got.GetMessage(), text)
		}
	}
	broken := library.Notification{Kind: library.EventCancelled, ByLibrary: true, Reason: "\xff"}
	if broken.Validate() == nil {
		t.Error("a reason that is not UTF-8 is valid")
	}
}
