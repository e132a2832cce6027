package link

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/matryer/is"
)

// TestUnsent_byAddresses says of a connection what its socket says, and nothing of one that
// there is not.
func TestUnsent_byAddresses(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		t.Run(address, func(t *testing.T) {
			is := is.New(t)
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Skip(err) // a machine without IPv6
			}
			defer l.Close()
			at := l.Addr().(*net.TCPAddr)
			if at.IP.IsUnspecified() {
				at = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: at.Port} // of a socket for both
			}
			far, err := net.DialTCP("tcp", nil, at)
			is.NoErr(err)
			defer far.Close()
			near, err := l.Accept()
			is.NoErr(err)
			defer near.Close()
			remote := near.RemoteAddr().String()
			if _, ok := Unsent(near.LocalAddr(), remote); !ok {
				t.Skip("the kernel does not tell")
			}
			for err == nil { // until neither kernel takes any more
				near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
				_, err = near.Write(make([]byte, 1<<20))
			}
			is.True(errors.Is(err, os.ErrDeadlineExceeded))
			want, ok := unsent(near)
			is.True(ok && want > leastTaken)
			n, ok := Unsent(near.LocalAddr(), remote)
			is.True(ok)
			is.Equal(n, want)
			for n == want { // until so much of it is read that the peer's kernel takes some
				if _, err := far.Read(make([]byte, 64<<10)); err != nil {
					t.Fatal(err)
				}
				n, ok = Unsent(near.LocalAddr(), remote)
				is.True(ok)
			}
			_, ok = Unsent(near.LocalAddr(), "192.0.2.1:1")
			is.True(!ok)
			_, ok = Unsent(near.LocalAddr(), "no address")
			is.True(!ok)
		})
	}
}

// FuzzDiagUnsent reads any answer without panicking.
func FuzzDiagUnsent(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 200))
	f.Fuzz(func(_ *testing.T, answer []byte) { diagUnsent(answer) })
}
