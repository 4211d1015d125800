// Package reportfile writes reservations as CSV files for statistics, with pseudonyms in place of
// users.
package reportfile

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/csv"
	"hash"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dlsms/dlsms/library"
)

// columns are the names in the first line of a file.
var columns = []string{
	"person", "group", "branch", "area", "seat", "start", "end", "status", "created", "checked_in", "proof", "ended",
}

// Writer writes one file. Its methods must not be called concurrently.
type Writer struct {
	out   io.Writer
	csv   *csv.Writer // nil before WriteHeader
	mac   hash.Hash
	zones map[string]*time.Location
	row   []string
}

// NewWriter returns a Writer with a new random key for pseudonyms. The key is never stored. So the
// same person has different pseudonyms in two files, and no one can test which student id a pseudonym
// belongs to.
func NewWriter(w io.Writer) *Writer {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: the runtime crashes the process instead
	return &Writer{
		out: w, mac: hmac.New(sha256.New, key[:]), zones: map[string]*time.Location{},
		row: make([]string, len(columns)),
	}
}

// bom is a byte order mark. Without it, Excel would read the file in another encoding.
const bom = "\ufeff"

// NewCSV returns a writer of a CSV file for spreadsheet programs. Put each text through Plain.
func NewCSV(w io.Writer) (*csv.Writer, error) {
	_, err := io.WriteString(w, bom)
	return csv.NewWriter(w), err
}

// WriteHeader writes the first line.
func (w *Writer) WriteHeader() (err error) {
	if w.csv, err = NewCSV(w.out); err != nil {
		return err
	}
	if err := w.csv.Write(columns); err != nil {
		return err
	}
	return w.flush()
}

// Write writes a line for each reservation.
func (w *Writer) Write(reservations []library.ExportedReservation) error {
	for i := range reservations {
		r := &reservations[i]
		zone := w.zone(r.Timezone)
		w.row = append(w.row[:0],
			w.pseudonym(r.UserID), Plain(r.Group), r.Branch, Plain(r.Area), Plain(r.Label),
			inZone(&r.StartTime, zone), inZone(&r.EndTime, zone), string(r.Status),
			inZone(&r.CreatedAt, zone), inZone(r.CheckedInAt, zone), string(r.Proof), inZone(r.EndedAt, zone))
		if err := w.csv.Write(w.row); err != nil {
			return err
		}
	}
	return w.flush()
}

func (w *Writer) flush() error {
	w.csv.Flush()
	return w.csv.Error()
}

// pseudonymBytes is the length of a pseudonym before its encoding. With 80 bits, two of a million
// users have the same pseudonym with a probability below 1 in 10^12.
const pseudonymBytes = 10

func (w *Writer) pseudonym(userID int64) string {
	if userID == 0 {
		return ""
	}
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], uint64(userID)) //nolint:gosec // the same bits
	w.mac.Reset()
	w.mac.Write(id[:])
	var sum [sha256.Size]byte
	return base32.StdEncoding.EncodeToString(w.mac.Sum(sum[:0])[:pseudonymBytes])
}

// zone returns a time zone, or UTC if its name is unknown.
func (w *Writer) zone(name string) *time.Location {
	zone, ok := w.zones[name]
	if !ok {
		var err error
		if zone, err = time.LoadLocation(name); err != nil {
			zone = time.UTC
		}
		w.zones[name] = zone
	}
	return zone
}

// inZone formats a time in whole seconds, or returns an empty cell for nil.
func inZone(t *time.Time, zone *time.Location) string {
	if t == nil {
		return ""
	}
	return t.In(zone).Format(time.RFC3339)
}

// Plain returns a text that a spreadsheet does not take for a formula: it puts an apostrophe before
// the characters with which a formula begins. A label such as -1 is not changed, because it is a
// number.
func Plain(text string) string {
	first, _ := utf8.DecodeRuneInString(text)
	if text == "" || !strings.ContainsRune("=+-@＝＋－＠\t\r", first) || isNumber(text) {
		return text
	}
	return "'" + text
}

func isNumber(text string) bool {
	return len(text) > 1 && strings.Trim(text[1:], "0123456789.") == "" && (text[0] == '-' || text[0] == '+')
}
