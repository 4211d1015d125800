package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
	"github.com/dlsms/dlsms/labels"
)

type screenCommand struct {
	Server string `default:"127.0.0.1:9090" placeholder:"ADDR" help:"Address of the server for gRPC (${default})."`
	TLS    bool   `name:"tls" help:"Connect with TLS."`
	Key    string `required:"" env:"SCREEN_KEY" placeholder:"KEY" help:"Service key with the scope screen (SCREEN_KEY)."`
	Screen string `placeholder:"NAME" help:"Name of the screen. Default: the only screen of the branch."`
	Link   string `placeholder:"URL" help:"Address of a page, put before the code: the camera of a phone then opens it."`
}

// reconnectAfter is how long the screen waits before it connects again.
const reconnectAfter = 2 * time.Second

// Run shows the screen until ctx ends. While it has no connection, it shows the codes that it has,
// and then tells users to go to the desk.
func (c *screenCommand) Run(ctx context.Context, _ *settings, out io.Writer) error {
	creds := insecure.NewCredentials()
	if c.TLS {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	if err := labels.CheckLink(c.Link); err != nil {
		return fmt.Errorf("--link: %w", err)
	}
	conn, err := grpc.NewClient(c.Server, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer conn.Close()
	states := make(chan received)
	go c.follow(ctx, dlsmsv1.NewScreenServiceClient(conn), states)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last received
	var shown string
	for {
		text, err := last.text(c.Link, c.now())
		if err != nil {
			return err
		}
		if text != shown {
			shown = text
			fmt.Fprint(out, "\x1b[H\x1b[2J", text)
		}
		select {
		case <-ctx.Done():
			return nil
		case next := <-states:
			if next.state == nil { // the stream has ended
				next.state, next.ahead = last.state, last.ahead
			}
			last = next
		case <-tick.C:
		}
	}
}

// silence is the longest time without a message of the stream. The server sends one at least every 25
// seconds. A connection that is dead may never report an error.
const silence = time.Minute

// began is the beginning of the program's clock.
var began = time.Now()

// now returns the time of a clock that cannot be set: the time of the machine when the program began,
// and the time that has passed since then.
func (*screenCommand) now() time.Time { return began.Round(0).Add(time.Since(began)) }

// received is the state that the screen has.
type received struct {
	state *dlsmsv1.ScreenState // nil: none yet
	ahead time.Duration        // how far the server's clock is ahead of the clock of this program
	fault string               // why no states arrive; empty: they do
}

// follow sends each state that the server sends, and each fault of the connection, until ctx ends.
func (c *screenCommand) follow(ctx context.Context, client dlsmsv1.ScreenServiceClient, states chan<- received) {
	send := func(r received) {
		select {
		case states <- r:
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		err := c.watch(ctx, client, send)
		send(received{fault: c.fault(err)})
		select {
		case <-ctx.Done():
		case <-time.After(reconnectAfter):
		}
	}
}

// fault returns what the screen shows after an error of its stream.
func (c *screenCommand) fault(err error) string {
	switch s := status.Convert(err); s.Code() {
	case codes.Unauthenticated:
		return "The key of this screen is not valid. An admin can create another one."
	case codes.NotFound:
		return fmt.Sprintf("The branch has no screen %q. Start this program with --screen and the name of one.", c.Screen)
	case codes.InvalidArgument:
		return "The branch has several screens. Start this program with --screen and the name of a screen."
	case codes.PermissionDenied, codes.FailedPrecondition, codes.Unimplemented:
		return "This screen is not set up: " + s.Message() + "."
	case codes.Unavailable, codes.Canceled:
		return "No connection to " + c.Server + "."
	default:
		return "No connection to " + c.Server + ": " + s.Message() + "."
	}
}

// watch sends the states of one stream. Its error tells why the stream ended.
func (c *screenCommand) watch(
	ctx context.Context, client dlsmsv1.ScreenServiceClient, send func(received),
) error {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.Key))
	defer cancel()
	dead := time.AfterFunc(silence, cancel)
	defer dead.Stop()
	stream, err := client.WatchScreen(ctx, &dlsmsv1.WatchScreenRequest{Screen: c.Screen})
	if err != nil {
		return err
	}
	// A message that was delayed makes the server's clock seem late, and none can make it seem early.
	var ahead time.Duration
	for first := true; ; first = false {
		m, err := stream.Recv()
		dead.Reset(silence)
		if errors.Is(err, io.EOF) {
			return errors.New("the server has ended the stream")
		}
		if err != nil {
			return err
		}
		if m.GetState() != nil {
			if off := m.GetServerTime().AsTime().Sub(c.now()); first || off > ahead {
				ahead = off
			}
			send(received{state: m.GetState(), ahead: ahead})
		}
	}
}

// text returns what the screen shows at a time of the clock of this program. It has at most 24 lines,
// so that the code of 31 characters with a link of 40 fits on the smallest terminal.
func (r received) text(link string, now time.Time) (string, error) {
	var lines []string
	branch := r.state.GetBranch()
	place := ""
	if branch != nil {
		place = branch.GetName() + ", " + r.state.GetName() + ". "
	}
	if code := codeAt(r.state.GetCodes(), now.Add(r.ahead)); code == nil {
		lines = append(lines, place+"To check in, ask at the desk.")
	} else {
		picture, err := labels.Text(link + code.GetCode())
		if err != nil {
			return "", err
		}
		digits := code.GetDigits()
		lines = append(lines, fmt.Sprintf("%sTo check in, scan this code or enter %s %s", place, digits[:4], digits[4:]),
			strings.TrimSuffix(picture, "\n"))
	}
	if branch != nil && r.fault == "" {
		lines = append(lines, fmt.Sprintf("%d of %d seats are free.", branch.GetAvailableCount(), branch.GetSeatCount()))
	}
	for _, language := range []string{"en", "de", "zh"} {
		if text := branch.GetAnnouncement()[language]; text != "" {
			lines = append(lines, text)
			break
		}
	}
	if r.fault != "" {
		lines = append(lines, r.fault)
	}
	return strings.Join(lines, "\n"), nil
}

// codeAt returns the code to show at a time of the server's clock, or nil if none is valid.
func codeAt(codes []*dlsmsv1.ScreenCode, now time.Time) (shown *dlsmsv1.ScreenCode) {
	for _, c := range codes {
		if !now.Before(c.GetValidFrom().AsTime()) && now.Before(c.GetValidUntil().AsTime()) {
			shown = c
		}
	}
	return shown
}
