// Command dlsms is one replica of the Distributed Library Seat Management System, and the tools that go with it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // the zones of branches, also where the system has none

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// cli is the command line: all settings, and what to do.
type cli struct {
	settings

	Serve       serveCommand       `cmd:"" help:"Serve clients until SIGTERM. Migrates the database first."`
	Migrate     migrateCommand     `cmd:"" help:"Bring the database to the schema of this binary, and stop."`
	Seed        seedCommand        `cmd:"" help:"Add the demo data, and stop. Not for production: its users have a known password."`
	Cancel      cancelCommand      `cmd:"" help:"End a reservation for its user, and offer its seat to the waitlist."`
	Erase       eraseCommand       `cmd:"" help:"Make the system forget a user: end their tokens, reservations and waitlist entries, and blank what names them."`
	Healthcheck healthcheckCommand `cmd:"" help:"Ask the replica at GRPC_ADDR whether it is healthy: exit 0 if it is, 1 if not."`
}

// errExit carries the exit that kong asks for after --help, so that run returns instead.
type errExit int

func (errExit) Error() string { return "exit" }

// run is main, but for the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	defer func() {
		if code, ok := recover().(errExit); ok && code != 0 {
			err = fmt.Errorf("exit %d", int(code))
		}
	}()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("dlsms"),
		kong.Description("One replica of the Distributed Library Seat Management System. Every setting is an environment variable and a flag; the flag wins."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(errExit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 120}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
		kong.Bind(&c.settings),
	)
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	if err != nil {
		return fmt.Errorf("dlsms: %w; try dlsms --help", err)
	}
	return command.Run()
}
