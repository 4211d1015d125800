package library

import "time"

// CheckInRule is what a user needs to check in.
type CheckInRule string

// The rules for check-in. Staff and turnstiles may check in a user with every rule.
const (
	CheckInNone          CheckInRule = "NONE"
	CheckInSeat          CheckInRule = "SEAT"            // the code of the label of the seat
	CheckInScreen        CheckInRule = "SCREEN"          // the code or the digits of a screen of the branch
	CheckInSeatAndScreen CheckInRule = "SEAT_AND_SCREEN" // both
	CheckInDesk          CheckInRule = "DESK"            // only staff or a turnstile may check in the user
)

// NeedsSeat reports whether the rule needs the code of a seat label.
func (r CheckInRule) NeedsSeat() bool { return r == CheckInSeat || r == CheckInSeatAndScreen }

// NeedsScreen reports whether the rule needs the code of a screen.
func (r CheckInRule) NeedsScreen() bool { return r == CheckInScreen || r == CheckInSeatAndScreen }

// Proof is what has proved at check-in that a user was in the library.
type Proof string

// The proofs.
const (
	ProofNone          Proof = "NONE"
	ProofSeat          Proof = "SEAT"
	ProofScreen        Proof = "SCREEN"
	ProofSeatAndScreen Proof = "SEAT_AND_SCREEN"
	ProofDesk          Proof = "DESK"    // staff checked in the user
	ProofArrival       Proof = "ARRIVAL" // a turnstile or card reader did
)

// Presence is the proof of a check-in. ScreenID is the screen whose code was used, or 0.
type Presence struct {
	Proof    Proof
	ScreenID int64
}

// CheckInFacts are the facts by which the codes of a check-in are judged.
type CheckInFacts struct {
	// Now is the time at which the call reached the database, by its clock. A later time would refuse
	// valid codes when the call waits for a lock.
	Now     time.Time
	Rule    CheckInRule
	SeatID  int64
	Screens []Screen // all screens of the branch of the seat
}

// Prove judges the codes of a check-in by the facts that the store has read. It returns the proof of
// the check-in, or an error that refuses it.
type Prove func(CheckInFacts) (Presence, error)

// Screen is a screen that shows the codes of a branch.
type Screen struct {
	ID     int64
	Branch string // code
	Name   string
	Off    bool // its codes are refused
}

// ScreenChange adds the screen with a name to a branch, or changes it.
type ScreenChange struct {
	Branch  string // code
	Name    string
	NewName string // empty: the name stays
	Off     *bool  // nil: as before; a new screen is on
}

// ScreenNow is a screen at a time of the database's clock.
type ScreenNow struct {
	Screen

	Now time.Time
}
