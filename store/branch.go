package store

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// settingsRow is a row of selectSettings. The lists are JSON, so that one statement reads all of
// them in one snapshot.
type settingsRow struct {
	ID                int64
	Code              string
	Name              string
	Timezone          string
	Announcement      library.Texts
	AnnouncedUntil    *time.Time
	Hours             []library.OpenHours
	Days              []library.DayHours
	Areas             []library.Area
	SeatCount         int
	OutOfServiceCount int
}

// selectSettings reads branches with all that their librarian sets. Days begin today, in the time
// zone of the branch. Durations are in nanoseconds, and days are counted from 1 January 1970, as in
// package library.
const selectSettings = `
	SELECT b.id, b.code, b.name, b.timezone, b.announcement, b.announced_until,
		COALESCE((
			SELECT json_agg(json_build_object('Weekday', h.weekday % 7,
				'Opens', extract(epoch FROM h.opens)::bigint * 1000000000,
				'Closes', extract(epoch FROM h.closes)::bigint * 1000000000) ORDER BY h.weekday, h.opens)
			FROM branch_hours h WHERE h.library_id = b.library_id AND h.branch_id = b.id), '[]') AS hours,
		COALESCE((
			SELECT json_agg(json_build_object('Day', d.day - '1970-01-01'::date, 'Open', d.open) ORDER BY d.day)
			FROM (
				SELECT x.day, COALESCE(json_agg(json_build_object(
					'Opens', extract(epoch FROM x.opens)::bigint * 1000000000,
					'Closes', extract(epoch FROM x.closes)::bigint * 1000000000) ORDER BY x.opens)
					FILTER (WHERE x.opens IS NOT NULL), '[]') AS open
				FROM branch_days x
				WHERE x.library_id = b.library_id AND x.branch_id = b.id
					AND x.day >= (dlsms_now() AT TIME ZONE b.timezone)::date
				GROUP BY x.day
			) d), '[]') AS days,
		COALESCE((
			SELECT json_agg(json_build_object('Name', s.area, 'Floor', COALESCE(a.floor, ''), 'SeatCount', s.n)
				ORDER BY s.area COLLATE "C")
			FROM (
				SELECT area, count(*) AS n FROM seats
				WHERE library_id = b.library_id AND branch_id = b.id AND retired_at IS NULL GROUP BY area
			) s LEFT JOIN areas a ON a.library_id = b.library_id AND a.branch_id = b.id AND a.name = s.area
			), '[]') AS areas,
		s.seat_count, s.out_of_service_count
	FROM branches b CROSS JOIN LATERAL (
		SELECT count(*)::int AS seat_count, count(*) FILTER (WHERE out_of_service)::int AS out_of_service_count
		FROM seats WHERE library_id = b.library_id AND branch_id = b.id AND retired_at IS NULL
	) s
	WHERE b.library_id = $1 AND ($2::bigint[] IS NULL OR b.id = ANY($2))
	ORDER BY b.code COLLATE "C"`

// settings returns branches, or all branches if ids is nil.
func (t *staffTx) settings(ctx context.Context, ids []int64) ([]library.BranchSettings, error) {
	return rowsOf(ctx, t, scanSettings, selectSettings, t.s.lib, ids)
}

func scanSettings(row pgx.CollectableRow) (library.BranchSettings, error) {
	r, err := pgx.RowToStructByName[settingsRow](row)
	return library.BranchSettings{
		Branch: library.Branch{
			ID: r.ID, Code: r.Code, Name: r.Name, Timezone: r.Timezone,
			Hours: r.Hours, Days: r.Days, Announcement: r.Announcement, AnnouncedUntil: orZero(r.AnnouncedUntil),
		},
		Areas: r.Areas, SeatCount: r.SeatCount, OutOfServiceCount: r.OutOfServiceCount,
	}, err
}

// oneBranch returns the settings of a branch.
func (t *staffTx) oneBranch(ctx context.Context, id int64) (library.BranchSettings, error) {
	all, err := t.settings(ctx, []int64{id})
	return first(all, library.ErrBranchNotFound, err)
}

// ListBranches returns the branches in the scope of an actor, sorted by code.
func (s *Store) ListBranches(ctx context.Context, actor library.Actor) (branches []library.BranchSettings, err error) {
	err = s.asStaff(ctx, library.Order{Actor: actor}, func(ctx context.Context, t *staffTx) error {
		var scope []int64
		if !t.scope.All {
			scope = append([]int64{}, t.scope.Branches...) // not nil, which means all branches
		}
		branches, err = t.settings(ctx, scope)
		return err
	})
	return branches, err
}

