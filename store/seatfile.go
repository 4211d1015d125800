package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// storedSeat is a seat as the database has it.
type storedSeat struct {
	ID       int64
	BranchID int64
	library.SeatSpec
	Retired bool
}

const (
	lockBranches = `
		SELECT id, code, timezone FROM branches WHERE library_id = $1 AND code = ANY($2) ORDER BY id FOR NO KEY UPDATE`

	selectStoredSeats = `
		SELECT id, branch_id, area, label, amenities, x_cm, y_cm, angle, desk, out_of_service,
			retired_at IS NOT NULL AS retired
		FROM seats WHERE library_id = $1 AND branch_id = ANY($2)`

	// insertSeats and updateSeats write many seats in one statement. An array of arrays would be one
	// flat array in unnest, so the amenities of a seat are the text of an array, such as {1,2}.
	insertSeats = `
		INSERT INTO seats (library_id, branch_id, area, label, amenities, x_cm, y_cm, angle, desk, out_of_service)
		SELECT $1, q.branch_id, q.area, q.label, q.amenities::smallint[], q.x_cm, q.y_cm, q.angle, q.desk,
			q.out_of_service
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
			$9::text[], $10::boolean[]) WITH ORDINALITY
			AS q (branch_id, area, label, amenities, x_cm, y_cm, angle, desk, out_of_service, place)
		ORDER BY q.place
		RETURNING branch_id, label, id`

	updateSeats = `
		UPDATE seats s SET area = q.area, amenities = q.amenities::smallint[], x_cm = q.x_cm, y_cm = q.y_cm,
			angle = q.angle, desk = q.desk, out_of_service = q.out_of_service, retired_at = NULL
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
			$9::boolean[]) AS q (id, area, amenities, x_cm, y_cm, angle, desk, out_of_service)
		WHERE s.library_id = $1 AND s.id = q.id`

	// sweepMoved starts a sweep for each closure of an area into which seats have moved.
	sweepMoved = `
		INSERT INTO sweeps (library_id, branch_id, cause, closure_id, seat_ids, during, note)
		SELECT c.library_id, c.branch_id, 'CLOSURE', c.id, array_agg(s.id ORDER BY s.id), c.during, c.note
		FROM closures c JOIN seats s ON s.library_id = c.library_id AND s.branch_id = c.branch_id AND s.area = c.area
		WHERE c.library_id = $1 AND s.id = ANY ($2) AND c.on_bookings = 'CANCEL' AND c.lifted_at IS NULL
			AND COALESCE(upper(c.during), 'infinity') > dlsms_now()
		GROUP BY c.library_id, c.id`
)

// seatEdit is a change of one seat that a planner has found.
type seatEdit struct {
	branchID int64
	before   *storedSeat // nil: the seat is new
	after    library.SeatSpec
}

// planner compares rows with the seats that exist.
type planner struct {
	branches map[string]branchRef
	stored   map[int64]map[string]*storedSeat // by branch and label
	fields   []library.SeatField              // that the rows have

	changes []library.SeatChange
	edits   []seatEdit // of changes with CREATE and UPDATE
	edited  []int      // the index of the change of each edit
	retire  []*storedSeat
	disable []*storedSeat // they go out of service
	faults  []library.FieldViolation
}

// plan adds the change of a row. The branch exists. missing is called if the seat is new and the
// row has no area.
func (p *planner) plan(row *library.SeatRow, missing func()) {
	b := p.branches[row.Branch]
	change := library.SeatChange{Branch: row.Branch, Label: row.Label, Line: row.Line, Action: library.SameSeat}
	old := p.stored[b.ID][row.Label]
	edit := seatEdit{branchID: b.ID, before: old, after: library.SeatSpec{Label: row.Label}}
	if old != nil {
		change.SeatID = old.ID
		edit.after = old.SeatSpec
		if old.Retired { // a retired seat is out of service, but not because of a fault
			edit.after.OutOfService = false
		}
	}
	for _, f := range p.fields {
		edit.after.Copy(f, &row.SeatSpec)
	}
	if edit.after.Area == "" {
		missing()
		return
	}
	if old == nil {
		change.Action = library.CreateSeat
	} else {
		change.Fields = differences(old, &edit.after)
		if len(change.Fields) > 0 {
			change.Action = library.UpdateSeat
		}
		if edit.after.OutOfService && !old.OutOfService {
			p.disable = append(p.disable, old)
		}
	}
	if change.Action != library.SameSeat {
		p.edits = append(p.edits, edit)
		p.edited = append(p.edited, len(p.changes))
	}
	p.changes = append(p.changes, change)
}

