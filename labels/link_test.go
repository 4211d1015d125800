package labels_test

import (
	"strings"
	"testing"

	"github.com/dlsms/dlsms/labels"
)

func TestCheckLink(t *testing.T) {
	t.Parallel()
	long := "https://library.example/" + strings.Repeat("s", 75) + "/"
	for link, ok := range map[string]bool{
		"": true, "https://library.example/s/": true, "http://localhost:8080/s/": true, long: true,
		long + "/": false, "https://library.example": false, "https://library.example/s?code=": false,
		"https://library.example/s/?code=/": true, // the code is after the last slash
		"javascript:alert(1)//x/":           false, "//library.example/": false, "https:///s/": false,
		"library.example/s/":        false,
		"https://bücherei.example/": false, "https://library.example/a b/": false, "https://library.example/s/\n/": false,
	} {
		if err := labels.CheckLink(link); (err == nil) != ok {
			t.Errorf("%q: %v", link, err)
		}
	}
}
