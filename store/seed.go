package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dlsms/dlsms/library"
)

// The values of the enum dlsms.v1.Amenity.
const (
	powerOutlet = int16(iota + 1)
	monitor
	wheelchairAccessible
	standingDesk
	windowView
)

// demoArea is one area of the demo library. Its seats have the labels prefix-01, prefix-02 and so
// on. Seat i has the amenities extras[i % len(extras)]. The first power seats also have a power
// outlet. Seat i has the place places[i]; an area without places has none.
type demoArea struct {
	branch, area, prefix string
	seats, power         int
	extras               [][]int16
	places               []demoPlace
}

// demoPlace is the place of a seat: centimetres from the left and the top, the direction, and the desk.
type demoPlace struct {
	x, y, angle int64
	desk        string
}

var demoBranches = []struct{ code, name string }{
	{"main", "Main Library"}, {"science", "Science"}, {"engineering", "Engineering"},
}

// demoAreas has 49 seats: 25 in main, 12 in science and 12 in engineering. 18 of them have power.
var demoAreas = []demoArea{
	{"main", "Reading Room", "R", 10, 4, [][]int16{{windowView}, nil, {wheelchairAccessible}}, readingRoom},
	{"main", "Group Study", "G", 8, 3, [][]int16{{monitor}, nil}, groupStudy},
	{"main", "Quiet Floor", "Q", 7, 2, [][]int16{nil, {standingDesk}, {windowView}}, quietFloor},
	{"science", "Lab Commons", "L", 6, 3, [][]int16{{monitor}, {monitor, standingDesk}, nil}, nil},
	{"science", "Stacks", "S", 6, 2, [][]int16{nil, {wheelchairAccessible, windowView}}, nil},
	{"engineering", "Workshop", "W", 6, 2, [][]int16{{standingDesk}, {monitor, wheelchairAccessible}, nil}, nil},
	{"engineering", "Project Hall", "P", 6, 2, [][]int16{{monitor}, {windowView}}, nil},
}

// The places of the branch main. The reading room and the group study share a floor. Its windows are at
// the top: there, the seats with a view look out.
var (
	// readingRoom has a row at the windows and a table for 6.
	readingRoom = []demoPlace{
		{120, 60, 0, ""}, {400, 260, 180, "Table 1"}, {300, 260, 180, "Table 1"},
		{320, 60, 0, ""}, {500, 260, 180, "Table 1"}, {300, 400, 0, "Table 1"},
		{520, 60, 0, ""}, {400, 400, 0, "Table 1"}, {500, 400, 0, "Table 1"},
		{720, 60, 0, ""},
	}
	// groupStudy has two tables for 4, to the right of the reading room.
	groupStudy = []demoPlace{
		{1050, 120, 180, "Table 2"}, {1150, 120, 180, "Table 2"}, {1050, 260, 0, "Table 2"}, {1150, 260, 0, "Table 2"},
		{1050, 400, 180, "Table 3"}, {1150, 400, 180, "Table 3"}, {1050, 540, 0, "Table 3"}, {1150, 540, 0, "Table 3"},
	}
	// quietFloor has two seats at the windows, a row of single seats, and standing desks at the wall.
	quietFloor = []demoPlace{
		{120, 260, 0, ""}, {720, 200, 90, ""}, {220, 60, 0, ""},
		{320, 260, 0, ""}, {720, 360, 90, ""}, {420, 60, 0, ""},
		{520, 260, 0, ""},
	}
)

// demoFloors are the floors of the areas of the branch main.
var demoFloors = map[string]string{"Reading Room": "1", "Group Study": "1", "Quiet Floor": "2"}

// demoStaff are the demo users with a role. The branches of the member of staff are those in branches;
// the librarian and the admin have all.
var demoStaff = []struct {
	studentID, name string
	role            library.Role
	branches        []string // codes; nil: all
}{
	{"L0001", "Kerstin Vogel", library.RoleLibrarian, nil},
	{"D0001", "Marek Novak", library.RoleStaff, []string{"main"}},
	{"A0001", "Aylin Demir", library.RoleAdmin, nil},
}