// differences returns the fields in which a seat changes.
func differences(old *storedSeat, after *library.SeatSpec) (changes []library.FieldChange) {
	for _, f := range library.SeatFields() {
		if from, to := old.Text(f), after.Text(f); from != to {
			changes = append(changes, library.FieldChange{Field: f, From: from, To: to})
		}
	}
	if old.Retired {
		changes = append(changes, library.FieldChange{Field: library.SeatRetired, From: "true", To: "false"})
	}
	return changes
}

// retireMissing adds the seats that no change names, sorted by branch and label.
func (p *planner) retireMissing() {
	named := map[[2]string]bool{}
	for _, c := range p.changes {
		named[[2]string{c.Branch, c.Label}] = true
	}
	var missing []library.SeatChange
	for code, b := range p.branches {
		for label, seat := range p.stored[b.ID] {
			if !seat.Retired && !named[[2]string{code, label}] {
				missing = append(missing, library.SeatChange{
					Branch: code, Label: label, SeatID: seat.ID, Action: library.RetireSeat,
				})
				p.retire = append(p.retire, seat)
			}
		}
	}
	slices.SortFunc(missing, func(a, b library.SeatChange) int {
		return cmp.Or(cmp.Compare(a.Branch, b.Branch), cmp.Compare(a.Label, b.Label))
	})
	p.changes = append(p.changes, missing...)
}

// changed returns the ids of the seats that the plan changes, besides new ones, in ascending order.
func (p *planner) changed() (ids []int64) {
	for _, e := range p.edits {
		if e.before != nil {
			ids = append(ids, e.before.ID)
		}
	}
	return sorted(append(ids, idsOf(p.retire)...))
}

func idsOf(seats []*storedSeat) (ids []int64) {
	for _, s := range seats {
		ids = append(ids, s.ID)
	}
	return ids
}

// load reads the seats of the branches of a planner.
func (t *staffTx) load(ctx context.Context, p *planner) error {
	ids := make([]int64, 0, len(p.branches))
	p.stored = map[int64]map[string]*storedSeat{}
	for _, b := range p.branches {
		ids = append(ids, b.ID)
		p.stored[b.ID] = map[string]*storedSeat{}
	}
	seats, err := rowsOf(ctx, t, scanStoredSeat, selectStoredSeats, t.s.lib, sorted(ids))
	for i := range seats {
		p.stored[seats[i].BranchID][seats[i].Label] = &seats[i]
	}
	return err
}

func scanStoredSeat(row pgx.CollectableRow) (s storedSeat, err error) {
	err = row.Scan(&s.ID, &s.BranchID, &s.Area, &s.Label, &s.Amenities, &s.XCm, &s.YCm, &s.Angle, &s.Desk,
		&s.OutOfService, &s.Retired)
	return s, err
}

// seatColumns are the values of many seats, one array for each column.
type seatColumns struct {
	ids, branches []int64
	areas, labels []string
	amenities     []string
	x, y, angles  []*int
	desks         []string
	outOfService  []bool
}

func (c *seatColumns) add(e seatEdit) {
	if e.before != nil {
		c.ids = append(c.ids, e.before.ID)
	}
	c.branches = append(c.branches, e.branchID)
	c.areas, c.labels = append(c.areas, e.after.Area), append(c.labels, e.after.Label)
	var b strings.Builder
	for i, a := range library.SortedAmenities(e.after.Amenities) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(a)))
	}
	c.amenities = append(c.amenities, "{"+b.String()+"}")
	c.x, c.y, c.angles = append(c.x, e.after.XCm), append(c.y, e.after.YCm), append(c.angles, e.after.Angle)
	c.desks, c.outOfService = append(c.desks, e.after.Desk), append(c.outOfService, e.after.OutOfService)
}

