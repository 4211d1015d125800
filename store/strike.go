package store

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// insertStrikes is the part of the step no_show that records strikes: one for each row of missed
// whose policy counts no-shows. The transaction holds locks of seats, so it must not wait for the
// lock of a user. The foreign key takes only a KEY SHARE lock, which does not conflict with the
// lock of a booking.
//
// Without a policy that counts no-shows, the condition EXISTS is false, and Postgres reads nothing
// else.
const insertStrikes = `
	INSERT INTO strikes (library_id, user_id, reservation_id, branch_id, at, expires_at, strike_limit, suspension_days)
	SELECT m.library_id, m.user_id, m.id, s.branch_id, $3, $3 + COALESCE(p.strike_days, 30) * interval '1 day',
		p.strike_limit, COALESCE(NULLIF(p.suspension_days, '{}'), '{7}')
	FROM missed m
	JOIN seats s ON s.library_id = m.library_id AND s.id = m.seat_id
	JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
	JOIN users u ON u.library_id = m.library_id AND u.id = m.user_id
	CROSS JOIN LATERAL dlsms_policy(m.library_id, s.branch_id, s.area, u.user_group,
		dlsms_day(m.start_time, b.timezone)) p
	WHERE p.strike_limit > 0
		AND EXISTS (SELECT FROM effective_policies e WHERE e.library_id = $1 AND e.strike_limit > 0)`

const (
	selectUnjudged = `
		SELECT user_id FROM strikes WHERE library_id = $1 AND NOT judged AND user_id <> ALL ($2::bigint[])
		ORDER BY id LIMIT $3`

	lockUserIfFree = `
		SELECT true FROM users WHERE library_id = $1 AND id = $2 FOR NO KEY UPDATE SKIP LOCKED`

	// judgeStrikes decides about the new strikes of a user. The policy of the newest strike that counts says
	// how many strikes suspend the user, and for how long. The ladder of suspensions goes back a year.
	judgeStrikes = `
		WITH now AS MATERIALIZED (
			SELECT dlsms_now() AS t
		), counting AS MATERIALIZED (
			SELECT k.* FROM now CROSS JOIN strikes k
			WHERE k.library_id = $1 AND k.user_id = $2 AND k.forgiven_at IS NULL AND k.suspension_id IS NULL
				AND k.expires_at > now.t
		), newest AS (
			SELECT * FROM counting ORDER BY at DESC, id DESC LIMIT 1
		), earlier AS (
			SELECT count(*)::int AS n FROM now CROSS JOIN suspensions x
			WHERE x.library_id = $1 AND x.user_id = $2 AND x.branch_id IS NOT NULL AND x.lifted_at IS NULL
				AND x.begins_at > now.t - interval '365 days'
		), suspended AS (
			INSERT INTO suspensions (library_id, user_id, branch_id, begins_at, ends_at)
			SELECT $1, $2, k.branch_id, now.t,
				now.t + k.suspension_days[LEAST(earlier.n + 1, cardinality(k.suspension_days))] * interval '1 day'
			FROM now CROSS JOIN newest k CROSS JOIN earlier
			WHERE (SELECT count(*) FROM counting) >= k.strike_limit AND (SELECT bool_or(NOT judged) FROM counting)
			RETURNING id, ends_at
		), marked AS (
			UPDATE strikes k SET judged = true, suspension_id = x.id
			FROM counting c CROSS JOIN suspended x WHERE k.library_id = $1 AND k.id = c.id
		), judged AS (
			UPDATE strikes k SET judged = true
			WHERE k.library_id = $1 AND k.user_id = $2 AND NOT k.judged
				AND NOT (EXISTS (SELECT FROM suspended) AND k.id IN (SELECT id FROM counting))
		)
		UPDATE users u SET suspended_until = GREATEST(u.suspended_until, x.ends_at)
		FROM suspended x WHERE u.library_id = $1 AND u.id = $2
		RETURNING u.id`
)

// Unjudged returns at most limit users with strikes about which Judge has not decided yet. It
// leaves out the users in without.
func (s *Store) Unjudged(ctx context.Context, without []int64, limit int) ([]int64, error) {
	users, err := query(ctx, s.background, pgx.RowTo[int64], selectUnjudged, s.lib, idsOrEmpty(without), limit)
	return sorted(users), err
}

