package main

import (
	"net/http"
	"net/url"
	"time"
)

// staffAnswers calls every operation for staff. Afterwards the caller has another token.
func staffAnswers(v *validator) {
	v.t.Helper()
	login := func(id string) string {
		v.token = ""
		answer := v.call("POST", "/v1/auth/login", map[string]any{"studentId": id, "password": "password123"}, 200)
		return answer["accessToken"].(string)
	}
	admin, librarian := login("A0001"), login("L0001")
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }

	v.token = admin
	v.call("POST", "/v1/admin/branches/north", map[string]any{"name": "North", "timezone": "Europe/Berlin"}, 200)
	v.call("POST", "/v1/admin/users/S2021009:setRole", map[string]any{
		"role": "ROLE_STAFF", "branches": []string{"north"},
	}, 200)
	v.call("POST", "/v1/admin/users", map[string]any{
		"users": []any{map[string]any{"studentId": "S2021008", "group": "first-year", "card": "4711"}},
	}, 200)
	key := v.call("POST", "/v1/admin/keys", map[string]any{
		"name": "Turnstile", "branch": "main", "scopes": []string{"KEY_SCOPE_ARRIVALS"},
	}, 200)
	v.call("GET", "/v1/admin/keys", nil, 200)

	v.token = librarian
	v.call("GET", "/v1/admin/branches", nil, 200)
	v.call("POST", "/v1/admin/branches/north/seats", map[string]any{
		"seats": []any{map[string]any{"label": "N-01", "area": "Hall", "xCm": 100, "yCm": 200}},
	}, 200)
	v.call("POST", "/v1/admin/branches/north/areas", map[string]any{"name": "Hall", "floor": "2"}, 200)
	file := "branch,area,label\nnorth,Hall,N-02\n"
	plan := v.call("POST", "/v1/admin/seats:import?dryRun=true", file, 200)
	v.call("POST", "/v1/admin/seats:import?fingerprint="+url.QueryEscape(plan["fingerprint"].(string)), file, 200)
	if resp, text := v.do("GET", "/v1/admin/seats:export?branch=north", nil); resp.StatusCode != http.StatusOK {
		v.t.Errorf("export: %s: %s", resp.Status, text)
	}
	seats := v.call("GET", "/v1/seats?branch=main&availableOnly=true", nil, 200)["seats"].([]any)
	seat := seats[len(seats)-1].(map[string]any)["id"].(string)
	v.call("POST", "/v1/admin/branches/north/hours", map[string]any{
		"hours": []any{map[string]any{"weekday": 1, "opens": "08:00", "closes": "22:00"}},
	}, 200)
	v.call("POST", "/v1/admin/branches/north/days", map[string]any{
		"firstDay": time.Now().AddDate(0, 0, 3).Format(time.DateOnly),
	}, 200)
	v.call("POST", "/v1/admin/branches/north/announcement", map[string]any{"text": map[string]string{"en": "Hello"}}, 200)
	v.call("GET", "/v1/branches", nil, 200)
	closure := v.call("POST", "/v1/admin/closures", map[string]any{
		"branch": "north", "startTime": in(time.Hour), "note": map[string]string{"de": "Umbau"},
	}, 200)["closure"].(map[string]any)["id"].(string)
	v.call("GET", "/v1/admin/closures", nil, 200)
	v.call("POST", "/v1/admin/closures/"+closure+":update", map[string]any{"lift": true}, 200)
	v.call("POST", "/v1/admin/policies", map[string]any{
		"policy": map[string]any{"branch": "north", "rules": map[string]any{"maxReservation": "7200s", "strikeLimit": 3}},
	}, 200)
	v.call("GET", "/v1/admin/policies", nil, 200)

	people := v.call("GET", "/v1/desk/users?studentId=S2021008", nil, 200)["users"].([]any)
	person := people[0].(map[string]any)["id"].(string)
	v.call("GET", "/v1/desk/users?name=er", nil, 200)
	booked := v.call("POST", "/v1/desk/reservations", map[string]any{
		"userId": person, "seatId": seat, "endTime": in(time.Hour), "reason": "asked at the desk",
	}, 200)["reservation"].(map[string]any)["id"].(string)
	v.call("GET", "/v1/desk/arrivals?branch=main", nil, 200)
	v.events("/v1/desk/arrivals:watch?branch=main", "started")
	v.token = key["secret"].(string)
	v.call("POST", "/v1/desk/arrivals", map[string]any{"card": "4711"}, 200)
	v.token = librarian
	reason := map[string]any{"reason": "test"}
	v.call("POST", "/v1/desk/reservations/"+booked+":checkIn", reason, 200)
	v.call("POST", "/v1/desk/reservations/"+booked+":checkOut", reason, 200)
	v.call("POST", "/v1/desk/reservations/"+booked+":cancel", reason, 200)
	v.call("POST", "/v1/desk/users/"+person+":suspend", map[string]any{
		"until": in(24 * time.Hour), "reason": "test",
	}, 200)
	v.call("GET", "/v1/desk/users/"+person, nil, 200)
	v.call("POST", "/v1/desk/strikes:forgive", map[string]any{
		"branch": "main", "startTime": in(-time.Hour), "endTime": in(time.Hour), "reason": "test",
	}, 200)
	north := v.call("GET", "/v1/seats?branch=north", nil, 200)["seats"].([]any)[0].(map[string]any)["id"].(string)
	v.call("POST", "/v1/admin/branches/north/seats:retire", map[string]any{"seatIds": []string{north}}, 200)
	v.call("GET", "/v1/admin/audit", nil, 200)
	v.call("GET", "/v1/admin/audit?branch=science&action=SetRole", nil, 200)

	today := time.Now().UTC().Format(time.DateOnly)
	days := "branch=main&from=" + today + "&to=" + today
	v.call("GET", "/v1/reports/usage?by=USAGE_BY_AREA&"+days, nil, 200)
	if resp, text := v.do("GET", "/v1/reports/reservations:export?"+days, nil); resp.StatusCode != http.StatusOK {
		v.t.Errorf("export of reservations: %s: %s", resp.Status, text)
	}

	presenceAnswers(v, admin, librarian, seat)
	v.token = admin
	v.call("POST", "/v1/admin/keys/"+key["key"].(map[string]any)["id"].(string)+":revoke", nil, 200)
	v.call("POST", "/v1/desk/users/"+person+":close", reason, 200)
}
