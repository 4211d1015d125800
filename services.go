package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/dlsms/dlsms/server"
)

// workerService is the name of the worker in SERVICES. It serves no calls.
const workerService = "worker"

// services says what a process runs.
type services struct {
	api    []server.Service // not nil
	worker bool
}

func (s services) serve(name server.Service) bool { return slices.Contains(s.api, name) }

// feed reports whether a part of the process follows the change log.
func (s services) feed() bool {
	return s.worker || s.readModel() || s.serve(server.NotifyService) || s.serve(server.DeskService)
}

// readModel reports whether a part of the process reads seats from memory.
func (s services) readModel() bool {
	return s.serve(server.SeatService) || s.serve(server.ScreenService)
}

// String returns the names, separated by commas.
func (s services) String() string {
	var names []string
	for _, name := range s.api {
		names = append(names, string(name))
	}
	if s.worker {
		names = append(names, workerService)
	}
	return strings.Join(names, ",")
}

// clients reports whether the process serves clients.
func (s services) clients() bool { return len(s.api) > 0 }

// serviceNames reads names of services, separated by commas.
func serviceNames(field *services) value {
	known := make([]string, 0, len(server.Services())+1)
	for _, s := range server.Services() {
		known = append(known, string(s))
	}
	known = append(known, workerService)
	accepts := "some of " + strings.Join(known, ", ") + ", separated by commas"
	return value{field: field, accepts: accepts, read: func(text string) error {
		*field = services{api: []server.Service{}}
		for name := range strings.SplitSeq(text, ",") {
			name = strings.TrimSpace(name)
			switch {
			case name == workerService:
				field.worker = true
			case !slices.Contains(known, name):
				return fmt.Errorf("%q is not a service: set %s", name, accepts)
			case !field.serve(server.Service(name)):
				field.api = append(field.api, server.Service(name))
			}
		}
		return nil
	}}
}

// origins reads origins of web pages, separated by commas.
func origins(field *[]string) value {
	return value{field: field, accepts: "origins such as https://library.example, separated by commas, or *",
		read: func(text string) error {
			*field = nil
			for origin := range strings.SplitSeq(text, ",") {
				if origin = strings.TrimSpace(origin); origin == "" {
					continue
				}
				u, err := url.Parse(origin)
				if origin != "*" && (err != nil || u.Host == "" || u.Scheme+"://"+u.Host != origin) {
					return fmt.Errorf("%q is not an origin such as https://library.example", origin)
				}
				*field = append(*field, origin)
			}
			return nil
		}}
}

// servesHTTP reports whether the process serves clients over HTTP.
func (s *settings) servesHTTP() bool { return s.Services.clients() && s.HTTPAddr != "" }
