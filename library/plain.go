package library

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// PlainFault returns what is wrong with a name, such as that of a branch, an area or a seat. It
// returns "" if nothing is. A name has 1 to most characters, has no control characters and no marks
// of text direction, and does not begin or end with a blank. The database function dlsms_plain has
// the same rules.
func PlainFault(name string, most int) string {
	switch n := utf8.RuneCountInString(name); {
	case name == "":
		return "is missing"
	case !utf8.ValidString(name):
		return "must be UTF-8 text"
	case strings.ContainsFunc(name, isHidden):
		return "must not contain control characters or marks of text direction"
	case strings.Trim(name, blanks) != name:
		return "must not begin or end with a blank"
	case n > most:
		return fmt.Sprintf("must have 1 to %d characters", most)
	}
	return ""
}

const blanks = " \u00a0\u3000"

func isHidden(r rune) bool {
	switch r {
	case '\u200b', '\u200e', '\u200f', '\ufeff':
		return true
	}
	return r <= '\u001f' || r >= '\u007f' && r <= '\u009f' || r >= '\u2028' && r <= '\u202e' ||
		r >= '\u2066' && r <= '\u2069'
}
