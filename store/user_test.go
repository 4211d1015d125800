package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

func TestRegisterUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got, err := b.RegisterUser(t.Context(), library.NewUser{
		StudentID: "S2021.ada_1", Name: "Ada Ørsted", Email: "ada@university.example", PasswordHash: "hash",
		Role: library.RoleLibrarian})
	if err != nil {
		t.Fatal(err)
	}
	want := library.User{ID: got.ID, StudentID: "S2021.ada_1", Name: "Ada Ørsted", Email: "ada@university.example",
		Role: library.RoleLibrarian, CreatedAt: noon}
	wantEqual(t, "registered", got, want)
	for _, id := range []string{"S2021.ada_1", "s2021.ADA_1"} { // the case of letters does not matter
		c, err := b.Credentials(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "credentials of "+id, c, library.Credentials{User: want, PasswordHash: "hash",
			TokenGeneration: c.TokenGeneration})
		_, err = b.RegisterUser(t.Context(), library.NewUser{StudentID: id, Role: library.RoleStudent})
		wantErr(t, err, library.ErrStudentIDTaken)
	}
	c, err := b.CredentialsByID(t.Context(), got.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "credentials by id", c.User, want)
	_, err = b.Credentials(t.Context(), "unregistered")
	wantErr(t, err, library.ErrUserNotFound)
	_, err = b.CredentialsByID(t.Context(), 1<<40)
	wantErr(t, err, library.ErrUserNotFound)
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	b := setup(t)
	user := b.users[0]
	_, err := b.ChangePassword(t.Context(), user, "wrong", "new", at(60))
	wantErr(t, err, library.ErrBadCredentials)
	_, err = b.ChangePassword(t.Context(), 1<<40, "", "new", at(60))
	wantErr(t, err, library.ErrBadCredentials)
	wantEqual(t, "revocations of refused changes", storetest.Value[int](t, b.db, `SELECT count(*) FROM revocations`), 0)
	before := storetest.Value[int64](t, b.db, `SELECT token_generation FROM users WHERE id = $1`, user)
	generation, err := b.ChangePassword(t.Context(), user, "", "new", at(60))
	if err != nil || generation <= before {
		t.Fatal(before, generation, err)
	}
	c, err := b.CredentialsByID(t.Context(), user)
	if err != nil || c.PasswordHash != "new" || c.TokenGeneration != generation {
		t.Errorf("%+v, %v", c, err)
	}

	// A restore of the database brings back the old password and the old token generation. The next
	// change of the password must not give the generation of the change that the restore undid.
	b.db.Exec(t, `UPDATE users SET password_hash = '', token_generation = $1 WHERE id = $2`, before, user)
	if again, err := b.ChangePassword(t.Context(), user, "", "new", at(60)); err != nil || again == generation {
		t.Errorf("generation %d again, %v", again, err)
	}
}

// TestRevokeTokens ends all tokens of a user. Of several calls with tokens of one generation, only one
// ends tokens, also if they are made at the same time.
func TestRevokeTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	row := func(user int64) library.Identity {
		got, err := b.Identities(t.Context(), user)
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		return got[0]
	}
	before, bystander := row(b.users[0]), row(b.users[1])
	generations := make([]int64, 3)
	ended := 0
	for i, err := range atOnce(len(generations), func(i int) (err error) {
		generations[i], err = b.RevokeTokens(t.Context(), &before, at(60))
		return err
	}) {
		if err == nil {
			ended++
			wantEqual(t, "generation", generations[i], row(b.users[0]).TokenGeneration)
			continue
		}
		wantErr(t, err, library.ErrTokenRevoked)
	}
	after := row(b.users[0])
	if ended != 1 || after.TokenGeneration <= before.TokenGeneration {
		t.Errorf("%d calls ended tokens; before %+v, after %+v", ended, before, after)
	}
	log, err := b.Revocations(t.Context(), store.Snapshot{})
	if err != nil || len(log.Revocations) != 1 {
		t.Fatalf("%+v, %v", log.Revocations, err)
	}
	log.Revocations[0].ExpiresAt = log.Revocations[0].ExpiresAt.UTC()
	wantEqual(t, "revocation", log.Revocations[0], store.Revocation{
		UserID: before.ID, Generation: after.TokenGeneration, ExpiresAt: at(60),
	})
	wantEqual(t, "another user", row(b.users[1]), bystander)
	_, err = b.RevokeTokens(t.Context(), &library.Identity{ID: 1 << 40}, at(60))
	wantErr(t, err, library.ErrTokenRevoked)
	if _, err := b.RevokeTokens(t.Context(), &after, at(60)); err != nil { // a new login
		t.Error(err)
	}
}