// Judge decides whether the new strikes of a user suspend the user, in one transaction. busy means
// that another transaction has locked the user, and Judge has changed nothing.
func (s *Store) Judge(ctx context.Context, userID int64) (suspended, busy bool, err error) {
	err = s.inTx(ctx, s.background, func(ctx context.Context, t *tx) error {
		var locked bool
		err := t.QueryRow(ctx, lockUserIfFree, s.lib, userID).Scan(&locked)
		if errors.Is(err, pgx.ErrNoRows) {
			busy = true
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, boundStatements, millis(dueTimeout)); err != nil {
			return err
		}
		tag, err := t.Exec(ctx, judgeStrikes, s.lib, userID)
		suspended = tag.RowsAffected() > 0
		return err
	})
	return suspended && err == nil, busy, err
}

// maxStrikes bounds the strikes in an answer.
const maxStrikes = 1000

const selectStrikes = `
	SELECT k.id, k.user_id, k.reservation_id, b.code AS branch, k.at, k.expires_at, k.forgiven_at, k.reason,
		k.forgiven_at IS NULL AND k.suspension_id IS NULL AND k.expires_at > now.t AS counts
	FROM (SELECT dlsms_now() AS t OFFSET 0) now CROSS JOIN strikes k
	JOIN branches b ON b.library_id = k.library_id AND b.id = k.branch_id
	WHERE k.library_id = $1 AND k.user_id = $2 AND k.at > now.t - interval '1 year'
	ORDER BY k.at DESC, k.id DESC LIMIT $3`

// Strikes returns the strikes of a user in the past year, newest first.
func (s *Store) Strikes(ctx context.Context, userID int64) ([]library.Strike, error) {
	return query(ctx, s.pool, pgx.RowToStructByName[library.Strike], selectStrikes, s.lib, userID, maxStrikes)
}

// selectStanding finds the end of a suspension, and the branch of the newest strike that counts or
// has led to a suspension that lasts.
const selectStanding = `
	SELECT CASE WHEN u.suspended_until > now.t THEN u.suspended_until END AS suspended_until,
		COALESCE((
			SELECT b.code FROM strikes k
			JOIN branches b ON b.library_id = k.library_id AND b.id = k.branch_id
			LEFT JOIN suspensions x ON x.library_id = k.library_id AND x.id = k.suspension_id
			WHERE k.library_id = u.library_id AND k.user_id = u.id AND k.forgiven_at IS NULL
				AND CASE WHEN x.id IS NULL THEN k.expires_at > now.t ELSE x.lifted_at IS NULL AND x.ends_at > now.t END
			ORDER BY k.at DESC, k.id DESC LIMIT 1), '') AS ask_at_branch
	FROM (SELECT dlsms_now() AS t OFFSET 0) now CROSS JOIN users u
	WHERE u.library_id = $1 AND u.id = $2`

// Standing returns the strikes and the suspension of a user. It fails with library.ErrTokenInvalid
// if the user does not exist.
func (s *Store) Standing(ctx context.Context, userID int64) (library.Standing, error) {
	standing, err := queryOne(ctx, s.pool, library.ErrTokenInvalid, pgx.RowToStructByName[library.Standing],
		selectStanding, s.lib, userID)
	if err == nil {
		standing.Strikes, err = s.Strikes(ctx, userID)
	}
	return standing, err
}

// forgivable is an SQL condition on a strike k: it is the strike $3, or one of the branch $2 from
// $4 until $5, and was not forgiven.
const forgivable = `
	k.library_id = $1 AND k.branch_id = $2 AND k.forgiven_at IS NULL
	AND NOT EXISTS (SELECT FROM users p WHERE p.library_id = k.library_id AND p.id = k.user_id AND p.pseudonym)
	AND CASE WHEN $3::bigint > 0 THEN k.id = $3 ELSE k.at >= $4::timestamptz AND k.at < $5::timestamptz END`

