package rest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestTextsHaveNamesOfJSON checks that no text of a problem has a name as the protos spell it.
func TestTextsHaveNamesOfJSON(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"must be after start_time":                    "must be after startTime",
		"set exactly one of student_id, card":         "set exactly one of studentId, card",
		`there is no branch "start_time"`:             `there is no branch "start_time"`,
		`there is no "\"" in student_id and no_field`: `there is no "\"" in studentId and no_field`,
	} {
		if got := inJSON(text); got != want {
			t.Errorf("%s: got %s", text, got)
		}
	}
	if got := spelled("line 2, column x_cm", "is missing: x_cm needs it"); got.Detail != "is missing: x_cm needs it" ||
		got.Pointer != "line 2, column x_cm" {
		t.Errorf("a place in a file: %+v", got)
	}
	r := start(t, nil)
	token := r.login(t, "STUDENT-1")
	body := fmt.Sprintf(`{"seatId": "%[1]d", "startTime": %[2]q, "endTime": %[2]q}`, r.seats[0], "2026-12-07T08:00:00Z")
	p := r.do(t, "POST", "/v1/reservations", body, token...).problem(t, http.StatusBadRequest, "INVALID_FIELDS")
	if !strings.HasSuffix(p.Detail, "endTime must be after startTime") || p.Errors[0].Detail != "must be after startTime" {
		t.Errorf("%+v", p)
	}
	r.do(t, "POST", "/v1/reservations", r.booking(0, ""), append(token, "Idempotency-Key", "k")...)
	p = r.do(t, "POST", "/v1/reservations", r.booking(1, ""), append(token, "Idempotency-Key", "k")...).
		problem(t, http.StatusUnprocessableEntity, "REQUEST_ID_REUSED")
	if strings.Contains(p.Detail, "_") {
		t.Errorf("%+v", p)
	}
	check := fmt.Sprintf("/v1/reservations:check?seatId=%d&endTime=2199-12-07T08:00:00Z", r.seats[0])
	a := r.do(t, "GET", check, "", token...)
	if text := string(a.body); a.StatusCode != http.StatusOK || !strings.Contains(text, `"endTime: `) ||
		strings.Contains(text, "end_time") {
		t.Errorf("%s: %s", a.Status, text)
	}
}
