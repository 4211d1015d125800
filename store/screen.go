package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const (
	selectScreens = `
		SELECT c.id, b.code AS branch, c.name, c.off
		FROM screens c JOIN branches b ON b.library_id = c.library_id AND b.id = c.branch_id
		WHERE c.library_id = $1 AND c.branch_id = $2 ORDER BY c.name, c.id`

	// selectScreenNow reads one screen and the time.
	selectScreenNow = `
		SELECT c.id, b.code AS branch, c.name, c.off, dlsms_now() AS now
		FROM screens c JOIN branches b ON b.library_id = c.library_id AND b.id = c.branch_id
		WHERE c.library_id = $1 AND c.id = $2`

	// insertScreen gives out the ids in order. The caller has locked the library.
	insertScreen = `
		INSERT INTO screens (library_id, id, branch_id, name, off)
		SELECT $1, (SELECT COALESCE(max(id), 0) + 1 FROM screens WHERE library_id = $1), $2, $3, $4 RETURNING id`
	updateScreen = `UPDATE screens SET name = $3, off = $4 WHERE library_id = $1 AND id = $2`
)

// maxScreens is the most screens of a branch. A check-in by digits is compared with all of them.
const maxScreens = 50

// screenObject returns the name of a screen in the audit log.
func screenObject(id int64) string { return "screen/" + strconv.FormatInt(id, 10) }

// screenState is a screen in the audit log.
type screenState struct {
	Name string `json:"name"`
	Off  bool   `json:"off"`
}

// UpsertScreen adds a screen to a branch, or changes the one with its name. If nothing changes, it
// writes nothing. It fails with the errors of asStaff and lockBranch, ErrScreenNotFound if a screen to
// be renamed or switched off does not exist, or Invalid.
func (s *Store) UpsertScreen(
	ctx context.Context, order library.Order, change library.ScreenChange,
) (screen library.Screen, err error) {
	isNew := false
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		branch, err := t.lockBranch(ctx, change.Branch)
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, lockLibrary, s.lib); err != nil {
			return err
		}
		all, err := rowsOf(ctx, t, pgx.RowToStructByName[library.Screen], selectScreens, s.lib, branch.ID)
		if err != nil {
			return err
		}
		named := func(name string) int {
			return slices.IndexFunc(all, func(other library.Screen) bool { return other.Name == name })
		}
		i := named(change.Name)
		if i < 0 && change.NewName != "" {
			i = named(change.NewName) // a repeated call: the screen has its new name already
		}
		if i < 0 {
			isNew = true
			screen = library.Screen{Branch: change.Branch, Name: change.Name}
			if change.NewName != "" || change.Off != nil && *change.Off { // no new screen: a wrong name
				return library.ErrScreenNotFound.WithMessage(fmt.Sprintf("the branch has no screen %q", change.Name))
			}
			return t.addScreen(ctx, branch.ID, all, &screen)
		}
		screen = all[i]
		if change.NewName != "" {
			screen.Name = change.NewName
		}
		if change.Off != nil {
			screen.Off = *change.Off
		}
		if screen == all[i] {
			return nil
		}
		if _, err := t.Exec(ctx, updateScreen, s.lib, screen.ID, screen.Name, screen.Off); err != nil {
			return err
		}
		return t.audit(ctx, branch.ID, screenObject(screen.ID), screenState{all[i].Name, all[i].Off},
			screenState{screen.Name, screen.Off})
	})
	if isNew && order.ValidateOnly {
		screen.ID = 0
	}
	return screen, err
}

// addScreen adds a screen to a branch that has the screens in all, and sets its id.
func (t *staffTx) addScreen(ctx context.Context, branch int64, all []library.Screen, screen *library.Screen) error {
	if len(all) >= maxScreens {
		return library.Invalid(library.FieldViolation{
			Field: "name", Message: fmt.Sprintf("the branch has %d screens, which is the most", maxScreens),
		})
	}
	err := t.QueryRow(ctx, insertScreen, t.s.lib, branch, screen.Name, screen.Off).Scan(&screen.ID)
	if err != nil {
		return err
	}
	return t.audit(ctx, branch, screenObject(screen.ID), nil, screenState{screen.Name, screen.Off})
}

// Screens returns the screens of a branch, sorted by name. It fails with ErrBranchNotFound or
// ErrBranchRequired.
func (s *Store) Screens(ctx context.Context, actor library.Actor, branch string) (screens []library.Screen, err error) {
	err = s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) error {
		id, err := t.branchID(ctx, branch)
		if err != nil {
			return err
		}
		screens, err = rowsOf(ctx, t, pgx.RowToStructByName[library.Screen], selectScreens, s.lib, id)
		return err
	})
	return screens, err
}