const (
	knowsZone    = `SELECT dlsms_zone($1) IS NOT DISTINCT FROM $1`
	selectBranch = `SELECT id, name, timezone FROM branches WHERE library_id = $1 AND code = $2 FOR NO KEY UPDATE`
	insertBranch = `INSERT INTO branches (library_id, code, name, timezone) VALUES ($1, $2, $3, $4) RETURNING id`
	updateBranch = `UPDATE branches SET name = $3, timezone = $4 WHERE library_id = $1 AND id = $2`
)

// branchAudit is a branch in the audit log.
type branchAudit struct {
	Name     string `json:"name"`
	Timezone string `json:"timezone"`
}

// UpsertBranch creates a branch, or changes its name and time zone. It fails with ErrRoleRequired if
// the actor is no admin, and with Invalid if the time zone is not known.
func (s *Store) UpsertBranch(
	ctx context.Context, order library.Order, b library.Branch,
) (settings library.BranchSettings, created bool, err error) {
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		if role := order.Actor.Role; role != library.RoleAdmin && role != library.RoleHost {
			return library.RoleRequired(library.RoleAdmin)
		}
		var known bool
		if err := t.QueryRow(ctx, knowsZone, b.Timezone).Scan(&known); err != nil {
			return err
		}
		if !known {
			return library.Invalid(library.FieldViolation{Field: "timezone", Message: "is not a known time zone"})
		}
		// Only one call at a time can create a branch.
		if _, err := t.Exec(ctx, lockLibrary, t.s.lib); err != nil {
			return err
		}
		var before any
		after := branchAudit{b.Name, b.Timezone}
		var old branchAudit
		id := int64(0)
		err := t.QueryRow(ctx, selectBranch, t.s.lib, b.Code).Scan(&id, &old.Name, &old.Timezone)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			created = true
			err = t.QueryRow(ctx, insertBranch, t.s.lib, b.Code, b.Name, b.Timezone).Scan(&id)
		case err == nil && old != after:
			before = old
			_, err = t.Exec(ctx, updateBranch, t.s.lib, id, b.Name, b.Timezone)
		}
		if err == nil && (created || before != nil) {
			err = t.audit(ctx, id, "branch/"+b.Code, before, after)
		}
		if err != nil {
			return err
		}
		settings, err = t.oneBranch(ctx, id)
		return err
	})
	return settings, created, err
}

const (
	selectAnnouncement = `SELECT announcement, announced_until FROM branches WHERE library_id = $1 AND id = $2`
	setAnnouncement    = `UPDATE branches SET announcement = $3, announced_until = $4 WHERE library_id = $1 AND id = $2`
)

// announcement is an announcement in the audit log.
type announcement struct {
	Text  library.Texts `json:"text"`
	Until *time.Time    `json:"until,omitempty"`
}

// SetAnnouncement sets the text that students of a branch see. A zero until means that it does not
// end. Without a text, it removes the announcement. It fails with the errors of asStaff and
// lockBranch, or Invalid if until has passed.
func (s *Store) SetAnnouncement(
	ctx context.Context, order library.Order, branch string, text library.Texts, until time.Time,
) (settings library.BranchSettings, err error) {
	after := announcement{Text: textsOrEmpty(text)}
	if len(text) > 0 {
		after.Until = orNil(until)
	}
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		b, err := t.lockBranch(ctx, branch)
		if err != nil {
			return err
		}
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		if after.Until != nil && !until.After(now) {
			return library.Invalid(library.FieldViolation{Field: "until", Message: "it is in the past"})
		}
		var before announcement
		err = t.QueryRow(ctx, selectAnnouncement, t.s.lib, b.ID).Scan(&before.Text, &before.Until)
		if err == nil && !before.equal(after) {
			_, err = t.Exec(ctx, setAnnouncement, t.s.lib, b.ID, after.Text, after.Until)
			if err == nil {
				err = t.audit(ctx, b.ID, "branch/"+branch, before, after)
			}
		}
		if err != nil {
			return err
		}
		settings, err = t.oneBranch(ctx, b.ID)
		return err
	})
	return settings, err
}

func (a announcement) equal(b announcement) bool {
	if len(a.Text) != len(b.Text) || (a.Until == nil) != (b.Until == nil) || a.Until != nil && !a.Until.Equal(*b.Until) {
		return false
	}
	for language, text := range a.Text {
		if other, ok := b.Text[language]; !ok || other != text {
			return false
		}
	}
	return true
}

