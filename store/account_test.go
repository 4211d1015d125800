package store_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// closing returns the order with which a user closes the own account.
func (b bundle) closing(t *testing.T, user int, role library.Role) library.Order {
	t.Helper()
	order := by(b.actor(t, user, role, nil), "")
	order.Action = "CloseMyAccount"
	return order
}

// TestCloseOwnAccount closes the account of a user with a past, a present, a held and an upcoming
// reservation and a place in line. The waitlists are served, and no data of the person is left.
func TestCloseOwnAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	words := b.person(t)
	past := b.inStatus(t, 0, 1, 0, library.Completed)
	b.inStatus(t, 0, 1, 1, library.CheckedIn)
	_, err := b.Reserve(t.Context(), library.Booking{
		UserID: b.users[0], SeatID: b.seats[2], StartTime: at(120), EndTime: at(180), RequestID: "Ada.L-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	next := b.join(t, 1, 2, 120, 180)
	b.offeredBy(t, 3, 0, 3, 240, 300)
	behind := b.join(t, 2, 3, 240, 300)
	b.reserve(t, 3, 4, 360, 420)
	b.join(t, 0, 4, 360, 420)
	b.db.Exec(t, `UPDATE users SET password_hash = 'hash' WHERE id = $1`, b.users[0])
	order := b.closing(t, 0, library.RoleStaff)
	suspend := func(until time.Time) {
		b.db.Exec(t, `UPDATE users SET suspended_until = $2 WHERE id = $1`, b.users[0], until)
	}
	suspend(noon.Add(time.Second))
	_, _, err = b.CloseOwnAccount(t.Context(), order, "hash")
	wantErr(t, err, library.ErrSuspended)
	suspend(noon) // has ended
	before := b.everything(t)
	for _, refused := range []struct {
		hash   string
		change func(*library.Order)
		want   error
	}{
		{"another", func(*library.Order) {}, library.ErrBadCredentials},
		{"hash", func(o *library.Order) { o.Actor.Token = &library.Identity{ID: 1 << 40} }, library.ErrTokenInvalid},
		{"hash", func(o *library.Order) {
			token := *o.Actor.Token
			token.TokenGeneration--
			o.Actor.Token = &token
		}, library.ErrTokenRevoked},
	} {
		o := order
		refused.change(&o)
		_, _, err := b.CloseOwnAccount(t.Context(), o, refused.hash)
		wantErr(t, err, refused.want)
	}
	wantEqual(t, "rows after refusals", b.everything(t), before)

	closed, generation, err := b.CloseOwnAccount(t.Context(), order, "hash")
	if err != nil || closed != (library.Closed{Reservations: 3, Entries: 2}) {
		t.Fatalf("%+v, %v", closed, err)
	}
	for _, word := range words {
		if found := textsWith(t, b.db, word); found != nil {
			t.Errorf("%q is left in %v", word, found)
		}
	}
	wantEqual(t, "user", storetest.Value[string](t, b.db, `
		SELECT concat_ws(' ', role, password_hash = '', card IS NULL, closed_at = dlsms_now(), blanked_at = dlsms_now(),
			user_group, token_generation = $2) FROM users WHERE id = $1`, b.users[0], generation),
		"STUDENT t t t t maths t")
	wantEqual(t, "the next user in line", b.entry(t, 1, next.ID).Status, library.EntryOffered)
	wantEqual(t, "the user behind the offer", b.entry(t, 2, behind.ID).Status, library.EntryOffered)
	if r, err := b.Reservation(t.Context(), b.users[0], past.ID); err != nil || r.Status != library.Completed {
		t.Errorf("the history: %+v, %v", r, err)
	}
	log, err := b.Revocations(t.Context(), store.Snapshot{})
	if err != nil || len(log.Revocations) == 0 || log.Revocations[len(log.Revocations)-1].Generation != generation {
		t.Errorf("revocations %+v, %v", log.Revocations, err)
	}
	audit := b.audited(t)
	wantEqual(t, "audit log", audit[len(audit)-1:], []string{"STAFF CloseMyAccount user/" + idText(b.users[0])})
	_, _, err = b.CloseOwnAccount(t.Context(), order, "hash")
	wantErr(t, err, library.ErrTokenRevoked)
	_, _, err = b.CloseOwnAccount(t.Context(), b.closing(t, 4, library.RoleAdmin), "")
	wantErr(t, err, library.ErrOwnRole)
	storetest.CheckInvariants(t, b.db)
}

// TestClosedAccountJoinsNoWaitlist joins with a token that a replica still accepts: it learns of the
// end of tokens up to 5 s later.
func TestClosedAccountJoinsNoWaitlist(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admin := b.actor(t, 4, library.RoleAdmin, nil)
	b.reserve(t, 1, 0, 0, 60)
	token := b.actor(t, 0, library.RoleStudent, nil).Token
	booking := library.Booking{
		UserID: b.users[0], SeatID: b.seats[0], StartTime: at(0), EndTime: at(60), Token: token, RequestID: "once",
	}
	if _, err := b.JoinWaitlist(t.Context(), booking); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CloseUser(t.Context(), by(admin, "left"), b.users[0]); err != nil {
		t.Fatal(err)
	}
	_, err := b.JoinWaitlist(t.Context(), booking) // a repeat
	wantErr(t, err, library.ErrTokenRevoked)
	booking.RequestID = ""
	_, err = b.JoinWaitlist(t.Context(), booking)
	wantErr(t, err, library.ErrTokenRevoked)
	_, err = b.ValidateJoin(t.Context(), booking)
	wantErr(t, err, library.ErrTokenRevoked)
	wantEqual(t, "entries", storetest.Rows[string](t, b.db, `SELECT status FROM waitlist_entries`), []string{"LEFT"})
}

// TestCloseOwnAccountRace closes an account in several replicas, while the user reserves seats and
// joins waitlists. One call closes it, and the user has no live rows afterwards.
func TestCloseOwnAccountRace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	replicas := b.replicas(t, 3)
	b.reserve(t, 1, 1, 0, 600)
	order := b.closing(t, 0, library.RoleStudent)
	b.db.Exec(t, `UPDATE users SET password_hash = '' WHERE id = $1`, b.users[0])
	order.Actor = b.actor(t, 0, library.RoleStudent, nil)
	var g sync.WaitGroup
	errs := make([]error, len(replicas))
	for i, s := range replicas {
		g.Go(func() { _, _, errs[i] = s.CloseOwnAccount(t.Context(), order, "") })
		g.Go(func() {
			for n := range 10 {
				from := i*200 + n*20
				_, _ = s.Reserve(t.Context(), library.Booking{
					UserID: b.users[0], SeatID: b.seats[0], StartTime: at(from), EndTime: at(from + 20), Token: order.Actor.Token,
				})
				_, _ = s.JoinWaitlist(t.Context(), library.Booking{
					UserID: b.users[0], SeatID: b.seats[1], StartTime: at(from), EndTime: at(from + 20), Token: order.Actor.Token,
				})
			}
		})
	}
	g.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantErr(t, err, library.ErrTokenRevoked)
	}
	if won != 1 {
		t.Errorf("%d calls closed the account, want 1", won)
	}
	storetest.CheckInvariants(t, b.db) // one rule: a blanked user has no live rows
}

