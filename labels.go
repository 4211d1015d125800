package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dlsms/dlsms/labels"
	"github.com/dlsms/dlsms/library"
)

type labelsCommand struct {
	Branch string `required:"" placeholder:"CODE" help:"Code of the branch."`
	Area   string `placeholder:"NAME" help:"Name of an area. Default: all areas."`
	Link   string `placeholder:"URL" help:"Address of a page, put before each code: the camera of a phone then opens it."`
}

// Run prints the labels of seats. It needs the PRESENCE_SECRET of the replicas.
func (c *labelsCommand) Run(ctx context.Context, s *settings, out io.Writer) error {
	if err := labels.CheckLink(c.Link); err != nil {
		return fmt.Errorf("--link: %w", err)
	}
	if err := s.check(&s.Presence); err != nil {
		return err
	}
	db, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	codes, err := presenceCodes(s.Presence, db.Library())
	if err != nil {
		return err
	}
	if !codes.Enabled() {
		return errors.New("PRESENCE_SECRET is missing: the labels need the secret of the replicas")
	}
	seats, err := db.SeatsToLabel(ctx, library.Host, c.Branch, c.Area, nil)
	if err != nil {
		return fmt.Errorf("labels: %w", err)
	}
	all := make([]labels.Label, len(seats))
	for i, seat := range seats {
		all[i] = labels.Label{Seat: seat.Label, Area: seat.Area, Branch: seat.Branch, Code: codes.Label(seat.SeatID)}
	}
	page, err := labels.Sheet(c.Link, all)
	if err != nil {
		return err
	}
	_, err = out.Write(page)
	return err
}
