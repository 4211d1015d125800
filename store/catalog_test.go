package store_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/store"
	"github.com/dlsms/dlsms/store/storetest"
)

// TestCatalogEditReadsOnlyChangedRows changes one row of a catalog with 5,000 seats. The next read
// must return only the changed row.
func TestCatalogEditReadsOnlyChangedRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	seats := b.db.Seats(t, 5000)
	branch := storetest.Value[int64](t, b.db, `SELECT branch_id FROM seats WHERE id = $1`, seats[0])
	other := storetest.Value[int64](t, b.db, `SELECT branch_id FROM seats WHERE id = $1`, b.seats[0])
	f := b.follow(t)
	read := func(sql string, args ...any) store.CatalogChanges {
		t.Helper()
		b.db.Exec(t, sql, args...)
		c := f.changes(t)
		if !c.CatalogChanged {
			t.Errorf("%s: nothing changed", sql)
		}
		slices.Sort(c.Catalog.BranchIDs)
		if !slices.Equal(c.Catalog.BranchIDs, []int64{other, branch}) {
			t.Errorf("%s: branches %v", sql, c.Catalog.BranchIDs)
		}
		return c.Catalog
	}
	for i, id := range seats[:100] {
		c := read(`UPDATE seats SET out_of_service = NOT out_of_service, label = $2 WHERE id = $1`, id,
			fmt.Sprint("edited ", i))
		if len(c.Seats) != 1 || c.Seats[0].ID != id || !c.Seats[0].OutOfService || len(c.Branches) != 0 ||
			len(c.SeatIDs) != 0 {
			t.Fatalf("seat %d: %d seats, %d branches and %d ids were read", id, len(c.Seats), len(c.Branches), len(c.SeatIDs))
		}
	}
	c := read(`DELETE FROM seats WHERE id = $1`, seats[7])
	if len(c.Seats) != 0 || len(c.Branches) != 1 || len(c.SeatIDs) != len(seats)-1 || slices.Contains(c.SeatIDs,
		seats[7]) {
		t.Errorf("deleted: %d seats, %d branches, %d ids", len(c.Seats), len(c.Branches), len(c.SeatIDs))
	}
	c = read(`INSERT INTO branch_hours SELECT 1, $1, d, '8:00', '20:00' FROM generate_series(1, 3) d`, other)
	if len(c.Seats) != 0 || len(c.Branches) != 1 || len(c.Branches[0].Hours) != 3 || len(c.SeatIDs) != len(b.seats) {
		t.Errorf("hours: %d seats, %+v, %d ids", len(c.Seats), c.Branches, len(c.SeatIDs))
	}
	c = read(`UPDATE seats SET branch_id = $1, label = 'moved' WHERE id = $2`, other, seats[8])
	if len(c.Seats) != 1 || c.Seats[0].BranchID != other || len(c.Branches) != 0 {
		t.Errorf("moved: %+v, %+v", c.Seats, c.Branches)
	}
}

// TestChangesReportDeletedLastBranch deletes the last branch of the library. After that, no row has
// the xid of the deletion. The next read must still report the change.
func TestChangesReportDeletedLastBranch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.follow(t)
	b.db.Exec(t, `DELETE FROM seats`)
	b.db.Exec(t, `DELETE FROM branches`)
	if c := f.changes(t); !c.CatalogChanged || len(c.Catalog.BranchIDs) != 0 {
		t.Errorf("%+v", c)
	}
}

// TestCatalogChanges changes the catalog by SQL. The next read must report a changed catalog, and
// the read after it must not.
func TestCatalogChanges(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `INSERT INTO libraries (id, name) VALUES (2, 'Other')`)
	b.db.Exec(t, `INSERT INTO branches (library_id, code, name, timezone)
		VALUES (2, 'other', 'Other', 'UTC'), (1, 'spare', 'Spare', 'UTC')`)
	f := b.follow(t)
	for _, tc := range []struct {
		sql  string
		want bool
	}{
		{`SELECT 1`, false},
		{`UPDATE seats SET label = 'B-1' WHERE label = 'A-1'`, true},
		{`UPDATE seats SET out_of_service = true WHERE label = 'A-2'`, true},
		{`UPDATE seats SET xid = '3' WHERE label = 'A-2'`, true}, // a trigger overwrites a forged xid
		{`UPDATE branches SET name = 'New'`, true},
		{`INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '20:00' FROM branches WHERE library_id = 1`, true},
		{`UPDATE branch_hours SET closes = '21:00'`, true},
		{`DELETE FROM branch_hours`, true},
		{`DELETE FROM branch_hours`, false},
		{`INSERT INTO seats (library_id, branch_id, area, label) SELECT library_id, id, 'Area', 'new' FROM branches
			WHERE code = 'branch-0'`, true},
		{`DELETE FROM seats WHERE label = 'new'`, true},
		{`UPDATE users SET name = 'N'`, false},
		{`UPDATE branches SET name = 'Else' WHERE library_id = 2`, false},
		{`INSERT INTO branch_hours SELECT 2, id, 1, '8:00', '20:00' FROM branches WHERE library_id = 2`, false},
		{`INSERT INTO branch_hours SELECT 1, id, 1, '8:00', '20:00' FROM branches WHERE code = 'spare'`, true},
		{`DELETE FROM branches WHERE code = 'spare'`, true},
	} {
		b.db.Exec(t, tc.sql)
		if got := f.changes(t).CatalogChanged; got != tc.want {
			t.Errorf("%s: changed %v, want %v", tc.sql, got, tc.want)
		}
		if f.changes(t).CatalogChanged {
			t.Errorf("%s: changed twice", tc.sql)
		}
	}
	w := b.writers(t, 1).sessions[0]
	w.exec(t, `BEGIN`)
	w.exec(t, `UPDATE seats SET label = 'C-1', area = 'Hall', amenities = '{2}', out_of_service = true,
		x_cm = 10, y_cm = 20, angle = 90, desk = 'Table 3' WHERE label = 'B-1'`)
	b.reserve(t, 0, 2, 0, 60)
	if c := f.changes(t); c.CatalogChanged || len(c.Events) != 1 {
		t.Errorf("before the commit: %+v", c)
	}
	w.exec(t, `COMMIT`)
	c := f.changes(t)
	if !c.CatalogChanged || f.changes(t).CatalogChanged {
		t.Error("a change that was in progress during the last read was not reported exactly once")
	}
	wantEqual(t, "the changed seats", c.Catalog.Seats, []library.Seat{{
		ID: b.seats[0], BranchID: b.home(t), Area: "Hall", Label: "C-1", Amenities: []int16{2}, OutOfService: true,
		SeatPlace: library.SeatPlace{XCm: new(int32(10)), YCm: new(int32(20)), Angle: new(int32(90)), Desk: "Table 3"},
	}})
}
