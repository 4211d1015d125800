package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/library"
)

// The export of a person is one JSON object. It has the row of the user, and a list for each kind of
// rows about the user. The rows come from Postgres as JSON, with all columns but the few that
// exportSections leaves out. So a column that a later migration adds is in the export at once.
//
// The export reads page by page, each with a statement of its own, and holds no connection while the
// client reads. So it may have a reservation without a change that was made during the export.

// exportPage is the number of rows of one statement. A row of a reservation has about 2 KB.
const exportPage = 100

// maxExportChunk is the size of the parts of the document in bytes. A message may have 64 KiB.
const maxExportChunk = 32 << 10

// exportSection is a list in the export. query gets the id of the library as $1, that of the user as
// $2, the last id of the page before as $3, and the limit as $4. It returns ids and JSON texts.
type exportSection struct {
	name  string
	query string
}

// exportWindow replaces the column during of a row r, which is a range, by two times.
const exportWindow = `jsonb_build_object('start_time', lower(r.during), 'end_time', upper(r.during))`

// exportSeat adds the place of the seat of a row r, which people know by its label.
const exportSeat = `jsonb_build_object('branch', b.code, 'area', s.area, 'label', s.label)`

const selectExportedUser = `
	SELECT to_json(dlsms_now())::text AS now,
		(to_jsonb(u) - '{library_id,password_hash,token_generation,pseudonym,branches}'::text[]
			|| jsonb_build_object('branches', (SELECT array_agg(b.code ORDER BY b.code) FROM branches b
				WHERE b.library_id = u.library_id AND b.id = ANY (u.branches))))::text AS "user"
	FROM users u WHERE u.library_id = $1 AND u.id = $2`

// exportSections are the lists of the export. These columns are left out:
//   - library_id, anonymous and user_id, which are the same in all rows
//   - xid, request_hash, occupies, live and notifies, which the system derives from other columns
//   - in the rows of changes by staff, the member of staff and the service key: other people
//   - in the rows of what the person did as staff, the contents: they may be about other people
var exportSections = []exportSection{
	{"reservations", `
		SELECT r.id, (to_jsonb(r) - '{library_id,user_id,during,occupies,request_hash,anonymous}'::text[]
			|| ` + exportWindow + ` || ` + exportSeat + ` || jsonb_build_object('events', (
				SELECT COALESCE(jsonb_agg(to_jsonb(e)
					- '{library_id,user_id,xid,during,occupies,notifies,reservation_id,seat_id,entry_id,created_at}'::text[]
					|| jsonb_build_object('start_time', lower(e.during), 'end_time', upper(e.during), 'notified', e.notifies)
					ORDER BY e.version), '[]')
				FROM reservation_events e WHERE e.library_id = r.library_id AND e.reservation_id = r.id)))::text
		FROM reservations r ` + atSeat + `
		WHERE r.library_id = $1 AND r.user_id = $2 AND r.id > $3 ORDER BY r.id LIMIT $4`},
	{"waitlist_entries", `
		SELECT r.id, (to_jsonb(r) - '{library_id,user_id,during,live,request_hash,anonymous}'::text[]
			|| ` + exportWindow + ` || ` + exportSeat + `)::text
		FROM waitlist_entries r ` + atSeat + `
		WHERE r.library_id = $1 AND r.user_id = $2 AND r.id > $3 ORDER BY r.id LIMIT $4`},
	{"strikes", `
		SELECT r.id, (to_jsonb(r) - '{library_id,user_id}'::text[])::text FROM strikes r
		WHERE r.library_id = $1 AND r.user_id = $2 AND r.id > $3 ORDER BY r.id LIMIT $4`},
	{"suspensions", `
		SELECT r.id, (to_jsonb(r) - '{library_id,user_id,anonymous}'::text[])::text FROM suspensions r
		WHERE r.library_id = $1 AND r.user_id = $2 AND r.id > $3 ORDER BY r.id LIMIT $4`},
	{"changes_by_staff", `
		SELECT r.id, (to_jsonb(r) - '{library_id,user_id,key_id,request_id,anonymous}'::text[])::text FROM audit_log r
		WHERE r.library_id = $1 AND r.object = 'user/' || $2::bigint AND r.id > $3 ORDER BY r.id LIMIT $4`},
	{"changes_as_staff", `
		SELECT r.id, (to_jsonb(r) - '{library_id,user_id,key_id,before,after,anonymous}'::text[])::text FROM audit_log r
		WHERE r.library_id = $1 AND r.user_id = $2 AND r.id > $3 ORDER BY r.id LIMIT $4`},
	{"ended_tokens", `
		SELECT r.id, (to_jsonb(r) - '{library_id,user_id,xid,generation}'::text[])::text FROM revocations r
		WHERE r.library_id = $1 AND r.user_id = $2 AND r.id > $3 ORDER BY r.id LIMIT $4`},
}

