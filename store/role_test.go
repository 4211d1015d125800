package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestSetRole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin := b.actor(t, 4, library.RoleAdmin, nil)
	id := b.studentID(t, 0)
	generation := func() int64 {
		return storetest.Value[int64](t, b.db, `SELECT token_generation FROM users WHERE id = $1`, b.users[0])
	}
	row := func() string {
		return storetest.Value[string](t, b.db, `SELECT concat_ws(' ', role, branches) FROM users WHERE id = $1`, b.users[0])
	}
	home := b.home(t)
	for _, step := range []struct {
		grant   library.Grant
		want    string
		changes bool
	}{
		{library.Grant{Role: library.RoleStudent}, "STUDENT", false},
		{library.Grant{Role: library.RoleStaff, Branches: []string{"branch-0"}}, fmt.Sprintf("STAFF {%d}", home), true},
		{library.Grant{Role: library.RoleStaff, Branches: []string{"branch-0"}}, fmt.Sprintf("STAFF {%d}", home), false},
		{library.Grant{Role: library.RoleStaff}, "STAFF", true},
		{library.Grant{Role: library.RoleLibrarian}, "LIBRARIAN", true},
		{library.Grant{Role: library.RoleAdmin}, "ADMIN", true},
		{library.Grant{Role: library.RoleStudent}, "STUDENT", true},
	} {
		step.grant.StudentID = strings.ToLower(id)
		before, audited := generation(), len(b.audited(t))
		check := by(admin, "")
		check.ValidateOnly = true
		was := row()
		if _, err := b.SetRole(t.Context(), check, step.grant); err != nil || generation() != before || row() != was {
			t.Errorf("%+v: validate_only changed the row or failed: %v", step.grant, err)
		}
		g, err := b.SetRole(t.Context(), by(admin, "new job"), step.grant)
		if err != nil || g.UserID != b.users[0] || g.StudentID != id {
			t.Fatalf("%+v, %v", g, err)
		}
		wantEqual(t, "row", row(), step.want)
		rows := len(b.audited(t)) - audited
		if changed := generation() > before; changed != step.changes || rows == 1 != step.changes {
			t.Errorf("%+v: tokens ended: %v, audit rows: %d", step.grant, changed, rows)
		}
	}
	log, err := b.Revocations(t.Context(), store.Snapshot{})
	if err != nil || len(log.Revocations) != 5 || log.Revocations[4].Generation != generation() {
		t.Errorf("revocations %+v, %v", log.Revocations, err)
	}
	wantEqual(t, "audit log", storetest.Rows[string](t, b.db, `
		SELECT concat_ws(' ', object, before->>'role', before->>'branches', after->>'role', after->>'branches', user_id)
		FROM audit_log ORDER BY id LIMIT 2`), []string{
		fmt.Sprintf(`user/%d STUDENT STAFF ["branch-0"] %d`, b.users[0], b.users[4]),
		fmt.Sprintf(`user/%d STAFF ["branch-0"] STAFF %d`, b.users[0], b.users[4]),
	})
	for _, tc := range []struct {
		grant library.Grant
		want  error
	}{
		{library.Grant{StudentID: "none", Role: library.RoleAdmin}, library.ErrPersonNotFound},
		{library.Grant{StudentID: id, Role: library.RoleStaff, Branches: []string{"branch-0", "none"}},
			library.ErrBranchNotFound},
		{library.Grant{StudentID: b.studentID(t, 4), Role: library.RoleStudent}, library.ErrOwnRole},
	} {
		_, err := b.SetRole(t.Context(), by(admin, ""), tc.grant)
		wantErr(t, err, tc.want)
	}
}

// TestAdminsCannotDemoteEachOther lets two admins take the role of each other, and close the account
// of each other, at the same time. One admin must be left.
func TestAdminsCannotDemoteEachOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	replicas := b.replicas(t, 2)
	for round := range 20 {
		b.db.Exec(t, `UPDATE users SET closed_at = NULL`)
		admins := [2]library.Actor{
			b.actor(t, 0, library.RoleAdmin, nil), b.actor(t, 1, library.RoleAdmin, nil),
		}
		var g sync.WaitGroup
		for i, s := range replicas {
			g.Go(func() {
				var err error
				other := admins[1-i].Token
				if round%2 == 0 {
					_, err = s.SetRole(t.Context(), by(admins[i], ""), library.Grant{
						StudentID: other.StudentID, Role: library.RoleStudent,
					})
				} else {
					_, err = s.CloseUser(t.Context(), by(admins[i], ""), other.ID)
				}
				if err != nil && !errors.Is(err, library.ErrTokenRevoked) {
					t.Error(err)
				}
			})
		}
		g.Wait()
		if n := storetest.Value[int](t, b.db, `SELECT count(*) FROM users WHERE role = 'ADMIN'`); n != 1 {
			t.Fatalf("round %d: %d admins are left", round, n)
		}
	}
	if n := b.deadlocks(t, replicas...); n > 0 {
		t.Errorf("%d deadlocks", n)
	}
}

