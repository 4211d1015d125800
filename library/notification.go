package library

import (
	"fmt"
	"time"
)

// Notification is an event as its user receives it.
type Notification struct {
	ID            int64
	Kind          EventKind // a kind that notifies, or any kind if ByLibrary is set
	UserID        int64
	ReservationID int64
	EntryID       int64 // 0 if the reservation does not come from the waitlist
	SeatRef
	Timezone  string // of the branch, an IANA name
	StartTime time.Time
	EndTime   time.Time
	Status    ReservationStatus // may be a state that this version does not know
	// CheckInDeadline is nil as long as the reservation is an offer that its user has not claimed.
	// It stays nil if the offer ends without a claim. OfferExpiresAt is nil unless the reservation
	// is HELD.
	CheckInDeadline *time.Time
	OfferExpiresAt  *time.Time
	CreatedAt       time.Time
	// ByLibrary says that staff or a sweep made the transition. Reason is the reason of staff, and
	// Note the text of a sweep; both may be empty.
	ByLibrary bool
	Reason    string
	Note      Texts
	// Suggested is a seat like the one that the user has lost, and that was free. It may be nil.
	Suggested *SeatRef
}

// Validate returns an error if the notification lacks a value that its message to the user
// contains.
func (n *Notification) Validate() error {
	switch {
	case !n.Kind.Notifies() && !n.ByLibrary:
		return fmt.Errorf("unknown kind %q", n.Kind)
	case n.Kind == EventOffered && n.OfferExpiresAt == nil:
		return fmt.Errorf("%s without offer_expires_at", n.Kind)
	case n.Kind == EventReminded && n.CheckInDeadline == nil:
		return fmt.Errorf("%s without check_in_deadline", n.Kind)
	}
	texts := []string{n.Branch, n.Area, n.Label, n.Reason}
	for language, text := range n.Note {
		texts = append(texts, language, text)
	}
	if n.Suggested != nil {
		texts = append(texts, n.Suggested.Branch, n.Suggested.Area, n.Suggested.Label)
	}
	return validText(texts...)
}