// write writes the seats that a plan creates, changes and retires. The seats are locked.
func (t *staffTx) write(ctx context.Context, p *planner) error {
	var created, updated seatColumns
	var moved []int64
	for _, e := range p.edits {
		if e.before == nil {
			created.add(e)
			continue
		}
		updated.add(e)
		if e.before.Area != e.after.Area {
			moved = append(moved, e.before.ID)
		}
	}
	if len(updated.ids) > 0 {
		c := updated
		_, err := t.Exec(ctx, updateSeats, t.s.lib, c.ids, c.areas, c.amenities, c.x, c.y, c.angles, c.desks, c.outOfService)
		if err == nil && len(moved) > 0 {
			_, err = t.Exec(ctx, sweepMoved, t.s.lib, moved)
		}
		if err != nil {
			return err
		}
	}
	if len(p.retire) > 0 {
		if _, err := t.Exec(ctx, retireSeats, t.s.lib, idsOf(p.retire)); err != nil {
			return err
		}
	}
	if len(created.labels) == 0 {
		return nil
	}
	c := created
	rows, err := t.Query(ctx, insertSeats, t.s.lib, c.branches, c.areas, c.labels, c.amenities, c.x, c.y, c.angles,
		c.desks, c.outOfService)
	if err != nil {
		return err
	}
	type key struct {
		branch int64
		label  string
	}
	made := map[key]int64{}
	var k key
	var id int64
	_, err = pgx.ForEachRow(rows, []any{&k.branch, &k.label, &id}, func() error { made[k] = id; return nil })
	if err != nil || t.order.ValidateOnly {
		return err
	}
	for i, e := range p.edits {
		if e.before == nil {
			p.changes[p.edited[i]].SeatID = made[key{e.branchID, e.after.Label}]
		}
	}
	return nil
}

// maxAuditSeats is the number of seats up to which the audit log has the values of each one.
const maxAuditSeats = 500

// seatsAudit is a change of the seats of a branch in the audit log. Seats has the changed values by
// label.
type seatsAudit struct {
	Created int                          `json:"created,omitempty"`
	Updated int                          `json:"updated,omitempty"`
	Retired int                          `json:"retired,omitempty"`
	File    string                       `json:"file,omitempty"` // SHA-256 hash of an imported file
	Seats   map[string]map[string]string `json:"seats,omitempty"`
}

// auditSeats writes one row of the audit log for each branch whose seats change.
func (t *staffTx) auditSeats(ctx context.Context, p *planner, file string) error {
	for _, code := range sortedKeys(p.branches) {
		after := seatsAudit{File: file, Seats: map[string]map[string]string{}}
		before := seatsAudit{Seats: map[string]map[string]string{}}
		for i, e := range p.edits {
			change := &p.changes[p.edited[i]]
			if change.Branch != code {
				continue
			}
			was, is := map[string]string{}, map[string]string{}
			if e.before == nil {
				after.Created++
				for _, f := range library.SeatFields() {
					if v := e.after.Text(f); v != "" {
						is[string(f)] = v
					}
				}
			} else {
				after.Updated++
				for _, f := range change.Fields {
					was[string(f.Field)], is[string(f.Field)] = f.From, f.To
				}
				before.Seats[change.Label] = was
			}
			after.Seats[change.Label] = is
		}
		for _, seat := range p.retire {
			if seat.BranchID == p.branches[code].ID {
				after.Retired++
				before.Seats[seat.Label] = map[string]string{"retired": "false"}
				after.Seats[seat.Label] = map[string]string{"retired": "true"}
			}
		}
		if len(after.Seats) == 0 {
			continue
		}
		if len(after.Seats) > maxAuditSeats {
			before.Seats, after.Seats = nil, nil
		}
		if err := t.audit(ctx, p.branches[code].ID, "branch/"+code, before, after); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// UpsertSeats creates seats of a branch, or changes all values of them. A retired seat returns. The
// changes have the order of the seats. It fails with ErrChangedSinceCheck if seats go out of service
// and the number of their reservations is not the expected one.
func (s *Store) UpsertSeats(
	ctx context.Context, order library.Order, branch string, seats []library.SeatSpec, d library.Disruption,
) (library.SeatPlan, error) {
	var plan library.SeatPlan
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		b, err := t.lockBranch(ctx, branch)
		if err != nil {
			return err
		}
		p := &planner{branches: map[string]branchRef{branch: b}, fields: library.SeatFields()}
		if err := t.load(ctx, p); err != nil {
			return err
		}
		for _, seat := range seats {
			p.plan(&library.SeatRow{Branch: branch, SeatSpec: seat}, func() {})
		}
		if len(p.edits) > 0 {
			if _, err := t.lockSeats(ctx, p.changed()); err != nil {
				return err
			}
			if err := t.write(ctx, p); err != nil {
				return err
			}
		}
		if len(p.disable) > 0 {
			if plan.Impact, err = t.disruptSeats(ctx, b.ID, idsOf(p.disable), d); err != nil {
				return err
			}
		}
		plan.Changes = p.changes
		return t.auditSeats(ctx, p, "")
	})
	return plan, err
}

