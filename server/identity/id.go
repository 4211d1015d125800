package identity

// IsIDByte reports whether b is allowed in a student id, a kid or a request id: an ASCII letter, a
// digit, ".", "_" or "-".
func IsIDByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '.' || b == '_' || b == '-'
}
