package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dlsms/dlsms/library"
	"github.com/dlsms/dlsms/seatfile"
	"github.com/dlsms/dlsms/store/storetest"
)

// seatImport returns the import of a file.
func seatImport(t *testing.T, content string) library.SeatImport {
	t.Helper()
	file, faults := seatfile.Read([]byte(content))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return library.SeatImport{File: file, Hash: sha256.Sum256([]byte(content)), OnBookings: library.KeepBookings}
}

// dryRun makes a dry run and sets its fingerprint in the import.
func (b bundle) dryRun(t *testing.T, in *library.SeatImport) library.SeatPlan {
	t.Helper()
	before := b.seatRows(t)
	plan, err := b.ImportSeats(t.Context(), checkOnly(hostOrder("import")), *in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, b.seatRows(t)); diff != "" {
		t.Errorf("the dry run changed seats:\n%s", diff)
	}
	in.Fingerprint = plan.Fingerprint
	return plan
}

// apply makes a dry run and the import.
func (b bundle) apply(t *testing.T, in library.SeatImport) library.SeatPlan {
	t.Helper()
	shown := b.dryRun(t, &in)
	plan, err := b.ImportSeats(t.Context(), hostOrder("import"), in)
	if err != nil {
		t.Fatal(err)
	}
	for i := range plan.Changes {
		if shown.Changes[i].Action == library.CreateSeat {
			if plan.Changes[i].SeatID == 0 {
				t.Errorf("no id: %+v", plan.Changes[i])
			}
			plan.Changes[i].SeatID = 0
		}
	}
	if diff := cmp.Diff(shown, plan); diff != "" {
		t.Errorf("the import differs from the dry run:\n%s", diff)
	}
	return plan
}

func (b bundle) seatRows(t *testing.T) []string {
	t.Helper()
	return storetest.Rows[string](t, b.db, `SELECT s::text FROM seats s ORDER BY id`)
}

