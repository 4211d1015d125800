// Package seatfile reads and writes seat files: the seats of branches as CSV (RFC 4180), in UTF-8.
// The first line names the columns, in any order, in small or capital letters:
//
//	branch,area,label,amenities,x_cm,y_cm,angle,desk,out_of_service
//
// Write writes what Read reads. Read also accepts semicolons or tabs between the columns.
// docs/operating/seats.md describes the format for librarians.
//
// # Spreadsheets
//
// A spreadsheet program takes a cell that begins with "=", "+", "-" or "@" for a formula, and
// executes it. Write therefore puts an apostrophe before such a text, and Read removes it. A text
// that begins with apostrophes before such a character gets one more. So every text stays as it is
// when it is written and read.
package seatfile

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dlsms/dlsms/library"
)

// Limits of a file.
const (
	// MaxSize is the greatest size of a file in bytes.
	MaxSize = 2 << 20
	// MaxRows is the greatest number of seats in a file.
	MaxRows = 20_000
	// MaxFaults is the greatest number of faults that Read reports.
	MaxFaults = 1000
)

const (
	columnBranch = "branch"
	columnLabel  = "label"
)

// columns are the columns of a file, in the order in which Write writes them.
var columns = []string{
	columnBranch, string(library.SeatArea), columnLabel, string(library.SeatAmenities),
	string(library.SeatX), string(library.SeatY), string(library.SeatAngle), string(library.SeatDesk),
	string(library.SeatOutOfService),
}

// bom is the byte order mark. Excel reads a file as UTF-8 only if the file begins with it.
const bom = "\ufeff"

// reader reads one file and collects its faults.
type reader struct {
	csv    *csv.Reader
	header []string       // names of the columns
	index  map[string]int // of each column
	file   library.SeatFile
	seen   map[[2]string]int // line by branch and label
	faults []library.FieldViolation
}

// Read parses a file. If the file has faults, Read returns the first MaxFaults of them, in the order
// of their lines. The file then has the rows that could be divided into cells, for more checks.
func Read(content []byte) (library.SeatFile, []library.FieldViolation) {
	content = bytes.TrimPrefix(content, []byte(bom))
	r := &reader{csv: csv.NewReader(bytes.NewReader(content)), seen: map[[2]string]int{}}
	r.csv.FieldsPerRecord = -1 // row reports a wrong number with its line
	r.csv.ReuseRecord = true
	r.csv.Comma = separator(content)
	if line := invalidLine(content); line != 0 {
		r.fault(line, "", `is not UTF-8: save the file as "CSV UTF-8"`)
		return library.SeatFile{}, r.faults
	}
	if !r.readHeader() {
		return library.SeatFile{}, r.faults
	}
	for len(r.faults) < MaxFaults {
		record, err := r.csv.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil { // the rest of the file can't be divided into lines
			r.syntax(err)
			break
		}
		if len(r.file.Rows) == MaxRows {
			line, _ := r.csv.FieldPos(0)
			r.fault(line, "", fmt.Sprintf("is too much: a file may have %d seats", MaxRows))
			break
		}
		r.row(record)
	}
	return r.file, r.faults
}

// separator returns the character between the columns. Excel writes semicolons in countries with a
// decimal comma, and tabs in its text format. No name of a column has one of these characters, so
// the first line tells which one the file uses.
func separator(content []byte) rune {
	line, _, _ := bytes.Cut(content, []byte("\n"))
	for _, c := range ",;\t" {
		if bytes.ContainsRune(line, c) {
			return c
		}
	}
	return ','
}

// invalidLine returns the first line that is not UTF-8, or 0.
func invalidLine(content []byte) int {
	if utf8.Valid(content) {
		return 0
	}
	n := 1
	for line := range bytes.Lines(content) {
		if !utf8.Valid(line) {
			break
		}
		n++
	}
	return n
}

func (r *reader) fault(line int, column, message string) {
	if len(r.faults) < MaxFaults {
		r.faults = append(r.faults, library.FileFault(line, column, message))
	}
}

func (r *reader) syntax(err error) {
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		r.fault(e.StartLine, "", "is not CSV: a quotation mark is missing or must be doubled")
		return
	}
	r.fault(1, "", "can't be read")
}

// readHeader reads the names of the columns, and reports whether rows can be read.
func (r *reader) readHeader() bool {
	record, err := r.csv.Read()
	if errors.Is(err, io.EOF) {
		r.fault(1, "", "is missing: it must name the columns "+strings.Join(columns, ","))
		return false
	}
	if err != nil {
		r.syntax(err)
		return false
	}
	line, _ := r.csv.FieldPos(0)
	if strings.Contains(strings.Join(record, ""), "\r") {
		r.fault(line, "", "has carriage returns only: each line must end with a line feed")
		return false
	}
	r.header, r.index = slices.Clone(record), map[string]int{}
	for i, name := range r.header {
		name = strings.ToLower(strings.TrimSpace(name))
		r.header[i] = name
		switch _, twice := r.index[name]; {
		case !slices.Contains(columns, name):
			r.fault(line, printable(name), "is not a column of seat files, which are "+strings.Join(columns, ", "))
		case twice:
			r.fault(line, name, "is there twice")
		}
		r.index[name] = i
	}
	for _, required := range []string{columnBranch, columnLabel} {
		if _, ok := r.index[required]; !ok {
			r.fault(line, required, "is missing")
		}
	}
	_, x := r.index[string(library.SeatX)]
	_, y := r.index[string(library.SeatY)]
	switch {
	case x && !y:
		r.fault(line, string(library.SeatY), "is missing: x_cm needs it")
	case y && !x:
		r.fault(line, string(library.SeatX), "is missing: y_cm needs it")
	}
	for _, f := range library.SeatFields() {
		if _, ok := r.index[string(f)]; ok {
			r.file.Fields = append(r.file.Fields, f)
		}
	}
	return len(r.faults) == 0
}