// ImportSeats creates, changes and retires seats as a file says. With ValidateOnly, it is a dry run:
// it takes no locks of seats, and returns the plan with its fingerprint. Otherwise it fails with
// ErrChangedSinceCheck if the plan is no longer that of the fingerprint. If there is nothing to do,
// every fingerprint is accepted, so that a repeated import succeeds. It fails with Invalid and all
// faults if the import has faults, or the file names an unknown branch or has a new seat without an
// area.
func (s *Store) ImportSeats(ctx context.Context, order library.Order, in library.SeatImport) (library.SeatPlan, error) {
	var plan library.SeatPlan
	err := s.asStaffOn(ctx, s.bulk, order, func(ctx context.Context, t *staffTx) error {
		p := &planner{fields: in.File.Fields}
		if err := t.planImport(ctx, p, in); err != nil {
			return err
		}
		plan.Changes = p.changes
		work := len(p.edits)+len(p.retire) > 0
		if work && !order.ValidateOnly {
			// A booking that holds one of the locks is visible after the wait.
			if _, err := t.lockSeats(ctx, p.changed()); err != nil {
				return err
			}
		}
		sweeps, err := t.importImpact(ctx, p, &plan.Impact)
		if err != nil {
			return err
		}
		if plan.Fingerprint, err = fingerprint(in, &plan); err != nil || order.ValidateOnly || !work {
			return err
		}
		if plan.Fingerprint != in.Fingerprint {
			return library.ErrChangedSinceCheck.With("reservations", strconv.Itoa(plan.Impact.Reservations)).
				WithMessage("the file, the parameters, the seats or their reservations have changed since the dry run: " +
					"make another dry run, and repeat the call with its fingerprint")
		}
		if err := t.write(ctx, p); err != nil {
			return err
		}
		for _, w := range sweeps {
			if err := t.startSweep(ctx, w, in); err != nil {
				return err
			}
		}
		return t.auditSeats(ctx, p, hex.EncodeToString(in.Hash[:]))
	})
	return plan, err
}

// planImport locks the branches of a file and plans its rows.
func (t *staffTx) planImport(ctx context.Context, p *planner, in library.SeatImport) error {
	codes := map[string]bool{}
	for i := range in.File.Rows {
		if code := in.File.Rows[i].Branch; library.PlainFault(code, library.MaxSeatName) == "" {
			codes[code] = true
		}
	}
	branches, err := rowsOf(ctx, t, pgx.RowToStructByName[branchRef], lockBranches, t.s.lib, sortedKeys(codes))
	if err != nil {
		return err
	}
	p.branches = map[string]branchRef{}
	for _, b := range branches {
		if err := t.includesCode(b.ID, b.Code); err != nil {
			return err
		}
		p.branches[b.Code] = b
	}
	if err := t.load(ctx, p); err != nil {
		return err
	}
	for i := range in.File.Rows {
		row := &in.File.Rows[i]
		switch _, ok := p.branches[row.Branch]; {
		case row.Branch == "": // the reader has reported it
			continue
		case !ok:
			p.faults = append(p.faults, library.FileFault(row.Line, "branch", "there is no such branch"))
			continue
		case row.Label == "":
			continue
		}
		p.plan(row, func() {
			p.faults = append(p.faults, library.FileFault(row.Line, string(library.SeatArea), "is missing: the seat is new"))
		})
	}
	if faults := slices.Concat(in.Faults, p.faults); len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b library.FieldViolation) int {
			return cmp.Compare(library.FileLine(a.Field), library.FileLine(b.Field))
		})
		return library.Invalid(faults[:min(len(faults), maxFileFaults)]...)
	}
	if in.RetireMissing {
		p.retireMissing()
	}
	return nil
}

// maxFileFaults is the greatest number of faults of a file that are reported.
const maxFileFaults = 1000

// importSweep is a sweep of one branch after an import.
type importSweep struct {
	sweep

	retired bool // the seats are retired
}