// ExportUser passes everything that the database has about a user to write, as the parts of one JSON
// document. A part has at most 32 KiB. It fails with the errors of write, and with ErrUserNotFound.
func (s *Store) ExportUser(ctx context.Context, userID int64, write func(part []byte) error) error {
	type head struct{ Now, User string }
	user, err := queryOne(ctx, s.bulk, library.ErrUserNotFound, pgx.RowToStructByPos[head],
		selectExportedUser, s.lib, userID)
	if err != nil {
		return err
	}
	out := &exportWriter{write: write}
	out.text(`{"exported_at":` + user.Now + `,"user":` + user.User)
	for _, section := range exportSections {
		out.text(`,` + quoted(section.name) + `:[`)
		if err := s.exportSection(ctx, section, userID, out); err != nil {
			return err
		}
		out.text(`]`)
	}
	out.text("}\n")
	out.flush()
	return out.err
}

func (s *Store) exportSection(ctx context.Context, section exportSection, userID int64, out *exportWriter) error {
	type row struct {
		ID   int64
		Text string
	}
	last, comma := int64(0), ""
	for {
		rows, err := query(ctx, s.bulk, pgx.RowToStructByPos[row], section.query, s.lib, userID, last, exportPage)
		if err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
		for _, r := range rows {
			out.text(comma + r.Text)
			last, comma = r.ID, ","
		}
		if out.err != nil || len(rows) < exportPage {
			return out.err
		}
	}
}

// exportWriter collects text and writes it in parts. After an error it does nothing.
type exportWriter struct {
	write  func(part []byte) error
	buffer []byte
	err    error
}

func (w *exportWriter) text(s string) {
	for len(w.buffer)+len(s) > maxExportChunk {
		n := maxExportChunk - len(w.buffer)
		w.buffer, s = append(w.buffer, s[:n]...), s[n:]
		w.flush()
	}
	w.buffer = append(w.buffer, s...)
}

func (w *exportWriter) flush() {
	if w.err == nil && len(w.buffer) > 0 {
		w.err = w.write(w.buffer)
	}
	w.buffer = nil // write may keep the part
}

func quoted(s string) string {
	text, _ := json.Marshal(s) // a string has no error
	return string(text)
}

// ExportForOperator is ExportUser for a person who has asked the library for the data. It writes a row
// of the audit log first. It returns the id of the user. It fails with ErrPersonNotFound.
func (s *Store) ExportForOperator(
	ctx context.Context, order library.Order, studentID string, write func(part []byte) error,
) (userID int64, err error) {
	err = s.asStaff(ctx, order, func(ctx context.Context, t *staffTx) error {
		userID, err = rowOf(ctx, t, library.ErrPersonNotFound, pgx.RowTo[int64], selectUserID, s.lib, studentID)
		if err != nil {
			return err
		}
		return t.audit(ctx, 0, userObject(userID), nil, nil)
	})
	if err != nil {
		return 0, err
	}
	return userID, s.ExportUser(ctx, userID, write)
}
