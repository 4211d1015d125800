package presence_test

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/presence"
)

// on returns screen 3 at a time.
func on(now time.Time) library.ScreenNow {
	return library.ScreenNow{Screen: library.Screen{ID: 3, Branch: "main", Name: "Entrance"}, Now: now}
}

// scanOf returns the scan of the code that a screen shows at a time.
func scanOf(t testing.TB, c *presence.Codes, screen int64, now time.Time) presence.Scan {
	t.Helper()
	state := on(now)
	state.ID = screen
	scan, err := c.Scan(state, c.Show(screen, now, 0)[0].Code)
	if err != nil {
		t.Fatal(err)
	}
	return scan
}

// TestTimeOfAScan checks each limit to the microsecond. The code is scanned in the eleventh second
// after noon.
func TestTimeOfAScan(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	scan := scanOf(t, c, 3, noon.Add(10*time.Second+999*time.Millisecond))
	second := noon.Add(10 * time.Second)
	if !scan.Until.Equal(second.Add(3 * time.Minute)) {
		t.Errorf("the scan is valid until %v", scan.Until)
	}
	for after, want := range map[time.Duration]error{
		-time.Hour:                          library.ErrPresenceInvalid,
		-2*time.Second - time.Microsecond:   library.ErrPresenceInvalid,
		-2 * time.Second:                    nil,
		0:                                   nil,
		time.Minute:                         nil, // the screen's own code has expired
		182*time.Second - time.Microsecond:  nil,
		182 * time.Second:                   library.ErrPresenceExpired,
		time.Hour:                           library.ErrPresenceExpired,
		50 * 365 * 24 * time.Hour:           library.ErrPresenceExpired,
		-50 * 365 * 24 * time.Hour:          library.ErrPresenceInvalid,
		24*time.Hour + 100*time.Millisecond: library.ErrPresenceExpired,
	} {
		p, err := c.Judge(at(second.Add(after), library.CheckInScreen), scan.Code)
		if !errors.Is(err, want) || err == nil && (p.Proof != library.ProofScreen || p.ScreenID != 3) {
			t.Errorf("the scan after %v: %v, %v, want %v", after, p, err, want)
		}
	}
}

// TestScanJudgesTheScreen checks that a scan has the limits of a check-in with the same code. The
// step begins at noon.
func TestScanJudgesTheScreen(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	code := c.Show(3, noon, 0)[0].Code
	for after, want := range map[time.Duration]error{
		-2*time.Second - time.Microsecond: library.ErrPresenceInvalid,
		-2 * time.Second:                  nil,
		32*time.Second - time.Microsecond: nil,
		32 * time.Second:                  library.ErrPresenceExpired,
		time.Minute:                       library.ErrPresenceExpired,
	} {
		if scan, err := c.Scan(on(noon.Add(after)), code); !errors.Is(err, want) || (err == nil) != (scan.Code != "") {
			t.Errorf("the scan after %v: %v, %v, want %v", after, scan, err, want)
		}
		// The id of the screen does not depend on the time.
		if screen, err := c.ScannedScreen(code); err != nil || screen != 3 {
			t.Errorf("the screen is %d, %v", screen, err)
		}
	}
	off := on(noon)
	off.Off = true
	if _, err := c.Scan(off, code); !errors.Is(err, library.ErrPresenceInvalid) {
		t.Errorf("a screen that is off: %v", err)
	}
}

// TestOnlyScreensAreScanned sends every other kind of code, with what the message must tell the user.
func TestOnlyScreensAreScanned(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	shown := c.Show(3, noon, 0)[0]
	for name, tc := range map[string]struct{ code, help string }{
		"digits":                {shown.Digits, "log in, then type the digits"},
		"digits with a blank":   {shown.Digits[:4] + " " + shown.Digits[4:], "log in, then type the digits"},
		"wrong digits":          {"00000000", "log in, then type the digits"},
		"a label":               {c.Label(7), "log in, then check in with it"},
		"a scan":                {scanOf(t, c, 3, noon).Code, "log in, then check in with it"},
		"an expired scan":       {scanOf(t, c, 3, noon.Add(-time.Hour)).Code, "log in, then check in with it"},
		"no code":               {"", "the code is wrong"},
		"a wrong code":          {strings.Repeat("A", 31), "the code is wrong"},
		"another secret":        {codes(t, secretB).Show(3, noon, 0)[0].Code, "the code is wrong"},
		"another library":       {ofLibrary(t, 2).Show(3, noon, 0)[0].Code, "the code is wrong"},
		"a scan of another one": {scanOf(t, ofLibrary(t, 2), 3, noon).Code, "the code is wrong"},
	} {
		_, err := c.Scan(on(noon), tc.code)
		_, early := c.ScannedScreen(tc.code)
		for _, err := range []error{err, early} {
			if !errors.Is(err, library.ErrPresenceInvalid) || !strings.Contains(err.Error(), tc.help) {
				t.Errorf("%s: %v, want %q", name, err, tc.help)
			}
		}
	}
	for _, code := range []string{strings.ToLower(shown.Code), "https://library.example/c/" + shown.Code} {
		if _, err := c.Scan(on(noon), code); err != nil {
			t.Errorf("%q: %v", code, err)
		}
	}
	if seat, ok := c.Seat(scanOf(t, c, 7, noon).Code); ok {
		t.Errorf("a scan names seat %d", seat)
	}
}

