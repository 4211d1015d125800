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

// cursor is the place of the last row of a page: the next page begins after it. Time is for lists that are in the order of a time, and
// then of an id; it is zero for those in the order of ids alone. The zero cursor is before the first row.
type cursor struct {
	Time time.Time
	ID   int64
}

// paged is a request for a list.
type paged interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

// page takes the page_size and page_token of a request, and returns how many rows to list (0 meaning byDefault) and after which one.
func (c *check) page(req paged, byDefault, most int) (size int, after cursor) {
	size = c.pageSize(req.GetPageSize(), byDefault, most)
	if req.GetPageToken() == "" {
		return size, cursor{}
	}
	after, err := parsePageToken(req)
	if err != nil {
		c.fault("page_token", err.Error())
	}
	return size, after
}

const pageTokenVersion = 1

var (
	errPageToken  = errors.New("is not one of a next_page_token")
	errPageFilter = errors.New("is of a request with other filters")
)

// nextPageToken returns the token of the page after the row at last, for the same request. It is opaque to clients and holds no secret:
// a forged one leads to another place in a list that the same caller may read anyway.
func nextPageToken(req paged, last cursor) string {
	b := append([]byte{pageTokenVersion}, filterHash(req)...)
	b = binary.AppendVarint(b, last.ID)
	if !last.Time.IsZero() {
		b = binary.AppendVarint(b, last.Time.UnixMicro())
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxPageToken is longer than any token: a version, a hash and two varints.
const maxPageToken = 64

func parsePageToken(req paged) (cursor, error) {
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
	if n != len(b) || micros < earliest.UnixMicro() || micros >= latest.UnixMicro() {
		return cursor{}, errPageToken
	}
	at.Time = time.UnixMicro(micros).UTC()
	return at, nil
}

const filterHashSize = 8

// filterHash is of everything in a request but the page, so that no list of its filters can be forgotten here.
func filterHash(req paged) []byte {
	m := proto.Clone(req).ProtoReflect()
	for _, field := range []protoreflect.Name{"page_size", "page_token"} {
		m.Clear(m.Descriptor().Fields().ByName(field))
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	if err != nil { // never: the request came from the wire
		panic(err)
	}
	sum := sha256.Sum256(b)
	return sum[:filterHashSize]
}