// TestReusedUserIDGetsAnotherGeneration registers 50 users that get the same id, because the test
// resets the sequence as a restore does. Each must have another generation.
func TestReusedUserIDGetsAnotherGeneration(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.Seed(t.Context(), "hash"); err != nil {
		t.Fatal(err)
	}
	seen := map[int64]bool{}
	for range 50 {
		u, err := b.RegisterUser(t.Context(), library.NewUser{StudentID: "S1", Role: library.RoleStudent})
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Identities(t.Context(), u.ID, 1<<40)
		if err != nil || len(got) != 1 || got[0].ID != u.ID || got[0].StudentID != "S1" {
			t.Fatalf("%+v, %v", got, err)
		}
		seen[got[0].TokenGeneration] = true
		b.db.Exec(t, `DELETE FROM users WHERE id = $1`, u.ID)
		b.db.Exec(t, `SELECT setval(pg_get_serial_sequence('users', 'id'), $1, false)`, u.ID)
	}
	if len(seen) != 50 {
		t.Errorf("50 users with the same id have %d generations", len(seen))
	}
	const demo = `SELECT count(DISTINCT token_generation) FROM users WHERE student_id ~ '^(S202100|S2021010|[LDA]0001)'`
	if n := storetest.Value[int](t, b.db, demo); n != 13 {
		t.Errorf("the 13 demo users have %d generations", n)
	}
	wantEqual(t, "generations that JSON can't hold", storetest.Value[int](t, b.db,
		`SELECT count(*) FROM users WHERE token_generation NOT BETWEEN 0 AND 2::bigint^52`), 0)
}