const (
	// countArea counts the seats of an area, retired ones separately.
	countArea = `
		SELECT count(*) FILTER (WHERE retired_at IS NULL)::int, count(*)::int FROM seats
		WHERE library_id = $1 AND branch_id = $2 AND area = $3`

	selectFloor = `SELECT floor FROM areas WHERE library_id = $1 AND branch_id = $2 AND name = $3`
	deleteArea  = `DELETE FROM areas WHERE library_id = $1 AND branch_id = $2 AND name = $3`
	upsertArea  = `
		INSERT INTO areas (library_id, branch_id, name, floor) VALUES ($1, $2, $3, $4)
		ON CONFLICT (library_id, branch_id, name) DO UPDATE SET floor = EXCLUDED.floor`

	selectAreaSeats = `
		SELECT id FROM seats WHERE library_id = $1 AND branch_id = $2 AND area = $3 ORDER BY id FOR NO KEY UPDATE`
	moveSeats = `UPDATE seats SET area = $3 WHERE library_id = $1 AND id = ANY($2)`

	countAreaPolicies = `
		SELECT count(DISTINCT area)::int FROM policies WHERE library_id = $1 AND branch_id = $2 AND area IN ($3, $4)`
	renamePolicies  = `UPDATE policies SET area = $4 WHERE library_id = $1 AND branch_id = $2 AND area = $3`
	renameEffective = `UPDATE effective_policies SET area = $4 WHERE library_id = $1 AND branch_id = $2 AND area = $3`
	renameClosures  = `UPDATE closures SET area = $4 WHERE library_id = $1 AND branch_id = $2 AND area = $3`
	renameSweeps    = `UPDATE sweeps SET area = $4 WHERE library_id = $1 AND branch_id = $2 AND area = $3`

	// narrowClosures and narrowSweeps limit the closures and sweeps of two areas to the seats that the
	// areas have. They do so before the areas become one, so that a closure of one of them does not
	// close the seats of the other.
	narrowClosures = `
		UPDATE closures c SET area = NULL, seat_ids = (
			SELECT array_agg(s.id ORDER BY s.id) FROM seats s
			WHERE s.library_id = c.library_id AND s.branch_id = c.branch_id AND s.area = c.area)
		WHERE library_id = $1 AND branch_id = $2 AND area IN ($3, $4) AND lifted_at IS NULL
			AND COALESCE(upper(during), 'infinity') > dlsms_now()`
	narrowSweeps = `
		UPDATE sweeps w SET area = NULL, seat_ids = (
			SELECT array_agg(s.id ORDER BY s.id) FROM seats s
			WHERE s.library_id = w.library_id AND s.branch_id = w.branch_id AND s.area = w.area)
		WHERE library_id = $1 AND branch_id = $2 AND area IN ($3, $4) AND done_at IS NULL`
)

// areaAudit is an area in the audit log.
type areaAudit struct {
	Name  string `json:"name"`
	Floor string `json:"floor"`
	// Joined is the number of seats of the area that another area became a part of.
	Joined int `json:"joined,omitempty"`
}

// UpsertArea sets the floor of an area, and renames it if newName is not empty. If an area with the
// new name exists, the two become one. A repeated call finds the area under its new name. It fails
// with ErrAreaNotFound, and with Invalid if both areas have policies.
func (s *Store) UpsertArea(
	ctx context.Context, order library.Order, branch, name, newName, floor string,
) (area library.Area, err error) {
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		b, err := t.lockBranch(ctx, branch)
		if err != nil {
			return err
		}
		seats, err := t.areaSeats(ctx, b.ID, name)
		if err != nil {
			return err
		}
		before := areaAudit{Name: name}
		after := areaAudit{Name: name, Floor: floor}
		found := seats > 0
		if newName != "" && newName != name {
			after.Name = newName
			joined, err := t.areaSeats(ctx, b.ID, newName)
			if err != nil {
				return err
			}
			if !found && joined > 0 { // a repeated call
				before.Name, name, found = newName, newName, true
			} else {
				after.Joined = joined
			}
		}
		if !found {
			return library.ErrAreaNotFound
		}
		err = t.QueryRow(ctx, selectFloor, t.s.lib, b.ID, name).Scan(&before.Floor)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if after.Name != name {
			if err := t.renameArea(ctx, b.ID, name, after.Name, after.Joined > 0); err != nil {
				return err
			}
		}
		if before != after {
			if _, err := t.Exec(ctx, upsertArea, t.s.lib, b.ID, after.Name, floor); err != nil {
				return err
			}
			if err := t.audit(ctx, b.ID, "branch/"+branch, before, after); err != nil {
				return err
			}
		}
		var all int
		area = library.Area{Name: after.Name, Floor: floor}
		return t.QueryRow(ctx, countArea, t.s.lib, b.ID, after.Name).Scan(&area.SeatCount, &all)
	})
	return area, err
}

// areaSeats returns the number of seats in an area that are not retired.
func (t *staffTx) areaSeats(ctx context.Context, branchID int64, area string) (n int, err error) {
	var all int
	err = t.QueryRow(ctx, countArea, t.s.lib, branchID, area).Scan(&n, &all)
	return n, err
}

