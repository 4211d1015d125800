//go:build !linux

package edge

import "net"

// peerClosed reports whether the other side has closed a connection. Only Linux tells without reading what was sent before.
func peerClosed(net.Conn) bool { return false }
