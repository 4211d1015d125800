package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const (
	insertClosure = `
		INSERT INTO closures (library_id, branch_id, area, seat_ids, during, note, on_bookings, request_id, request_hash,
			user_id, created_at)
		VALUES ($1, $2, NULLIF($3, ''), $4, tstzrange($5, $6), $7, $8, $9, $10, $11, $12) RETURNING id`

	selectClosureOfRequest = `
		SELECT id, request_hash = $4 FROM closures WHERE library_id = $1 AND user_id = $2 AND request_id = $3`

	// selectClosureState reads closures as staff see them. done and ended are about all sweeps of a
	// closure; done is NULL if there is none.
	selectClosureState = `
		SELECT c.id, c.branch_id, b.code, COALESCE(c.area, ''), c.seat_ids, lower(c.during), upper(c.during), c.note,
			c.on_bookings, c.created_at, c.lifted_at, w.done, COALESCE(w.ended, 0)
		FROM closures c JOIN branches b ON b.library_id = c.library_id AND b.id = c.branch_id
		CROSS JOIN LATERAL (
			SELECT bool_and(done_at IS NOT NULL) AS done, sum(ended)::bigint AS ended FROM sweeps
			WHERE library_id = c.library_id AND closure_id = c.id) w
		WHERE c.library_id = $1 `

	selectOneClosure = selectClosureState + `AND c.id = $2`

	selectClosurePage = selectClosureState + `
			AND ($2::bigint[] IS NULL OR c.branch_id = ANY ($2)) AND ($3::bigint = 0 OR c.id < $3)
			AND ($4 OR c.lifted_at IS NULL AND COALESCE(upper(c.during), 'infinity') > dlsms_now())
		ORDER BY c.id DESC LIMIT $5`

	lockClosure = `SELECT 1 FROM closures WHERE library_id = $1 AND id = $2 FOR NO KEY UPDATE`

	updateClosure = `
		UPDATE closures SET during = tstzrange($3, $4), note = $5, lifted_at = $6 WHERE library_id = $1 AND id = $2`

	// endSweeps waits for the present transaction of a sweep. After that, the sweep does not go on.
	endSweeps = `UPDATE sweeps SET done_at = dlsms_now() WHERE library_id = $1 AND closure_id = $2 AND done_at IS NULL`

	rewordSweeps = `UPDATE sweeps SET note = $3 WHERE library_id = $1 AND closure_id = $2 AND done_at IS NULL`
)

// CreateClosure closes a branch, an area or seats. From the commit on, no reservation is made into
// the closure. With CancelBookings, the worker ends the reservations inside. If the call is repeated
// with the same RequestID and content, it changes nothing. It fails with one of these errors:
//   - the errors of the actor and the branch: see asStaff and lockBranch
//   - ErrSeatNotFound, ErrAreaNotFound
//   - Invalid if the closure ends before it starts, or has ended
//   - ErrChangedSinceCheck: see library.Disruption
//   - ErrRequestIDReused
func (s *Store) CreateClosure(
	ctx context.Context, order library.Order, spec library.ClosureSpec,
) (c library.ClosureState, impact library.Impact, err error) {
	spec.SeatIDs = sortedOrNil(spec.SeatIDs)
	hash, err := closureHash(spec)
	if err != nil {
		return c, impact, err
	}
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		b, err := t.lockBranch(ctx, spec.Branch)
		if err != nil {
			return err
		}
		if prior, err := t.closureOfRequest(ctx, spec.RequestID, hash); err != nil || prior != 0 {
			if err == nil {
				c, err = t.closure(ctx, prior)
			}
			if err == nil {
				impact, err = t.impact(ctx, sweepOf(c.Closure))
			}
			return err
		}
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		if spec.StartTime.IsZero() {
			spec.StartTime = now
		}
		if err := checkSpan(spec.StartTime, spec.EndTime, now); err != nil {
			return err
		}
		if err := t.checkScope(ctx, b.ID, spec.Area, spec.SeatIDs); err != nil {
			return err
		}
		id, err := t.insertClosure(ctx, b, spec, hash, now)
		if err != nil {
			return err
		}
		if c, err = t.closure(ctx, id); err != nil {
			return err
		}
		if impact, err = t.disrupt(ctx, sweepOf(c.Closure), spec.Disruption); err != nil {
			return err
		}
		if c, err = t.closure(ctx, id); err != nil { // with its sweep
			return err
		}
		return t.audit(ctx, b.ID, closureObject(id), nil, auditedClosure(c))
	})
	if order.ValidateOnly {
		c.ID = 0 // it was rolled back
	}
	return c, impact, err
}

