package main

import (
	"encoding/json"
	"net/http"
	"strings"
)

// presenceAnswers calls every operation for screens and labels, and scans the code of a screen.
// Afterwards the caller has another token.
func presenceAnswers(v *validator, admin, librarian, seat string) {
	v.t.Helper()
	v.token = librarian
	v.call("POST", "/v1/admin/branches/main/screens", map[string]any{"name": "Entrance"}, 200)
	v.call("GET", "/v1/admin/branches/main/screens", nil, 200)
	resp, sheet := v.do("GET", "/v1/admin/labels?branch=main&seatIds="+seat, nil)
	_, rest, _ := strings.Cut(string(sheet), "<small>")
	label, _, found := strings.Cut(rest, "</small>")
	if resp.StatusCode != http.StatusOK || !found {
		v.t.Fatalf("labels: %s: %s", resp.Status, sheet)
	}
	v.token = admin
	key := v.call("POST", "/v1/admin/keys", map[string]any{
		"name": "Screen", "branch": "main", "scopes": []string{"KEY_SCOPE_SCREEN"},
	}, 200)

	v.token = key["secret"].(string)
	var shown struct {
		State struct {
			Codes []struct{ Code string }
		}
	}
	text := v.events("/v1/screen:watch", `"codes"`)
	if err := json.Unmarshal([]byte(text), &shown); err != nil || len(shown.State.Codes) == 0 {
		v.t.Fatalf("the screen shows no code (%v): %s", err, text)
	}
	v.token = ""
	v.call("POST", "/v1/scans", map[string]any{"code": shown.State.Codes[0].Code}, 200)
	v.call("POST", "/v1/scans", map[string]any{"code": "12345678"}, 409)
	v.call("GET", "/v1/labels/"+label, nil, 200)
}
