package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dlsms/dlsms/certificate"
)

// ParseURL parses a Postgres connection string: a URL, or keywords and values. Every use of
// DATABASE_URL parses it with this function: the check of the settings, the migrations, the pools
// and the connections that follow the change log and the revocation list. Its errors are for an
// operator and never contain the password.
//
// ParseURL accepts the pool_* parameters, because other programs use them, and ignores them: Config
// sets the number of connections.
func ParseURL(url string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, parseError(err)
	}
	c := config.ConnConfig
	for name := range c.RuntimeParams {
		if strings.HasPrefix(name, "pool_") {
			return nil, fmt.Errorf("%s is not a parameter of a pool", name)
		}
	}
	for name := range sessionSettings() { // prepareSession sets them in the open session
		delete(c.RuntimeParams, name)
	}
	switch c.DefaultQueryExecMode {
	case pgx.QueryExecModeCacheStatement:
		if c.StatementCacheCapacity == 0 {
			return nil, errors.New("statement_cache_capacity must be above 0 with default_query_exec_mode=cache_statement")
		}
	case pgx.QueryExecModeCacheDescribe:
		if c.DescriptionCacheCapacity == 0 {
			return nil, errors.New("description_cache_capacity must be above 0 with default_query_exec_mode=cache_describe")
		}
	case pgx.QueryExecModeDescribeExec:
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		return nil, errors.New("default_query_exec_mode must be cache_statement, cache_describe or describe_exec:" +
			" in the other modes Postgres is not asked for the types of the parameters")
	}
	c.ConnectTimeout = hostTimeout(c)
	if c.ValidateConnect == nil && hosts(c) > 1 {
		// The first host that answers may be a standby.
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return config, nil
}

// parseError returns an error for a connection string that does not parse. The error leaves out the
// string, because it may contain the password.
func parseError(err error) error {
	if missing, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("a file that it names can't be read: %w", missing)
	}
	return errors.New("is not a Postgres URL: is the password percent-encoded, are all parameters known, " +
		"and does the file of sslrootcert have certificates in PEM?")
}

// ExplainCertificate returns an error that names the fault of the server's certificate, if err has
// this cause. It returns any other err unchanged.
func ExplainCertificate(err error) error {
	failed, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return err
	}
	c := failed.Config
	addresses := []string{net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	for _, f := range c.Fallbacks {
		addresses = append(addresses, net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))))
	}
	return certificate.Server{
		Name:    "Postgres at " + strings.Join(slices.Compact(addresses), " or "),
		Address: "DATABASE_URL",
		CA:      "sslrootcert in DATABASE_URL",
	}.Explain(err)
}

// hosts returns the number of distinct hosts in a connection string. pgx lists a host twice to try
// it with TLS and without.
func hosts(c *pgx.ConnConfig) int {
	type host struct {
		name string
		port uint16
	}
	named := map[host]bool{{c.Host, c.Port}: true}
	for _, f := range c.Fallbacks {
		named[host{f.Host, f.Port}] = true
	}
	return len(named)
}

// hostTimeout returns the connect timeout of each host. If there are several hosts, each gets an
// equal part of logConnTimeout, so that an unreachable first host leaves time for the next.
func hostTimeout(c *pgx.ConnConfig) time.Duration {
	timeout := connectTimeout
	if n := hosts(c); n > 1 {
		timeout = logConnTimeout / time.Duration(n)
	}
	if c.ConnectTimeout > 0 {
		timeout = min(timeout, c.ConnectTimeout)
	}
	return timeout
}
