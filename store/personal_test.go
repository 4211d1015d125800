package store_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

func idText(n int64) string { return strconv.FormatInt(n, 10) }

// document is the export of a person.
type document struct {
	User            map[string]any   `json:"user"`
	Reservations    []map[string]any `json:"reservations"`
	WaitlistEntries []map[string]any `json:"waitlist_entries"`
	Strikes         []map[string]any `json:"strikes"`
	Suspensions     []map[string]any `json:"suspensions"`
	ByStaff         []map[string]any `json:"changes_by_staff"`
	AsStaff         []map[string]any `json:"changes_as_staff"`
	EndedTokens     []map[string]any `json:"ended_tokens"`
}

func (b bundle) exportOf(t *testing.T, user int) (doc document, text string) {
	t.Helper()
	var all strings.Builder
	err := b.ExportUser(t.Context(), b.users[user], func(part []byte) error {
		if len(part) == 0 || len(part) > 32<<10 {
			t.Errorf("a part of %d bytes", len(part))
		}
		all.Write(part)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(all.String()), &doc); err != nil {
		t.Fatal(err)
	}
	return doc, all.String()
}

// TestExportCoversTheSchema fails if a table with rows about people is neither in the export nor in
// the list of exceptions. A new column is in the export at once, unless a section leaves it out.
func TestExportCoversTheSchema(t *testing.T) {
	t.Parallel()
	exceptions := map[string]string{
		"closures": "the audit log has each closure, with the member of staff who made it",
	}
	exported := map[string]bool{"users": true}
	for _, query := range store.ExportQueries() {
		for _, word := range strings.Fields(query) {
			exported[word] = true
		}
	}
	db := storetest.NewDB(t)
	tables := storetest.Rows[string](t, db, `
		SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'user_id'
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
		UNION
		SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND confrelid = 'users'::regclass
		ORDER BY 1`)
	if len(tables) < 8 {
		t.Errorf("only %v: the search for tables is broken", tables)
	}
	for _, table := range tables {
		if exported[table] == (exceptions[table] != "") {
			t.Errorf("%s must either be in exportSections, or in the list of exceptions with a reason", table)
		}
		delete(exceptions, table)
	}
	if len(exceptions) > 0 {
		t.Errorf("no table needs the exceptions %v", exceptions)
	}
}

// TestExportUser compares the export with all rows of the person, column by column.
func TestExportUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.person(t)
	admin := b.actor(t, 4, library.RoleAdmin, nil)
	b.strikePolicy(t, 1, 30, 2)
	mine := b.inStatus(t, 0, 1, 0, library.CheckedIn)
	others := b.reserve(t, 1, 1, 600, 660)
	if _, err := b.JoinWaitlist(t.Context(), library.Booking{
		UserID: b.users[0], SeatID: b.seats[1], StartTime: at(600), EndTime: at(660), RequestID: "mine",
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CheckOutFor(t.Context(), by(admin, "she has left"), mine.ID); err != nil {
		t.Fatal(err)
	}
	b.miss(t, 0, 2, 300)
	b.judge(t)
	if err := b.RevokeToken(t.Context(), b.users[0], "jti", at(day)); err != nil {
		t.Fatal(err)
	}
	b.db.Exec(t, `UPDATE users SET password_hash = 'the-secret-hash' WHERE id = $1`, b.users[0])
	doc, text := b.exportOf(t, 0)

	for _, want := range []string{"Ada Lovelace", "Ada.L", "ada@x.example", "CARD-1815", "she has left", "mine", `"jti"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the export lacks %q", want)
		}
	}
	for _, secret := range []string{
		"the-secret-hash", `"user_id": ` + idText(b.users[4]), "token_generation", "request_hash",
	} {
		if strings.Contains(text, secret) {
			t.Errorf("the export has %q", secret)
		}
	}
	for what, n := range map[string][2]int{
		"reservations":     {len(doc.Reservations), 2},
		"waitlist entries": {len(doc.WaitlistEntries), 1},
		"strikes":          {len(doc.Strikes), 1},
		"suspensions":      {len(doc.Suspensions), 1},
		"changes by staff": {len(doc.ByStaff), 1},
		"changes as staff": {len(doc.AsStaff), 0},
		"ended tokens":     {len(doc.EndedTokens), 1},
	} {
		if n[0] != n[1] {
			t.Errorf("%d %s, want %d", n[0], what, n[1])
		}
	}
	events := doc.Reservations[0]["events"].([]any)
	if len(events) != 3 {
		t.Errorf("%d events of the first reservation, want RESERVED, CHECKED_IN and CHECKED_OUT", len(events))
	}
	if text := storetest.Value[string](t, b.db, `SELECT label FROM seats WHERE id = $1`, b.seats[0]); doc.
		Reservations[0]["label"] != text {
		t.Errorf("the seat %v, want %s", doc.Reservations[0]["label"], text)
	}
	if theirs, text := b.exportOf(t, 1); len(theirs.Reservations) != 1 ||
		!strings.Contains(text, idText(others.ID)) || strings.Contains(text, "Lovelace") {
		t.Errorf("the export of another user: %s", text)
	}
	if asStaff, text := b.exportOf(t, 4); len(asStaff.AsStaff) != 2 || strings.Contains(text, "Ada.L") &&
		!strings.Contains(text, "about-Ada.L") {
		t.Errorf("what the admin did: %v", asStaff.AsStaff)
	}
	err := b.ExportUser(t.Context(), 1<<40, func([]byte) error { return nil })
	wantErr(t, err, library.ErrUserNotFound)
	storetest.CheckInvariants(t, b.db)
}

// TestExportInPages exports more rows than a page has, in parts.
func TestExportInPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 350
	b.db.Exec(t, `
		INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at, check_in_deadline,
			created_at)
		SELECT 1, $1, $2, tstzrange(d, d + interval '1 hour'), 'CONFIRMED', d, d, d
		FROM generate_series(1, $4) i, LATERAL (SELECT $3::timestamptz + i * interval '2 hours' AS d) x`,
		b.seats[0], b.users[0], noon, n)
	b.db.WriteHistory(t)
	doc, text := b.exportOf(t, 0)
	found := map[string]bool{}
	for _, r := range doc.Reservations {
		found[r["start_time"].(string)] = true
	}
	if len(doc.Reservations) != n || len(found) != n || len(text) < 3*32<<10 {
		t.Errorf("%d reservations with %d starts in %d bytes, want %d", len(doc.Reservations), len(found), len(text), n)
	}
	keys := slices.Sorted(maps.Keys(doc.Reservations[0]))
	wantEqual(t, "fields", keys, []string{
		"area", "branch", "check_in_deadline", "check_in_opens_at", "checked_in_at", "created_at", "end_time", "ended_at",
		"entry_id", "events", "id", "label", "offer_expires_at", "proof", "reminded_at", "request_id", "screen_id",
		"seat_id", "start_time", "status", "version",
	})
}

// TestExportForOperator exports a person on request, and leaves a row in the audit log.
func TestExportForOperator(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var text strings.Builder
	write := func(part []byte) error { text.Write(part); return nil }
	user, err := b.ExportForOperator(t.Context(), byHost("letter of 2 March"), b.studentID(t, 0), write)
	if err != nil || user != b.users[0] || !json.Valid([]byte(text.String())) {
		t.Errorf("user %d, %v: %s", user, err, text.String())
	}
	wantEqual(t, "audit log", b.audited(t), []string{"HOST test user/" + idText(b.users[0]) + " letter of 2 March"})
	_, err = b.ExportForOperator(t.Context(), byHost(""), "no-such-id", write)
	wantErr(t, err, library.ErrPersonNotFound)
}