func (t *staffTx) insertClosure(
	ctx context.Context, b branchRef, spec library.ClosureSpec, hash []byte, now time.Time,
) (id int64, err error) {
	var userID *int64
	if token := t.order.Actor.Token; token != nil {
		userID = &token.ID
	}
	if spec.OnBookings == "" {
		spec.OnBookings = library.KeepBookings
	}
	err = t.QueryRow(ctx, insertClosure, t.s.lib, b.ID, spec.Area, spec.SeatIDs, spec.StartTime, orNil(spec.EndTime),
		textsOrEmpty(spec.Note), spec.OnBookings, orNil(spec.RequestID), hash, userID, now).Scan(&id)
	return id, err
}

// closureOfRequest returns the id of the closure that the actor has made with this request id, or 0.
// It fails with ErrRequestIDReused if that closure has another hash.
func (t *staffTx) closureOfRequest(ctx context.Context, requestID string, hash []byte) (id int64, err error) {
	token := t.order.Actor.Token
	if requestID == "" || token == nil {
		return 0, nil
	}
	var same bool
	err = t.QueryRow(ctx, selectClosureOfRequest, t.s.lib, token.ID, requestID, hash).Scan(&id, &same)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, nil
	case err == nil && !same:
		err = library.ErrRequestIDReused
	}
	return id, err
}

// closureHash returns a hash of the content of a spec. It returns nil if there is no request id.
func closureHash(spec library.ClosureSpec) ([]byte, error) {
	if spec.RequestID == "" {
		return nil, nil
	}
	spec.RequestID, spec.Expected = "", 0
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(text)
	return hash[:], nil
}

// checkSpan returns Invalid if a closure would end before it starts, or has ended.
func checkSpan(start, end, now time.Time) error {
	message := "must be after start_time"
	switch {
	case end.IsZero():
		return nil
	case !end.After(start):
	case !end.After(now):
		message = "is in the past"
	default:
		return nil
	}
	return library.Invalid(library.FieldViolation{Field: "end_time", Message: message})
}

const (
	selectArea = `
		SELECT EXISTS (
			SELECT FROM seats WHERE library_id = $1 AND branch_id = $2 AND area = $3 AND retired_at IS NULL)`
	selectMissingSeats = `
		SELECT id FROM unnest($3::bigint[]) id WHERE id NOT IN (
			SELECT id FROM seats WHERE library_id = $1 AND branch_id = $2 AND retired_at IS NULL AND id = ANY ($3))
		ORDER BY id LIMIT 1`
)

// checkScope returns ErrAreaNotFound or ErrSeatNotFound if the branch lacks the area or a seat.
func (t *staffTx) checkScope(ctx context.Context, branchID int64, area string, seatIDs []int64) error {
	if area != "" {
		var exists bool
		if err := t.QueryRow(ctx, selectArea, t.s.lib, branchID, area).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			return library.ErrAreaNotFound
		}
	}
	if len(seatIDs) == 0 {
		return nil
	}
	var missing int64
	err := t.QueryRow(ctx, selectMissingSeats, t.s.lib, branchID, seatIDs).Scan(&missing)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return library.ErrSeatNotFound.With("seat_id", strconv.FormatInt(missing, 10))
}

