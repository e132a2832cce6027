package link

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// rawClient is a client of a WebSocket that writes frames by hand. It works in a
// bubble.
type rawClient struct {
	net.Conn
	closed atomic.Int64 // the code with which the server closed, 1: none
	pongs  atomic.Int64
}

// one is a listener for one connection.
type one struct {
	conn chan net.Conn
	done chan struct{}
}

func (l one) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l one) Close() error   { return nil }
func (l one) Addr() net.Addr { return &net.TCPAddr{} }

// rawSocket returns a client by hand, and a link of the server's that runs.
func rawSocket(t *testing.T, o Options, a Account) (*rawClient, *Link, *upper) {
	t.Helper()
	near, far := net.Pipe()
	l := one{make(chan net.Conn, 1), make(chan struct{})}
	l.conn <- far
	accepted := make(chan Transport, 1)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tr, err := Accept(w, r, "", false); err == nil {
			accepted <- tr
		}
	}))
	c := &rawClient{Conn: near}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	br := bufio.NewReader(near)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	go c.collect(br)
	u := new(upper)
	o.Codes = Codes{Slow: 4408, Full: 4413, Flood: 4429}
	server := <-accepted
	server.SetReadLimit(8 << 20)
	k := New(server, u, o)
	if a != nil {
		k.Charge(a)
	}
	ended := make(chan struct{})
	go func() { k.Run(); close(ended) }()
	t.Cleanup(func() {
		k.Fail(&CloseError{})
		near.Close()
		<-ended
		close(l.done)
	})
	return c, k, u
}

// collect reads what the server says, which is short.
func (c *rawClient) collect(br *bufio.Reader) {
	defer c.closed.CompareAndSwap(0, 1)
	for {
		var head [2]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return
		}
		p := make([]byte, head[1])
		io.ReadFull(br, p)
		switch head[0] & 15 {
		case opClose:
			c.closed.Store(int64(binary.BigEndian.Uint16(p)))
		case opPong:
			c.pongs.Add(1)
		}
	}
}

const (
	opContinue, opBinary, opClose, opPing, opPong = 0, 2, 8, 9, 10

	fin = 1 << 7
)

// frame is a frame, masked with nothing, whose head announces n bytes.
func frame(first byte, n int, payload []byte) []byte {
	b := []byte{first}
	switch {
	case n < 126:
		b = append(b, fin|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, fin|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, fin|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// repeat writes p n times, in large pieces, until nobody takes it.
func (c *rawClient) repeat(p []byte, n int) {
	var all []byte
	for range n {
		if all = append(all, p...); len(all) > 16<<10 {
			if _, err := c.Write(all); err != nil {
				return
			}
			all = all[:0]
		}
	}
	c.Write(all)
}

func bubble(t *testing.T, name string, f func(t *testing.T, is *is.I)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, is.New(t)) })
	})
}

