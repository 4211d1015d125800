package labels

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the width of the empty margin around a QR code, in modules, which its standard requires.
const quiet = 4

// Code is a QR code.
type Code struct {
	// Path is SVG path data of the dark modules, in units of one module, without the quiet zone.
	Path string
	// Size is the number of modules on a side.
	Size int
}

// Encode returns the QR code of a text. A text of digits, upper-case letters and " $%*+-./:" makes a
// smaller code than any other text of the same length.
func Encode(text string) (Code, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return Code{}, fmt.Errorf("make the QR code: %w", err)
	}
	// Each run of dark modules in a row is a closed shape. The point after z is the start of the shape,
	// so the place of the next shape is relative to it.
	var path []byte
	atX, atY := 0, 0
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			run := 0
			for x+run < code.Size && code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				path = fmt.Appendf(path, "m%d %dh%dv1h-%dz", x-atX, y-atY, run, run)
				atX, atY = x, y
				x += run
			}
		}
	}
	return Code{string(path), code.Size}, nil
}

// SVG returns the QR code of a text as an SVG element without a size.
func SVG(text string) (string, error) {
	code, err := Encode(text)
	if err != nil {
		return "", err
	}
	side := code.Size + 2*quiet
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="-%d -%d %d %d" shape-rendering="crispEdges" `+
		`role="img" aria-label="QR code"><path d="%s"/></svg>`, quiet, quiet, side, side, code.Path), nil
}

// Text returns the QR code of a text for a terminal, as lines of black blocks on white. A line has
// two rows of modules.
func Text(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", fmt.Errorf("make the QR code: %w", err)
	}
	var out strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		out.WriteString("\x1b[30;47m")
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case upper && lower:
				out.WriteString("█")
			case upper:
				out.WriteString("▀")
			case lower:
				out.WriteString("▄")
			default:
				out.WriteString(" ")
			}
		}
		out.WriteString("\x1b[0m\n")
	}
	return out.String(), nil
}