// TestCloseAgain closes accounts, restores a copy of the data from before, and applies the list of closed
// accounts.
func TestCloseAgain(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.FreezeClock(t, noon)
	b := bundle{db: db, seats: db.Seats(t, 5), users: db.Users(t, 5)}
	admin := b.actor(t, 4, library.RoleAdmin, nil)
	backup := storetest.CopyDB(t, db) // no store is open yet
	b.Store = db.Open(t, library.DefaultPolicy())
	if _, err := b.CloseUser(t.Context(), by(admin, "left"), b.users[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.EraseUser(t.Context(), b.studentID(t, 1)); err != nil {
		t.Fatal(err)
	}
	newer := b.db.Users(t, 1)[0]
	if _, err := b.EraseUser(t.Context(), storetest.Value[string](t, b.db,
		`SELECT student_id FROM users WHERE id = $1`, newer)); err != nil {
		t.Fatal(err)
	}
	var list []store.ClosedAccount
	for after := int64(0); ; after = list[len(list)-1].UserID {
		page, err := b.ClosedAccounts(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		list = append(list, page...)
	}
	wantEqual(t, "the list", list, []store.ClosedAccount{
		{UserID: b.users[0], ClosedAt: noon}, {UserID: b.users[1], Erased: true, ClosedAt: noon},
		{UserID: newer, Erased: true, ClosedAt: noon},
	})
	restored := backup.Open(t, library.DefaultPolicy())
	for _, again := range []bool{false, true} {
		for i, a := range list {
			changed, err := restored.CloseAgain(t.Context(), a)
			if i == 2 {
				wantErr(t, err, library.ErrUserNotFound) // the backup does not have the user
				continue
			}
			if err != nil || changed == again {
				t.Errorf("account %d, again %v: changed %v, %v", i, again, changed, err)
			}
		}
	}
	wantEqual(t, "states", storetest.Rows[string](t, backup, `
		SELECT concat_ws(' ', closed_at IS NOT NULL, blanked_at IS NOT NULL) FROM users ORDER BY id`),
		[]string{"t f", "t t", "f f", "f f", "f f"})
	early := slices.Clone(list)[1]
	early.UserID, early.ClosedAt = b.users[2], noon.Add(-100*365*24*time.Hour)
	_, err := restored.CloseAgain(t.Context(), early)
	wantErr(t, err, library.ErrUserNotFound) // closed before the user registered: the list of another database
	storetest.CheckInvariants(t, backup)
}

// TestAccount reads the accounts of users with all roles. Only the token of the present generation
// reads them.
func TestAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	token := func(user int) *library.Identity {
		return storetest.Value[*library.Identity](t, b.db, `
			SELECT json_build_object('ID', id, 'StudentID', student_id, 'TokenGeneration', token_generation)
			FROM users WHERE id = $1`, b.users[user])
	}
	home := b.home(t)
	other := storetest.Value[int64](t, b.db, `
		INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'a-branch', 'Another', 'UTC') RETURNING id`)
	for _, tc := range []struct {
		role     library.Role
		ids      []int64
		branches []string
		all      bool
	}{
		{library.RoleStudent, nil, []string{}, false},
		{library.RoleStaff, []int64{home, other}, []string{"a-branch", "branch-0"}, false},
		{library.RoleLibrarian, []int64{home}, []string{"branch-0"}, false},
		{library.RoleLibrarian, []int64{}, []string{}, false},
		{library.RoleStaff, nil, []string{}, true},
		{library.RoleAdmin, nil, []string{}, true},
		{library.RoleAdmin, []int64{home}, []string{}, true}, // as scopeOf decides
	} {
		b.db.Exec(t, `UPDATE users SET role = $2, branches = $3 WHERE id = $1`, b.users[0], tc.role, tc.ids)
		got, err := b.Account(t.Context(), token(0))
		if err != nil {
			t.Fatal(err)
		}
		if got.Role != tc.role || !slices.Equal(got.Branches, tc.branches) || got.AllBranches != tc.all {
			t.Errorf("%s of %v: %+v", tc.role, tc.ids, got)
		}
	}
	until := noon.Add(time.Hour)
	b.db.Exec(t, `UPDATE users SET name = 'Ada', email = 'ada@university.example', user_group = 'first-year',
		suspended_until = $2 WHERE id = $1`, b.users[1], until)
	me := token(1)
	got, err := b.Account(t.Context(), me)
	if err != nil || got.SuspendedUntil == nil || !got.SuspendedUntil.Equal(until) {
		t.Fatalf("%+v, %v", got, err)
	}
	got.SuspendedUntil = nil
	wantEqual(t, "account", got, library.Account{
		User: library.User{
			ID: b.users[1], StudentID: me.StudentID, Name: "Ada", Email: "ada@university.example",
			Role: library.RoleStudent, CreatedAt: noon,
		},
		Branches: []string{}, Group: "first-year",
	})
	b.db.Exec(t, `UPDATE users SET suspended_until = $2 WHERE id = $1`, b.users[1], noon)
	if got, err := b.Account(t.Context(), me); err != nil || got.SuspendedUntil != nil {
		t.Errorf("a suspension that has ended: %+v, %v", got, err)
	}
	for name, tc := range map[string]struct {
		change func(*library.Identity)
		want   error
	}{
		"an earlier generation": {func(i *library.Identity) { i.TokenGeneration-- }, library.ErrTokenRevoked},
		"a later generation":    {func(i *library.Identity) { i.TokenGeneration++ }, library.ErrTokenInvalid},
		"another student":       {func(i *library.Identity) { i.StudentID = "S1" }, library.ErrTokenInvalid},
		"no user":               {func(i *library.Identity) { i.ID = 1 << 40 }, library.ErrTokenInvalid},
	} {
		token := *me
		tc.change(&token)
		if got, err := b.Account(t.Context(), &token); !errors.Is(err, tc.want) || got.Name != "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := b.CloseUser(t.Context(), byHost(""), b.users[1]); err != nil {
		t.Fatal(err)
	}
	_, err = b.Account(t.Context(), me)
	wantErr(t, err, library.ErrTokenRevoked)
}