// importImpact adds the effect of an import on users, and returns the sweeps that end the
// reservations: one for the retired seats of each branch, and one for those that go out of service.
func (t *staffTx) importImpact(ctx context.Context, p *planner, out *library.Impact) (sweeps []importSweep, err error) {
	days := map[int64]int{} // index in out.Days, by Unix time
	for _, code := range sortedKeys(p.branches) {
		branchID := p.branches[code].ID
		for _, group := range []struct {
			seats   []*storedSeat
			retired bool
		}{{p.retire, true}, {p.disable, false}} {
			var ids []int64
			for _, s := range group.seats {
				if s.BranchID == branchID {
					ids = append(ids, s.ID)
				}
			}
			if len(ids) == 0 {
				continue
			}
			w, err := t.seatSweep(ctx, branchID, ids)
			if err != nil {
				return nil, err
			}
			planned := w
			planned.planned = true
			impact, err := t.impact(ctx, planned)
			if err != nil {
				return nil, err
			}
			addImpact(out, impact, days)
			sweeps = append(sweeps, importSweep{w, group.retired})
		}
	}
	slices.SortFunc(out.Days, func(a, b library.DayCount) int { return a.Day.Compare(b.Day) })
	slices.SortStableFunc(out.First, func(a, b library.AffectedReservation) int {
		return cmp.Or(a.StartTime.Compare(b.StartTime), cmp.Compare(a.ID, b.ID))
	})
	out.First = out.First[:min(len(out.First), library.MaxAffected)]
	return sweeps, nil
}

// addImpact adds the impact of other seats to out.
func addImpact(out *library.Impact, more library.Impact, days map[int64]int) {
	out.Reservations += more.Reservations
	out.CheckedIn += more.CheckedIn
	out.Entries += more.Entries
	out.First = append(out.First, more.First...)
	for _, d := range more.Days {
		i, ok := days[d.Day.Unix()]
		if !ok {
			i = len(out.Days)
			days[d.Day.Unix()] = i
			out.Days = append(out.Days, library.DayCount{Day: d.Day})
		}
		out.Days[i].Reservations += d.Reservations
	}
}

// startSweep starts a sweep after an import. The reservations of retired seats are always cancelled.
func (t *staffTx) startSweep(ctx context.Context, w importSweep, in library.SeatImport) error {
	if !w.retired && in.OnBookings != library.CancelBookings {
		return nil
	}
	_, err := t.Exec(ctx, insertSweep, t.s.lib, w.branchID, string(w.cause), orNil(w.closureID), w.area, w.seatIDs,
		w.from, orNil(w.until), textsOrEmpty(in.Note))
	return err
}

// fingerprint returns the fingerprint of an import: a hash of the file, the changes, the number of
// affected reservations and what happens to them.
func fingerprint(in library.SeatImport, plan *library.SeatPlan) (string, error) {
	text, err := json.Marshal(plan.Changes)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%x %d %s %d ", in.Hash, plan.Impact.Reservations, in.OnBookings, len(text))
	_, _ = h.Write(text) // never fails
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// selectExport sorts by bytes, so that the order does not depend on the locale of the database.
const selectExport = `
	SELECT b.code, s.id, s.branch_id, s.area, s.label, s.amenities, s.x_cm, s.y_cm, s.angle, s.desk, s.out_of_service
	FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
	WHERE s.library_id = $1 AND s.retired_at IS NULL AND ($2::bigint[] IS NULL OR s.branch_id = ANY($2))
	ORDER BY b.code COLLATE "C", s.label COLLATE "C"`

// ExportSeats returns the seats of a branch, or of all branches in the scope of the actor if branch
// is empty, sorted by branch and label. Retired seats are left out.
func (s *Store) ExportSeats(
	ctx context.Context, actor library.Actor, branch string,
) (seats []library.SeatRow, err error) {
	err = s.asStaffOn(ctx, s.bulk, library.Order{Actor: actor}, func(ctx context.Context, t *staffTx) error {
		branches, err := t.branchesOf(ctx, branch)
		if err != nil {
			return err
		}
		seats, err = rowsOf(ctx, t, scanExported, selectExport, t.s.lib, branches)
		return err
	})
	return seats, err
}

func scanExported(row pgx.CollectableRow) (r library.SeatRow, err error) {
	var id, branchID int64
	err = row.Scan(&r.Branch, &id, &branchID, &r.Area, &r.Label, &r.Amenities, &r.XCm, &r.YCm, &r.Angle, &r.Desk,
		&r.OutOfService)
	return r, err
}
