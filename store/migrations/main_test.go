package migrations_test

import (
	"testing"

	"github.com/dlsms/dlsms/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }
