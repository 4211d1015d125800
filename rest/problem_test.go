package rest

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// TestEveryReasonHasItsStatus compares the statuses with the table in docs/reference/http.md.
func TestEveryReasonHasItsStatus(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/reference/http.md")
	if err != nil {
		t.Fatal(err)
	}
	listed, used := map[string]int{}, map[string]int{}
	reason := regexp.MustCompile(`\b[A-Z]+(?:_[A-Z]+)*\b`)
	for _, row := range regexp.MustCompile(`(?m)^\| (\d{3}) \| ([^|;]*)`).FindAllStringSubmatch(string(text), -1) {
		for _, name := range reason.FindAllString(row[2], -1) {
			if _, ok := dlsmsv1.ErrorReason_value["ERROR_REASON_"+name]; ok {
				listed[name], _ = strconv.Atoi(row[1])
			}
		}
	}
	for number, name := range dlsmsv1.ErrorReason_name {
		if r := dlsmsv1.ErrorReason(number); r != dlsmsv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
			name = strings.TrimPrefix(name, "ERROR_REASON_")
			used[name] = statusOf(name, e2e.CodeOf(r))
		}
	}
	if diff := cmp.Diff(used, listed); diff != "" {
		t.Error(diff)
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	t.Parallel()
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		internal := c == codes.Internal || c == codes.Unknown || c == codes.DataLoss
		if got := statusOf("", c); (got == 500) != internal {
			t.Errorf("%v is %d", c, got)
		}
	}
}

func TestPointer(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{
		"request":           "#",
		"seat_id":           "#/seatId",
		"seatId":            "#/seatId",
		"hours[2].opens_at": "#/hours/2/opensAt",
		"amenities[0]":      "#/amenities/0",
		"no_field":          "#/no_field",
		"note[zh_TW]":       "#/note/zh_TW",
	} {
		if got := pointer(field); got != want {
			t.Errorf("%s is at %s, want %s", field, got, want)
		}
	}
}

func TestNoneMatch(t *testing.T) {
	t.Parallel()
	const tag = `W/"abc"`
	for _, c := range []struct {
		header []string
		want   bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{`W/"abc"`}, true},
		{[]string{`"abc"`}, true}, // a weak comparison
		{[]string{`"x", W/"abc"`}, true},
		{[]string{`"x"`, `"abc"`}, true},
		{[]string{"*"}, true},
		{[]string{`W/"abcd"`}, false},
		{[]string{"abc"}, false},
	} {
		if got := noneMatch(c.header, tag); got != c.want {
			t.Errorf("If-None-Match %q: %v, want %v", c.header, got, c.want)
		}
	}
}

func TestUnquote(t *testing.T) {
	t.Parallel()
	want := map[string]string{`"key-1"`: "key-1", "key-1": "key-1", ` "a" `: "a", `"`: `"`, "": "", `""`: ""}
	got := map[string]string{}
	for key := range want {
		got[key] = unquote(key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
