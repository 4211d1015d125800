package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dlsms/dlsms/library"
)

func TestTranslate(t *testing.T) {
	t.Parallel()
	strange := errors.New("strange")
	pg := func(code, constraint string) error { return &pgconn.PgError{Code: code, ConstraintName: constraint} }
	for _, tc := range []struct{ err, want error }{
		{nil, nil},
		{library.ErrSeatTaken.With("seat_id", "7"), library.ErrSeatTaken},
		{pg("23P01", "reservations_no_overlap"), library.ErrSeatTaken},
		{pg("23505", "users_student_id_key"), library.ErrStudentIDTaken},
		{pg("23505", "reservations_request_key"), library.ErrUnavailable},
		{pg("23505", "waitlist_request_key"), library.ErrUnavailable},
		{pg("23503", "waitlist_user_fkey"), library.ErrTokenInvalid},
		{pg("40P01", ""), library.ErrOverloaded},
		{pg("55P03", ""), library.ErrOverloaded},
		{pg("57014", ""), library.ErrOverloaded},
		{pg("57P01", ""), library.ErrUnavailable},
		{pg("53300", ""), library.ErrUnavailable},
		{pg("25006", ""), library.ErrUnavailable},
		{pg("08006", ""), library.ErrUnavailable},
		{fmt.Errorf("commit: %w", context.DeadlineExceeded), library.ErrUnavailable},
		{context.Canceled, library.ErrUnavailable},
		{io.ErrUnexpectedEOF, library.ErrUnavailable},
		{driver.ErrBadConn, library.ErrUnavailable},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, library.ErrUnavailable},
	} {
		got := translate(tc.err)
		if !errors.Is(got, tc.want) {
			t.Errorf("%v: %v, want %v", tc.err, got, tc.want)
		}
		if tc.err != nil && !errors.Is(got, tc.err) {
			t.Errorf("%v: the translated error %v does not wrap it", tc.err, got)
		}
	}
	for _, err := range []error{strange, pgx.ErrNoRows, pg("42703", ""), pg("23514", "reservations_status_check")} {
		if got := translate(err); got != err { //nolint:errorlint // the same value, not wrapped
			t.Errorf("%v: %v, want the error unchanged", err, got)
		}
	}
}

// TestConstraintErrors checks that the schema has every constraint of constraintErrors.
func TestConstraintErrors(t *testing.T) {
	t.Parallel()
	schema := schemaText(t)
	for name := range constraintErrors {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(schema) {
			t.Errorf("the schema has no %s", name)
		}
	}
}

func schemaText(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return string(all)
}

// TestNotifyingKinds checks that EventKind.Notifies and the column reservation_events.notifies list
// the same kinds.
func TestNotifyingKinds(t *testing.T) {
	t.Parallel()
	schema := schemaText(t)
	kinds := func(pattern string) map[library.EventKind]bool {
		t.Helper()
		match := regexp.MustCompile(pattern).FindStringSubmatch(schema)
		if match == nil {
			t.Fatalf("the schema has no %s", pattern)
		}
		list := map[library.EventKind]bool{}
		for kind := range strings.SplitSeq(match[1], ",") {
			list[library.EventKind(strings.Trim(strings.TrimSpace(kind), "'"))] = true
		}
		return list
	}
	notify := kinds(`\(kind IN \(([^)]*)\)\) STORED`)
	all := kinds(`CHECK \(kind IN \(([^)]*)\)\)`)
	if len(all) != 12 || len(notify) != 6 {
		t.Errorf("%d kinds, %d notify", len(all), len(notify))
	}
	for kind := range all {
		if kind.Notifies() != notify[kind] {
			t.Errorf("%s: notifies %v in Go, %v in the schema", kind, kind.Notifies(), notify[kind])
		}
	}
}

func TestContentHash(t *testing.T) {
	t.Parallel()
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	if contentHash("", 1, at(1), at(2)) != nil {
		t.Error("a hash without a request_id")
	}
	seen := map[string]string{}
	for _, c := range []struct {
		seat       int64
		start, end time.Time
	}{{1, at(1), at(2)}, {2, at(1), at(2)}, {1, at(0), at(2)}, {1, at(1), at(3)}, {1, time.Time{}, at(2)}, {1, at(2),
		at(1)}} {
		hash := string(contentHash("key", c.seat, c.start, c.end))
		if other, ok := seen[hash]; ok {
			t.Errorf("%+v has the hash of %s", c, other)
		}
		seen[hash] = fmt.Sprintf("%+v", c)
		if again := string(contentHash("other", c.seat, c.start.In(time.FixedZone("", 3600)),
			c.end.Add(999))); !c.start.IsZero() && again != hash {
			t.Errorf("%+v: another hash for the same content", c)
		}
	}
}
