package link

import (
	"encoding/binary"
	"io"
	"net"
	"syscall"
)

// socketMemory is SO_MEMINFO, whose answer is a list of numbers, wmemQueued the place of what
// waits to be acknowledged by the peer's kernel among them.
const (
	socketMemory = 55
	wmemQueued   = 5
)

// unsent is how much memory the kernel holds for what was written to c and the peer's has not
// taken; false: nobody knows.
func unsent(c io.Closer) (n int, ok bool) {
	if t, is := c.(interface{ NetConn() net.Conn }); is { // TLS
		c = t.NetConn()
	}
	s, is := c.(syscall.Conn)
	if !is {
		return 0, false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, false
	}
	raw.Control(func(fd uintptr) {
		// The type is another option's. It has room for eight numbers, and package syscall
		// asks for no list.
		info, err := syscall.GetsockoptIPv6MTUInfo(int(fd), syscall.SOL_SOCKET, socketMemory)
		if err != nil {
			return
		}
		const first = 2 // the address begins there
		n = int(binary.NativeEndian.Uint32(info.Addr.Addr[4*(wmemQueued-first):]))
		ok = true
	})
	return n, ok
}