// A message that is begun and comes too slowly is given up, whatever else comes
// in between, and one that is slow and comes is not.
func TestIntake_rate(t *testing.T) {
	for _, test := range []struct {
		name    string
		minRate int
		first   int    // bytes that come at once
		each    []byte // what comes every second
		code    int64
		most    time.Duration
	}{
		{"nothing comes", 1024, 0, nil, 4408, 10 * time.Second},
		{"a part came", 1024, 100_000, nil, 4408, 20 * time.Second},
		{"too little comes", 1024, 0, make([]byte, 900), 4408, 20 * time.Second},
		{"enough comes", 1024, 0, make([]byte, 1300), 0, 0},
		{"enough comes, after a while", 1024, 1 << 20, make([]byte, 1300), 0, 0},
		{"too little for this one", 3000, 0, make([]byte, 2500), 4408, 20 * time.Second},
		{"nobody asks", 0, 0, nil, 0, 0},
	} {
		bubble(t, test.name, func(t *testing.T, is *is.I) {
			c, k, _ := rawSocket(t, Options{MinRate: test.minRate}, nil)
			time.Sleep(3 * time.Second)
			began := time.Now()
			c.Write(frame(fin|opBinary, 4<<20, make([]byte, test.first)))
			for range 100 {
				time.Sleep(time.Second)
				if c.closed.Load() != 0 {
					break
				}
				c.Write(test.each)
			}
			is.Equal(c.closed.Load(), test.code)
			if test.code != 0 {
				is.True(time.Since(began) >= 10*time.Second)
				is.True(time.Since(began) <= test.most+2*time.Second)
				is.True(errors.Is(k.Err(), ErrSlow))
			}
		})
	}
	for name, f := range map[string]struct {
		frame []byte
		n     int // every second
	}{
		"pings are not the message's":       {frame(fin|opPing, 100, make([]byte, 100)), 50},
		"nor are fragments of nothing":      {frame(opContinue, 0, nil), 2000},
		"nor are the heads of fragments":    {frame(opContinue, 1, []byte{1}), 900},
		"nor are pongs that nobody asks of": {frame(fin|opPong, 125, make([]byte, 125)), 20},
	} {
		bubble(t, name, func(t *testing.T, is *is.I) {
			c, _, _ := rawSocket(t, Options{MinRate: 1024}, nil)
			began := time.Now()
			c.Write(frame(opBinary, 100, make([]byte, 100)))
			for c.closed.Load() == 0 && time.Since(began) < time.Minute {
				time.Sleep(time.Second)
				c.repeat(f.frame, f.n)
			}
			is.Equal(c.closed.Load(), int64(4408))
			is.True(time.Since(began) <= 21*time.Second)
		})
	}
	bubble(t, "whole messages leave no timer", func(t *testing.T, is *is.I) {
		c, k, u := rawSocket(t, Options{MinRate: 1024}, nil)
		for range 5 {
			c.Write(frame(fin|opBinary, 2, []byte("hi")))
			synctest.Wait()
			is.True(k.in.look.Load() == nil) // it came at once
		}
		is.Equal(len(u.received()), 5)
		for range 5 {
			f := frame(fin|opBinary, 2, []byte("hi"))
			c.Write(f[:len(f)-1])
			synctest.Wait()
			is.True(k.in.look.Load() != nil) // it is waited for
			c.Write(f[len(f)-1:])
			time.Sleep(time.Minute)
			is.True(k.in.look.Load() == nil)
		}
		is.Equal(len(u.received()), 10)
		is.Equal(c.closed.Load(), int64(0))
	})
}

// What has come of a message counts before it is whole, and control frames do not.
func TestIntake_received(t *testing.T) {
	bubble(t, "parts and pings", func(t *testing.T, is *is.I) {
		c, k, _ := rawSocket(t, Options{}, nil)
		synctest.Wait()
		before := k.Received()
		c.Write(frame(fin|opBinary, 70_000, make([]byte, 5000)))
		synctest.Wait()
		is.Equal(k.Received()-before, int64(5000))
		before = k.Received()
		c.Write(make([]byte, 5000))
		synctest.Wait()
		is.Equal(k.Received()-before, int64(5000))
		c.Write(make([]byte, 60_000))
		synctest.Wait()
		before = k.Received()
		c.repeat(frame(fin|opPing, 125, make([]byte, 125)), 50)
		synctest.Wait()
		is.Equal(k.Received(), before)
	})
}

// purse is an account.
type purse struct{ used, most, takes atomic.Int64 }

func (p *purse) Take(n int) bool {
	p.takes.Add(1)
	if p.used.Load()+int64(n) > p.most.Load() {
		return false
	}
	p.used.Add(int64(n))
	return true
}

func (p *purse) Give(n int) { p.used.Add(-int64(n)) }

