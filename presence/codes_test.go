package presence_test

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/presence"
)

const (
	secretA = "a1f4c09e7b3d58260ce1f7a94b6d20538e7c1f0a9d4b63e2"
	secretB = "5d0b72e9c14a8f63d7e20b95fa3c8146b9e07d52c83f1a64"
	alpha   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func codes(t testing.TB, secrets ...string) *presence.Codes {
	t.Helper()
	c, err := presence.New(secrets, 1)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// at returns the facts of a check-in at seat 7, in a branch with the screens 3 and 4. Screen 4 is
// switched off.
func at(now time.Time, rule library.CheckInRule) library.CheckInFacts {
	return library.CheckInFacts{
		Now: now, Rule: rule, SeatID: 7,
		Screens: []library.Screen{{ID: 3, Name: "Entrance"}, {ID: 4, Name: "Stairs", Off: true}},
	}
}

func TestWhatTheRulesRequire(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	shown := c.Show(3, noon, 0)[0]
	label, scan := c.Label(7), scanOf(t, c, 3, noon.Add(-time.Minute)).Code
	required, invalid := library.ErrPresenceRequired, library.ErrPresenceInvalid
	both, proved := library.CheckInSeatAndScreen, library.ProofSeatAndScreen
	for name, tc := range map[string]struct {
		rule  library.CheckInRule
		codes []string
		want  library.Proof
		err   error
	}{
		"nothing required, nothing sent":  {library.CheckInNone, nil, library.ProofNone, nil},
		"nothing required, a screen":      {library.CheckInNone, []string{shown.Code}, library.ProofScreen, nil},
		"nothing required, a wrong code":  {library.CheckInNone, []string{"12345"}, "", invalid},
		"a seat":                          {library.CheckInSeat, []string{label}, library.ProofSeat, nil},
		"a seat in the second field":      {library.CheckInSeat, []string{"", label}, library.ProofSeat, nil},
		"a screen in place of a seat":     {library.CheckInSeat, []string{shown.Code}, "", required},
		"a screen":                        {library.CheckInScreen, []string{shown.Code}, library.ProofScreen, nil},
		"digits":                          {library.CheckInScreen, []string{shown.Digits}, library.ProofScreen, nil},
		"a scan":                          {library.CheckInScreen, []string{scan}, library.ProofScreen, nil},
		"a scan in the second field":      {library.CheckInScreen, []string{"", scan}, library.ProofScreen, nil},
		"a scan in place of a seat":       {library.CheckInSeat, []string{scan}, "", required},
		"a scan and a seat":               {both, []string{scan, label}, proved, nil},
		"a scan and the same screen":      {both, []string{scan, shown.Code}, "", required},
		"a label in place of a screen":    {library.CheckInScreen, []string{label}, "", required},
		"no code":                         {library.CheckInScreen, []string{"", ""}, "", required},
		"both":                            {both, []string{shown.Code, label}, proved, nil},
		"both, in the other order":        {both, []string{label, shown.Digits}, proved, nil},
		"only one of both":                {both, []string{shown.Code}, "", required},
		"the same code twice":             {both, []string{label, label}, "", required},
		"more than is required":           {library.CheckInSeat, []string{shown.Code, label}, proved, nil},
		"one good and one wrong code":     {library.CheckInScreen, []string{shown.Code, "x"}, "", invalid},
		"the desk, although there is one": {library.CheckInDesk, []string{shown.Code}, "", required},
	} {
		got, err := c.Judge(at(noon, tc.rule), tc.codes...)
		if got.Proof != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, err, tc.want, tc.err)
		}
		if wantScreen := strings.Contains(string(tc.want), "SCREEN"); wantScreen != (got.ScreenID == 3) {
			t.Errorf("%s: screen %d", name, got.ScreenID)
		}
	}
	for _, tc := range []struct {
		codes   []string
		help    string
		without string
	}{
		{nil, "the label on your seat and the code on the screen", "!"},
		{[]string{label}, "the code on the screen", "label"},
		{[]string{shown.Code}, "the label on your seat", "screen"},
	} {
		_, err := c.Judge(at(noon, both), tc.codes...)
		if text := fmt.Sprint(err); !strings.Contains(text, tc.help) || strings.Contains(text, tc.without) {
			t.Errorf("%d codes: the message does not say what is missing: %v", len(tc.codes), err)
		}
	}
}

