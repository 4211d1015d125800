package main

import (
	"context"
	"fmt"
	"io"

	"github.com/alecthomas/kong"
)

// cli declares the commands. The settings are flags of every command: see settings.flags.
type cli struct {
	Serve    serveCommand      `cmd:"" help:"Migrate the database, then serve clients until SIGTERM."`
	Migrate  migrateCommand    `cmd:"" help:"Migrate the database to the schema of this binary."`
	Seed     seedCommand       `cmd:"" help:"Add the demo data. Not for production: its users have a known password."`
	Cancel   cancelCommand     `cmd:"" help:"Cancel a reservation for its user, and offer its seat to the waitlist."`
	Erase    eraseCommand      `cmd:"" help:"Erase a user: end tokens, reservations, waitlist entries; blank the data."`
	Personal exportUserCommand `cmd:"" name:"export-user" help:"Print all data about a user, as JSON."`
	Closed   closedCommand     `cmd:"" help:"List the closed accounts, or close them again after a restore."`
	Grant    grantCommand      `cmd:"" help:"Set the role of a user. It makes the first admin; admins then use the API."`
	Seats    seatsCommand      `cmd:"" help:"Import or export the seats of branches as a CSV file."`
	Usage    usageCommand      `cmd:"" help:"Print how the seats are used, as CSV: time, check-ins, no-shows, waitlist."`
	Export   rowsCommand       `cmd:"" help:"Print reservations as CSV, with a pseudonym for each person."`
	Labels   labelsCommand     `cmd:"" help:"Print the labels of the seats of a branch as a page in HTML."`
	Screen   screenCommand     `cmd:"" help:"Show the code and the digits of a screen in this terminal."`
	Health   healthCommand     `cmd:"" name:"healthcheck" help:"Exit 0 if the replica at GRPC_ADDR is healthy, 1 if not."`
	Version  versionCommand    `cmd:"" help:"Print the version, the revision and the Go version of this binary."`
}

const description = "One replica of the Distributed Library Seat Management System. " +
	"Every setting is an environment variable and a flag; the flag wins."

// exitPanic is an exit code. After --help, kong calls its exit function, which must not return. So
// the exit function panics with an exitPanic, and run recovers it.
type exitPanic int

// run runs the command named by args. The output of the command goes to stdout, the output of kong
// about errors in args to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exitPanic:
			if r != 0 {
				err = fmt.Errorf("exit %d", int(r))
			}
		default:
			panic(r)
		}
	}()
	s := newSettings()
	flags := s.flags()
	parser, err := kong.New(&cli{},
		kong.Embed(flags),
		kong.Name("dlsms"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exitPanic(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 120}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
		kong.Bind(s),
	)
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	if err != nil {
		return fmt.Errorf("dlsms: %w; try dlsms --help", err)
	}
	s.read(flags)
	return command.Run()
}
