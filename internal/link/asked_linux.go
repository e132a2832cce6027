package link

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
)

// What the kernel is asked about a connection by its addresses (sock_diag(7)).
const (
	netlinkDiag    = 4  // NETLINK_SOCK_DIAG
	diagByFamily   = 20 // SOCK_DIAG_BY_FAMILY
	diagMemory     = 7  // INET_DIAG_SKMEMINFO
	diagRequest    = 56 // bytes of an inet_diag_req_v2 …
	diagAnswer     = 72 // … and of an inet_diag_msg
	diagAddresses  = 8  // where the ports are in the request, and the addresses behind them
	anyDiagCookie  = 0xff
	diagListens    = 10 // TCP_LISTEN
	diagCookieFrom = diagAddresses + 2 + 2 + 16 + 16 + 4
)

// Unsent is how much memory the kernel holds for what was written to the TCP connection of
// these addresses and the peer's has not taken; false: nobody knows. It is for connections
// that are somebody else's, as net/http's, and costs a few system calls.
func Unsent(local net.Addr, remote string) (n int, ok bool) {
	tcp, is := local.(*net.TCPAddr)
	to, err := netip.ParseAddrPort(remote)
	if !is || err != nil {
		return 0, false
	}
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, netlinkDiag)
	if err != nil {
		return 0, false
	}
	defer syscall.Close(fd)
	if err := syscall.Sendto(fd, diagQuestion(tcp.AddrPort(), to), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return 0, false
	}
	var b [1024]byte
	size, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_DONTWAIT) // it was answered at once
	if err != nil {
		return 0, false
	}
	return diagUnsent(b[:size])
}

// diagQuestion asks for the memory of the socket between two addresses.
func diagQuestion(from, to netip.AddrPort) []byte {
	src, dst := from.Addr().Unmap(), to.Addr().Unmap()
	q := make([]byte, syscall.NLMSG_HDRLEN+diagRequest)
	binary.NativeEndian.PutUint32(q, uint32(len(q)))
	binary.NativeEndian.PutUint16(q[4:], diagByFamily)
	binary.NativeEndian.PutUint16(q[6:], syscall.NLM_F_REQUEST)
	d := q[syscall.NLMSG_HDRLEN:]
	d[0] = syscall.AF_INET6
	if src.Is4() {
		d[0] = syscall.AF_INET
	}
	d[1], d[2] = syscall.IPPROTO_TCP, 1<<(diagMemory-1)
	binary.NativeEndian.PutUint32(d[4:], ^uint32(0)) // in any state
	a := d[diagAddresses:]
	binary.BigEndian.PutUint16(a, from.Port())
	binary.BigEndian.PutUint16(a[2:], to.Port())
	copy(a[4:20], src.AsSlice())
	copy(a[20:36], dst.AsSlice())
	for i := diagCookieFrom; i < diagRequest; i++ {
		d[i] = anyDiagCookie
	}
	return q
}

// diagUnsent reads the answer.
func diagUnsent(answer []byte) (n int, ok bool) {
	all, err := syscall.ParseNetlinkMessage(answer)
	if err != nil || len(all) != 1 || all[0].Header.Type != diagByFamily || len(all[0].Data) < diagAnswer || all[0].Data[1] == diagListens {
		return 0, false // or what listens, where there is no such connection
	}
	for rest := all[0].Data[diagAnswer:]; len(rest) >= 4; {
		size, kind := int(binary.NativeEndian.Uint16(rest)), binary.NativeEndian.Uint16(rest[2:])
		if size < 4 || size > len(rest) {
			break
		}
		if kind == diagMemory && size >= 4+4*(wmemQueued+1) {
			return int(binary.NativeEndian.Uint32(rest[4+4*wmemQueued:])), true
		}
		rest = rest[min(len(rest), (size+3)&^3):]
	}
	return 0, false
}
