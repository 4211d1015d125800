package presence

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	// Step is how long a screen shows a code.
	Step = 15 * time.Second
	// Validity is how long a code of a screen is valid, from the time at which the screen first shows
	// it. A user who scans the code at the last moment then has another step to check in.
	Validity = 30 * time.Second
	// ClockTolerance is how much earlier and later than that a code is accepted. The clock of a
	// screen may be wrong by this time, and a call takes some time to arrive.
	ClockTolerance = 2 * time.Second
	// ScanValidity is how long the code of a scan is valid, from the second of the scan. A user who has
	// scanned a screen logs in within this time.
	ScanValidity = 3 * time.Minute
)

// form is what a code is the code of.
type form byte

const (
	formScreen form = 1
	formLabel  form = 2
	formScan   form = 3
)

const (
	payloadLen = 9 // bytes that the HMAC covers
	macLen     = 10
	rawLen     = payloadLen + macLen
	codeLen    = 31 // characters of base32 for rawLen bytes
	digitsLen  = 8
	tenToThe8  = 100_000_000
)

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Codes makes and checks codes of one library. The first secret makes codes, and every secret checks
// them. So a rotation of the secret in the three steps of identity.KeyRing makes no check-in fail.
type Codes struct {
	keys    []key
	library int64
}

// key has the keys that were derived from one secret.
type key struct {
	hint   byte // lower half of byte 0 of its codes
	digits []byte
	macs   map[form][]byte
}

// New returns the codes of a library. Without a secret, no code is valid.
func New(secrets []string, library int64) (*Codes, error) {
	c := &Codes{library: library}
	for _, secret := range secrets {
		k, err := newKey([]byte(secret))
		if err != nil {
			return nil, err
		}
		c.keys = append(c.keys, k)
	}
	return c, nil
}

func newKey(secret []byte) (k key, err error) {
	derive := func(purpose string) []byte {
		derived, failed := hkdf.Key(sha256.New, secret, nil, "dlsms presence "+purpose, sha256.Size)
		if failed != nil {
			err = fmt.Errorf("derive the key for the %s: %w", purpose, failed)
		}
		return derived
	}
	k = key{digits: derive("digits"), macs: map[form][]byte{
		formScreen: derive("screen"), formLabel: derive("label"), formScan: derive("scan"),
	}}
	if hint := derive("hint"); err == nil {
		k.hint = hint[0] & 0x0f
	}
	return k, err
}

// Enabled reports whether there is a secret. Without one, no code can be made.
func (c *Codes) Enabled() bool { return len(c.keys) > 0 }

// Shown is what a screen shows in one step.
type Shown struct {
	Code   string
	Digits string
	// From and Until are the times between which the code is valid. The screen shows it for Step from
	// From on.
	From  time.Time
	Until time.Time
}

// Show returns what a screen shows at the time from, and in all steps that begin in the span after
// it. It returns nil without a secret.
func (c *Codes) Show(screen int64, from time.Time, span time.Duration) []Shown {
	if !c.Enabled() {
		return nil
	}
	var out []Shown
	for step := stepAt(from); !begins(step).After(from.Add(span)); step++ {
		out = append(out, Shown{
			Code: c.encode(c.keys[0], formScreen, atScreen(screen, step)), Digits: c.digits(c.keys[0], screen, step),
			From: begins(step), Until: begins(step).Add(Validity),
		})
	}
	return out
}

// Label returns the code of the label of a seat. It returns "" without a secret.
func (c *Codes) Label(seatID int64) string {
	if !c.Enabled() {
		return ""
	}
	var p payload
	binary.BigEndian.PutUint64(p[1:], uint64(seatID)) //nolint:gosec // ids are above 0
	return c.encode(c.keys[0], formLabel, p)
}

// stepAt returns the number of the step at a time: whole steps since 1970.
func stepAt(t time.Time) int64 {
	seconds, length := t.Unix(), int64(Step/time.Second)
	if seconds < 0 {
		return (seconds - length + 1) / length // round down, not toward 0
	}
	return seconds / length
}

// begins returns the time at which a step begins.
func begins(step int64) time.Time { return time.Unix(step*int64(Step/time.Second), 0).UTC() }

// payload is what the HMAC of a code covers: see doc.go.
type payload [payloadLen]byte

// atScreen returns the payload of a screen at a time, in steps or seconds since 1970. Byte 0 is 0.
func atScreen(screen, time int64) (p payload) {
	binary.BigEndian.PutUint32(p[1:], uint32(screen)) //nolint:gosec // the database allows ids of 32 bits
	binary.BigEndian.PutUint32(p[5:], uint32(time))   //nolint:gosec // seconds pass 32 bits in the year 2106
	return p
}

func (p payload) form() form    { return form(p[0] >> 4) }
func (p payload) hint() byte    { return p[0] & 0x0f }
func (p payload) screen() int64 { return int64(binary.BigEndian.Uint32(p[1:])) }
func (p payload) time() int64   { return int64(binary.BigEndian.Uint32(p[5:])) }
func (p payload) seat() int64   { return int64(binary.BigEndian.Uint64(p[1:])) } //nolint:gosec // see Label

func (c *Codes) encode(k key, f form, p payload) string {
	p[0] = byte(f)<<4 | k.hint
	return encoding.EncodeToString(append(p[:], c.mac(k.macs[f], p)...))
}

// mac returns the truncated HMAC of a payload and the library.
func (c *Codes) mac(key []byte, p payload) []byte { return c.hmac(key, p[:])[:macLen] }

func (c *Codes) hmac(key, message []byte) []byte {
	var library [8]byte
	binary.BigEndian.PutUint64(library[:], uint64(c.library)) //nolint:gosec // ids are above 0
	h := hmac.New(sha256.New, key)
	h.Write(message)
	h.Write(library[:])
	return h.Sum(nil)
}

// digits returns the digits of a screen in a step, with the truncation of RFC 4226, section 5.3.
func (c *Codes) digits(k key, screen, step int64) string {
	message := atScreen(screen, step)
	sum := c.hmac(k.digits, message[:])
	offset := sum[len(sum)-1] & 0x0f
	number := binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", digitsLen, number%tenToThe8)
}

// decode returns the payload of a code. ok is false if no key has made the code.
func (c *Codes) decode(code string) (p payload, ok bool) {
	raw, err := encoding.DecodeString(code)
	// The decoder ignores the last 3 bits of the text. Without the comparison, eight texts would stand
	// for one code.
	if err != nil || len(raw) != rawLen || encoding.EncodeToString(raw) != code {
		return p, false
	}
	copy(p[:], raw)
	for _, k := range c.keys {
		secret, known := k.macs[p.form()]
		if known && p.hint() == k.hint && hmac.Equal(raw[payloadLen:], c.mac(secret, p)) {
			return p, true
		}
	}
	return p, false
}

// Seat returns the seat that the code of a label names. ok is false if the code is not valid.
func (c *Codes) Seat(code string) (seatID int64, ok bool) {
	p, ok := c.decode(normal(code))
	return p.seat(), ok && p.form() == formLabel
}