// TestTimeOfAScreenCode checks each limit to the microsecond. The step begins at noon.
func TestTimeOfAScreenCode(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	shown := c.Show(3, noon.Add(14*time.Second), 0)[0]
	if !shown.From.Equal(noon) || !shown.Until.Equal(noon.Add(30*time.Second)) {
		t.Errorf("the code is valid from %v to %v", shown.From, shown.Until)
	}
	for after, want := range map[time.Duration]error{
		-time.Hour:                            library.ErrPresenceInvalid,
		-2*time.Second - time.Microsecond:     library.ErrPresenceInvalid,
		-2 * time.Second:                      nil,
		0:                                     nil,
		29 * time.Second:                      nil,
		32*time.Second - time.Microsecond:     nil,
		32 * time.Second:                      library.ErrPresenceExpired,
		time.Minute:                           library.ErrPresenceExpired, // a photo, sent to a friend
		24 * time.Hour:                        library.ErrPresenceExpired,
		200 * 365 * 24 * time.Hour:            library.ErrPresenceExpired,
		-200 * 365 * 24 * time.Hour:           library.ErrPresenceInvalid,
		7*24*time.Hour + 100*time.Millisecond: library.ErrPresenceExpired,
	} {
		if _, err := c.Judge(at(noon.Add(after), library.CheckInScreen), shown.Code); !errors.Is(err, want) {
			t.Errorf("the code after %v: %v, want %v", after, err, want)
		}
	}
	for after, want := range map[time.Duration]error{
		-2*time.Second - time.Microsecond: library.ErrPresenceInvalid,
		-2 * time.Second:                  nil,
		32*time.Second - time.Microsecond: nil,
		32 * time.Second:                  library.ErrPresenceExpired,
		time.Hour:                         library.ErrPresenceInvalid, // like any wrong number
	} {
		if _, err := c.Judge(at(noon.Add(after), library.CheckInScreen), shown.Digits); !errors.Is(err, want) {
			t.Errorf("the digits after %v: %v, want %v", after, err, want)
		}
	}
}

// TestUnitOfTheTime checks that a code has the number of steps of 15 seconds since 1970, and not
// milliseconds or another unit.
func TestUnitOfTheTime(t *testing.T) {
	t.Parallel()
	raw := decode(t, codes(t, secretA).Show(3, noon, 0)[0].Code)
	if got, want := int64(binary.BigEndian.Uint32(raw[5:])), noon.Unix()/15; got != want {
		t.Errorf("the step is %d, want %d", got, want)
	}
	if got := binary.BigEndian.Uint32(raw[1:]); got != 3 {
		t.Errorf("the screen is %d, want 3", got)
	}
}

// TestTimeIsSigned moves an old code to the present step. Its HMAC must not fit any more.
func TestTimeIsSigned(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	for _, change := range []func(raw []byte){
		func(raw []byte) { binary.BigEndian.PutUint32(raw[5:], binary.BigEndian.Uint32(raw[5:])+240) },  // a step
		func(raw []byte) { binary.BigEndian.PutUint32(raw[5:], binary.BigEndian.Uint32(raw[5:])+3600) }, // a second
		func(raw []byte) { binary.BigEndian.PutUint32(raw[1:], 4) },                                     // another screen
	} {
		for _, code := range []string{c.Show(3, noon, 0)[0].Code, scanOf(t, c, 3, noon).Code} {
			raw := decode(t, code)
			change(raw)
			moved := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw)
			_, err := c.Judge(at(noon.Add(time.Hour), library.CheckInScreen), moved)
			if !errors.Is(err, library.ErrPresenceInvalid) {
				t.Errorf("a changed code: %v", err)
			}
		}
	}
}

func decode(t *testing.T, code string) []byte {
	t.Helper()
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(code)
	if err != nil || len(code) != 31 {
		t.Fatalf("%q is not a code: %v", code, err)
	}
	return raw
}

