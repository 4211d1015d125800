package edge

import (
	"log/slog"
	"net/netip"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/dlsms/dlsms/server/identity"
)

// Config holds the parts of an Edge. If all methods are public, Tokens, Revocations and Users may
// be nil.
type Config struct {
	Log         *slog.Logger
	Tokens      *identity.Tokens
	Revocations *identity.Revocations
	Users       *identity.Users
	Keys        *identity.Keys // nil: service keys are not valid
	Limits      *Limits
	Streams     *Streams
	// DBConns is the size of the store's connection pool. The slots for calls depend on it: see
	// newAdmission.
	DBConns int
	// TrustedProxies are the networks of the peers whose x-real-ip header is trusted.
	TrustedProxies []netip.Prefix
	// Refused is called for each call and stream that fails with an ErrorReason. method is the full
	// name, "/dlsms.v1.SeatService/GetSeats". nil: it is not called.
	Refused func(method, reason string)
}

// Edge runs before and after every handler, for unary calls and for streams.
type Edge struct {
	log       *slog.Logger
	gate      gate
	tokens    *identity.Tokens
	revoked   *identity.Revocations
	users     *identity.Users
	keys      *identity.Keys // nil: service keys are not valid
	limits    *Limits
	admission *admission
	streams   *Streams
	incoming  *incoming
	trusted   []netip.Prefix
	refused   func(method, reason string)

	running atomic.Int64 // calls whose request has arrived, and streams
}

// New returns an Edge that refuses calls until Open.
func New(c Config) *Edge {
	if c.Refused == nil {
		c.Refused = func(string, string) {}
	}
	return &Edge{
		log: c.Log, tokens: c.Tokens, revoked: c.Revocations, users: c.Users, keys: c.Keys, limits: c.Limits,
		streams: c.Streams, admission: newAdmission(c.DBConns), incoming: newIncoming(), trusted: c.TrustedProxies,
		refused: c.Refused,
	}
}

// Options returns the options of a gRPC server that make each call pass through the edge. Their
// place in the options of grpc.NewServer matters. If the option of another interceptor comes before
// them, that interceptor runs around the edge, so it sees the statuses that clients see. If the
// option comes after them, that interceptor runs between the edge and the handler.
func (e *Edge) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		credentialsOption(),
		grpc.ChainUnaryInterceptor(e.unary),
		grpc.ChainStreamInterceptor(e.serverStream),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.InTapHandle(refuseLargeHeaders),
	}
}

// Open admits calls.
func (e *Edge) Open() { e.gate.open.Store(true) }

// Close refuses calls with UNAVAILABLE, except health checks and reflection.
func (e *Edge) Close() { e.gate.open.Store(false) }

// Stats counts the calls and streams that the edge holds at one moment.
type Stats struct {
	Running    int // calls whose request has arrived, and streams
	Incoming   int // calls whose request has not arrived in full
	Streams    int // open streams
	StreamKeys int // users and addresses that have open streams
	BookSlots  int // calls that hold a slot to write
	ReadSlots  int // calls that hold a slot to read
}

// Stats returns the present counts.
func (e *Edge) Stats() Stats {
	streams, keys := e.streams.count()
	return Stats{
		Running:    int(e.running.Load()),
		Incoming:   e.incoming.count(),
		Streams:    streams,
		StreamKeys: keys,
		BookSlots:  e.admission.classes[book].inUse(),
		ReadSlots:  e.admission.classes[read].inUse(),
	}
}
