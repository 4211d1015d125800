package labels_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"rsc.io/qr"

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

// shape is a run of dark modules in a row.
var shape = regexp.MustCompile(`^m(-?\d+) (-?\d+)h(\d+)v1h-(\d+)z`)

// TestPathHasTheDarkModules draws the path of QR codes and compares it with their modules.
func TestPathHasTheDarkModules(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"CAAAAAYHB4NYA7ZBV3O5VQ6ZQK6KSYA", "HTTPS://LIBRARY.EXAMPLE/C/CAAAAAYHB4NYA7ZBV3O5VQ6ZQK6KSYA",
		"https://library.example/s/CAAAAAYHB4NYA7ZBV3O5VQ6ZQK6KSYA",
	} {
		want, err := qr.Encode(text, qr.M)
		if err != nil {
			t.Fatal(err)
		}
		got, err := labels.Encode(text)
		if err != nil || got.Size != want.Size {
			t.Fatalf("%s: %d modules, %v, want %d", text, got.Size, err, want.Size)
		}
		dark := map[[2]int]bool{}
		x, y := 0, 0
		for rest := got.Path; rest != ""; {
			m := shape.FindStringSubmatch(rest)
			if m == nil || m[3] != m[4] {
				t.Fatalf("%s: the path goes on with %.20s", text, rest)
			}
			rest = rest[len(m[0]):]
			dx, _ := strconv.Atoi(m[1])
			dy, _ := strconv.Atoi(m[2])
			run, _ := strconv.Atoi(m[3])
			x, y = x+dx, y+dy
			for i := range run {
				dark[[2]int{x + i, y}] = true
			}
		}
		for y := -quiet; y < want.Size+quiet; y++ {
			for x := -quiet; x < want.Size+quiet; x++ {
				if dark[[2]int{x, y}] != want.Black(x, y) {
					t.Errorf("%s: the module at %d, %d is wrong", text, x, y)
				}
			}
		}
	}
	if _, err := labels.Encode(strings.Repeat("x", 5000)); err == nil {
		t.Error("a text that is too long for a QR code has no error")
	}
}

const quiet = 4

// TestSizeOfPaths checks that 500 labels with the longest link fit into a message of 4 MiB, the most
// that a gRPC client accepts by default. A link in upper case must make a smaller code.
func TestSizeOfPaths(t *testing.T) {
	t.Parallel()
	code := "CAAAAAYHB4NYA7ZBV3O5VQ6ZQK6KSYA"
	longest, err := labels.Encode("https://" + strings.Repeat("x", labels.MaxLink-9) + "/" + code)
	if err != nil {
		t.Fatal(err)
	}
	const others = 500 // bytes of the other fields
	if size := 500 * (len(longest.Path) + others); size > 4<<20 {
		t.Errorf("500 labels take %d bytes, a path %d", size, len(longest.Path))
	}
	link := "https://library.example/s/"
	lower, _ := labels.Encode(link + code)
	upper, err := labels.Encode(strings.ToUpper(link) + code)
	if err != nil || upper.Size >= lower.Size || upper.Size > 29 {
		t.Errorf("in upper case, %d modules: %v; in lower case, %d", upper.Size, err, lower.Size)
	}
}
