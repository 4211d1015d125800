package rest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// staff registers a user with a role and returns the header of their token.
func (r *testReplica) staff(t testing.TB, studentID, role string) []string {
	t.Helper()
	r.login(t, studentID)
	r.db.Exec(t, `UPDATE users SET role = $2 WHERE student_id = $1`, studentID, role)
	a := r.do(t, "POST", "/v1/auth/login", fmt.Sprintf(`{"studentId": %q, "password": "correct horse"}`, studentID))
	var login struct{ AccessToken string }
	if err := json.Unmarshal(a.body, &login); err != nil || login.AccessToken == "" {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	return []string{"Authorization", "Bearer " + login.AccessToken}
}

const importPath = "/v1/admin/seats:import"

// importFile imports a file, which must succeed.
func (r *testReplica) importFile(t testing.TB, token []string, query, file string) *dlsmsv1.ImportSeatsResponse {
	t.Helper()
	a := r.do(t, "POST", importPath+"?"+query, file, append(token, "Content-Type", "text/csv; charset=UTF-8")...)
	resp := &dlsmsv1.ImportSeatsResponse{}
	if err := protojson.Unmarshal(a.body, resp); err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	return resp
}

// TestSeatFileRoundTrip exports the seats, changes the file, and imports it: first as a dry run, then
// with its fingerprint.
func TestSeatFileRoundTrip(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	token := r.staff(t, "L0001", "LIBRARIAN")
	exported := r.do(t, "GET", "/v1/admin/seats:export?branch=branch-0", "", token...)
	if exported.StatusCode != http.StatusOK || exported.Header.Get("Content-Type") != "text/csv; charset=utf-8" ||
		!strings.Contains(string(exported.body), "branch-0,Area,A-3,") {
		t.Fatalf("%s %v\n%s", exported.Status, exported.Header, exported.body)
	}
	same := r.importFile(t, token, "dryRun=true", string(exported.body))
	if same.GetSame() != 3 || len(same.GetChanges()) != 3 {
		t.Errorf("the export is not the same: %v", same)
	}
	if a := r.do(t, "POST", "/v1/reservations", r.booking(0, ""), token...); a.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	file := strings.Replace(string(exported.body), "branch-0,Area,A-1,,,,,,false\n", "branch-0,Ärea,B-1,window,,,,,\n", 1)
	const query = "retireMissing=true&onBookings=BOOKING_ACTION_CANCEL&note[en]=Renovation&note[de]=Umbau&reason=new+plan"
	dry := r.importFile(t, token, query+"&dryRun=true", file)
	if dry.GetCreated() != 1 || dry.GetRetired() != 1 || dry.GetSame() != 2 || dry.GetImpact().GetReservations() != 1 ||
		dry.GetFingerprint() == "" || dry.GetImpact().GetFirst()[0].GetStudentId() != "L0001" {
		t.Errorf("dry run: %v", dry)
	}
	a := r.do(t, "POST", importPath+"?"+query, file, append(token, "Content-Type", "text/csv")...)
	if p := a.problem(t, http.StatusBadRequest, "INVALID_FIELDS"); p.Errors[0].Pointer != "#/fingerprint" {
		t.Errorf("without a fingerprint: %+v", p)
	}
	of := "fingerprint=" + dry.GetFingerprint()
	a = r.do(t, "POST", importPath+"?"+of, file, append(token, "Content-Type", "text/csv")...)
	a.problem(t, a.StatusCode, "CHANGED_SINCE_CHECK")
	done := r.importFile(t, token, query+"&"+of, file)
	if done.GetCreated() != 1 || done.GetRetired() != 1 || done.GetChanges()[0].GetSeatId() == 0 {
		t.Errorf("import: %v", done)
	}
	exported = r.do(t, "GET", "/v1/admin/seats:export", "", token...)
	got := string(exported.body)
	if !strings.Contains(got, "branch-0,Ärea,B-1,window,,,,,false\n") || strings.Contains(got, "A-1") {
		t.Errorf("the seats are\n%s", got)
	}
	r.logged(t, "ImportSeats", `"request_id"`)
}

func TestSeatFileFaults(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	token := r.staff(t, "L0001", "LIBRARIAN")
	csv := append(token, "Content-Type", "text/csv")
	file := "branch,label,x_cm,y_cm\nbranch-0,A-1,x,1\nbranch-0,A-2,,2\n"
	p := r.do(t, "POST", importPath+"?dryRun=true", file, csv...).problem(t, http.StatusBadRequest, "INVALID_FIELDS")
	if len(p.Errors) != 2 || p.Errors[0].Pointer != "line 2, column x_cm" ||
		p.Errors[1].Pointer != "line 3, column x_cm" ||
		!strings.Contains(p.Detail, "line 2, column x_cm must be a whole number") {
		t.Errorf("%+v", p)
	}
	var many strings.Builder
	many.WriteString("branch,label\n")
	for i := range 3000 {
		fmt.Fprintf(&many, "branch-0,%d \n", i)
	}
	a := r.do(t, "POST", importPath+"?dryRun=true", many.String(), csv...)
	p = a.problem(t, http.StatusBadRequest, "INVALID_FIELDS")
	if len(p.Errors) != 1000 {
		t.Errorf("%d faults", len(p.Errors))
	}
	for query, field := range map[string]string{
		"dryRun=true&content=YQ==":     "#/content",
		"dryRun=maybe":                 "#/dryRun",
		"dryRun=true&branch=main":      "#/branch",
		"dryRun=true&onBookings=7":     "#/onBookings",
		"dryRun=true&note[%26]=x":      "#/note",
		"dryRun=true&reason=%E2%80%A8": "#/reason",
	} {
		a := r.do(t, "POST", importPath+"?"+query, "branch,label\n", csv...)
		p := a.problem(t, http.StatusBadRequest, "INVALID_FIELDS")
		if !strings.EqualFold(strings.ReplaceAll(p.Errors[0].Pointer, "_", ""), field) && p.Errors[0].Pointer != "#" {
			t.Errorf("%s: %+v", query, p)
		}
	}
	for _, method := range []string{"GET", "PUT"} {
		a := r.do(t, method, importPath, "", token...)
		a.problem(t, http.StatusMethodNotAllowed, "")
		if a.Header.Get("Allow") != "POST" {
			t.Errorf("%s allows %s", method, a.Header.Get("Allow"))
		}
	}
}

func TestSeatFileBodies(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	token := r.staff(t, "L0001", "LIBRARIAN")
	csv := append(token, "Content-Type", "text/csv")
	const head = "branch,label,desk\n"
	row := "branch-0,A-1," + strings.Repeat(" ", maxFile-len(head)-len("branch-0,A-1,\n")) + "\n"
	p := r.do(t, "POST", importPath+"?dryRun=true", head+row, csv...).problem(t, http.StatusBadRequest, "INVALID_FIELDS")
	if p.Errors[0].Pointer != "line 2, column desk" { // the file of 2 MiB was read
		t.Errorf("%+v", p)
	}
	p = r.do(t, "POST", importPath+"?dryRun=true", head+row+"\n", csv...).problem(t, http.StatusRequestEntityTooLarge, "")
	if p.Detail != "the body has more than 2 MiB" {
		t.Errorf("%+v", p)
	}
	for _, mediaType := range []string{"application/json", "text/csv; charset=iso-8859-1", "text/plain", ""} {
		headers := append(token, "Content-Type", mediaType)
		p = r.do(t, "POST", importPath+"?dryRun=true", head, headers...).problem(t, http.StatusUnsupportedMediaType, "")
		if !strings.Contains(p.Detail, "text/csv") {
			t.Errorf("%s: %+v", mediaType, p)
		}
	}
	r.do(t, "POST", importPath+"?dryRun=true", "", csv...).problem(t, http.StatusBadRequest, "INVALID_FIELDS")
	// Other paths keep their limit.
	large := fmt.Sprintf(`{"branch": "branch-0", "reason": %q}`, strings.Repeat("x", 64<<10))
	r.do(t, "POST", "/v1/admin/branches/branch-0/areas", large, token...).problem(t, http.StatusRequestEntityTooLarge, "")
}

// TestSeatFileNeedsRole sends only the headers of an import. The replica must refuse it before the
// body arrives.
func TestSeatFileNeedsRole(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	student, staff := r.login(t, "S0001"), r.staff(t, "D0001", "STAFF")
	for name, c := range map[string]struct {
		token  []string
		status int
		reason string
	}{
		"no token":  {[]string{"X-None", "1"}, http.StatusUnauthorized, "TOKEN_MISSING"},
		"bad token": {[]string{"Authorization", "Bearer x"}, http.StatusUnauthorized, "TOKEN_INVALID"},
		"student":   {student, http.StatusForbidden, "ROLE_REQUIRED"},
		"staff":     {staff, http.StatusForbidden, "ROLE_REQUIRED"},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(fileTimeout / 2)) // sooner than the body would be late
		fmt.Fprintf(conn, "POST %s?dryRun=true HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"+
			"Content-Length: 1000000\r\n%s: %s\r\n\r\n", importPath, c.token[0], c.token[1])
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var p problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.StatusCode != c.status || p.Reason != c.reason {
			t.Errorf("%s: %s, %+v, %v", name, resp.Status, p, err)
		}
		r.do(t, "GET", "/v1/admin/seats:export", "", c.token...).problem(t, c.status, c.reason)
	}
}
