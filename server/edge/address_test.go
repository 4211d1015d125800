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
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")}
	for name, test := range map[string]struct {
		peer   net.Addr
		realIP []string
		want   string
	}{
		"direct":                 {&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 7}, nil, "192.0.2.1"},
		"through nginx":          {&net.TCPAddr{IP: net.ParseIP("10.1.2.3"), Port: 7}, []string{"192.0.2.9"}, "192.0.2.9"},
		"through nginx, v6":      {&net.TCPAddr{IP: net.ParseIP("fd00::1"), Port: 7}, []string{"2001:db8::1"}, "2001:db8::1"},
		"mapped peer":            {&net.TCPAddr{IP: net.ParseIP("::ffff:10.1.2.3"), Port: 7}, []string{"::ffff:192.0.2.9"}, "192.0.2.9"},
		"a liar":                 {&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 7}, []string{"192.0.2.9"}, "192.0.2.1"},
		"nginx without a header": {&net.TCPAddr{IP: net.ParseIP("10.1.2.3"), Port: 7}, nil, "10.1.2.3"},
		"nginx with nonsense":    {&net.TCPAddr{IP: net.ParseIP("10.1.2.3"), Port: 7}, []string{"x"}, "10.1.2.3"},
		"nginx with two":         {&net.TCPAddr{IP: net.ParseIP("10.1.2.3"), Port: 7}, []string{"192.0.2.8", "192.0.2.9"}, "10.1.2.3"},
		"a pipe":                 {&net.UnixAddr{Name: "@", Net: "unix"}, []string{"192.0.2.9"}, "@"},
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
