package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

const (
	selectPerson = `
		SELECT u.id, u.student_id, u.name, u.email, COALESCE(u.card, '') AS card, u.user_group AS "group", u.role,
			CASE WHEN u.suspended_until > dlsms_now() THEN u.suspended_until END AS suspended_until,
			u.closed_at
		FROM users u WHERE u.library_id = $1 AND NOT u.pseudonym AND `

	selectPersonByID        = selectPerson + `u.id = $2`
	selectPersonByStudentID = selectPerson + sameStudentID + ` LIMIT $3`
	selectPersonByCard      = selectPerson + `u.card = $2 LIMIT $3`
	selectPersonByEmail     = selectPerson + `lower(u.email COLLATE "C") = lower($2::text COLLATE "C")
		ORDER BY u.student_id COLLATE "C" LIMIT $3`

	// selectPersonByName reads all users, because no index supports the search for a part of a name.
	// It takes about 0.1 s for 100,000 users.
	selectPersonByName = selectPerson + `u.name ILIKE '%' || $2 || '%' ORDER BY u.student_id COLLATE "C" LIMIT $3`
)

// nameTimeout bounds the search for a part of a name.
const nameTimeout = 2 * time.Second

// likeText escapes the wildcards of LIKE.
var likeText = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// FindPeople returns at most limit users that the query describes, sorted by student id. A search by
// name fails with ErrRoleRequired for STAFF.
func (s *Store) FindPeople(
	ctx context.Context, actor library.Actor, q library.PersonQuery, limit int,
) (people []library.Person, err error) {
	err = s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) error {
		sql, value := selectPersonByName, likeText.Replace(q.Name)
		switch {
		case q.StudentID != "":
			sql, value = selectPersonByStudentID, q.StudentID
		case q.Card != "":
			sql, value = selectPersonByCard, q.Card
		case q.Email != "":
			sql, value = selectPersonByEmail, q.Email
		case actor.Role == library.RoleStaff:
			return library.RoleRequired(library.RoleLibrarian)
		default:
			if _, err := t.Exec(ctx, boundStatements, millis(nameTimeout)); err != nil {
				return err
			}
		}
		people, err = rowsOf(ctx, t, pgx.RowToStructByName[library.Person], sql, s.lib, value, limit)
		return err
	})
	return people, err
}

// pastReservations is how many ended reservations an overview has.
const pastReservations = 50

const (
	inBranches = `AND ($3::bigint[] IS NULL OR s.branch_id = ANY ($3)) `

	selectLiveInBranches = selectReservation + inBranches + `
		AND r.user_id = $2 AND r.occupies AND upper(r.during) > dlsms_now()`
	selectPastInBranches = selectReservation + inBranches + `
		AND r.user_id = $2 AND (NOT r.occupies OR upper(r.during) <= dlsms_now())
		AND LEAST(r.ended_at, upper(r.during)) > dlsms_now() - interval '30 days'
		ORDER BY lower(r.during) DESC, r.id DESC LIMIT $4`
	selectEntriesInBranches = selectEntry + inBranches + `AND r.user_id = $2 AND r.ended_at IS NULL ORDER BY r.id`
)

// Overview returns a user with the reservations, waitlist entries and strikes of the branches in the
// scope of the actor. It fails with ErrPersonNotFound.
func (s *Store) Overview(ctx context.Context, actor library.Actor, userID int64) (library.Overview, error) {
	var o library.Overview
	var codes []string
	err := s.readAsStaff(ctx, actor, func(ctx context.Context, t *staffTx) error {
		var err error
		if o.Person, err = t.person(ctx, userID); err != nil {
			return err
		}
		branches := t.branches()
		if codes, err = t.codes(ctx, branches); err != nil {
			return err
		}
		o.Reservations, err = rowsOf(ctx, t, pgx.RowToStructByName[library.Reservation],
			selectLiveInBranches, s.lib, userID, branches)
		if err != nil {
			return err
		}
		past, err := rowsOf(ctx, t, pgx.RowToStructByName[library.Reservation],
			selectPastInBranches, s.lib, userID, branches, pastReservations)
		if err != nil {
			return err
		}
		o.Reservations = append(o.Reservations, past...)
		o.Entries, err = rowsOf(ctx, t, pgx.RowToStructByName[library.WaitlistEntry],
			selectEntriesInBranches, s.lib, userID, branches)
		return err
	})
	if err != nil {
		return library.Overview{}, err
	}
	slices.SortStableFunc(o.Reservations, func(a, b library.Reservation) int { return b.StartTime.Compare(a.StartTime) })
	strikes, err := s.Strikes(ctx, userID)
	if codes != nil {
		strikes = slices.DeleteFunc(strikes, func(k library.Strike) bool { return !slices.Contains(codes, k.Branch) })
	}
	o.Strikes = strikes
	return o, err
}

// person returns a user, or ErrPersonNotFound.
func (t *staffTx) person(ctx context.Context, userID int64) (library.Person, error) {
	return rowOf(ctx, t, library.ErrPersonNotFound, pgx.RowToStructByName[library.Person],
		selectPersonByID, t.s.lib, userID)
}