// TestEveryoneUsesOneCode checks that a code is not used up by the first user.
func TestEveryoneUsesOneCode(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	shown := c.Show(3, noon, 0)[0]
	for range 3 {
		for _, code := range []string{shown.Code, shown.Digits} {
			if _, err := c.Judge(at(noon, library.CheckInScreen), code); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestCodesOfOtherPlaces(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	elsewhere := c.Show(9, noon, 0)[0]
	for name, tc := range map[string]struct {
		code string
		want error
	}{
		"a screen of another branch":  {elsewhere.Code, library.ErrPresenceElsewhere},
		"its digits":                  {elsewhere.Digits, library.ErrPresenceInvalid},
		"an old one of another":       {c.Show(9, noon.Add(-time.Hour), 0)[0].Code, library.ErrPresenceElsewhere},
		"a screen that is off":        {c.Show(4, noon, 0)[0].Code, library.ErrPresenceInvalid},
		"digits of one that is off":   {c.Show(4, noon, 0)[0].Digits, library.ErrPresenceInvalid},
		"the label of another seat":   {c.Label(8), library.ErrPresenceElsewhere},
		"a code of another secret":    {codes(t, secretB).Show(3, noon, 0)[0].Code, library.ErrPresenceInvalid},
		"digits of another secret":    {codes(t, secretB).Show(3, noon, 0)[0].Digits, library.ErrPresenceInvalid},
		"a label of another secret":   {codes(t, secretB).Label(7), library.ErrPresenceInvalid},
		"a screen of another library": {ofLibrary(t, 2).Show(3, noon, 0)[0].Code, library.ErrPresenceInvalid},
		"a label of another library":  {ofLibrary(t, 2).Label(7), library.ErrPresenceInvalid},
	} {
		if _, err := c.Judge(at(noon, library.CheckInScreen), tc.code); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func ofLibrary(t *testing.T, library int64) *presence.Codes {
	t.Helper()
	c, err := presence.New([]string{secretA}, library)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEveryChangeIsRefused changes each character of a code to each other one.
func TestEveryChangeIsRefused(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA, secretB)
	for _, code := range []string{c.Show(3, noon, 0)[0].Code, c.Label(7), scanOf(t, c, 3, noon).Code} {
		changed := 0
		for i := range code {
			for _, letter := range alpha {
				if byte(letter) == code[i] {
					continue
				}
				changed++
				wrong := code[:i] + string(letter) + code[i+1:]
				if _, err := c.Judge(at(noon, library.CheckInNone), wrong); !errors.Is(err, library.ErrPresenceInvalid) {
					t.Errorf("%s: %v", wrong, err)
				}
			}
		}
		if changed != 961 {
			t.Errorf("%d changes, want 961", changed)
		}
		for _, wrong := range []string{code[1:], code[:30], code + "A", code + "=", "", "=", strings.Repeat("A", 31)} {
			if _, err := c.Judge(at(noon, library.CheckInScreen), wrong); err == nil {
				t.Errorf("%q is accepted", wrong)
			}
		}
	}
}

// TestGuessedDigits counts the numbers that are accepted at one moment: at most three steps of the
// screen.
func TestGuessedDigits(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	var valid []string
	for _, shown := range c.Show(3, noon.Add(-time.Minute), 2*time.Minute) {
		if _, err := c.Judge(at(noon, library.CheckInScreen), shown.Digits); err == nil {
			valid = append(valid, shown.Digits)
		}
		if len(shown.Digits) != 8 || strings.Trim(shown.Digits, "0123456789") != "" {
			t.Errorf("the digits are %q", shown.Digits)
		}
	}
	if len(valid) != 3 { // the one before, still within the tolerance, the present one, and the one before it
		t.Errorf("%d numbers are valid: %v", len(valid), valid)
	}
	for guess := range 2000 {
		digits := []byte("00000000")
		for i, n := 7, guess*7919; n > 0; i, n = i-1, n/10 {
			digits[i] += byte(n % 10)
		}
		if slices.Contains(valid, string(digits)) {
			continue
		}
		if _, err := c.Judge(at(noon, library.CheckInScreen), string(digits)); err == nil {
			t.Errorf("the guess %s is accepted", digits)
		}
	}
}

func TestFormsOfACode(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	shown := c.Show(3, noon, 0)[0]
	for _, code := range []string{
		strings.ToLower(shown.Code), " " + shown.Code + " ", shown.Code[:4] + "-" + shown.Code[4:],
		"HTTPS://LIBRARY.EXAMPLE/C/" + shown.Code, shown.Digits[:4] + " " + shown.Digits[4:],
	} {
		if _, err := c.Judge(at(noon, library.CheckInScreen), code); err != nil {
			t.Errorf("%q: %v", code, err)
		}
	}
	if seat, ok := c.Seat("https://library.example/s/" + strings.ToLower(c.Label(7))); !ok || seat != 7 {
		t.Errorf("the label names seat %d, %v", seat, ok)
	}
	for _, id := range []int64{1, 1 << 32, 1<<63 - 1} {
		if seat, ok := c.Seat(c.Label(id)); !ok || seat != id {
			t.Errorf("the label of seat %d names %d, %v", id, seat, ok)
		}
	}
	if _, ok := c.Seat(shown.Code); ok {
		t.Error("the code of a screen names a seat")
	}
}

// TestRotation goes through the steps of a rotation. In each step, replicas with the settings before
// and after it run side by side, and every code must be valid on every replica.
func TestRotation(t *testing.T) {
	t.Parallel()
	steps := [][]string{{secretA}, {secretA, secretB}, {secretB, secretA}, {secretB}}
	for i := range steps[:3] {
		for _, maker := range []*presence.Codes{codes(t, steps[i]...), codes(t, steps[i+1]...)} {
			shown := maker.Show(3, noon, 0)[0]
			for _, checker := range []*presence.Codes{codes(t, steps[i]...), codes(t, steps[i+1]...)} {
				for _, code := range []string{shown.Code, shown.Digits, maker.Label(7)} {
					if _, err := checker.Judge(at(noon, library.CheckInNone), code); err != nil && i < 2 {
						t.Errorf("step %d: %v", i+1, err)
					}
				}
			}
		}
	}
	if _, err := codes(t, secretB).Judge(at(noon, library.CheckInSeat), codes(t, secretA).Label(7)); err == nil {
		t.Error("a label of the removed secret is valid")
	}
}

func TestWithoutASecret(t *testing.T) {
	t.Parallel()
	c := codes(t)
	if c.Enabled() || c.Show(3, noon, time.Minute) != nil || c.Label(7) != "" {
		t.Error("codes are made without a secret")
	}
	if _, err := c.Judge(at(noon, library.CheckInNone)); err != nil {
		t.Error(err)
	}
	for _, code := range []string{codes(t, secretA).Label(7), "00000000"} {
		if _, err := c.Judge(at(noon, library.CheckInNone), code); !errors.Is(err, library.ErrPresenceInvalid) {
			t.Errorf("%q: %v", code, err)
		}
	}
}

func TestShownCodes(t *testing.T) {
	t.Parallel()
	c := codes(t, secretA)
	all := c.Show(3, noon.Add(7*time.Second), 5*time.Minute)
	if len(all) != 21 || !all[0].From.Equal(noon) {
		t.Fatalf("%d codes, the first at %v", len(all), all[0].From)
	}
	for i, shown := range all {
		if i > 0 && (!shown.From.Equal(all[i-1].From.Add(presence.Step)) || shown.Code == all[i-1].Code) {
			t.Errorf("code %d does not follow the one before", i)
		}
		if _, err := c.Judge(at(shown.From.Add(20*time.Second), library.CheckInScreen), shown.Code); err != nil {
			t.Errorf("code %d: %v", i, err)
		}
	}
	if got := c.Show(3, time.Unix(-1, 0), 0)[0].From; !got.Equal(time.Unix(-15, 0)) {
		t.Errorf("the step of a time before 1970 begins at %v", got)
	}
}

func FuzzJudge(f *testing.F) {
	c := codes(f, secretA, secretB)
	shown := c.Show(3, noon, 0)[0]
	scan := scanOf(f, c, 3, noon).Code
	for _, code := range []string{shown.Code, shown.Digits, c.Label(7), scan, "", "////", "=", "ÀÀ"} {
		f.Add(code, int64(0))
	}
	f.Fuzz(func(t *testing.T, code string, seconds int64) {
		now := noon.Add(time.Duration(seconds%1e9) * time.Second)
		p, err := c.Judge(at(now, library.CheckInNone), code)
		if err != nil || p.Proof == library.ProofNone {
			return
		}
		valid := []string{c.Label(7), codes(t, secretB).Label(7)}
		for _, maker := range []*presence.Codes{c, codes(t, secretB)} {
			for _, s := range maker.Show(3, now.Add(-time.Minute), 2*time.Minute) {
				valid = append(valid, s.Code, s.Digits)
			}
			for ago := -2 * time.Second; ago < 183*time.Second; ago += time.Second {
				valid = append(valid, scanOf(t, maker, 3, now.Add(-ago)).Code)
			}
		}
		plain := strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(code[strings.LastIndex(code, "/")+1:]))
		if !slices.Contains(valid, plain) {
			t.Errorf("%q is accepted at %v", code, now)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	c := codes(b, secretB, secretA)
	old := codes(b, secretA) // the secret that is tried last
	facts := at(noon, library.CheckInScreen)
	for name, code := range map[string]string{
		"screen": old.Show(3, noon, 0)[0].Code, "digits": old.Show(3, noon, 0)[0].Digits,
		"scan": scanOf(b, old, 3, noon).Code,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := c.Judge(facts, code); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("label", func(b *testing.B) {
		label, seat := old.Label(7), at(noon, library.CheckInSeat)
		for b.Loop() {
			if _, err := c.Judge(seat, label); err != nil {
				b.Fatal(err)
			}
		}
	})
}
