package identity

// RecentMap is a map of bounded size that forgets what has not been asked for of late. Its zero value is ready.
type RecentMap[K comparable, V any] struct {
	young, aged map[K]V // aged are those that have not been asked for since young was begun
}

// Get returns the value of a key and keeps it young.
func (r *RecentMap[K, V]) Get(key K, size int) (V, bool) {
	v, ok := r.young[key]
	if ok {
		return v, true
	}
	if v, ok = r.aged[key]; ok {
		r.Put(key, v, size)
	}
	return v, ok
}

// Peek returns the value of a key and leaves its age as it is, so that readers may share a lock.
func (r *RecentMap[K, V]) Peek(key K) (V, bool) {
	v, ok := r.young[key]
	if !ok {
		v, ok = r.aged[key]
	}
	return v, ok
}

// Put sets a value. The map remembers at least size values and at most twice as many.
func (r *RecentMap[K, V]) Put(key K, v V, size int) {
	if _, ok := r.young[key]; !ok && (r.young == nil || len(r.young) >= size) {
		r.young, r.aged = map[K]V{}, r.young
	}
	r.young[key] = v
}

// Clear forgets everything.
func (r *RecentMap[K, V]) Clear() { r.young, r.aged = nil, nil }

// Len returns how many keys are remembered.
func (r *RecentMap[K, V]) Len() int { return len(r.young) + len(r.aged) }