const (
	// lockPeople locks the users with the student ids $2, in id order.
	lockPeople = `
		SELECT id, student_id, name, email, user_group AS "group", COALESCE(card, '') AS card FROM users
		WHERE library_id = $1 AND lower(student_id COLLATE "C") = ANY ($2) AND NOT pseudonym
		ORDER BY id FOR NO KEY UPDATE`

	// takeCards removes cards before they are given out again, so that two users can swap their
	// cards.
	takeCards = `UPDATE users SET card = NULL WHERE library_id = $1 AND id = ANY ($2)`

	updatePerson = `
		UPDATE users SET name = $3, email = $4, user_group = $5, card = NULLIF($6, '')
		WHERE library_id = $1 AND id = $2`
)

// personState is a user in the audit log of UpsertPeople.
type personState struct {
	ID        int64  `json:"-"`
	StudentID string `json:"-"`
	Name      string `json:"name"`
	Email     string `json:"email"`
	Group     string `json:"group"`
	Card      string `json:"card"`
}

// with returns the state after a change.
func (p personState) with(c library.PersonChange) personState {
	for _, f := range []struct {
		field *string
		value *string
	}{{&p.Name, c.Name}, {&p.Email, c.Email}, {&p.Group, c.Group}, {&p.Card, c.Card}} {
		if f.value != nil {
			*f.field = *f.value
		}
	}
	return p
}

// UpsertPeople changes users, all or none. The student ids are distinct without regard to case. It
// returns the number of users that it has changed. It fails with ErrPersonNotFound, with the missing
// student ids in the metadata, or with ErrCardTaken.
func (s *Store) UpsertPeople(
	ctx context.Context, order library.Order, changes []library.PersonChange,
) (changed int, err error) {
	wanted := map[string]library.PersonChange{}
	keys := make([]string, 0, len(changes))
	for _, c := range changes {
		key := strings.ToLower(c.StudentID)
		wanted[key], keys = c, append(keys, key)
	}
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		people, err := rowsOf(ctx, t, pgx.RowToStructByName[personState], lockPeople, s.lib, keys)
		if err != nil {
			return err
		}
		missing := slices.DeleteFunc(keys, func(key string) bool {
			return slices.ContainsFunc(people, func(p personState) bool { return strings.ToLower(p.StudentID) == key })
		})
		if len(missing) > 0 {
			return library.ErrPersonNotFound.With("student_ids", strings.Join(missing, ","))
		}
		var newCards []int64
		for _, p := range people {
			if p.with(wanted[strings.ToLower(p.StudentID)]).Card != p.Card {
				newCards = append(newCards, p.ID)
			}
		}
		if _, err := t.Exec(ctx, takeCards, s.lib, newCards); err != nil {
			return err
		}
		for _, p := range people {
			next := p.with(wanted[strings.ToLower(p.StudentID)])
			if next == p {
				continue
			}
			_, err := t.Exec(ctx, updatePerson, s.lib, p.ID, next.Name, next.Email, next.Group, next.Card)
			if errors.Is(translate(err), library.ErrCardTaken) {
				return library.CardTaken(next.Card, p.StudentID).WithCause(err)
			}
			if err != nil {
				return err
			}
			if err := t.audit(ctx, 0, userObject(p.ID), p, next); err != nil {
				return err
			}
			changed++
		}
		return nil
	})
	if err != nil {
		changed = 0
	}
	return changed, err
}

const (
	selectUserByID = `SELECT id FROM users WHERE library_id = $1 AND id = $2`
	selectClosedAt = `SELECT role, closed_at FROM users WHERE library_id = $1 AND id = $2`

	// closeUser sets an empty password hash, which no password matches. See updatePassword for the
	// step of the generation.
	closeUser = `
		WITH closed AS (
			UPDATE users SET closed_at = $3, password_hash = '', role = 'STUDENT', branches = NULL,
				token_generation = token_generation + 1 + floor(random() * 4294967296)::bigint
			WHERE library_id = $1 AND id = $2
			RETURNING library_id, id, token_generation
		)
		INSERT INTO revocations (library_id, user_id, generation, expires_at)
		SELECT library_id, id, token_generation, $3 + $4::interval FROM closed`
)

// CloseUser closes an account in one transaction: it ends the reservations and waitlist entries of
// the user, and revokes the tokens, the password and the role. The user gets a notification for each
// reservation. The history stays. A repeated call changes nothing. It fails with ErrPersonNotFound,
// or with ErrOwnRole if the user is the actor.
func (s *Store) CloseUser(ctx context.Context, order library.Order, userID int64) (library.Closed, error) {
	var closed library.Closed
	err := s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		if _, err := t.lockPerson(ctx, selectUserByID, userID); err != nil {
			return err
		}
		var role library.Role
		var closedAt *time.Time
		if err := t.QueryRow(ctx, selectClosedAt, s.lib, userID).Scan(&role, &closedAt); err != nil || closedAt != nil {
			return err
		}
		h, err := t.endHoldings(ctx, userID, t.cause())
		if err != nil {
			return err
		}
		closed = library.Closed{Reservations: h.reservations, Entries: h.entries}
		if _, err := t.Exec(ctx, closeUser, s.lib, userID, h.now, tokenRetention); err != nil {
			return err
		}
		if err := t.offerEach(ctx, h); err != nil {
			return err
		}
		return t.audit(ctx, 0, userObject(userID), map[string]any{"role": role},
			closedAudit{h.now, closed.Reservations, closed.Entries})
	})
	return closed, err
}
