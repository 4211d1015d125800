package presence

import (
	"slices"
	"strings"
	"time"

	"github.com/dlsms/dlsms/library"
)

// recently is how long ago digits must have expired to be reported as expired. Earlier digits look
// like any other wrong number.
const recently = 2 * time.Minute

// Judge decides whether codes prove what the library requires at a check-in, and returns what they
// prove. An empty code is none. Every other code is checked, also if the library requires none. It
// fails with one of these errors:
//   - ErrPresenceRequired: a code is missing, or only the desk may check in
//   - ErrPresenceInvalid: a code is wrong, or that of a screen that is switched off
//   - ErrPresenceExpired: a code of a screen or of a scan is too old
//   - ErrPresenceElsewhere: a code belongs to another branch or seat
func (c *Codes) Judge(f library.CheckInFacts, codes ...string) (library.Presence, error) {
	if f.Rule == library.CheckInDesk {
		return library.Presence{}, library.PresenceRequired(f.Rule, f.Rule)
	}
	var seat bool
	var screen int64
	for _, code := range codes {
		if code = normal(code); code == "" {
			continue
		}
		s, err := c.judge(f, code)
		if err != nil {
			return library.Presence{}, err
		}
		if s == 0 {
			seat = true
		} else {
			screen = s
		}
	}
	p := library.Presence{Proof: library.ProofNone, ScreenID: screen}
	switch {
	case seat && screen != 0:
		p.Proof = library.ProofSeatAndScreen
	case seat:
		p.Proof = library.ProofSeat
	case screen != 0:
		p.Proof = library.ProofScreen
	}
	switch noSeat, noScreen := f.Rule.NeedsSeat() && !seat, f.Rule.NeedsScreen() && screen == 0; {
	case noSeat && noScreen:
		return library.Presence{}, library.PresenceRequired(f.Rule, library.CheckInSeatAndScreen)
	case noSeat:
		return library.Presence{}, library.PresenceRequired(f.Rule, library.CheckInSeat)
	case noScreen:
		return library.Presence{}, library.PresenceRequired(f.Rule, library.CheckInScreen)
	}
	return p, nil
}

// judge checks one code. It returns the id of its screen, or 0 if it is the code of the seat's
// label.
func (c *Codes) judge(f library.CheckInFacts, code string) (screen int64, err error) {
	if isDigits(code) {
		return c.judgeDigits(f, code)
	}
	p, ok := c.decode(code)
	switch {
	case !ok:
		return 0, library.ErrPresenceInvalid
	case p.form() == formScreen:
		return p.screen(), judgeScreen(f, p.screen(), begins(p.time()), Validity)
	case p.form() == formScan:
		return p.screen(), judgeScreen(f, p.screen(), time.Unix(p.time(), 0), ScanValidity)
	case p.seat() != f.SeatID:
		return 0, library.ErrPresenceElsewhere.WithMessage(
			"this is the label of another seat: go to your seat and scan its label")
	}
	return 0, nil
}

// judgeScreen checks the screen and the time of a code that a key has made. from and validity are
// when it is valid.
func judgeScreen(f library.CheckInFacts, screen int64, from time.Time, validity time.Duration) error {
	i := slices.IndexFunc(f.Screens, func(s library.Screen) bool { return s.ID == screen })
	early, late := from.Add(-ClockTolerance), from.Add(validity+ClockTolerance)
	switch {
	case i < 0:
		return library.ErrPresenceElsewhere
	case f.Screens[i].Off:
		return library.ErrPresenceInvalid.WithMessage("this screen is switched off: use another one, or ask at the desk")
	case f.Now.Before(early): // the screen has the code, and does not show it yet
		return library.ErrPresenceInvalid
	case !f.Now.Before(late):
		return library.ErrPresenceExpired
	}
	return nil
}

// isDigits reports whether a code has the form of the digits of a screen.
func isDigits(code string) bool {
	return len(code) == digitsLen && strings.Trim(code, "0123456789") == ""
}

// judgeDigits returns the screen of the branch that shows the digits.
func (c *Codes) judgeDigits(f library.CheckInFacts, digits string) (screen int64, err error) {
	newest := stepAt(f.Now.Add(ClockTolerance))
	oldest := stepAt(f.Now.Add(-recently))
	err = library.ErrPresenceInvalid
	for step := newest; step >= oldest; step-- {
		for _, s := range f.Screens {
			for _, k := range c.keys {
				if s.Off || c.digits(k, s.ID, step) != digits {
					continue
				}
				if err = judgeScreen(f, s.ID, begins(step), Validity); err == nil {
					return s.ID, nil
				}
			}
		}
	}
	return 0, err
}

// normal returns a code without what a user or a scanner may add: the address of a page before it,
// lower case, and blanks or hyphens between groups.
func normal(code string) string {
	code = code[strings.LastIndexByte(code, '/')+1:]
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(code))
}
