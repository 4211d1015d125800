package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ParseURL reads a Postgres connection string, a URL or keywords and values, as every use of DATABASE_URL does: the
// check of the settings, the migrations, the pools, and the connections on which the logs are followed. Its errors are
// for an operator and never hold the password.
//
// The pool_* parameters are accepted for the sake of other programs; how many connections there are is for Config.
func ParseURL(url string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, whyNotParsed(err)
	}
	c := config.ConnConfig
	for name := range c.RuntimeParams {
		if strings.HasPrefix(name, "pool_") {
			return nil, fmt.Errorf("%s is not a parameter of a pool", name)
		}
	}
	for name := range sessionSettings() { // which are set once the session is open
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
	c.ConnectTimeout = timeoutOfHost(c)
	if c.ValidateConnect == nil && hosts(c) > 1 {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite // not the first that answers: it may be a standby
	}
	return config, nil
}

// whyNotParsed says why a connection string was refused, without the string and what it may hold of the password.
func whyNotParsed(err error) error {
	if missing, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("a file that it names can't be read: %w", missing)
	}
	return errors.New("is not a Postgres URL: is the password percent-encoded, and are all parameters known?")
}

// hosts is how many hosts a connection string names. One of them may occur several times, with TLS and without.
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

// timeoutOfHost leaves each of several hosts its share of the time that a connection may take: the first may be gone.
func timeoutOfHost(c *pgx.ConnConfig) time.Duration {
	timeout := connectTimeout
	if n := hosts(c); n > 1 {
		timeout = lineTimeout / time.Duration(n)
	}
	if c.ConnectTimeout > 0 {
		timeout = min(timeout, c.ConnectTimeout)
	}
	return timeout
}
