package edge

import (
	"net"
	"net/netip"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 7} }
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")}
	for name, test := range map[string]struct {
		peer   net.Addr
		realIP []string
		want   string
	}{
		"direct":                    {tcp("192.0.2.1"), nil, "192.0.2.1"},
		"through nginx":             {tcp("10.1.2.3"), []string{"192.0.2.9"}, "192.0.2.9"},
		"through nginx, IPv6":       {tcp("fd00::1"), []string{"2001:db8::1"}, "2001:db8::1"},
		"mapped peer":               {tcp("::ffff:10.1.2.3"), []string{"::ffff:192.0.2.9"}, "192.0.2.9"},
		"header from another peer":  {tcp("192.0.2.1"), []string{"192.0.2.9"}, "192.0.2.1"},
		"nginx without a header":    {tcp("10.1.2.3"), nil, "10.1.2.3"},
		"nginx with a wrong header": {tcp("10.1.2.3"), []string{"x"}, "10.1.2.3"},
		"nginx with two headers":    {tcp("10.1.2.3"), []string{"192.0.2.8", "192.0.2.9"}, "10.1.2.3"},
		"Unix socket":               {&net.UnixAddr{Name: "@", Net: "unix"}, []string{"192.0.2.9"}, "@"},
	} {
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: test.peer})
		ctx = metadata.NewIncomingContext(ctx, metadata.MD{"x-real-ip": test.realIP})
		if got := clientAddress(ctx, trusted); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestAddressKey(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]AddressKey{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "::1": "::/64", "@": "@", "": "",
	} {
		if got := addressKeyOf(address); got != want {
			t.Errorf("%s counts as %s, want %s", address, got, want)
		}
	}
}
