package edge

import (
	"context"
	"net"
	"net/netip"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// realIPHeader is where nginx puts the address of the client that it serves.
const realIPHeader = "x-real-ip"

// clientAddress returns the address of the client, without a port. What x-real-ip says counts only if it comes from a trusted proxy:
// from anybody else it would be a way around the limits.
func clientAddress(ctx context.Context, trusted []netip.Prefix) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	from, ok := peerAddress(p.Addr)
	if !ok {
		return p.Addr.String() // a unix socket or an in-process pipe
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

// AddressKey is what limits count clients by: an IPv4 address, or the /64 of an IPv6 address, since a client with one address of a /64 has them
// all. Being a type of its own, it can't be forgotten.
type AddressKey string

// addressKeyOf returns the key of an address that clientAddress returned.
func addressKeyOf(address string) AddressKey {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Is4() {
		return AddressKey(address)
	}
	network, _ := ip.Prefix(64) // never fails
	return AddressKey(network.String())
}
