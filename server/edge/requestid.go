package edge

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"

	"google.golang.org/grpc/metadata"

	"github.com/dlsms/dlsms/server/identity"
)

// requestIDHeader carries the id under which the log knows a call, from the client or made here, and back to the client.
const requestIDHeader = "x-request-id"

// requestID returns the id that the client gave the call, or a new one. One that could spoil a log line counts as none.
func requestID(ctx context.Context) string {
	if v := metadata.ValueFromIncomingContext(ctx, requestIDHeader); len(v) == 1 && validRequestID(v[0]) {
		return v[0]
	}
	// It tells calls apart and guards nothing, so the fast generator is good enough.
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	return hex.EncodeToString(b[:])
}

// validRequestID reports whether id is 1 to 64 of ASCII letters, digits, ".", "_" and "-".
func validRequestID(id string) bool {
	if len(id) == 0 || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		if !identity.IsIDByte(id[i]) {
			return false
		}
	}
	return true
}
