package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// link is a fault proxy between two parts of the system, such as a replica and Postgres.
type link struct {
	between string // the two ends, such as "replica-postgres"
	*toxiproxy.Proxy
}

// proxies are the fault proxies of a system.
type proxies struct {
	server *toxiproxy.ApiServer // required by the proxies; it does not listen
	links  []*link
}

func newProxies() *proxies {
	return &proxies{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())}
}

// addLink starts a fault proxy that forwards to the address upstream, and returns the address of
// the proxy. The parameter between names the two ends.
func (p *proxies) addLink(between, upstream string) (listen string, err error) {
	l := &link{between, toxiproxy.NewProxy(p.server, fmt.Sprintf("%s-%d", between, len(p.links)), "127.0.0.1:0", upstream)}
	if err := l.Start(); err != nil {
		return "", fmt.Errorf("proxy %s: %w", l.Name, err)
	}
	p.links = append(p.links, l)
	return l.Listen, nil
}

// addLinks starts a fault proxy for each host:port, and returns the addresses of the proxies.
func (p *proxies) addLinks(between string, upstreams []string) ([]string, error) {
	listen := make([]string, len(upstreams))
	for i, upstream := range upstreams {
		var err error
		if listen[i], err = p.addLink(between, upstream); err != nil {
			return nil, err
		}
	}
	return listen, nil
}

// proxyURL starts a fault proxy for the host of a URL, and returns the URL with the address of the
// proxy.
func (p *proxies) proxyURL(between, raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	u.Host, err = p.addLink(between, u.Host)
	return u.String(), err
}

func (p *proxies) stop() {
	for _, l := range p.links {
		l.Stop()
	}
}

// toxic is a change of the traffic of a link, such as a delay. json has the settings of one toxic
// of toxiproxy for each direction that is changed.
type toxic struct {
	name string
	json []string
}

// toxics are all toxics. "black hole" drops all data. When it is removed, the proxy closes the
// connections, as a firewall does that has lost its state. "lost replies" drops only the data to
// the client: the server does what the client asks, but the client gets no answer.
var toxics = []toxic{
	{"latency", []string{`{"type": "latency", "stream": "downstream", "attributes": {"latency": 80, "jitter": 60}}`}},
	{"reset", []string{`{"type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 0}}`}},
	{"black hole", []string{
		`{"type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`,
		`{"type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`,
	}},
	{"lost replies", []string{`{"type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`}},
}

// addToxic adds a toxic to the link, and returns the function that removes it.
func (l *link) addToxic(t toxic) (heal func() error, err error) {
	var names []string
	heal = func() error {
		var errs []error
		for _, name := range names {
			errs = append(errs, l.Toxics.RemoveToxic(context.Background(), name))
		}
		return errors.Join(errs...)
	}
	for _, text := range t.json {
		added, err := l.Toxics.AddToxicJson(strings.NewReader(text))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s on %s: %w", t.name, l.Name, err), heal())
		}
		names = append(names, added.Name)
	}
	return heal, nil
}
