package labels

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// MaxLink is the maximum length of a link in bytes. A longer one would make the modules of the QR code
// too small.
const MaxLink = 100

// CheckLink checks the address of a page that is put before a code. An empty one is valid. A check-in
// finds the code after the last slash, so the link must end with one.
func CheckLink(link string) error {
	if link == "" {
		return nil
	}
	u, err := url.Parse(link)
	switch {
	case len(link) > MaxLink:
		return fmt.Errorf("must have at most %d bytes", MaxLink)
	case strings.ContainsFunc(link, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("must be ASCII, without blanks")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || !strings.HasSuffix(link, "/"):
		return errors.New("must begin with https:// or http:// and end with /, such as https://library.example/s/")
	}
	return nil
}