// demoPolicy returns the policy of the demo library: at most 4 hours in the workshop.
func demoPolicy() library.ScopedRules {
	longest := library.Span(4 * time.Hour)
	return library.ScopedRules{
		PolicyScope: library.PolicyScope{Branch: "engineering", Area: "Workshop"},
		Rules:       library.Rules{MaxDuration: &longest},
	}
}

var demoStudents = []string{
	"Ada Okafor", "Ben Lindqvist", "Chiara Rossi", "Deepak Nair", "Elena Petrova",
	"Farid Haddad", "Grace Kim", "Hugo Martin", "Ines Duarte", "Jonas Weber",
}

// Seeded counts the rows that Seed added.
type Seeded struct {
	Branches, Seats, Users int
}

// Seed adds the demo data: 3 branches with 49 seats, the students S2021001 to S2021010, the librarian
// L0001, D0001 of the staff of main, and the admin A0001. The seats of main have places on a floor plan.
// A library without the branches also gets the floors of main, a policy, a screen with its service key,
// and four weeks of sums for reports. All users get the password with the given bcrypt hash. Existing
// rows stay as they are, so Seed may be repeated, and several replicas may run it at once.
func (s *Store) Seed(ctx context.Context, passwordHash string) (Seeded, error) {
	var added Seeded
	err := s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		// The lock of the library's row lets only one Seed run at a time. A stronger lock would
		// block users who register, and deadlock with them.
		if _, err := t.Exec(ctx, `SELECT 1 FROM libraries WHERE id = $1 FOR NO KEY UPDATE`, s.lib); err != nil {
			return err
		}
		batch := &pgx.Batch{}
		queue := func(n *int, sql string, args ...any) {
			batch.Queue(sql, args...).Exec(func(tag pgconn.CommandTag) error { *n += int(tag.RowsAffected()); return nil })
		}
		for _, b := range demoBranches {
			queue(&added.Branches, insertDemoBranch, s.lib, b.code, b.name)
		}
		for _, a := range demoAreas {
			for i := range a.seats {
				label := fmt.Sprintf("%s-%02d", a.prefix, i+1)
				place := demoPlace{x: -1}
				if i < len(a.places) {
					place = a.places[i]
				}
				queue(&added.Seats, insertDemoSeat, s.lib, a.branch, a.area, label, a.amenities(i),
					place.x, place.y, place.angle, place.desk)
			}
		}
		for i, name := range demoStudents {
			id := fmt.Sprintf("S20210%02d", i+1)
			queue(&added.Users, insertDemoUser, s.lib, id, name, library.RoleStudent, passwordHash, nil)
		}
		for _, u := range demoStaff {
			queue(&added.Users, insertDemoUser, s.lib, u.studentID, u.name, u.role, passwordHash, u.branches)
		}
		if err := t.SendBatch(ctx, batch).Close(); err != nil || added.Branches < len(demoBranches) {
			return err
		}
		// An operator may have removed the policy or a floor, so only a new library gets them.
		for area, floor := range demoFloors {
			if _, err := t.Exec(ctx, insertDemoFloor, s.lib, area, floor); err != nil {
				return err
			}
		}
		host := &staffTx{tx: t, order: library.Order{Actor: library.Host, Action: "Seed"}, scope: library.Scope{All: true}}
		policy := demoPolicy()
		if err := host.setPolicy(ctx, &policy); err != nil {
			return err
		}
		return t.seedScreen(ctx)
	})
	if err == nil && added.Branches == len(demoBranches) {
		// In a transaction of its own, so that the other replicas do not wait for it.
		err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error { return t.seedUsage(ctx) })
	}
	if err == nil && added != (Seeded{}) {
		_, err = query(ctx, s.background, pgx.RowTo[int64], analyzeTables) // see analyzer
	}
	return added, err
}

