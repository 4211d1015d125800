package edge

import (
	"context"
	"net"
	"net/netip"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// realIPHeader is the header in which nginx sends the address of its client.
const realIPHeader = "x-real-ip"

// clientAddress returns the address of the client, without a port. It reads x-real-ip only from a
// trusted proxy: any other peer could send a false address and so bypass the limits.
func clientAddress(ctx context.Context, trusted []netip.Prefix) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	from, ok := peerAddress(p.Addr)
	if !ok {
		return p.Addr.String() // a Unix socket or an in-process pipe
	}
	for _, prefix := range trusted {
		if !prefix.Contains(from) {
			continue
		}
		if v := metadata.ValueFromIncomingContext(ctx, realIPHeader); len(v) == 1 {
			if client, err := netip.ParseAddr(v[0]); err == nil {
				return client.Unmap().WithZone("").String()
			}
		}
		break
	}
	return from.String()
}

func peerAddress(addr net.Addr) (netip.Addr, bool) {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		ap := tcp.AddrPort().Addr()
		return ap.Unmap().WithZone(""), ap.IsValid()
	}
	ap, err := netip.ParseAddrPort(addr.String())
	return ap.Addr().Unmap().WithZone(""), err == nil
}

// AddressKey identifies a client for the limits that count by address. It is an IPv4 address, or
// the /64 network of an IPv6 address, because a client with one address of a /64 can use all of
// them. AddressKey is a separate type so that no limit counts by the bare address.
type AddressKey string

// addressKeyOf returns the key of an address from clientAddress.
func addressKeyOf(address string) AddressKey {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Is4() {
		return AddressKey(address)
	}
	network, _ := ip.Prefix(64) // never fails
	return AddressKey(network.String())
}