func TestScansOfOtherPlaces(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	for name, tc := range map[string]struct {
		code string
		want error
	}{
		"a screen of another branch": {scanOf(t, c, 9, noon).Code, library.ErrPresenceElsewhere},
		"a screen switched off":      {scanOf(t, c, 4, noon).Code, library.ErrPresenceInvalid},
		"another secret":             {scanOf(t, codes(t, secretB), 3, noon).Code, library.ErrPresenceInvalid},
		"another library":            {scanOf(t, ofLibrary(t, 2), 3, noon).Code, library.ErrPresenceInvalid},
	} {
		if _, err := c.Judge(at(noon, library.CheckInNone), tc.code); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// signed makes a code without the package, from its documentation. Without a purpose, the key is empty.
func signed(t *testing.T, purpose string, form byte, screen, time uint32) string {
	t.Helper()
	derive := func(purpose string) []byte {
		key, err := hkdf.Key(sha256.New, []byte(secretA), nil, "dlsms presence "+purpose, sha256.Size)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	code := []byte{form<<4 | derive("hint")[0]&0x0f}
	code = binary.BigEndian.AppendUint32(code, screen)
	code = binary.BigEndian.AppendUint32(code, time)
	var key []byte
	if purpose != "" {
		key = derive(purpose)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(code)
	mac.Write([]byte{0, 0, 0, 0, 0, 0, 0, 1}) // the library
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(append(code, mac.Sum(nil)[:10]...))
}

// TestKeyOfAScan compares a scan with one that the test has made, so that all versions of the program
// make the same one. It also checks that each form has a key of its own, and that there are no other
// forms.
func TestKeyOfAScan(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	second := uint32(noon.Unix())
	if got, want := scanOf(t, c, 3, noon).Code, signed(t, "scan", 3, 3, second); got != want {
		t.Errorf("the scan is %s, want %s", got, want)
	}
	keys := map[byte]string{1: "screen", 2: "label", 3: "scan"}
	for form := range byte(16) {
		time := second
		if form == 1 {
			time /= 15
		}
		facts := at(noon, library.CheckInNone)
		facts.SeatID = 3<<32 | int64(time) // for the form of a label
		for _, key := range []string{"", "screen", "digits", "label", "scan", "hint"} {
			_, err := c.Judge(facts, signed(t, key, form, 3, time))
			if valid := key != "" && keys[form] == key; (err == nil) != valid {
				t.Errorf("form %d with the key %q: %v", form, key, err)
			}
		}
	}
}

// TestRotationOfScans goes through the steps of a rotation: see TestRotation. A user may scan at one
// replica and check in at another.
func TestRotationOfScans(t *testing.T) {
	t.Parallel()
	steps := [][]string{{secretA}, {secretA, secretB}, {secretB, secretA}}
	for i := range steps[:2] {
		both := []*presence.Codes{codes(t, steps[i]...), codes(t, steps[i+1]...)}
		for _, screen := range both {
			for _, scanner := range both {
				scan, err := scanner.Scan(on(noon), screen.Show(3, noon, 0)[0].Code)
				if err != nil {
					t.Errorf("step %d: the scan: %v", i+1, err)
				}
				for _, checker := range both {
					later := at(noon.Add(2*time.Minute), library.CheckInScreen)
					if _, err := checker.Judge(later, scan.Code); err != nil {
						t.Errorf("step %d: %v", i+1, err)
					}
				}
			}
		}
	}
	removed := scanOf(t, codes(t, secretA), 3, noon).Code
	_, err := codes(t, secretB).Judge(at(noon, library.CheckInScreen), removed)
	if !errors.Is(err, library.ErrPresenceInvalid) {
		t.Errorf("a scan of the removed secret: %v", err)
	}
}

func TestScanWithoutASecret(t *testing.T) {
	t.Parallel()
	c := codes(t)
	code := codes(t, secretA).Show(3, noon, 0)[0].Code
	for _, code := range []string{code, "00000000", ""} {
		if _, err := c.Scan(on(noon), code); !errors.Is(err, library.ErrPresenceOff) {
			t.Errorf("%q: %v", code, err)
		}
	}
	scan := scanOf(t, codes(t, secretA), 3, noon)
	if _, err := c.Judge(at(noon, library.CheckInNone), scan.Code); !errors.Is(err, library.ErrPresenceInvalid) {
		t.Errorf("a scan: %v", err)
	}
}

func BenchmarkScan(b *testing.B) {
	c, old := codes(b, secretB, secretA), codes(b, secretA)
	code, state := old.Show(3, noon, 0)[0].Code, on(noon)
	for b.Loop() {
		if _, err := c.Scan(state, code); err != nil {
			b.Fatal(err)
		}
	}
}
