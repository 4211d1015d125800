// Package labels makes QR codes, and sheets of labels for seats.
package labels

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
)

// Label is the label of a seat.
type Label struct {
	Seat   string // the label of the seat, such as A-17
	Area   string
	Branch string // name or code
	Code   string // the code of the seat: see package presence
}

// perPage is the number of labels on a page: 3 columns of 8.
const perPage = 24

//go:embed sheet.html
var page string

var sheet = template.Must(template.New("sheet").Parse(page))

// printed is a label as the template prints it.
type printed struct {
	Label

	QR template.HTML
}

// Sheet returns a page in HTML that prints as sheets of labels on A4. link is put before each code in
// the QR codes; it may be empty. The page needs no other file.
func Sheet(link string, all []Label) ([]byte, error) {
	var pages [][]printed
	for chunk := range slices.Chunk(all, perPage) {
		var p []printed
		for _, l := range chunk {
			svg, err := SVG(link + l.Code)
			if err != nil {
				return nil, fmt.Errorf("label of seat %s: %w", l.Seat, err)
			}
			p = append(p, printed{l, template.HTML(svg)}) //nolint:gosec // SVG writes only numbers
		}
		pages = append(pages, p)
	}
	var out bytes.Buffer
	if err := sheet.Execute(&out, pages); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
