package availability

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/feed"
	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store/storetest"
)

// planText returns a floor plan as one line for each seat and area.
func planText(p FloorPlan) (lines []string) {
	number := func(n *int32) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	for _, s := range p.Places {
		lines = append(lines, fmt.Sprintf("%d %s %s %s %q", s.SeatID, number(s.XCm), number(s.YCm), number(s.Angle), s.Desk))
	}
	for _, a := range p.Areas {
		lines = append(lines, fmt.Sprintf("%s %q", a.Name, a.Floor))
	}
	return lines
}

// storedPlan returns the same lines from Postgres.
func storedPlan(t *testing.T, db *storetest.DB) []string {
	t.Helper()
	return append(storetest.Rows[string](t, db, `
		SELECT concat_ws(' ', s.id, coalesce(x_cm::text, '-'), coalesce(y_cm::text, '-'), coalesce(angle::text, '-'),
			'"' || desk || '"')
		FROM seats s JOIN branches b ON b.id = s.branch_id WHERE code = 'branch-0' AND retired_at IS NULL ORDER BY s.id`),
		storetest.Rows[string](t, db, `
		SELECT DISTINCT area || ' "' || coalesce(a.floor, '') || '"'
		FROM seats s JOIN branches b ON b.id = s.branch_id LEFT JOIN areas a ON a.branch_id = b.id AND a.name = area
		WHERE code = 'branch-0' AND retired_at IS NULL ORDER BY 1`)...)
}

// TestFloorPlanIsNeverStale changes the plan of a branch in every way. A read that begins after the
// change must see it, without a hint.
func TestFloorPlanIsNeverStale(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seats := db.Seats(t, 3)
	db.Seats(t, 2) // another branch
	s := db.Open(t, freeRules())
	m := startModel(t, s, feed.Options{})
	before := FloorPlan{}
	for _, sql := range []string{
		``,
		`UPDATE seats SET x_cm = 0, y_cm = 0 WHERE id = $1`,
		`UPDATE seats SET x_cm = 120 WHERE id = $1`,
		`UPDATE seats SET y_cm = 120 WHERE id = $1`,
		`UPDATE seats SET angle = 0 WHERE id = $1`,
		`UPDATE seats SET angle = 90, desk = 'D-1' WHERE id = $1`,
		`UPDATE seats SET x_cm = NULL, y_cm = NULL WHERE id = $1`,
		`INSERT INTO areas (library_id, branch_id, name, floor) SELECT 1, branch_id, 'Area', '1' FROM seats WHERE id = $1`,
		`UPDATE areas SET floor = '2' WHERE branch_id = (SELECT branch_id FROM seats WHERE id = $1)`,
		`UPDATE seats SET area = 'Hall' WHERE id = $1`,
		`INSERT INTO areas (library_id, branch_id, name, floor) SELECT 1, branch_id, 'Hall', 'B' FROM seats WHERE id = $1`,
		`DELETE FROM areas WHERE name = 'Area' AND branch_id = (SELECT branch_id FROM seats WHERE id = $1)`,
		`UPDATE seats SET retired_at = now(), out_of_service = true WHERE id = $1`,
		`UPDATE seats SET retired_at = NULL WHERE id = $1`,
		`INSERT INTO seats (library_id, branch_id, area, label, x_cm, y_cm)
			SELECT 1, branch_id, 'Attic', 'new', 7, 7 FROM seats WHERE id = $1`,
		`DELETE FROM seats WHERE id = $1`,
	} {
		if sql != "" {
			db.Exec(t, sql, seats[1])
		}
		plan, err := m.FloorPlan(t.Context(), "branch-0")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(storedPlan(t, db), planText(plan)); diff != "" {
			t.Errorf("after %q: %s", sql, diff)
		}
		if cmp.Equal(planText(before), planText(plan)) || !plan.Fresh || !plan.AsOf.After(before.AsOf) {
			t.Errorf("after %q, the plan did not change: %v", sql, plan)
		}
		before = plan
	}
	later, err := startModel(t, s, feed.Options{}).FloorPlan(t.Context(), "branch-0") // of a replica that starts now
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(planText(before), planText(later)); diff != "" {
		t.Error(diff)
	}
	if _, err := m.FloorPlan(t.Context(), "none"); !errors.Is(err, library.ErrBranchNotFound) {
		t.Errorf("an unknown branch: %v", err)
	}
}

// TestBookingsKeepTheFloorPlan checks that a booking does not make a replica encode the plan again.
func TestBookingsKeepTheFloorPlan(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seat, user := db.Seats(t, 1)[0], db.Users(t, 1)[0]
	s := db.Open(t, freeRules())
	m := startModel(t, s, feed.Options{})
	encoded := 0
	read := func() {
		t.Helper()
		plan, err := m.FloorPlan(t.Context(), "branch-0")
		if err != nil {
			t.Fatal(err)
		}
		plan.Memo(JSON, func() any { encoded++; return nil })
	}
	read()
	start := time.Now().Add(time.Hour)
	_, err := s.Reserve(t.Context(), library.Booking{
		UserID: user, SeatID: seat, StartTime: start, EndTime: start.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	if read(); encoded != 1 {
		t.Errorf("the plan was encoded %d times, want once", encoded)
	}
	db.Exec(t, `UPDATE seats SET desk = 'D'`)
	if read(); encoded != 2 {
		t.Errorf("after a change, the plan was encoded %d times, want twice", encoded)
	}
}

// TestWatchesDoNotSeePlaces checks that a seat that moves on the floor plan causes no message.
func TestWatchesDoNotSeePlaces(t *testing.T) {
	t.Parallel()
	db := storetest.NewDB(t)
	seats := db.Seats(t, 2)
	m := startModel(t, db.Open(t, freeRules()), feed.Options{})
	w, err := m.Watch(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `UPDATE seats SET x_cm = 1, y_cm = 1, desk = 'D'`)
	if _, err := m.FloorPlan(t.Context(), "branch-0"); err != nil { // the model has seen the change
		t.Fatal(err)
	}
	db.Exec(t, `UPDATE seats SET out_of_service = true WHERE id = $1`, seats[0])
	m.Wake()
	u, err := w.Next(t.Context())
	if err != nil || len(u.Seats) != 1 || u.Seats[0].ID != seats[0] {
		t.Errorf("the first message is about %+v, %v", u.Seats, err)
	}
}