func (b bundle) export(t *testing.T, branch string) string {
	t.Helper()
	rows, err := b.ExportSeats(t.Context(), library.Host, branch)
	if err != nil {
		t.Fatal(err)
	}
	content, err := seatfile.Write(rows)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// short describes the changes of a plan.
func short(plan library.SeatPlan) (lines []string) {
	for _, c := range plan.Changes {
		line := fmt.Sprintf("%d %s %s", c.Line, c.Action, c.Label)
		for _, f := range c.Fields {
			line += fmt.Sprintf(", %s %s -> %s", f.Field, f.From, f.To)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestImportSeats(t *testing.T) {
	t.Parallel()
	b := setup(t) // the seats of branch-0
	b.db.Exec(t, `UPDATE seats SET desk = 'D1', x_cm = 1, y_cm = 2, amenities = '{2,1,2}' WHERE label IN ('A-2', 'A-4')`)
	in := seatImport(t, "label,branch,area,amenities,x_cm,y_cm\n"+
		"A-1,branch-0,Area,,,\n"+
		"A-2,branch-0,Hall,power_outlet|monitor,,\n"+
		"B-1,branch-0,Hall,window,7,8\n"+
		"A-4,branch-0,Area,monitor|power_outlet,1,2\n")
	plan := b.apply(t, in)
	wantEqual(t, "plan", short(plan), []string{
		"2 SAME A-1", "3 UPDATE A-2, area Area -> Hall, x_cm 1 -> , y_cm 2 -> ", "4 CREATE B-1", "5 SAME A-4",
	})
	wantEqual(t, "seats", storetest.Rows[string](t, b.db,
		`SELECT concat_ws(' ', label, area, amenities, x_cm, y_cm, desk) FROM seats ORDER BY label`), []string{
		"A-1 Area {} ", "A-2 Hall {1,2} D1", "A-3 Area {} ", "A-4 Area {2,1,2} 1 2 D1", "A-5 Area {} ", "B-1 Hall {5} 7 8 ",
	})
	wantEqual(t, "audit log", len(audited(t, b)), 1)
	// A repeated import has nothing to do, and needs no fingerprint.
	in.Fingerprint = "of the first dry run"
	plan, err := b.ImportSeats(t.Context(), hostOrder("import"), in)
	if err != nil || plan.Count(library.SameSeat) != 4 {
		t.Errorf("repeated: %v, %v", short(plan), err)
	}
	wantEqual(t, "audit log", len(audited(t, b)), 0)
	// The export is what the import takes.
	exported := b.export(t, "")
	if plan := b.apply(t, seatImport(t, exported)); plan.Count(library.SameSeat) != 6 || len(plan.Changes) != 6 {
		t.Errorf("the export is not the same: %v\n%s", short(plan), exported)
	}
	if !strings.HasPrefix(exported, "\ufeffbranch,area,label,") || b.export(t, "branch-0") != exported {
		t.Errorf("the export is\n%s", exported)
	}
}

// TestImportFromNothing copies a library by its file.
func TestImportFromNothing(t *testing.T) {
	t.Parallel()
	b, other := setup(t), setup(t)
	b.db.Exec(t, `UPDATE seats SET label = v.l, area = v.a, angle = 90, amenities = '{1,5}', desk = '"D,1"',
			x_cm = 0, y_cm = 0
		FROM (VALUES ('A-1', '=1+1', 'Größe “A”'), ('A-2', 'x,"y"', '-1 Keller'), ('A-3', '''=z', '書架')) v (was, l, a)
		WHERE label = was`)
	exported := b.export(t, "")
	in := seatImport(t, exported)
	in.RetireMissing = true
	plan := other.apply(t, in)
	if plan.Count(library.CreateSeat) != 3 || plan.Count(library.RetireSeat) != 3 || plan.Count(library.SameSeat) != 2 {
		t.Errorf("%v", short(plan))
	}
	if diff := cmp.Diff(exported, other.export(t, "")); diff != "" {
		t.Error(diff)
	}
}

func TestImportFaults(t *testing.T) {
	t.Parallel()
	b := setup(t)
	before := b.seatRows(t)
	in := seatImport(t, "branch,label\nbranch-0,A-1\nnone,X\nbranch-0,new\nnowhere,Y\n")
	for _, order := range []library.Order{hostOrder("import"), checkOnly(hostOrder("import"))} {
		_, err := b.ImportSeats(t.Context(), order, in)
		invalid, ok := errors.AsType[*library.Error](err)
		if !ok {
			t.Fatal(err)
		}
		want := []library.FieldViolation{
			{Field: "line 3, column branch", Message: "there is no such branch"},
			{Field: "line 4, column area", Message: "is missing: the seat is new"},
			{Field: "line 5, column branch", Message: "there is no such branch"},
		}
		if diff := cmp.Diff(want, invalid.Fields); diff != "" {
			t.Error(diff)
		}
	}
	var many strings.Builder
	many.WriteString("branch,label\n")
	for i := range 1500 {
		fmt.Fprintf(&many, "none,%d\n", i)
	}
	_, err := b.ImportSeats(t.Context(), hostOrder("import"), seatImport(t, many.String()))
	if invalid, ok := errors.AsType[*library.Error](err); !ok || len(invalid.Fields) != seatfile.MaxFaults {
		t.Errorf("many faults: %v", err)
	}
	if diff := cmp.Diff(before, b.seatRows(t)); diff != "" {
		t.Errorf("seats were changed:\n%s", diff)
	}
}

// TestImportFaultsOfReader checks that the faults of the reader and of the store come together.
func TestImportFaultsOfReader(t *testing.T) {
	t.Parallel()
	b := setup(t)
	file, faults := seatfile.Read([]byte("branch,label,angle\n\x00,X,1\nbranch-0,A-1,x\nnone,X,1\n,Y,2\nbranch-0,,400\n"))
	in := library.SeatImport{File: file, Faults: append(faults, library.FieldViolation{Field: "fingerprint"})}
	_, err := b.ImportSeats(t.Context(), hostOrder("import"), in)
	invalid, ok := errors.AsType[*library.Error](err)
	if !ok {
		t.Fatal(err)
	}
	var got []string
	for _, f := range invalid.Fields {
		got = append(got, f.Field)
	}
	wantEqual(t, "faults", got, []string{
		"fingerprint", "line 2, column branch", "line 3, column angle",
		"line 4, column branch", "line 5, column branch", "line 6, column label", "line 6, column angle",
	})
}

func TestImportScope(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := b.db.Seats(t, 1)
	branches := storetest.Rows[int64](t, b.db, `SELECT id FROM branches ORDER BY id`)
	mine := storetest.Value[string](t, b.db, `SELECT code FROM branches WHERE id = $1`, branches[0])
	theirs := storetest.Value[string](t, b.db, `SELECT code FROM branches WHERE id = $1`, branches[1])
	order := checkOnly(library.Order{Actor: librarian(t, b, 0, branches[:1])})
	if _, err := b.ImportSeats(t.Context(), order, seatImport(t, "branch,label,area\n"+mine+",new,A\n")); err != nil {
		t.Error(err)
	}
	_, err := b.ImportSeats(t.Context(), order, seatImport(t, "branch,label,area\n"+mine+",new,A\n"+theirs+",new,A\n"))
	wantErr(t, err, library.ErrBranchRequired)
	_, err = b.ExportSeats(t.Context(), order.Actor, theirs)
	wantErr(t, err, library.ErrBranchRequired)
	_, err = b.ExportSeats(t.Context(), order.Actor, "none")
	wantErr(t, err, library.ErrBranchNotFound)
	rows, err := b.ExportSeats(t.Context(), order.Actor, "")
	if err != nil || len(rows) != len(b.seats) {
		t.Errorf("%d seats, %v", len(rows), err)
	}
	rows, err = b.ExportSeats(t.Context(), library.Host, "")
	if err != nil || len(rows) != len(b.seats)+len(other) {
		t.Errorf("%d seats, %v", len(rows), err)
	}
}

// TestImportAfterChange changes something between the dry run and the import. The import fails if its
// effect would be another one.
func TestImportAfterChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := seatImport(t, "branch,label,area\nbranch-0,A-1,Hall\n")
	in.RetireMissing = true
	b.dryRun(t, &in)
	refused := func(in library.SeatImport) {
		t.Helper()
		before := b.seatRows(t)
		_, err := b.ImportSeats(t.Context(), hostOrder("import"), in)
		wantErr(t, err, library.ErrChangedSinceCheck)
		if diff := cmp.Diff(before, b.seatRows(t)); diff != "" {
			t.Errorf("seats were changed:\n%s", diff)
		}
	}
	other := in
	other.Hash[0]++
	refused(other)
	other = in
	other.RetireMissing = false
	refused(other)
	other.Fingerprint = ""
	refused(other)
	other = in
	other.OnBookings = library.CancelBookings
	refused(other)
	r := b.reserve(t, 0, 2, 30, 90) // at a seat that would be retired
	refused(in)
	mustDo(t, b.Cancel, b.users[0], r.ID)
	b.db.Exec(t, `UPDATE seats SET area = 'Attic' WHERE label = 'A-1'`)
	refused(in)
	b.db.Exec(t, `UPDATE seats SET area = 'Area' WHERE label = 'A-1'`)
	b.reserve(t, 0, 0, 30, 90) // at a seat that only moves
	if _, err := b.ImportSeats(t.Context(), hostOrder("import"), in); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	wantEqual(t, "sweeps", len(audited(t, b)), 1)
}

// TestImportRetiresMissing imports a file that lacks seats with reservations, and takes others out of
// service.
func TestImportRetiresMissing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	spare := b.db.Seats(t, 2) // of a branch that the file does not name
	b.reserve(t, 0, 0, 30, 90)
	b.reserve(t, 1, 1, 30, 90)
	b.reserve(t, 2, 2, 24*60, 24*60+90)
	const file = "branch,label,out_of_service\nbranch-0,A-2,true\nbranch-0,A-4,false\n"
	in := seatImport(t, file)
	if plan := b.dryRun(t, &in); plan.Impact.Reservations != 1 || len(plan.Changes) != 2 {
		t.Errorf("without retiring: %v, %+v", short(plan), plan.Impact)
	}
	in.RetireMissing = true
	in.Note = library.Texts{"en": "Renovation"}
	plan := b.apply(t, in)
	wantEqual(t, "plan", short(plan), []string{
		"2 UPDATE A-2, out_of_service false -> true", "3 SAME A-4", "0 RETIRE A-1", "0 RETIRE A-3", "0 RETIRE A-5",
	})
	if plan.Impact.Reservations != 3 || len(plan.Impact.Days) != 2 || plan.Impact.Days[0].Reservations != 2 ||
		len(plan.Impact.First) != 3 {
		t.Errorf("impact %+v", plan.Impact)
	}
	// The reservations of retired seats are cancelled, the other one stays.
	wantEqual(t, "sweeps", storetest.Rows[string](t, b.db, `SELECT seat_ids::text || ' ' || note FROM sweeps`),
		[]string{fmt.Sprintf(`{%d,%d,%d} {"en": "Renovation"}`, b.seats[0], b.seats[2], b.seats[4])})
	wantEqual(t, "seats of the other branch", storetest.Value[int](t, b.db,
		`SELECT count(*)::int FROM seats WHERE id = ANY($1) AND retired_at IS NULL`, spare), 2)
	_, err := b.Reserve(t.Context(), library.Booking{
		UserID: b.users[3], SeatID: b.seats[4], StartTime: at(120), EndTime: at(180)})
	wantErr(t, err, library.ErrSeatNotFound)

	// A file with the old labels brings the seats back, with their ids.
	in = seatImport(t, "branch,label\nbranch-0,A-1\nbranch-0,A-5\n")
	plan = b.apply(t, in)
	wantEqual(t, "returned", short(plan), []string{
		"2 UPDATE A-1, out_of_service true -> false, retired true -> false",
		"3 UPDATE A-5, out_of_service true -> false, retired true -> false",
	})
	b.reserve(t, 3, 4, 120, 180)
}

// TestImportCancelsBookings takes a seat out of service with CANCEL.
func TestImportCancelsBookings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reserve(t, 1, 1, 30, 90)
	in := seatImport(t, "branch,label,out_of_service\nbranch-0,A-2,true\n")
	in.OnBookings = library.CancelBookings
	b.apply(t, in)
	wantEqual(t, "sweeps", storetest.Value[int](t, b.db, `SELECT count(*)::int FROM sweeps`), 1)
}

// TestImportOf10000Seats imports a large file while users book and others list the seats. The time
// limit of the specification is 5 s.
func TestImportOf10000Seats(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Exec(t, `INSERT INTO branches (library_id, code, name, timezone) VALUES (1, 'large', 'Large', 'UTC')`)
	file := func(area string) library.SeatImport {
		var content strings.Builder
		content.WriteString("branch,area,label,amenities,x_cm,y_cm,angle,desk,out_of_service\n")
		for i := range 10_000 {
			fmt.Fprintf(&content, "large,%s %d,L-%05d,power_outlet|window,%d,%d,%d,D%d,false\n",
				area, i%20, i, i, i*2, i%360, i/4)
		}
		return seatImport(t, content.String())
	}
	stop := make(chan struct{})
	var background sync.WaitGroup
	var booked atomic.Int64
	var slowest atomic.Int64
	follow := b.follow(t)
	background.Go(func() { // one user books the first seat again and again
		for {
			select {
			case <-stop:
				return
			default:
			}
			begin := time.Now()
			r, err := b.Reserve(t.Context(), library.Booking{
				UserID: b.users[0], SeatID: b.seats[0], StartTime: at(30), EndTime: at(90)})
			if err == nil {
				_, err = b.Cancel(t.Context(), b.users[0], r.ID)
			}
			if err != nil {
				t.Error(err)
				return
			}
			booked.Add(1)
			slowest.Store(max(slowest.Load(), int64(time.Since(begin))))
		}
	})
	run := func(what string, in library.SeatImport, action library.SeatAction) {
		t.Helper()
		inTime(t, what, 5*time.Second, func() {
			if plan := b.apply(t, in); plan.Count(action) != 10_000 {
				t.Errorf("%s: %d seats", what, plan.Count(action))
			}
		})
	}
	run("create", file("Floor"), library.CreateSeat)
	run("update", file("Level"), library.UpdateSeat)
	run("the same", file("Level"), library.SameSeat)
	inTime(t, "export", 5*time.Second, func() {
		if rows, err := b.ExportSeats(t.Context(), library.Host, "large"); err != nil || len(rows) != 10_000 {
			t.Errorf("%d seats, %v", len(rows), err)
		}
	})
	close(stop)
	background.Wait()
	if booked.Load() == 0 {
		t.Error("no booking succeeded during the imports")
	}
	t.Logf("%d bookings meanwhile, the slowest took %v", booked.Load(), time.Duration(slowest.Load()))
	if c := follow.changes(t); len(c.Catalog.Seats) != 10_000 {
		t.Errorf("the read model learns of %d seats", len(c.Catalog.Seats))
	}
}

// TestBookingRacesImport retires a seat by a file while a user books it. The booking is counted, or
// it finds the seat retired.
func TestBookingRacesImport(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for round := range 10 {
		seats := b.db.Seats(t, 2)
		branch := storetest.Value[string](t, b.db,
			`SELECT code FROM branches b JOIN seats s ON s.branch_id = b.id WHERE s.id = $1`, seats[0])
		in := seatImport(t, "branch,label\n"+branch+",A-1\n")
		in.RetireMissing = true
		b.dryRun(t, &in)
		var calls sync.WaitGroup
		var booked, imported error
		calls.Go(func() {
			_, booked = b.Reserve(t.Context(), library.Booking{UserID: b.users[0], SeatID: seats[1],
				StartTime: at(round * 60), EndTime: at(round*60 + 60)})
		})
		calls.Go(func() { _, imported = b.ImportSeats(t.Context(), hostOrder("import"), in) })
		calls.Wait()
		switch {
		case booked == nil && errors.Is(imported, library.ErrChangedSinceCheck):
		case errors.Is(booked, library.ErrSeatNotFound) && imported == nil:
		default:
			t.Errorf("round %d: the booking ends with %v, the import with %v", round, booked, imported)
		}
	}
}

// TestConcurrentImports makes several imports of the same dry run at the same time. One of them makes
// the change, and the others find nothing to do.
func TestConcurrentImports(t *testing.T) {
	t.Parallel()
	b := setup(t)
	second := b.db.Open(t, library.DefaultPolicy())
	in := seatImport(t, "branch,label,area\nbranch-0,new,Hall\nbranch-0,A-1,Hall\n")
	b.dryRun(t, &in)
	var calls sync.WaitGroup
	for i := range 6 {
		s := b.Store
		if i%2 == 1 {
			s = second
		}
		calls.Go(func() {
			if _, err := s.ImportSeats(t.Context(), hostOrder("import"), in); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	wantEqual(t, "audit log", len(audited(t, b)), 1)
}

// TestImportWaitsForBooking imports a file while a booking of a seat that the file lacks is not yet
// committed. The import must wait for the booking, and count it.
func TestImportWaitsForBooking(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := seatImport(t, "branch,label\nbranch-0,A-1\n")
	in.RetireMissing = true
	b.dryRun(t, &in)
	w := b.writers(t, 1).sessions[0]
	w.exec(t, `BEGIN`)
	w.exec(t, `SELECT FROM seats WHERE id = $1 FOR NO KEY UPDATE`, b.seats[3])
	w.exec(t, `INSERT INTO reservations (library_id, seat_id, user_id, during, status, check_in_opens_at,
			check_in_deadline, created_at)
		VALUES (1, $1, $2, tstzrange($3, $4), 'CONFIRMED', $3, $4, $3)`, b.seats[3], b.users[0], at(30), at(90))
	imported := make(chan error, 1)
	go func() {
		_, err := b.ImportSeats(t.Context(), byHost("import"), in)
		imported <- err
	}()
	b.db.EventuallyLocked(t, "seats")
	w.exec(t, `COMMIT`)
	wantErr(t, <-imported, library.ErrChangedSinceCheck)
	b.db.WriteHistory(t)
}
