//go:build !linux

package link

import "net"

// Unsent is how much memory the kernel holds for what was written to the TCP connection of
// these addresses and the peer's has not taken; false: nobody knows.
func Unsent(net.Addr, string) (n int, ok bool) { return 0, false }
