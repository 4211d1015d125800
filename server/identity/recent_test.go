package identity

import "testing"

func TestRecentMapIsBounded(t *testing.T) {
	t.Parallel()
	var r RecentMap[int, int]
	for i := range 1000 {
		r.Put(i, i, 100)
		if v, ok := r.Get(0, 100); !ok || v != 0 {
			t.Fatalf("after %d other keys, a key in use was evicted", i)
		}
	}
	if n := r.Len(); n > 200 || n < 100 {
		t.Errorf("%d keys are kept", n)
	}
}
