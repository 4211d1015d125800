package edge

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"

	"google.golang.org/grpc/metadata"

	"github.com/dlsms/dlsms/server/identity"
)

// requestIDHeader is the header with the request id: in requests from clients, and in responses.
const requestIDHeader = "x-request-id"

// requestID returns the request id of a call: see RequestID.
func requestID(ctx context.Context) string {
	return RequestID(metadata.ValueFromIncomingContext(ctx, requestIDHeader))
}

// RequestID returns the request id of a client whose header x-request-id has these values, or a new
// one if the client sent none or an invalid one.
func RequestID(header []string) string {
	if len(header) == 1 && validRequestID(header[0]) {
		return header[0]
	}
	// The id only distinguishes calls and protects nothing, so a fast generator is enough.
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	return hex.EncodeToString(b[:])
}

// validRequestID reports whether id has 1 to 64 ASCII letters, digits, ".", "_" and "-".
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