// The service key of the demo screen has a known secret, as the demo users have a known password. Its
// id is one that the sequence of the table does not reach.
const (
	DemoKeyID     = 1<<53 - 1
	DemoKeySecret = "demo-screen-key-everybody-can-read-this-key"
)

const (
	insertDemoScreen = `
		INSERT INTO screens (library_id, id, branch_id, name)
		SELECT $1, (SELECT COALESCE(max(id), 0) + 1 FROM screens WHERE library_id = $1), id, 'Entrance'
		FROM branches WHERE library_id = $1 AND code = 'main'`

	insertDemoKey = `
		INSERT INTO service_keys (library_id, id, name, branch_id, scopes, hash) OVERRIDING SYSTEM VALUE
		SELECT $1, $2, 'Demo screen', id, '{screen}', $3 FROM branches WHERE library_id = $1 AND code = 'main'`
)

// seedScreen adds a screen of the branch main, and a service key for it.
func (t *tx) seedScreen(ctx context.Context) error {
	hash := sha256.Sum256([]byte(DemoKeySecret))
	batch := &pgx.Batch{}
	batch.Queue(insertDemoScreen, t.s.lib)
	batch.Queue(insertDemoKey, t.s.lib, int64(DemoKeyID), hash[:])
	return t.SendBatch(ctx, batch).Close()
}

// amenities returns the amenities of seat i of the area, sorted.
func (a demoArea) amenities(i int) []int16 {
	has := slices.Clone(a.extras[i%len(a.extras)])
	if i < a.power {
		has = append(has, powerOutlet)
	}
	slices.Sort(has)
	return append([]int16{}, has...) // an empty array, not NULL
}

// Each statement skips an existing row without taking an id from the sequence. INSERT … ON CONFLICT
// would take one for each skipped row, so the ids would have gaps.
const (
	// The branch science gets opening hours that cover the whole week, so that the demo shows hours and
	// its seats are free at any time of the day. Hours that close when they open are 24 hours.
	insertDemoBranch = `
		WITH made AS (
			INSERT INTO branches (library_id, code, name, timezone)
			SELECT $1, $2, $3, 'Europe/Berlin' WHERE NOT EXISTS (SELECT FROM branches WHERE library_id = $1 AND code = $2)
			RETURNING library_id, id, code
		), open AS (
			INSERT INTO branch_hours (library_id, branch_id, weekday, opens, closes)
			SELECT library_id, id, d, '06:00', '06:00' FROM made, generate_series(1, 7) d WHERE code = 'science'
		)
		SELECT id FROM made`

	// A negative $6 means that the place of the seat is not known.
	insertDemoSeat = `
		INSERT INTO seats (library_id, branch_id, area, label, amenities, x_cm, y_cm, angle, desk)
		SELECT b.library_id, b.id, $3, $4, $5::smallint[],
			CASE WHEN $6::bigint >= 0 THEN $6 END, CASE WHEN $6 >= 0 THEN $7::bigint END,
			CASE WHEN $6 >= 0 THEN $8::bigint END, $9
		FROM branches b WHERE b.library_id = $1 AND b.code = $2
		AND NOT EXISTS (SELECT FROM seats WHERE library_id = b.library_id AND branch_id = b.id AND label = $4)`

	insertDemoFloor = `
		INSERT INTO areas (library_id, branch_id, name, floor)
		SELECT $1, id, $2, $3 FROM branches WHERE library_id = $1 AND code = 'main' ON CONFLICT DO NOTHING`

	insertDemoUser = `
		INSERT INTO users (library_id, student_id, name, email, role, password_hash, branches)
		SELECT $1, $2::text, $3, lower($2::text COLLATE "C") || '@university.example', $4, $5,
			CASE WHEN $6::text[] IS NOT NULL THEN ARRAY(
				SELECT id FROM branches WHERE library_id = $1 AND code = ANY($6) ORDER BY id) END
		WHERE NOT EXISTS (SELECT FROM users WHERE library_id = $1 AND ` + sameStudentID + `)`
)