const (
	selectStrikeBranch = `
		SELECT b.code FROM strikes k JOIN branches b ON b.library_id = k.library_id AND b.id = k.branch_id
		WHERE k.library_id = $1 AND k.id = $2`

	selectForgivable = `SELECT DISTINCT k.user_id FROM strikes k WHERE ` + forgivable

	forgiveStrikes = `
		UPDATE strikes k SET forgiven_at = dlsms_now(), reason = $7
		WHERE ` + forgivable + ` AND k.user_id = ANY ($6::bigint[])
		RETURNING k.suspension_id`

	// liftSuspensions ends those of the suspensions $2 that have too few strikes left. If such a
	// suspension still lasted, its other strikes count again. If it is over, it only does not count
	// for the ladder of suspensions any more.
	liftSuspensions = `
		WITH now AS MATERIALIZED (
			SELECT dlsms_now() AS t
		), remaining AS (
			SELECT x.id, count(*) FILTER (WHERE k.forgiven_at IS NULL) AS strikes,
				(array_agg(k.strike_limit ORDER BY k.at DESC, k.id DESC))[1] AS strike_limit
			FROM suspensions x
			JOIN strikes k ON k.library_id = x.library_id AND k.user_id = x.user_id AND k.suspension_id = x.id
			WHERE x.library_id = $1 AND x.id = ANY ($2::bigint[]) AND x.lifted_at IS NULL
			GROUP BY x.id
		), lifted AS (
			UPDATE suspensions x SET lifted_at = now.t, reason = $3
			FROM now CROSS JOIN remaining r
			WHERE x.library_id = $1 AND x.id = r.id AND r.strikes < r.strike_limit
			RETURNING x.id, x.user_id, x.ends_at > now.t AS lasted
		), released AS (
			UPDATE strikes k SET suspension_id = NULL
			FROM lifted x
			WHERE k.library_id = $1 AND k.user_id = x.user_id AND k.suspension_id = x.id AND k.forgiven_at IS NULL
				AND x.lasted
		)
		SELECT user_id FROM lifted WHERE lasted`

	// resuspendUsers sets the end of the suspension of users from the suspensions that were not
	// lifted.
	resuspendUsers = `
		UPDATE users u SET suspended_until = (
			SELECT max(x.ends_at) FROM suspensions x
			WHERE x.library_id = u.library_id AND x.user_id = u.id AND x.lifted_at IS NULL AND x.ends_at > now.t)
		FROM (SELECT dlsms_now() AS t OFFSET 0) now
		WHERE u.library_id = $1 AND u.id = ANY ($2::bigint[])`
)

// ForgiveStrikes forgives strikes and ends the suspensions that needed them. It fails with
// ErrStrikeNotFound, ErrBranchNotFound, ErrBranchRequired, or the errors of asStaff. A strike that
// was forgiven before is left out.
func (s *Store) ForgiveStrikes(
	ctx context.Context, order library.Order, which library.StrikeSelection,
) (out library.Forgiveness, err error) {
	var freed []int64
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		code, object := which.Branch, "branch/"+which.Branch
		if which.StrikeID != 0 {
			object = "strike/" + strconv.FormatInt(which.StrikeID, 10)
			err := t.QueryRow(ctx, selectStrikeBranch, s.lib, which.StrikeID).Scan(&code)
			if errors.Is(err, pgx.ErrNoRows) {
				return library.ErrStrikeNotFound
			}
			if err != nil {
				return err
			}
		}
		branch, err := t.lockBranch(ctx, code)
		if err != nil {
			return err
		}
		var lifted []int64
		if out.Strikes, lifted, err = t.forgive(ctx, branch.ID, which); err != nil || out.Strikes == 0 {
			return err
		}
		out.Suspensions, freed = len(lifted), lifted
		return t.audit(ctx, branch.ID, object, nil, forgivenAudit{
			Forgiven: out.Strikes, Lifted: out.Suspensions,
			StartTime: orNil(which.StartTime), EndTime: orNil(which.EndTime),
		})
	})
	if err != nil {
		return library.Forgiveness{}, err
	}
	if !order.ValidateOnly {
		s.offerToFreedUsers(ctx, s.pool, nil, freed)
	}
	return out, nil
}

// forgivenAudit is the text of ForgiveStrikes in the audit log.
type forgivenAudit struct {
	Forgiven  int        `json:"forgiven"`
	Lifted    int        `json:"lifted"`
	StartTime *time.Time `json:"start_time,omitempty"`
	EndTime   *time.Time `json:"end_time,omitempty"`
}