// sweepOf returns the sweep for a closure.
func sweepOf(c library.Closure) sweep {
	return sweep{
		branchID: c.BranchID, cause: sweepClosure, closureID: c.ID, area: c.Area, seatIDs: sortedOrNil(c.SeatIDs),
		from: c.StartTime, until: c.EndTime,
	}
}

// UpdateClosure moves, rewords or lifts a closure. A lifted closure frees its seats at once, and its
// sweep ends. A moved closure with CancelBookings gets a new sweep for its new span. If nothing
// differs, UpdateClosure changes nothing. It fails with one of these errors:
//   - ErrClosureNotFound, and the errors of the actor and the branch: see asStaff and lockBranch
//   - ErrClosureEnded if the closure was lifted
//   - Invalid if the closure would end before it starts
//   - ErrChangedSinceCheck: see library.Disruption
func (s *Store) UpdateClosure(
	ctx context.Context, order library.Order, change library.ClosureChange,
) (c library.ClosureState, impact library.Impact, err error) {
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		was, err := t.lockClosure(ctx, change.ID)
		if err != nil {
			return err
		}
		c = was
		if was.LiftedAt != nil {
			if change.Lift {
				return nil // a repeated call
			}
			return library.ErrClosureEnded
		}
		now, err := t.now(ctx)
		if err != nil {
			return err
		}
		moved, err := applyChange(change, &c, now)
		if err != nil {
			return err
		}
		if impact, err = t.changeClosure(ctx, was, c, moved, change.Expected); err != nil {
			return err
		}
		c, err = t.closure(ctx, c.ID)
		return err
	})
	return c, impact, err
}

// lockClosure locks a closure and its branch, and returns the closure.
func (t *staffTx) lockClosure(ctx context.Context, id int64) (library.ClosureState, error) {
	c, err := t.closure(ctx, id)
	if err != nil {
		return c, err
	}
	if _, err := t.lockBranch(ctx, c.Branch); err != nil {
		return c, err
	}
	if _, err := t.Exec(ctx, lockClosure, t.s.lib, id); err != nil {
		return c, err
	}
	return t.closure(ctx, id) // as it is after the locks
}

// applyChange makes a change of a closure in memory. moved tells whether its span is another one.
func applyChange(change library.ClosureChange, c *library.ClosureState, now time.Time) (moved bool, err error) {
	if change.Lift {
		c.LiftedAt = &now
		return false, nil
	}
	start, end := c.StartTime, c.EndTime
	if !change.StartTime.IsZero() {
		c.StartTime = change.StartTime
	}
	if !change.EndTime.IsZero() || change.NoEnd {
		c.EndTime = change.EndTime
	}
	if len(change.Note) > 0 {
		c.Note = change.Note
	}
	moved = !c.StartTime.Equal(start) || !c.EndTime.Equal(end)
	if !moved {
		return false, nil
	}
	return true, checkSpan(c.StartTime, c.EndTime, time.Time{})
}

// changeClosure writes a change of a closure, from was to c. It does nothing if they are equal.
func (t *staffTx) changeClosure(
	ctx context.Context, was, c library.ClosureState, moved bool, expected int,
) (impact library.Impact, err error) {
	lifted, reworded := c.LiftedAt != nil, !maps.Equal(was.Note, c.Note)
	if moved || lifted || reworded {
		_, err := t.Exec(ctx, updateClosure, t.s.lib, c.ID, c.StartTime, orNil(c.EndTime), textsOrEmpty(c.Note), c.LiftedAt)
		if err != nil {
			return impact, err
		}
		if reworded {
			if _, err := t.Exec(ctx, rewordSweeps, t.s.lib, c.ID, textsOrEmpty(c.Note)); err != nil {
				return impact, err
			}
		}
		if moved || lifted {
			if _, err := t.Exec(ctx, endSweeps, t.s.lib, c.ID); err != nil {
				return impact, err
			}
		}
		defer func() {
			if err == nil {
				err = t.audit(ctx, c.BranchID, closureObject(c.ID), auditedClosure(was), auditedClosure(c))
			}
		}()
	}
	switch {
	case lifted:
		return impact, nil
	case moved:
		d := library.Disruption{OnBookings: c.OnBookings, Expected: expected, Note: c.Note}
		return t.disrupt(ctx, sweepOf(c.Closure), d)
	}
	return t.impact(ctx, sweepOf(c.Closure))
}