func TestUpsertPeople(t *testing.T) {
	t.Parallel()
	b := setup(t)
	text := func(s string) *string { return &s }
	ids := []string{b.studentID(t, 0), b.studentID(t, 1)}
	upsert := func(changes ...library.PersonChange) (int, error) {
		return b.UpsertPeople(t.Context(), byHost("import"), changes)
	}
	row := func(user int) string {
		return storetest.Value[string](t, b.db, `
			SELECT concat_ws('|', name, email, user_group, card) FROM users WHERE id = $1`, b.users[user])
	}
	n, err := upsert(
		library.PersonChange{StudentID: strings.ToLower(ids[0]), Name: text("Ida"), Email: text("i@x.example"),
			Group: text("staff"), Card: text("1")},
		library.PersonChange{StudentID: ids[1], Card: text("2")})
	if err != nil || n != 2 || row(0) != "Ida|i@x.example|staff|1" {
		t.Fatalf("%d, %v: %s", n, err, row(0))
	}
	swap := []library.PersonChange{{StudentID: ids[0], Card: text("2")}, {StudentID: ids[1], Card: text("1")}}
	if n, err := upsert(swap...); err != nil || n != 2 || !strings.HasSuffix(row(0), "|2") ||
		!strings.HasSuffix(row(1), "|1") {
		t.Errorf("a swap of cards: %d, %v", n, err)
	}
	if n, err := upsert(swap...); err != nil || n != 0 {
		t.Errorf("again: %d, %v", n, err)
	}
	before := len(b.audited(t))
	wantEqual(t, "audit rows", before, 4)
	_, err = upsert(library.PersonChange{StudentID: ids[0], Name: text("Other")},
		library.PersonChange{StudentID: b.studentID(t, 2), Card: text("1")})
	wantRefusal(t, err, library.CardTaken("1", b.studentID(t, 2)))
	_, err = upsert(library.PersonChange{StudentID: ids[0], Name: text("Other")}, library.PersonChange{StudentID: "none"})
	wantErr(t, err, library.ErrPersonNotFound)
	wantEqual(t, "row", row(0), "Ida|i@x.example|staff|2")
	if n, err := upsert(library.PersonChange{StudentID: ids[0], Group: text(""), Card: text("")}); err != nil || n != 1 ||
		row(0) != "Ida|i@x.example|" {
		t.Errorf("%d, %v: %s", n, err, row(0))
	}
	wantEqual(t, "audit rows", len(b.audited(t)), before+1)
}

func TestCloseUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin := b.actor(t, 4, library.RoleAdmin, nil)
	past := b.inStatus(t, 0, 1, 0, library.Completed)
	upcoming := b.reserve(t, 0, 1, 120, 180)
	next := b.join(t, 1, 1, 120, 180)
	b.offeredBy(t, 3, 0, 2, 240, 300)
	b.db.Exec(t, `UPDATE users SET password_hash = 'hash', role = 'STAFF' WHERE id = $1`, b.users[0])
	check := by(admin, "left")
	check.ValidateOnly = true
	want := library.Closed{Reservations: 2, Entries: 1}
	before := b.everything(t)
	closed, err := b.CloseUser(t.Context(), check, b.users[0])
	if err != nil || closed != want {
		t.Fatalf("%+v, %v", closed, err)
	}
	wantEqual(t, "rows after validate_only", b.everything(t), before)
	if closed, err = b.CloseUser(t.Context(), by(admin, "left"), b.users[0]); err != nil || closed != want {
		t.Fatalf("%+v, %v", closed, err)
	}
	wantEqual(t, "user", storetest.Value[string](t, b.db, `
		SELECT concat_ws(' ', role, password_hash = '', closed_at = dlsms_now(), name <> 'gone') FROM users WHERE id = $1`,
		b.users[0]), "STUDENT t t t")
	overview, err := b.Overview(t.Context(), admin, b.users[0])
	if err != nil {
		t.Fatal(err)
	}
	found, err := b.FindPeople(t.Context(), admin, library.PersonQuery{StudentID: overview.Person.StudentID}, 1)
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	for _, p := range []library.Person{overview.Person, found[0]} {
		if p.ClosedAt == nil || !p.ClosedAt.Equal(noon) {
			t.Errorf("the account was closed at %v, want %v", p.ClosedAt, noon)
		}
	}
	wantEqual(t, "the next user in line", b.entry(t, 1, next.ID).Status, library.EntryOffered)
	wantEqual(t, "notifications", storetest.Rows[string](t, b.db, `
		SELECT concat_ws(' ', kind, reason, notifies) FROM reservation_events WHERE by_library ORDER BY id`),
		[]string{"CANCELLED left t", "DECLINED left t"})
	if r, err := b.Reservation(t.Context(), b.users[0], past.ID); err != nil || r.Status != library.Completed {
		t.Errorf("the history: %+v, %v", r, err)
	}
	if r, err := b.Reservation(t.Context(), b.users[0], upcoming.ID); err != nil || r.Status != library.Cancelled {
		t.Errorf("the upcoming reservation: %+v, %v", r, err)
	}
	log, err := b.Revocations(t.Context(), store.Snapshot{})
	if err != nil || len(log.Revocations) != 1 || log.Revocations[0].UserID != b.users[0] {
		t.Errorf("revocations %+v, %v", log.Revocations, err)
	}
	if closed, err = b.CloseUser(t.Context(), by(admin, "left"), b.users[0]); err != nil || closed != (library.Closed{}) {
		t.Errorf("again: %+v, %v", closed, err)
	}
	wantEqual(t, "audit log", b.audited(t), []string{fmt.Sprintf("ADMIN Test user/%d left", b.users[0])})
	_, err = b.CloseUser(t.Context(), by(admin, ""), admin.Token.ID)
	wantErr(t, err, library.ErrOwnRole)
	refused, ok := errors.AsType[*library.Error](err)
	if !ok || !strings.Contains(refused.Message, "close your own account") {
		t.Errorf("the message does not speak of the account: %v", err)
	}
	_, err = b.CloseUser(t.Context(), by(admin, ""), 1<<40)
	wantErr(t, err, library.ErrPersonNotFound)
	storetest.CheckInvariants(t, b.db)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin := b.actor(t, 4, library.RoleAdmin, nil)
	check := by(admin, "")
	check.ValidateOnly = true
	k := library.ServiceKey{Name: "Gate", Branch: "branch-0", Scopes: []library.KeyScope{"arrivals", "screen"}}
	hash := make([]byte, 32)
	if made, err := b.CreateKey(t.Context(), check, k, hash); err != nil || made.ID != 0 {
		t.Errorf("validate_only: %+v, %v", made, err)
	}
	first, err := b.CreateKey(t.Context(), by(admin, ""), k, hash)
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []library.Order{by(admin, ""), check} {
		_, err = b.CreateKey(t.Context(), again, k, hash)
		wantRefusal(t, err, library.KeyExists(first.ID))
	}
	k.Name = "Gate 2"
	second, err := b.CreateKey(t.Context(), by(admin, ""), k, hash)
	if err != nil || second.ID == first.ID {
		t.Fatalf("%+v, %v", second, err)
	}
	k.Branch = "none"
	_, err = b.CreateKey(t.Context(), by(admin, ""), k, hash)
	wantErr(t, err, library.ErrBranchNotFound)
	k.Branch, k.Name = "branch-0", "a\u200bb"
	_, err = b.CreateKey(t.Context(), by(admin, ""), k, hash)
	wantErr(t, err, library.Invalid())
	for range 2 {
		revoked, err := b.RevokeKey(t.Context(), by(admin, ""), first.ID)
		if err != nil || revoked.RevokedAt == nil || !revoked.RevokedAt.Equal(noon) {
			t.Errorf("%+v, %v", revoked, err)
		}
	}
	_, err = b.RevokeKey(t.Context(), by(admin, ""), 1<<40)
	wantErr(t, err, library.ErrKeyNotFound)
	list, err := b.Store.Keys(t.Context(), admin)
	if err != nil || len(list) != 2 || list[0].ID != second.ID || list[1].RevokedAt == nil ||
		list[0].Branch != "branch-0" || len(list[0].Scopes) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	records, err := b.KeyRecords(t.Context())
	if err != nil || len(records) != 2 {
		t.Errorf("%+v, %v", records, err)
	}
	wantEqual(t, "audit log", b.audited(t), []string{
		fmt.Sprintf("ADMIN Test key/%d", first.ID), fmt.Sprintf("ADMIN Test key/%d", second.ID),
		fmt.Sprintf("ADMIN Test key/%d", first.ID),
	})
	wantEqual(t, "secrets in the audit log", storetest.Value[int](t, b.db, `
		SELECT count(*) FROM audit_log a WHERE a::text ~ 'hash|0000000000'`), 0)
}

