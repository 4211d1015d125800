package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// callTimeout bounds every unary call, so that a call without an answer fails its test and does not
// block it. It is longer than the deadlines of the server (5 s) and of nginx (15 s), because tests
// check these deadlines.
const callTimeout = 20 * time.Second

// Client calls the services as one user, or without a token.
type Client struct {
	Auth         dlsmsv1.AuthServiceClient
	Seats        dlsmsv1.SeatServiceClient
	Reservations dlsmsv1.ReservationServiceClient
	Notify       dlsmsv1.NotifyServiceClient
	Admin        dlsmsv1.AdminServiceClient
	Desk         dlsmsv1.DeskServiceClient
	Report       dlsmsv1.ReportServiceClient

	// User is the calling user, nil for an anonymous client.
	User *dlsmsv1.User
	// Token authenticates the calls. An empty token sends no credentials.
	Token string
	// Password is the password of User.
	Password string

	conn grpc.ClientConnInterface // does not add the token
}

// Dial returns a connection to a proxy or a replica. The first call opens the connection. A call
// fails at once if no server listens at addr.
func Dial(addr string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(
		"passthrough:///"+addr,
		append(more, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}

// NoRateLimits returns settings that turn off the rate limits of the replicas, because test users
// make more calls than real users.
func NoRateLimits() map[string]string {
	return map[string]string{"RATE_LIMIT_PER_MINUTE": "0", "AUTH_RATE_LIMIT_PER_MINUTE": "0", "LOGIN_FAILURE_LIMIT": "0"}
}

// ServiceConfig is the gRPC service config that README.md recommends. It retries UNAVAILABLE,
// because every call is safe to repeat.
const ServiceConfig = `{"methodConfig": [{
  "name": [{"service": "dlsms.v1.AuthService"}, {"service": "dlsms.v1.SeatService"},
           {"service": "dlsms.v1.ReservationService"}, {"service": "dlsms.v1.NotifyService"},
           {"service": "dlsms.v1.AdminService"}, {"service": "dlsms.v1.DeskService"},
           {"service": "dlsms.v1.ReportService"}, {"service": "dlsms.v1.ScreenService"}],
  "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
                  "retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

// RetryOptions returns the dial options that README.md recommends. They retry calls and reconnect
// within a second, so that a client survives a restart of the replicas.
func RetryOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultServiceConfig(ServiceConfig),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
			},
			MinConnectTimeout: 3 * time.Second,
		}),
	}
}

// DialFrom is like Dial, but connects from the local address ip, such as 127.0.1.1. Tests of limits
// use it, because nginx and the replicas have limits for each client address.
func DialFrom(addr, ip string) (*grpc.ClientConn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	return Dial(
		addr,
		grpc.WithContextDialer(
			func(ctx context.Context, addr string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) },
		),
	)
}

// Anonymous returns a client without a token.
func Anonymous(conn grpc.ClientConnInterface) *Client { return withToken(conn, "") }

// WithToken returns a client on the same connection with another token.
func (c *Client) WithToken(token string) *Client {
	other := withToken(c.conn, token)
	other.User, other.Password = c.User, c.Password
	return other
}

// WithConn returns a client for the same user and token on another connection.
func (c *Client) WithConn(conn grpc.ClientConnInterface) *Client {
	other := withToken(conn, c.Token)
	other.User, other.Password = c.User, c.Password
	return other
}

// Conn returns the connection, which adds the client's token to each call.
func (c *Client) Conn() grpc.ClientConnInterface { return signed{c.conn, c.Token} }

func withToken(conn grpc.ClientConnInterface, token string) *Client {
	s := signed{conn, token}
	return &Client{
		Auth:         dlsmsv1.NewAuthServiceClient(s),
		Seats:        dlsmsv1.NewSeatServiceClient(s),
		Reservations: dlsmsv1.NewReservationServiceClient(s),
		Notify:       dlsmsv1.NewNotifyServiceClient(s),
		Admin:        dlsmsv1.NewAdminServiceClient(s),
		Desk:         dlsmsv1.NewDeskServiceClient(s),
		Report:       dlsmsv1.NewReportServiceClient(s),
		Token:        token,
		conn:         conn,
	}
}

// ExportMyData returns the document with the data of the user.
func (c *Client) ExportMyData(ctx context.Context) ([]byte, error) {
	stream, err := c.Auth.ExportMyData(ctx, &dlsmsv1.ExportMyDataRequest{})
	if err != nil {
		return nil, err
	}
	var text []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil {
			return nil, err
		}
		text = append(text, part.GetContent()...)
	}
}

// Login logs a user in and returns a client for that user.
func (c *Client) Login(ctx context.Context, studentID, password string) (*Client, error) {
	in, err := c.Auth.Login(ctx, &dlsmsv1.LoginRequest{StudentId: studentID, Password: password})
	if err != nil {
		return nil, fmt.Errorf("log in %s: %w", studentID, err)
	}
	user := withToken(c.conn, in.GetAccessToken())
	user.User, user.Password = in.GetUser(), password
	return user, nil
}

// signed adds a token to each call.
type signed struct {
	conn  grpc.ClientConnInterface
	token string
}

func (s signed) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(s.sign(ctx), callTimeout)
	defer cancel()
	return s.conn.Invoke(ctx, method, args, reply, opts...)
}

func (s signed) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return s.conn.NewStream(s.sign(ctx), desc, method, opts...)
}

func (s signed) sign(ctx context.Context) context.Context {
	if s.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+s.token)
}
