package server

// recent is a map of bounded size that forgets what has not been asked for of late. Its zero value is ready.
type recent[K comparable, V any] struct {
	young, aged map[K]V // aged are those that have not been asked for since young was begun
}

// get returns the value of a key and keeps it young.
func (r *recent[K, V]) get(key K, size int) (V, bool) {
	v, ok := r.young[key]
	if ok {
		return v, true
	}
	if v, ok = r.aged[key]; ok {
		r.put(key, v, size)
	}
	return v, ok
}

// peek returns the value of a key and leaves its age as it is, so that readers may share a lock.
func (r *recent[K, V]) peek(key K) (V, bool) {
	v, ok := r.young[key]
	if !ok {
		v, ok = r.aged[key]
	}
	return v, ok
}

// put sets a value. The map remembers at least size values and at most twice as many.
func (r *recent[K, V]) put(key K, v V, size int) {
	if _, ok := r.young[key]; !ok && (r.young == nil || len(r.young) >= size) {
		r.young, r.aged = map[K]V{}, r.young
	}
	r.young[key] = v
}

// clear forgets everything.
func (r *recent[K, V]) clear() { r.young, r.aged = nil, nil }