// TestAudit checks the filters of the audit log, its pages and its scope.
func TestAudit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'other', 'Other', 'UTC')`)
	home := b.home(t)
	for range 3 {
		r := b.reserve(t, 0, 0, 0, 60)
		if _, _, err := b.CancelFor(t.Context(), byHost("x"), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	last := storetest.Value[string](t, b.db, `SELECT object FROM audit_log ORDER BY id DESC LIMIT 1`)
	if _, err := b.CreateKey(t.Context(), byHost(""), library.ServiceKey{
		Name: "Screen", Branch: "other", Scopes: []library.KeyScope{library.ScopeScreen},
	}, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetRole(t.Context(), library.Order{Actor: b.actor(t, 1, library.RoleAdmin, nil), Action: "SetRole"},
		library.Grant{StudentID: b.studentID(t, 2), Role: library.RoleStaff}); err != nil {
		t.Fatal(err)
	}
	all := library.Host
	limited := b.actor(t, 3, library.RoleLibrarian, []int64{home})
	both := b.actor(t, 4, library.RoleLibrarian, []int64{home, home + 1,
		storetest.Value[int64](t, b.db, `SELECT id FROM branches WHERE code = 'other'`)})
	for name, tc := range map[string]struct {
		actor library.Actor
		query library.AuditQuery
		want  int
		err   error
	}{
		"all":                   {all, library.AuditQuery{}, 5, nil},
		"a branch":              {all, library.AuditQuery{Branch: "other"}, 1, nil},
		"an action":             {all, library.AuditQuery{Action: "SetRole"}, 1, nil},
		"an object":             {all, library.AuditQuery{Object: last}, 1, nil},
		"an unknown branch":     {all, library.AuditQuery{Branch: "none"}, 0, library.ErrBranchNotFound},
		"limited":               {limited, library.AuditQuery{}, 3, nil},
		"limited, an object":    {limited, library.AuditQuery{Object: last}, 1, nil},
		"limited, another":      {limited, library.AuditQuery{Branch: "other"}, 0, library.ErrBranchRequired},
		"limited, of no branch": {limited, library.AuditQuery{Object: fmt.Sprintf("user/%d", b.users[2])}, 0, nil},
		"two branches":          {both, library.AuditQuery{}, 4, nil},
		"no branch":             {b.actor(t, 2, library.RoleLibrarian, []int64{}), library.AuditQuery{}, 0, nil},
	} {
		var got []library.AuditEntry
		var before int64
		for {
			page, err := b.Audit(t.Context(), tc.actor, tc.query, before, 2)
			if !errors.Is(err, tc.err) {
				t.Errorf("%s: %v", name, err)
			}
			got = append(got, page...)
			if len(page) < 2 {
				break
			}
			before = page[1].ID
		}
		if len(got) != tc.want {
			t.Errorf("%s: %d rows, want %d", name, len(got), tc.want)
		}
		for i := 1; i < len(got); i++ {
			if got[i].ID >= got[i-1].ID {
				t.Errorf("%s: the rows are not the newest first", name)
			}
		}
	}
	newest, err := b.Audit(t.Context(), all, library.AuditQuery{Action: "SetRole"}, 0, 1)
	if err != nil || len(newest) != 1 || newest[0].StudentID != b.studentID(t, 1) || newest[0].UserID != b.users[1] ||
		!strings.Contains(newest[0].Before, `"branches": `) || newest[0].After != `{"role": "STAFF", "branches": null}` {
		t.Errorf("%+v, %v", newest, err)
	}
}