// ScreenOf returns a screen in the branch of a service key, and the time. The screen is that with the
// id, or if the id is 0 that with the name. Without both, it is the only screen of the branch. It fails
// with ErrTokenRevoked, ErrScreenNotFound, or Invalid if the branch has several screens.
func (s *Store) ScreenOf(
	ctx context.Context, key library.Actor, id int64, name string,
) (now library.ScreenNow, err error) {
	err = s.readAsStaff(ctx, key, func(ctx context.Context, t *staffTx) error {
		if key.KeyID == 0 || len(t.scope.Branches) != 1 {
			return library.ScopeRequired(library.ScopeScreen)
		}
		all, err := rowsOf(ctx, t, pgx.RowToStructByName[library.Screen], selectScreens, s.lib, t.scope.Branches[0])
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(c library.Screen) bool {
			if id != 0 {
				return c.ID == id
			}
			return name == "" || c.Name == name
		})
		switch {
		case i < 0:
			return library.ErrScreenNotFound
		case id == 0 && name == "" && len(all) > 1:
			return library.Invalid(library.FieldViolation{
				Field: "screen", Message: "is missing: the branch has several screens",
			})
		}
		now.Screen = all[i]
		now.Now, err = t.now(ctx)
		return err
	})
	return now, err
}

// ScreenNow returns the screen with an id, and the time. It fails with ErrPresenceInvalid if there is
// no such screen, as after a restore of a backup from before the screen was added.
func (s *Store) ScreenNow(ctx context.Context, id int64) (library.ScreenNow, error) {
	return queryOne(ctx, s.pool, library.ErrPresenceInvalid, pgx.RowToStructByName[library.ScreenNow],
		selectScreenNow, s.lib, id)
}

const (
	selectSeatsToLabel = `
		SELECT s.id AS seat_id, b.code AS branch, b.name AS branch_name, s.area, s.label
		FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
		WHERE s.library_id = $1 AND s.branch_id = $2 AND s.retired_at IS NULL
			AND ($3::text = '' OR s.area = $3) AND (cardinality($4::bigint[]) = 0 OR s.id = ANY ($4))
		ORDER BY s.area, s.label, s.id LIMIT $5`

	// selectVisitAt finds what a user has reserved at a seat, the present or next reservation first.
	selectVisitAt = selectReservation + `
		AND r.user_id = $2 AND r.seat_id = $3 AND r.occupies AND r.status <> 'HELD' AND upper(r.during) > dlsms_now()
		ORDER BY lower(r.during), r.id LIMIT 1`
)

// MaxLabels is the most labels of a sheet. A label takes about 4 KB.
const MaxLabels = 500

// SeatsToLabel returns seats of a branch, sorted by area and label. An empty area and no ids stand
// for all seats. It fails with ErrBranchNotFound, ErrBranchRequired, ErrAreaNotFound, ErrSeatNotFound,
// or Invalid if there are more than MaxLabels.
func (s *Store) SeatsToLabel(
	ctx context.Context, actor library.Actor, branch, area string, ids []int64,
) (seats []library.LabelSeat, err error) {
	err = s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) error {
		id, err := t.branchID(ctx, branch)
		if err != nil {
			return err
		}
		seats, err = rowsOf(ctx, t, pgx.RowToStructByName[library.LabelSeat],
			selectSeatsToLabel, s.lib, id, area, idsOrEmpty(ids), MaxLabels+1)
		switch {
		case err != nil:
			return err
		case len(seats) > MaxLabels:
			return library.Invalid(library.FieldViolation{
				Field: "area", Message: fmt.Sprintf("the seats are more than %d: choose an area or some seats", MaxLabels),
			})
		case area != "" && len(seats) == 0:
			return library.ErrAreaNotFound
		}
		for _, id := range ids {
			if !slices.ContainsFunc(seats, func(s library.LabelSeat) bool { return s.SeatID == id }) {
				return library.ErrSeatNotFound.With("seat_id", strconv.FormatInt(id, 10))
			}
		}
		return nil
	})
	return seats, err
}

// VisitAt returns the present or next reservation of a user at a seat. ok is false if there is none.
func (s *Store) VisitAt(ctx context.Context, userID, seatID int64) (r library.Reservation, ok bool, err error) {
	r, err = queryOne(ctx, s.pool, library.ErrReservationNotFound, pgx.RowToStructByName[library.Reservation],
		selectVisitAt, s.lib, userID, seatID)
	if errors.Is(err, library.ErrReservationNotFound) {
		return r, false, nil
	}
	return r, err == nil, err
}
