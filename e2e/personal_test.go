package e2e_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// export returns the document of ExportMyData.
func (s student) export() (doc struct {
	User            struct{ Email string }
	Reservations    []struct{ Status, Label string }
	WaitlistEntries []struct{ Status string } `json:"waitlist_entries"`
}) {
	s.t.Helper()
	text, err := s.ExportMyData(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		s.t.Fatalf("%v: %s", err, text)
	}
	return doc
}

// TestPersonalData exports the data of a user, and closes the account. Each replica refuses the
// tokens within 5 s, the waitlist gets the seat, and the student id can register again.
func TestPersonalData(t *testing.T) {
	t.Parallel()
	everywhere(t, personalData)
}

func personalData(t *testing.T, s *system) {
	t.Helper()
	here := s.branch(t, 2)
	u, next := s.student(t), s.student(t)
	u.book(here.seats[0], fromNow(time.Hour))
	waiting := next.wait(here.seats[0], fromNow(time.Hour))
	next.book(here.seats[1], tomorrow(0, 1))
	u.wait(here.seats[1], tomorrow(0, 1))

	doc := u.export()
	if doc.User.Email != u.User.GetEmail() || len(doc.Reservations) != 1 || doc.Reservations[0].Status != "CONFIRMED" ||
		doc.Reservations[0].Label == "" || len(doc.WaitlistEntries) != 1 {
		t.Errorf("the export has %+v", doc)
	}

	streams := subscribeEverywhere(t, s, u.Client)
	_, err := u.Auth.CloseMyAccount(t.Context(), &dlsmsv1.CloseMyAccountRequest{Password: "not " + u.Password})
	refused(t, err, "BAD_CREDENTIALS")
	closed, err := u.Auth.CloseMyAccount(t.Context(), &dlsmsv1.CloseMyAccountRequest{Password: u.Password})
	if err != nil || closed.GetReservations() != 1 || closed.GetEntries() != 1 {
		t.Fatalf("%v, %v", closed, err)
	}
	_, err = u.Auth.CloseMyAccount(t.Context(), &dlsmsv1.CloseMyAccountRequest{Password: u.Password})
	refused(t, err, "TOKEN_REVOKED")
	wantRevoked(t, s, u.Client, streams)
	if got := next.entry(waiting.GetId()).GetStatus(); got != dlsmsv1.WaitlistStatus_WAITLIST_STATUS_OFFERED {
		t.Errorf("the next user in line is %v", got)
	}
	_, err = s.anonymous().Login(t.Context(), u.User.GetStudentId(), u.Password)
	refused(t, err, "BAD_CREDENTIALS")
	if _, err := s.anonymous().Auth.Register(t.Context(), &dlsmsv1.RegisterRequest{
		StudentId: u.User.GetStudentId(), Name: "Again", Email: "again@university.example", Password: password,
	}); err != nil {
		t.Fatal(err)
	}
	again := s.login(t, u.User.GetStudentId(), password)
	if again.id() == u.id() || len(again.export().Reservations) != 0 {
		t.Error("the student id got its old account back")
	}
	admin := s.withRole(t, adminRole)
	_, err = admin.Auth.CloseMyAccount(t.Context(), &dlsmsv1.CloseMyAccountRequest{Password: admin.Password})
	refused(t, err, "OWN_ROLE")
}

// TestExportOverHTTP checks the headers of the download, and a HEAD.
func TestExportOverHTTP(t *testing.T) {
	t.Parallel()
	s := shared(t)
	u := s.student(t)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		a := s.send(t, method, "/v1/auth/export", "", "Authorization", "Bearer "+u.Token)
		if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json" ||
			a.Header.Get("Cache-Control") != "no-store" ||
			!strings.Contains(a.Header.Get("Content-Disposition"), "my-data.json") {
			t.Errorf("%s: %s, %v", method, a.Status, a.Header)
		}
		if (method == http.MethodGet) != json.Valid(a.body) {
			t.Errorf("%s: %s", method, a.body)
		}
	}
}