// forgive forgives strikes of a branch that the transaction has locked. It returns their number,
// and the user of each suspension that ends.
func (t *staffTx) forgive(
	ctx context.Context, branchID int64, which library.StrikeSelection,
) (forgiven int, lifted []int64, err error) {
	selection := []any{t.s.lib, branchID, which.StrikeID, orNil(which.StartTime), orNil(which.EndTime)}
	users, err := rowsOf(ctx, t, pgx.RowTo[int64], selectForgivable, selection...)
	if err != nil || len(users) == 0 {
		return 0, nil, err
	}
	if _, err := t.Exec(ctx, lockUsers, t.s.lib, users); err != nil {
		return 0, nil, err
	}
	suspensions, err := rowsOf(ctx, t, pgx.RowTo[*int64], forgiveStrikes, append(selection, users, t.order.Reason)...)
	if err != nil {
		return 0, nil, err
	}
	var led []int64
	for _, id := range suspensions {
		if id != nil {
			led = append(led, *id)
		}
	}
	if len(led) == 0 {
		return len(suspensions), nil, nil
	}
	lifted, err = rowsOf(ctx, t, pgx.RowTo[int64], liftSuspensions, t.s.lib, sorted(led), t.order.Reason)
	if err == nil && len(lifted) > 0 {
		_, err = t.Exec(ctx, resuspendUsers, t.s.lib, lifted)
	}
	return len(suspensions), lifted, err
}

// maxSuspension is the longest suspension that staff may set.
const maxSuspension = 366 * 24 * time.Hour

const (
	liftAll = `
		UPDATE suspensions SET lifted_at = $3, reason = $4
		WHERE library_id = $1 AND user_id = $2 AND lifted_at IS NULL AND ends_at > $3`
	shortenAll = `
		UPDATE suspensions SET ends_at = $3, reason = $4
		WHERE library_id = $1 AND user_id = $2 AND lifted_at IS NULL AND ends_at > $3 AND begins_at < $3`
	insertSuspension = `
		INSERT INTO suspensions (library_id, user_id, begins_at, ends_at, reason) VALUES ($1, $2, $3, $4, $5)`
	suspendUser = `UPDATE users SET suspended_until = $3 WHERE library_id = $1 AND id = $2`
)

// SetSuspension suspends a user until a time, or ends all suspensions of the user if the time is
// zero. It changes nothing if the user is suspended until this time already. It fails with
// ErrPersonNotFound, with Invalid if the time is in the past or more than 366 days ahead, and with
// the errors of asStaff.
func (s *Store) SetSuspension(
	ctx context.Context, order library.Order, userID int64, until time.Time,
) (p library.Person, err error) {
	ended := false
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		if !t.scope.All && len(t.scope.Branches) == 0 {
			return library.ErrBranchRequired
		}
		var now time.Time
		var err error
		if p, now, err = t.lockPersonNow(ctx, userID); err != nil {
			return err
		}
		if err := checkSuspension(now, until); err != nil {
			return err
		}
		before := p.SuspendedUntil
		if before == nil && until.IsZero() || before != nil && before.Equal(until) {
			return nil
		}
		switch {
		case until.IsZero():
			ended = true
			_, err = t.Exec(ctx, liftAll, s.lib, userID, now, order.Reason)
		case before != nil && until.Before(*before):
			_, err = t.Exec(ctx, shortenAll, s.lib, userID, until, order.Reason)
		default:
			_, err = t.Exec(ctx, insertSuspension, s.lib, userID, now, until, order.Reason)
		}
		if err != nil {
			return err
		}
		p.SuspendedUntil = orNil(until)
		if _, err := t.Exec(ctx, suspendUser, s.lib, userID, p.SuspendedUntil); err != nil {
			return err
		}
		return t.audit(ctx, 0, userObject(userID), suspensionAudit{before}, suspensionAudit{p.SuspendedUntil})
	})
	if err != nil {
		return library.Person{}, err
	}
	if ended && !order.ValidateOnly {
		s.offerToFreedUsers(ctx, s.pool, nil, []int64{userID})
	}
	return p, nil
}

// suspensionAudit is the text of SetSuspension in the audit log.
type suspensionAudit struct {
	SuspendedUntil *time.Time `json:"suspended_until"`
}

func checkSuspension(now, until time.Time) error {
	refuse := func(why string) error {
		return library.Invalid(library.FieldViolation{Field: "until", Message: why})
	}
	switch {
	case until.IsZero():
		return nil
	case !until.After(now):
		return refuse("must be in the future")
	case until.Sub(now) > maxSuspension:
		return refuse("must be at most 366 days ahead")
	}
	return nil
}

// lockPersonNow locks a user. It returns the user and the time, both read after the lock. It fails
// with ErrPersonNotFound.
func (t *staffTx) lockPersonNow(ctx context.Context, userID int64) (p library.Person, now time.Time, err error) {
	batch := &pgx.Batch{}
	batch.Queue(lockUser, t.s.lib, userID)
	batch.Queue(selectNow).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	if err := t.SendBatch(ctx, batch).Close(); err != nil {
		return p, now, err
	}
	p, err = t.person(ctx, userID)
	return p, now, err
}
