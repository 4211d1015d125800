package identity

// RecentMap is a map of bounded size. It keeps the keys that were used recently, and drops other
// keys. Its zero value is empty and ready. The caller must hold a lock: see Get and Peek.
type RecentMap[K comparable, V any] struct {
	young, old map[K]V // old holds the keys that were not used since young was created
}

// Get returns the value of a key and marks the key as used. It needs an exclusive lock. For size,
// see Put.
func (r *RecentMap[K, V]) Get(key K, size int) (V, bool) {
	v, ok := r.young[key]
	if ok {
		return v, true
	}
	if v, ok = r.old[key]; ok {
		r.Put(key, v, size)
	}
	return v, ok
}

// Peek returns the value of a key and does not mark the key as used. A shared lock is enough.
func (r *RecentMap[K, V]) Peek(key K) (V, bool) {
	v, ok := r.young[key]
	if !ok {
		v, ok = r.old[key]
	}
	return v, ok
}

// Put sets a value. The map keeps at least the size most recent keys and at most twice as many.
func (r *RecentMap[K, V]) Put(key K, v V, size int) {
	if _, ok := r.young[key]; !ok && (r.young == nil || len(r.young) >= size) {
		r.young, r.old = map[K]V{}, r.young
	}
	r.young[key] = v
}

// Clear removes all keys.
func (r *RecentMap[K, V]) Clear() { r.young, r.old = nil, nil }

// Len returns the number of values in the map.
func (r *RecentMap[K, V]) Len() int { return len(r.young) + len(r.old) }
