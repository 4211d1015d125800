package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/presence"
)

// TestScreenShowsNoStaleCode lets a screen lose its connection. It shows each code for 15 seconds, and
// sends users to the desk when the last code has expired.
func TestScreenShowsNoStaleCode(t *testing.T) {
	t.Parallel()
	server := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	local := server.Add(time.Hour) // the clock of the screen is wrong
	codes, err := presence.New([]string{"a secret of a test"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	state := &dlsmsv1.ScreenState{Name: "Entrance", Branch: &dlsmsv1.Branch{Name: "Main", SeatCount: 25}}
	for _, s := range codes.Show(1, server, time.Minute) {
		state.Codes = append(state.Codes, &dlsmsv1.ScreenCode{
			Code: s.Code, Digits: s.Digits, ValidFrom: timestamppb.New(s.From), ValidUntil: timestamppb.New(s.Until),
		})
	}
	r := received{state: state, ahead: server.Sub(local), fault: "the network is down"}
	for seconds, want := range map[int]int{0: 0, 14: 0, 15: 1, 59: 3, 60: 4, 75: 4, 89: 4, 90: -1, 3600: -1} {
		text, err := r.text("", local.Add(time.Duration(seconds)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if want < 0 {
			if !strings.Contains(text, "ask at the desk") {
				t.Errorf("after %d s:\n%s", seconds, text)
			}
			continue
		}
		digits := state.GetCodes()[want].GetDigits()
		if !strings.Contains(text, digits[:4]+" "+digits[4:]) {
			t.Errorf("after %d s, the digits %s are not in\n%s", seconds, digits, text)
		}
	}
	state.Branch.Announcement = map[string]string{"en": "The library closes at 18:00."}
	r.fault = ""
	text, err := r.text("https://library.university.example/app/c/", local) // 41 characters
	if lines := strings.Count(text, "\n") + 1; err != nil || lines > 24 {
		t.Errorf("%d lines do not fit on a small terminal: %v\n%s", lines, err, text)
	}
	if text, err := (received{}).text("", local); err != nil || !strings.Contains(text, "ask at the desk") {
		t.Errorf("before the first connection: %q, %v", text, err)
	}
}
