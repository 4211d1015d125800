package e2e

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestRefusalOfMapsEOFToUnavailable(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err  error
		want codes.Code
	}{
		"the last retry was reset": {
			fmt.Errorf("max retries exhausted: failed after 4 attempts: %w", io.EOF),
			codes.Unavailable,
		},
		"the last retry had a status": {
			fmt.Errorf("max retries exhausted: %w", status.Error(codes.Internal, "broken")),
			codes.Internal,
		},
		"an error of the client itself": {errors.New("no such codec"), codes.Unknown},
	} {
		if got := RefusalOf(test.err).Code; got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
