package presence

import (
	"time"

	"github.com/dlsms/dlsms/library"
)

// Scan is a scan of the code of a screen.
type Scan struct {
	Code string
	// Until is the time until which Code is valid.
	Until time.Time
}

// ScannedScreen returns the id of the screen whose code was scanned. It does not judge the time of
// the code. It fails with ErrPresenceOff without a secret, and with ErrPresenceInvalid if no key has
// made the code, or if it is not the code of a screen.
func (c *Codes) ScannedScreen(code string) (screen int64, err error) {
	p, err := c.scanned(code)
	return p.screen(), err
}

// Scan judges the code of a screen, as Judge does, and returns the code of the scan at that time.
// It fails with the errors of ScannedScreen, with ErrPresenceInvalid if the screen is switched off,
// and with ErrPresenceExpired if the code is too old.
func (c *Codes) Scan(now library.ScreenNow, code string) (Scan, error) {
	p, err := c.scanned(code)
	if err != nil {
		return Scan{}, err
	}
	facts := library.CheckInFacts{Now: now.Now, Screens: []library.Screen{now.Screen}}
	if err := judgeScreen(facts, p.screen(), begins(p.time()), Validity); err != nil {
		return Scan{}, err
	}
	at := now.Now.Truncate(time.Second).UTC()
	return Scan{
		Code:  c.encode(c.keys[0], formScan, atScreen(p.screen(), at.Unix())),
		Until: at.Add(ScanValidity),
	}, nil
}

// scanned returns the payload of the code of a screen. It refuses every other code. Clients without
// a token could guess digits, a label does not expire, and a scan must not move to a later time.
func (c *Codes) scanned(code string) (p payload, err error) {
	if !c.Enabled() {
		return p, library.ErrPresenceOff
	}
	code = normal(code)
	if isDigits(code) {
		return p, library.ErrPresenceInvalid.WithMessage(
			"digits need a login: log in, then type the digits that the screen shows")
	}
	p, ok := c.decode(code)
	switch {
	case !ok:
		return p, library.ErrPresenceInvalid
	case p.form() == formLabel:
		return p, library.ErrPresenceInvalid.WithMessage(
			"this is the label of a seat, which does not expire: log in, then check in with it")
	case p.form() == formScan:
		return p, library.ErrPresenceInvalid.WithMessage("this is a scan already: log in, then check in with it")
	}
	return p, nil
}