// printable returns the name of an unknown column for a message: at most 40 characters.
func printable(name string) string {
	if utf8.RuneCountInString(name) > 40 {
		name = string([]rune(name)[:40]) + "…"
	}
	return strconv.Quote(name)
}

// row reads one row.
func (r *reader) row(record []string) {
	line, _ := r.csv.FieldPos(0)
	if blank(record) { // spreadsheets write such lines at the end
		return
	}
	if len(record) != len(r.header) {
		r.fault(line, "", fmt.Sprintf("has %d cells, and the first line has %d", len(record), len(r.header)))
		return
	}
	row := library.SeatRow{Line: line}
	failed := map[string]bool{}
	report := func(column, message string) {
		if !failed[column] { // one fault a cell
			failed[column] = true
			at, _ := r.csv.FieldPos(r.index[column])
			r.fault(at, column, message)
		}
	}
	row.Branch = r.text(record, columnBranch)
	row.Label = r.text(record, columnLabel)
	row.Area = r.text(record, string(library.SeatArea))
	row.Desk = r.text(record, string(library.SeatDesk))
	row.XCm = r.number(record, library.SeatX, report)
	row.YCm = r.number(record, library.SeatY, report)
	row.Angle = r.number(record, library.SeatAngle, report)
	row.Amenities = r.amenities(record, report)
	row.OutOfService = r.flag(record, report)
	if row.Branch == "" {
		report(columnBranch, "is missing")
	}
	row.Faults(func(field, message string) {
		if _, ok := r.index[field]; ok { // an absent column changes nothing
			report(field, message)
		}
	})
	key := [2]string{row.Branch, row.Label}
	if first, twice := r.seen[key]; twice && row.Label != "" {
		report(columnLabel, fmt.Sprintf("is the label of the seat in line %d", first))
	} else {
		r.seen[key] = line
	}
	r.file.Rows = append(r.file.Rows, row)
}

func blank(record []string) bool {
	return !slices.ContainsFunc(record, func(cell string) bool { return strings.TrimSpace(cell) != "" })
}

// cell returns the cell of a column, or "" if the file has no such column.
func (r *reader) cell(record []string, column string) string {
	i, ok := r.index[column]
	if !ok {
		return ""
	}
	return record[i]
}

// text returns a cell without the apostrophe that Write puts before formulas.
func (r *reader) text(record []string, column string) string {
	v := r.cell(record, column)
	if strings.HasPrefix(v, "'") && isFormula(v) {
		return v[1:]
	}
	return v
}

func (r *reader) number(record []string, column library.SeatField, report func(column, message string)) *int {
	v := r.cell(record, string(column))
	if v == "" {
		return nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || strings.Trim(v, "0123456789") != "" {
		report(string(column), "must be a whole number from 0 on")
		return nil
	}
	return &n
}

func (r *reader) amenities(record []string, report func(column, message string)) []int16 {
	v := r.cell(record, string(library.SeatAmenities))
	if v == "" {
		return nil
	}
	var numbers []int16
	for name := range strings.SplitSeq(v, "|") {
		number := library.AmenityNumber(strings.TrimSpace(name))
		if number == 0 {
			report(string(library.SeatAmenities), printable(name)+" is not one of "+strings.Join(library.AmenityNames(), "|"))
			return nil
		}
		numbers = append(numbers, number)
	}
	return library.SortedAmenities(numbers)
}

// flag returns the cell of the column out_of_service. Spreadsheets write TRUE and FALSE, and in
// German WAHR and FALSCH.
func (r *reader) flag(record []string, report func(column, message string)) bool {
	switch v := r.cell(record, string(library.SeatOutOfService)); strings.ToLower(v) {
	case "true", "wahr":
		return true
	case "false", "falsch", "":
	default:
		report(string(library.SeatOutOfService), "must be true or false")
	}
	return false
}

// isFormula reports whether a spreadsheet program may take a text for a formula, without regard to
// apostrophes before it. Some programs also accept the full-width characters.
func isFormula(v string) bool {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(v, "'"))
	return strings.ContainsRune("=+-@＝＋－＠", first)
}

// Write returns a file with the rows, in their order. The file begins with a byte order mark,
// because Excel would read it in another encoding.
func Write(rows []library.SeatRow) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(bom)
	w := csv.NewWriter(&b)
	if err := w.Write(columns); err != nil {
		return nil, err
	}
	record := make([]string, len(columns))
	for i := range rows {
		row := &rows[i]
		for j, column := range columns {
			switch column {
			case columnBranch:
				record[j] = row.Branch
			case columnLabel:
				record[j] = escape(row.Label)
			case string(library.SeatArea), string(library.SeatDesk):
				record[j] = escape(row.Text(library.SeatField(column)))
			default:
				record[j] = row.Text(library.SeatField(column))
			}
		}
		if err := w.Write(record); err != nil {
			return nil, err
		}
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

func escape(v string) string {
	if isFormula(v) {
		return "'" + v
	}
	return v
}