// ListClosures returns at most limit closures in the scope of the actor, newest first. branch is the
// code of a branch, or empty for all branches. Without past, it leaves out closures that have ended
// or were lifted. after is the id of the last closure of the previous page, or 0.
func (s *Store) ListClosures(
	ctx context.Context, actor library.Actor, branch string, past bool, after int64, limit int,
) (list []library.ClosureState, err error) {
	err = s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) error {
		branches, err := t.branchesOf(ctx, branch)
		if err != nil {
			return err
		}
		list, err = rowsOf(ctx, t, scanClosure, selectClosurePage, s.lib, branches, after, past, limit)
		if err != nil {
			return err
		}
		for i := range list {
			if err := t.addLeft(ctx, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

// closure returns a closure, or ErrClosureNotFound.
func (t *staffTx) closure(ctx context.Context, id int64) (library.ClosureState, error) {
	c, err := rowOf(ctx, t, library.ErrClosureNotFound, scanClosure, selectOneClosure, t.s.lib, id)
	if err == nil {
		err = t.addLeft(ctx, &c)
	}
	return c, err
}

func scanClosure(row pgx.CollectableRow) (c library.ClosureState, err error) {
	var end *time.Time
	var note []byte
	var done *bool
	var ended int
	err = row.Scan(&c.ID, &c.BranchID, &c.Branch, &c.Area, &c.SeatIDs, &c.StartTime, &end, &note,
		&c.OnBookings, &c.CreatedAt, &c.LiftedAt, &done, &ended)
	c.EndTime, c.Note = orZero(end), readTexts(note)
	if done != nil {
		c.Sweep = &library.SweepProgress{Done: *done, Ended: ended}
	}
	return c, err
}

const countLeft = selectAffected + ` SELECT count(*)::bigint FROM affected`

// addLeft adds the number of reservations that the sweep of a closure has still to end.
func (t *staffTx) addLeft(ctx context.Context, c *library.ClosureState) error {
	if c.Sweep == nil || c.Sweep.Done {
		return nil
	}
	if _, err := t.Exec(ctx, planEachTime); err != nil {
		return err
	}
	return t.QueryRow(ctx, countLeft, sweepOf(c.Closure).args(t.s.lib)).Scan(&c.Sweep.Left)
}

func closureObject(id int64) string { return "closure/" + strconv.FormatInt(id, 10) }

// closureAudit is a closure in the audit log.
type closureAudit struct {
	Area       string                `json:"area,omitempty"`
	SeatIDs    []int64               `json:"seat_ids,omitempty"`
	StartTime  time.Time             `json:"start_time"`
	EndTime    *time.Time            `json:"end_time,omitempty"`
	Note       library.Texts         `json:"note,omitempty"`
	OnBookings library.BookingAction `json:"on_bookings"`
	LiftedAt   *time.Time            `json:"lifted_at,omitempty"`
}

func auditedClosure(c library.ClosureState) closureAudit {
	return closureAudit{
		Area: c.Area, SeatIDs: c.SeatIDs, StartTime: c.StartTime.UTC(), EndTime: orNil(c.EndTime), Note: c.Note,
		OnBookings: c.OnBookings, LiftedAt: c.LiftedAt,
	}
}

// sortedOrNil returns the distinct ids in ascending order, or nil if there are none. In SQL, NULL
// means "not limited".
func sortedOrNil(ids []int64) []int64 {
	if len(ids) == 0 {
		return nil
	}
	return sorted(ids)
}
