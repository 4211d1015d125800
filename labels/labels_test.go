package labels_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dlsms/dlsms/labels"
)

func TestSheetEscapesText(t *testing.T) {
	t.Parallel()
	const evil = `<script>alert("x")</script>'&`
	html, err := labels.Sheet("https://library.example/s/", []labels.Label{
		{Seat: evil, Area: evil, Branch: evil, Code: strings.Repeat("A", 31)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if text := string(html); strings.Contains(text, "<script") || strings.Count(text, "&lt;script&gt;") != 3 {
		t.Errorf("the text is not escaped:\n%s", text)
	}
}

func TestSheetHas24LabelsOnAPage(t *testing.T) {
	t.Parallel()
	for n, pages := range map[int]int{0: 0, 1: 1, 24: 1, 25: 2, 500: 21} {
		var all []labels.Label
		for i := range n {
			all = append(all, labels.Label{Seat: fmt.Sprintf("A-%d", i), Code: fmt.Sprintf("%031d", i)})
		}
		html, err := labels.Sheet("", all)
		if err != nil {
			t.Fatal(err)
		}
		text := string(html)
		if strings.Count(text, "<section>") != pages || strings.Count(text, "<svg") != n {
			t.Errorf("%d labels: %d pages, %d codes", n, strings.Count(text, "<section>"), strings.Count(text, "<svg"))
		}
		for _, outside := range []string{"src=", "href=", "url(", "@import", "<script"} {
			if strings.Contains(text, outside) {
				t.Errorf("the page has %s", outside)
			}
		}
		if len(text) > 4000*max(n, 1) {
			t.Errorf("%d labels take %d bytes", n, len(text))
		}
	}
}

// TestSizeOfAScreenCode checks that the code of a screen is a QR code of 29 x 29 modules or fewer, so
// that a phone reads it from a distance.
func TestSizeOfAScreenCode(t *testing.T) {
	t.Parallel()
	code, err := labels.Text("CAAAAAYHB4NYA7ZBV3O5VQ6ZQK6KSYA")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(code, "\n"); lines > (29+8+1)/2 {
		t.Errorf("the code has %d lines:\n%s", lines, code)
	}
	if _, err := labels.SVG(strings.Repeat("x", 5000)); err == nil {
		t.Error("a text that is too long for a QR code has no error")
	}
}
