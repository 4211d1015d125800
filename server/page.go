package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// cursor identifies the last row of a page; the next page starts after this row. A list that is
// sorted by id uses ID, and leaves Time zero. A list that is sorted by time uses Time, and ID for
// rows with equal times. The zero cursor is before the first row.
type cursor struct {
	Time time.Time
	ID   int64
}

// pagedRequest is a request for a list.
type pagedRequest interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

// page checks the page_size and page_token of a request. It returns the number of rows to list,
// which is defaultSize for a page_size of 0, and the cursor to start after.
func (c *check) page(req pagedRequest, defaultSize, maxSize int) (size int, after cursor) {
	size = c.pageSize(req.GetPageSize(), defaultSize, maxSize)
	if req.GetPageToken() == "" {
		return size, cursor{}
	}
	after, err := parsePageToken(req)
	if err != nil {
		c.fault("page_token", err.Error())
	}
	return size, after
}

// cut returns the first size rows, and the token for the page after them. rows must have one row more
// than the page if there is a next page. Without a next page, the token is empty.
func cut[T any](req pagedRequest, rows []T, size int, at func(T) cursor) (page []T, next string) {
	if len(rows) <= size {
		return rows, ""
	}
	return rows[:size], nextPageToken(req, at(rows[size-1]))
}

const pageTokenVersion = 1

var (
	errPageToken  = errors.New("is not a valid page token")
	errPageFilter = errors.New("belongs to a request with other filters")
)

// nextPageToken returns the token for the page after last. Clients treat it as opaque. It contains
// no secret and is not signed: a forged token leads to another place in a list that the same caller
// may read anyway.
//
//	byte 0       version
//	bytes 1-8    hash of the request without page_size and page_token
//	varint       ID of the cursor
//	varint       Time of the cursor in microseconds since 1970; absent if zero
func nextPageToken(req pagedRequest, last cursor) string {
	b := append([]byte{pageTokenVersion}, filterHash(req)...)
	b = binary.AppendVarint(b, last.ID)
	if !last.Time.IsZero() {
		b = binary.AppendVarint(b, last.Time.UnixMicro())
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxPageToken is above the length of every token.
const maxPageToken = 64

func parsePageToken(req pagedRequest) (cursor, error) {
	token := req.GetPageToken()
	if len(token) > maxPageToken {
		return cursor{}, errPageToken
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < 1+filterHashSize || b[0] != pageTokenVersion {
		return cursor{}, errPageToken
	}
	hash, b := b[1:1+filterHashSize], b[1+filterHashSize:]
	if !bytes.Equal(hash, filterHash(req)) {
		return cursor{}, errPageFilter
	}
	var at cursor
	id, n := binary.Varint(b)
	if n <= 0 || id < 0 {
		return cursor{}, errPageToken
	}
	at.ID = id
	if b = b[n:]; len(b) == 0 {
		return at, nil
	}
	micros, n := binary.Varint(b)
	if n != len(b) || micros < minTime.UnixMicro() || micros >= maxTime.UnixMicro() {
		return cursor{}, errPageToken
	}
	at.Time = time.UnixMicro(micros).UTC()
	return at, nil
}

const filterHashSize = 8

// filterHash hashes all fields of a request except page_size and page_token. A filter that is added
// later is therefore hashed, too.
func filterHash(req pagedRequest) []byte {
	m := proto.Clone(req).ProtoReflect()
	for _, field := range []protoreflect.Name{"page_size", "page_token"} {
		m.Clear(m.Descriptor().Fields().ByName(field))
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	if err != nil { // impossible: the request was parsed from the wire
		panic(err)
	}
	sum := sha256.Sum256(b)
	return sum[:filterHashSize]
}
