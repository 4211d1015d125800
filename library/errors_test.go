package library

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestErrorCopiesDoNotChangeTheCatalogue(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	e := ErrSeatTaken.With("a", "1").With("b", "2").WithCause(cause).WithRetryAfter(time.Second)
	if !errors.Is(e, ErrSeatTaken) || errors.Is(e, ErrUserBusy) || !errors.Is(e, cause) ||
		e.Metadata["a"] != "1" || e.Metadata["b"] != "2" ||
		e.RetryAfter != time.Second ||
		!strings.Contains(e.Error(), "cause") || !strings.Contains(e.Error(), "SEAT_TAKEN") {
		t.Errorf("%+v", e)
	}
	if ErrSeatTaken.Metadata != nil || ErrSeatTaken.RetryAfter != 0 || errors.Unwrap(ErrSeatTaken) != nil {
		t.Errorf("the sentinel was changed: %+v", ErrSeatTaken)
	}
}
