package typedrpctest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// The same faults between real sockets, outside of any bubble.

// proxied returns both ends of a TCP connection through a proxy of its own.
func proxied(t *testing.T, o *typedrpctest.ProxyOptions) (p *typedrpctest.Proxy, dialer, listener net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err = typedrpctest.NewProxy(l.Addr().String(), o)
	if err != nil {
		t.Fatal(err)
	}
	if dialer, err = net.Dial("tcp", p.Addr()); err != nil {
		t.Fatal(err)
	}
	if listener, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for p.Stats().Dialled == 0 { // the listener knows a moment earlier
		time.Sleep(time.Millisecond)
	}
	deadline := time.Now().Add(time.Minute) // of a test that fails
	dialer.SetDeadline(deadline)
	listener.SetDeadline(deadline)
	t.Cleanup(func() {
		p.Close()
		dialer.Close()
		listener.Close()
		l.Close()
	})
	return p, dialer, listener
}

func TestProxy_carriesBytesAndTheirEnd(t *testing.T) {
	for _, c := range []typedrpctest.Conditions{{}, {Slice: 1}, {Buffer: 10}, {Jitter: time.Millisecond}} {
		is := is.New(t)
		p, a, b := proxied(t, &typedrpctest.ProxyOptions{Up: c, Down: c})
		want := bytes.Repeat([]byte("0123456789"), 1000)
		for _, d := range ways {
			from, to := ends(d, a, b)
			go func() {
				from.Write(want)
				from.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(to)
			is.NoErr(err)
			is.True(bytes.Equal(got, want))
		}
		s := p.Stats()
		is.Equal(s.Up, int64(10_000))
		is.Equal(s.Down, int64(10_000))
		is.Equal(s.Cuts, 0)
	}
}

func TestProxy_resetTravels(t *testing.T) {
	for _, d := range ways {
		is := is.New(t)
		_, a, b := proxied(t, nil)
		from, to := ends(d, a, b)
		from.(*net.TCPConn).SetLinger(0)
		from.Close()
		_, err := to.Read(make([]byte, 1))
		is.True(errors.Is(err, syscall.ECONNRESET))
	}
}

func TestProxy_latency(t *testing.T) {
	is := is.New(t)
	c := typedrpctest.Conditions{Latency: 20 * time.Millisecond}
	_, a, b := proxied(t, &typedrpctest.ProxyOptions{Up: c, Down: c})
	go io.Copy(b, b)
	began := time.Now()
	a.Write([]byte("x"))
	_, err := io.ReadFull(a, make([]byte, 1))
	is.NoErr(err)
	is.True(time.Since(began) >= 40*time.Millisecond)
}

func TestProxy_cut(t *testing.T) {
	for _, how := range hows {
		is := is.New(t)
		p, a, b := proxied(t, nil)
		is.Equal(p.Links()[0].Host(), "")
		is.Equal(p.CutAll(how), 1)
		is.Equal(p.Stats().Cuts, 1)
		is.Equal(p.Stats().Open, 0)
		want := map[typedrpctest.Cut][2]error{
			typedrpctest.CutClose:    {io.EOF, io.EOF},
			typedrpctest.CutReset:    {syscall.ECONNRESET, syscall.ECONNRESET},
			typedrpctest.CutDialer:   {syscall.ECONNRESET, os.ErrDeadlineExceeded},
			typedrpctest.CutListener: {os.ErrDeadlineExceeded, syscall.ECONNRESET},
		}[how]
		for i, c := range []net.Conn{a, b} {
			if want[i] == os.ErrDeadlineExceeded {
				c.SetDeadline(time.Now().Add(50 * time.Millisecond))
			}
			_, err := c.Read(make([]byte, 1))
			if !errors.Is(err, want[i]) {
				t.Errorf("%v: end %d: %v", how, i, err)
			}
		}
	}
}

func TestProxy_cutAfter(t *testing.T) {
	for _, d := range ways {
		is := is.New(t)
		p, a, b := proxied(t, nil)
		from, to := ends(d, a, b)
		p.Links()[0].CutAfter(d, 10, typedrpctest.CutClose)
		from.Write(make([]byte, 1000))
		got, err := io.ReadAll(to)
		is.True(err == nil || errors.Is(err, syscall.ECONNRESET)) // the rest of what was sent is still unread there
		is.True(len(got) <= 10)
		is.Equal(len(p.Links()), 0)
		is.Equal(p.Stats().Up+p.Stats().Down, int64(10))
	}
}

func TestProxy_blackHole(t *testing.T) {
	is := is.New(t)
	p, a, b := proxied(t, nil)
	p.Set(typedrpctest.Up, typedrpctest.Conditions{BlackHole: true})
	for range 100 {
		_, err := a.Write(make([]byte, 100_000))
		is.NoErr(err)
	}
	b.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err := b.Read(make([]byte, 1))
	is.True(errors.Is(err, os.ErrDeadlineExceeded))
	_, err = b.Write([]byte("x"))
	is.NoErr(err)
	_, err = io.ReadFull(a, make([]byte, 1))
	is.NoErr(err)
}

// Close returns when everything has ended, also what would never have.
func TestProxy_close(t *testing.T) {
	for _, how := range hows {
		is := is.New(t)
		p, a, b := proxied(t, &typedrpctest.ProxyOptions{Up: typedrpctest.Conditions{Stall: true}, Down: typedrpctest.Conditions{BlackHole: true}})
		go a.Write(make([]byte, 10<<20))
		go b.Write(make([]byte, 10<<20))
		p.CutAll(how)
		is.NoErr(p.Close())
		is.NoErr(p.Close())
		_, err := net.Dial("tcp", p.Addr())
		is.True(errors.Is(err, syscall.ECONNREFUSED))
		a.Close()
		b.Close()
	}
}

func TestProxy_unreachableTargetEndsTheConnection(t *testing.T) {
	is := is.New(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	l.Close()
	p, err := typedrpctest.NewProxy("http://"+l.Addr().String()+"/path", nil)
	is.NoErr(err)
	defer p.Close()
	c, err := net.Dial("tcp", p.Addr())
	if err == nil { // else it was ended before Dial knew
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	is.True(err != nil)
	is.Equal(p.Stats(), typedrpctest.Stats{})
	_, err = typedrpctest.NewProxy(l.Addr().String(), &typedrpctest.ProxyOptions{Listen: p.Addr()})
	is.True(errors.Is(err, syscall.EADDRINUSE))
}

func TestProxy_typedrpc(t *testing.T) {
	is := is.New(t)
	hs := httptest.NewServer(&typedrpc.Server{Mux: greeter()})
	defer hs.Close()
	p, err := typedrpctest.NewProxy(hs.URL, &typedrpctest.ProxyOptions{Seed: 1, Up: typedrpctest.Conditions{Slice: 7}})
	is.NoErr(err)
	defer p.Close()
	rec := typedrpctest.NewRecorder(nil)
	rec.LogOnFailure(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := typedrpc.Dial(ctx, p.URL(), rec.Tap(&typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Millisecond, Max: time.Millisecond}}))
	is.NoErr(err)
	defer client.Close()
	p.CutEach(typedrpctest.Both, 2_000, 8_000, typedrpctest.CutReset)
	for i := range 100 {
		got, err := typedrpc.Call(ctx, client, greet, fmt.Sprint(i))
		if err == nil {
			is.Equal(got, fmt.Sprint("hello ", i))
		} else {
			is.True(errors.Is(err, typedrpc.Unavailable)) // lost too often
		}
		if i%10 == 0 {
			p.CutAll(typedrpctest.CutClose)
		}
	}
	is.True(p.Stats().Cuts >= 10)
	is.True(p.Stats().Dialled >= 10)
	is.True(strings.Contains(rec.String(), "#10 opened"))
}
