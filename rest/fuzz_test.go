package rest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzHandler sends arbitrary requests. Each must get an answer that a client can read, and none may
// be an internal error.
func FuzzHandler(f *testing.F) {
	r := start(f, nil)
	token := r.login(f, "STUDENT-1")[1]
	for _, seed := range [][5]string{
		{"GET", "/v1/seats", "branch=main&availableOnly=true", "", ""},
		{"GET", "/v1/seats/1", "startTime=2026-01-01T00:00:00Z", "", ""},
		{"POST", "/v1/reservations", "", `{"seatId":"1","endTime":"2026-01-01T00:00:00Z"}`, `"key"`},
		{"POST", "/v1/reservations/1:cancel", "", "{}", ""},
		{"POST", "/v1/waitlist/%31:leave", "x=%zz", `{"entryId":1e3}`, ""},
		{"GET", "/v1/notifications", "afterId=9223372036854775808", "", ""},
		{"GET", "/v1/../docs", "", "", ""},
		{"PATCH", "/v1/seats:watch", "", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	f.Fuzz(func(t *testing.T, method, path, query, body, key string) {
		if strings.HasSuffix(path, ":watch") || strings.HasSuffix(path, ":subscribe") {
			return // a stream does not end by itself
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost", strings.NewReader(body))
		if err != nil {
			return // no server gets such a method
		}
		req.URL.Path, req.URL.RawQuery, req.RemoteAddr = path, query, "127.0.0.1:1"
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, req)
		contentType := w.Header().Get("Content-Type")
		switch {
		case w.Code >= 500 && w.Code != http.StatusServiceUnavailable:
			t.Errorf("%s %s?%s %s: %d %s", method, path, query, body, w.Code, w.Body)
		case w.Code >= 400 && !isDocs(path) && contentType != "application/problem+json":
			t.Errorf("%s %s is %d of type %s", method, path, w.Code, contentType)
		case strings.HasSuffix(contentType, "json") && method != http.MethodHead && !json.Valid(w.Body.Bytes()):
			t.Errorf("%s %s is no JSON: %s", method, path, w.Body)
		}
	})
}