// The buffer of a message is paid for as it grows, and not before.
func TestIntake_charges(t *testing.T) {
	bubble(t, "as it grows", func(t *testing.T, is *is.I) {
		var p purse
		p.most.Store(16 << 20)
		c, _, u := rawSocket(t, Options{}, &p)
		const size = 8 << 20
		c.Write(frame(fin|opBinary, size, nil))
		sent := 0
		for _, n := range []int{100, 3000, 5000, 100_000, 2 << 20} {
			c.Write(make([]byte, n))
			sent += n
			synctest.Wait()
			switch used := int(p.used.Load()); {
			case sent < firstBuffer:
				is.Equal(used, 0)
			default:
				is.True(used >= sent)
				is.True(used <= max(2*sent, 128<<10)) // a buffer of the pool has its size
			}
		}
		c.Write(make([]byte, size-sent))
		synctest.Wait()
		is.Equal(len(u.received()), 1)
		is.Equal(len(u.received()[0]), size)
		is.Equal(p.used.Load(), int64(0))
	})
	bubble(t, "not for small ones", func(t *testing.T, is *is.I) {
		var p purse
		c, _, u := rawSocket(t, Options{}, &p)
		c.repeat(frame(fin|opBinary, 4000, make([]byte, 4000)), 100)
		synctest.Wait()
		is.Equal(len(u.received()), 100)
		is.Equal(p.takes.Load(), int64(0))
	})
	bubble(t, "no room", func(t *testing.T, is *is.I) {
		var p purse
		p.most.Store(300_000)
		c, _, u := rawSocket(t, Options{}, &p)
		go c.Write(frame(fin|opBinary, 1<<20, make([]byte, 1<<20)))
		time.Sleep(5 * time.Second)
		is.Equal(c.closed.Load(), int64(4413))
		is.Equal(p.used.Load(), int64(0))
		is.Equal(len(u.received()), 0)
	})
	bubble(t, "lost in the middle", func(t *testing.T, is *is.I) {
		var p purse
		p.most.Store(1 << 20)
		c, _, _ := rawSocket(t, Options{}, &p)
		c.Write(frame(fin|opBinary, 1<<20, make([]byte, 100_000)))
		synctest.Wait()
		is.True(p.used.Load() >= 100_000)
		c.Close()
		synctest.Wait()
		is.Equal(p.used.Load(), int64(0))
	})
}

// What costs the peer next to nothing is paced, and nothing that an honest peer
// sends is.
func TestWS_paced(t *testing.T) {
	empty, tiny := frame(opContinue, 0, nil), frame(opContinue, 1, []byte{1})
	for _, test := range []struct {
		name  string
		first []byte
		each  []byte
		n     int // of them, every second
		code  int64
	}{
		{"fragments of nothing", frame(opBinary, 1, []byte{1}), empty, 20_000, 4429},
		{"a few fragments of nothing", frame(opBinary, 1, []byte{1}), empty, 5000, 0},
		{"tiny fragments", frame(opBinary, 1, []byte{1}), tiny, 20_000, 4429},
		{"a few tiny fragments", frame(opBinary, 1, []byte{1}), tiny, 5000, 0},
		{"small fragments", frame(opBinary, 1, []byte{1}), frame(opContinue, 64, make([]byte, 64)), 2000, 0},
		{"pings", nil, frame(fin|opPing, 0, nil), 150, 4429},
		{"a few pings", nil, frame(fin|opPing, 0, nil), 90, 0},
		{"pongs", nil, frame(fin|opPong, 3, []byte("abc")), 150, 4429},
		{"small messages", nil, frame(fin|opBinary, 1, []byte("x")), 4000, 0},
	} {
		bubble(t, test.name, func(t *testing.T, is *is.I) {
			c, k, _ := rawSocket(t, Options{}, nil)
			c.Write(test.first)
			for range 40 {
				time.Sleep(time.Second)
				if c.closed.Load() != 0 {
					break
				}
				c.repeat(test.each, test.n)
			}
			is.Equal(c.closed.Load(), test.code)
			is.Equal(errors.Is(k.Err(), errFlood), test.code != 0)
			is.True(c.pongs.Load() <= controlBurst+40*controlRate)
		})
	}
	bubble(t, "all pings at once", func(t *testing.T, is *is.I) {
		c, _, _ := rawSocket(t, Options{}, nil)
		c.repeat(frame(fin|opPing, 0, nil), 5000)
		time.Sleep(2 * time.Second)
		is.Equal(c.closed.Load(), int64(4429))
		is.True(c.pongs.Load() <= controlBurst)
	})
	bubble(t, "idle bytes are forgiven", func(t *testing.T, is *is.I) {
		c, _, _ := rawSocket(t, Options{}, nil)
		c.Write(frame(opBinary, 1, []byte{1}))
		for range 10 {
			c.repeat(empty, idleBurst/2/len(empty))
			time.Sleep(20 * time.Second)
		}
		is.Equal(c.closed.Load(), int64(0))
	})
}