func TestSeed(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	db.Exec(t, `SELECT setval('seats_id_seq', 1, false)`) // as in a new database
	s := db.Open(t, library.DefaultPolicy())
	// Three replicas seed at the same time. Only one adds each row.
	added := make([]store.Seeded, 3)
	for _, err := range atOnce(3, func(i int) (err error) {
		added[i], err = s.Seed(t.Context(), "hash")
		return err
	}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(added, func(a, b store.Seeded) int { return b.Seats - a.Seats })
	wantEqual(t, "added", added, []store.Seeded{{Branches: 3, Seats: 49, Users: 13}, {}, {}})

	wantEqual(t, "seats", storetest.Rows[string](t, db, `
		SELECT code || ' ' || b.name || ' ' || count(*) || ' ' || count(DISTINCT area) FROM branches b
		JOIN seats s ON s.branch_id = b.id GROUP BY code, b.name ORDER BY code`),
		[]string{"engineering Engineering 12 2", "main Main Library 25 3", "science Science 12 2"})
	for amenity, least := range []int{1: 18, 2: 3, 3: 3, 4: 3, 5: 3} {
		if n := storetest.Value[int](t, db, `SELECT count(*) FROM seats WHERE $1 = ANY(amenities)`,
			amenity); n < least || amenity == 1 && n != 18 {
			t.Errorf("%d seats with amenity %d", n, amenity)
		}
	}
	wantEqual(t, "users", strings.Join(storetest.Rows[string](t, db,
		`SELECT concat_ws(' ', student_id, role, branches) FROM users ORDER BY 1`), ", "),
		"A0001 ADMIN, D0001 STAFF {"+storetest.Value[string](t, db, `SELECT id::text FROM branches WHERE code = 'main'`)+
			"}, L0001 LIBRARIAN, S2021001 STUDENT, S2021002 STUDENT, S2021003 STUDENT, S2021004 STUDENT, "+
			"S2021005 STUDENT, S2021006 STUDENT, S2021007 STUDENT, S2021008 STUDENT, S2021009 STUDENT, S2021010 STUDENT")
	wantEqual(t, "seats with a place", storetest.Rows[string](t, db, `
		SELECT concat_ws(' ', b.code, s.area, a.floor, count(*), count(DISTINCT (x_cm, y_cm)), count(DISTINCT desk))
		FROM seats s JOIN branches b ON b.id = s.branch_id
		LEFT JOIN areas a ON a.branch_id = b.id AND a.name = s.area
		WHERE x_cm IS NOT NULL AND angle IS NOT NULL GROUP BY b.code, s.area, a.floor ORDER BY 1`),
		[]string{"main Group Study 1 8 8 2", "main Quiet Floor 2 7 7 1", "main Reading Room 1 10 10 2"})
	wantEqual(t, "seats of one floor at one place", storetest.Value[int](t, db, `
		SELECT count(*) FROM seats s JOIN seats o ON o.id > s.id AND o.x_cm BETWEEN s.x_cm - 60 AND s.x_cm + 60
			AND o.y_cm BETWEEN s.y_cm - 60 AND s.y_cm + 60
		JOIN areas a ON a.name = s.area JOIN areas b ON b.name = o.area AND b.floor = a.floor`), 0)
	wantEqual(t, "windows at the top", storetest.Value[bool](t, db, `
		SELECT bool_and(y_cm = 60 AND angle = 0) FROM seats WHERE x_cm IS NOT NULL AND 5 = ANY (amenities)`), true)
	wantEqual(t, "places without a plan", storetest.Value[int](t, db, `
		SELECT count(*) FROM seats s JOIN branches b ON b.id = s.branch_id
		WHERE b.code <> 'main' AND num_nulls(x_cm, y_cm, angle) < 3 OR b.code <> 'main' AND desk <> ''`), 0)
	wantEqual(t, "policies", storetest.Rows[string](t, db,
		`SELECT b.code || ' ' || area || ' ' || rules::text FROM policies p JOIN branches b ON b.id = p.branch_id`),
		[]string{`engineering Workshop {"max_reservation": "4h0m0s"}`})
	wantEqual(t, "ids of seats", storetest.Value[string](t, db, `SELECT min(id) || ' to ' || max(id) FROM seats`),
		"1 to 49")

	// Seed keeps the operator's changes and adds deleted rows again.
	db.Exec(t, `UPDATE users SET name = 'New', password_hash = 'own' WHERE student_id = 'S2021001'`)
	db.Exec(t, `DELETE FROM seats WHERE id = 7`)
	db.Exec(t, `DELETE FROM policies`)
	again, err := s.Seed(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "added again", again, store.Seeded{Seats: 1})
	wantEqual(t, "policies after another Seed", storetest.Value[int](t, db, `SELECT count(*) FROM policies`), 0)
	wantEqual(t, "the user", storetest.Value[string](t, db,
		`SELECT name || password_hash FROM users WHERE student_id = 'S2021001'`), "Newown")
}

// TestDemoUsage adds the sums of the demo before and after a worker has begun to count, and to a library
// that is in use.
func TestDemoUsage(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"no worker": true, "a worker counts": true, "in use": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.db.Exec(t, `DELETE FROM usage_progress`)
			b.db.FreezeClock(t, noon.Add(47*time.Minute))
			switch name {
			case "a worker counts":
				countAll(t, b.Store, 1)
			case "in use":
				b.reserve(t, 0, 0, 60, 120)
			}
			for range 2 {
				if _, err := b.Seed(t.Context(), "hash"); err != nil {
					t.Fatal(err)
				}
			}
			b.db.FreezeClock(t, noon.Add(3*time.Hour))
			countAll(t, b.Store, 1) // the hours of the demo and those of the worker must not overlap
			report, err := b.Usage(t.Context(), library.Host, library.UsageQuery{
				FirstDay: noon.AddDate(0, 0, -27), LastDay: noon.AddDate(0, 0, -1), Branch: "main", By: library.UsageByDay,
			})
			if err != nil {
				t.Fatal(err)
			}
			used := 0
			for _, r := range report.Rows {
				if r.Reservations > 0 && r.CheckIns > 0 && r.OpenSeconds > 0 && r.UsedSeconds > 0 {
					used++
				}
			}
			if wantDays := map[bool]int{true: 27}[want]; used != wantDays {
				t.Errorf("%d days were used, want %d", used, wantDays)
			}
		})
	}
}

// TestSeedDoesNotWaitForRegistration runs Seed while a registration is not yet committed. Seed must
// not wait for it.
func TestSeedDoesNotWaitForRegistration(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.writers(t, 1).sessions[0]
	w.exec(t, `BEGIN`)
	w.exec(t, `INSERT INTO users (library_id, student_id, name, email, role, password_hash)
		VALUES (1, 'newcomer', '', '', 'STUDENT', '')`)
	if added, err := b.Seed(t.Context(), "hash"); err != nil || added.Seats != 49 {
		t.Errorf("%+v, %v", added, err)
	}
	w.exec(t, `COMMIT`)
}