// renameArea gives the seats of an area, and all rows that name the area, a new name. If joins is
// true, an area with the new name exists.
func (t *staffTx) renameArea(ctx context.Context, branchID int64, from, to string, joins bool) error {
	var withPolicies int
	if err := t.QueryRow(ctx, countAreaPolicies, t.s.lib, branchID, from, to).Scan(&withPolicies); err != nil {
		return err
	}
	if withPolicies == 2 {
		return library.Invalid(library.FieldViolation{
			Field: "new_name", Message: "has policies, and so has the other area: remove those of one of the two first",
		})
	}
	// The rows of sweeps come before the seats: the worker locks them in this order.
	if joins {
		for _, sql := range []string{narrowSweeps, narrowClosures} {
			if _, err := t.Exec(ctx, sql, t.s.lib, branchID, from, to); err != nil {
				return err
			}
		}
	}
	for _, sql := range []string{renameSweeps, renameClosures, renamePolicies, renameEffective} {
		if _, err := t.Exec(ctx, sql, t.s.lib, branchID, from, to); err != nil {
			return err
		}
	}
	ids, err := rowsOf(ctx, t, pgx.RowTo[int64], selectAreaSeats, t.s.lib, branchID, from)
	if err != nil {
		return err
	}
	if _, err := t.Exec(ctx, moveSeats, t.s.lib, ids, to); err != nil {
		return err
	}
	_, err = t.Exec(ctx, deleteArea, t.s.lib, branchID, from)
	return err
}

const (
	// selectSeatsByID reads seats of a branch, retired ones too, and locks them in the order of their
	// ids.
	selectSeatsByID = `
		SELECT id, label, retired_at IS NOT NULL AS retired FROM seats
		WHERE library_id = $1 AND branch_id = $2 AND id = ANY($3) ORDER BY id FOR NO KEY UPDATE`
	retireSeats = `
		UPDATE seats SET retired_at = dlsms_now(), out_of_service = true
		WHERE library_id = $1 AND id = ANY($2) AND retired_at IS NULL`
)

// seatLabel is a row of selectSeatsByID.
type seatLabel struct {
	ID      int64
	Label   string
	Retired bool
}

// retiredAudit is a list of seats that were retired, in the audit log.
type retiredAudit struct {
	Retired []string `json:"retired"` // labels
}

// RetireSeats removes seats of a branch from the library. It returns how many of them were not
// retired before. Their reservations are cancelled. It fails with ErrSeatNotFound, and with
// ErrChangedSinceCheck if the number of reservations is not the expected one.
func (s *Store) RetireSeats(
	ctx context.Context, order library.Order, branch string, seatIDs []int64, expected int, note library.Texts,
) (retired int, impact library.Impact, err error) {
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		b, err := t.lockBranch(ctx, branch)
		if err != nil {
			return err
		}
		wanted := sorted(seatIDs)
		seats, err := rowsOf(ctx, t, pgx.RowToStructByName[seatLabel], selectSeatsByID, t.s.lib, b.ID, wanted)
		if err != nil {
			return err
		}
		var ids []int64
		var after retiredAudit
		for i, id := range wanted {
			if i >= len(seats) || seats[i].ID != id {
				return library.ErrSeatNotFound.With("seat_id", strconv.FormatInt(id, 10))
			}
			if !seats[i].Retired {
				ids = append(ids, id)
				after.Retired = append(after.Retired, seats[i].Label)
			}
		}
		if retired = len(ids); retired == 0 {
			return nil
		}
		if _, err := t.Exec(ctx, retireSeats, t.s.lib, ids); err != nil {
			return err
		}
		impact, err = t.disruptSeats(ctx, b.ID, ids, library.Disruption{
			OnBookings: library.CancelBookings, Expected: expected, Note: note,
		})
		if err != nil {
			return err
		}
		return t.audit(ctx, b.ID, "branch/"+branch, nil, after)
	})
	return retired, impact, err
}

// seatSweep returns the sweep of seats that are out of service or retired from now on.
func (t *staffTx) seatSweep(ctx context.Context, branchID int64, ids []int64) (sweep, error) {
	w := sweep{branchID: branchID, cause: sweepSeats, seatIDs: sorted(ids)}
	var err error
	w.from, err = t.now(ctx)
	return w, err
}

// disruptSeats is disrupt for seats that the transaction has taken out of service or retired.
func (t *staffTx) disruptSeats(
	ctx context.Context, branchID int64, ids []int64, d library.Disruption,
) (library.Impact, error) {
	w, err := t.seatSweep(ctx, branchID, ids)
	if err != nil {
		return library.Impact{}, err
	}
	return t.disrupt(ctx, w, d)
}
