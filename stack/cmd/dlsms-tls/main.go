// Command dlsms-tls makes a self-signed certificate for the clients of DL-SMS, or checks the one
// that is there. `make tls` calls it.
package main

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dlsms/dlsms/stack"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Geteuid())
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "dlsms:", err)
		os.Exit(1)
	}
}

const (
	// lifetime is the lifetime of a self-signed certificate.
	lifetime = 365 * 24 * time.Hour
	// slowClock is how far the clock of a client may be behind.
	slowClock = time.Hour
	// nginxUser is the id of the user and of the group that run nginx in the compose files.
	nginxUser = 101
)

// run makes or checks the certificate. uid is the user that runs it: root gives the key to nginx.
func run(args []string, out io.Writer, uid int) error {
	flags := flag.NewFlagSet("dlsms-tls", flag.ContinueOnError)
	dir := flags.String("dir", "deploy/tls", "directory of certificate.pem and key.pem")
	list := flags.String("names", "",
		"host names and addresses of the server, separated by spaces (default: localhost and this host)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	names := strings.Fields(*list)
	certificate, key := filepath.Join(*dir, "certificate.pem"), filepath.Join(*dir, "key.pem")
	c, err := stack.CheckCertificate(*dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(key); err == nil {
			return fmt.Errorf("%s exists, but %s does not: copy the certificate of this key there, or remove the key",
				key, certificate)
		}
		if len(names) == 0 {
			names = defaultNames()
		}
		now := time.Now()
		if err := stack.MakeCertificate(*dir, names, now.Add(-slowClock), now.Add(lifetime)); err != nil {
			return err
		}
		if c, err = stack.CheckCertificate(*dir); err != nil {
			return err
		}
		fmt.Fprintf(out, "Made a self-signed certificate: %s, and its key: %s.\n", certificate, key)
	case err != nil:
		return err
	default:
		if err := checkNames(c, certificate, key, names); err != nil {
			return err
		}
		fmt.Fprintf(out, "Kept the certificate %s. Its key is right.\n", certificate)
	}
	fmt.Fprintf(out, "It is for %s, until %s.\n", strings.Join(namesOf(c), ", "), c.NotAfter.UTC().Format(time.DateOnly))
	if err := giveKey(key, out, uid); err != nil {
		return err
	}
	fmt.Fprint(out, "docker compose: nginx loads it within a minute.\nmake run: start it again.\n")
	fmt.Fprintf(out, "A client that does not trust its issuer needs the file: curl --cacert %s https://%s:8443/v1/seats\n",
		certificate, namesOf(c)[0])
	return nil
}

// defaultNames returns the names of a server on this host.
func defaultNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && stack.ValidServerName(host) && !slices.Contains(names, host) {
		names = append(names, host)
	}
	return names
}

// checkNames returns an error if a certificate that exists has expired, or is not for these names.
func checkNames(c *x509.Certificate, certificate, key string, names []string) error {
	advice := fmt.Sprintf("copy another one and its key there, or remove %s and %s and run `make tls` again",
		certificate, key)
	if time.Now().After(c.NotAfter) {
		return fmt.Errorf("%s expired on %s: %s", certificate, c.NotAfter.UTC().Format(time.DateOnly), advice)
	}
	for _, name := range names {
		if err := c.VerifyHostname(name); err != nil {
			return fmt.Errorf("%s is for %s, not for %q: %s", certificate, strings.Join(namesOf(c), ", "), name, advice)
		}
	}
	return nil
}

// namesOf returns the names of a certificate, at least one.
func namesOf(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{"no name"}
	}
	return names
}

// giveKey lets nginx in compose read the key. As an ordinary user it prints the command for that.
func giveKey(key string, out io.Writer, uid int) error {
	info, err := os.Stat(key)
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid == nginxUser {
		return nil
	}
	if uid != 0 {
		fmt.Fprintf(out, "For docker compose, give the key to the user of nginx: sudo chown %d %s\n", nginxUser, key)
		return nil
	}
	if err := os.Chown(key, nginxUser, nginxUser); err != nil {
		return fmt.Errorf("%w: let user %d read the key, because nginx in docker compose runs as this user", err, nginxUser)
	}
	fmt.Fprintf(out, "The key belongs to user %d, which runs nginx in docker compose.\n", nginxUser)
	return nil
}
