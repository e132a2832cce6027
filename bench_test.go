package typedrpc_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/rpc"
	"strconv"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/typedrpc/typedrpc"
)

// The benchmarks measure whole round trips with client and server in one
// process, over loopback, beside a bare coder/websocket echo, which does no RPC
// at all, and net/rpc over TCP. Compare ratios within one run:
//
//	go test -run '^$' -bench . -count 6 . | tee new.txt; benchstat new.txt

// benchReq and benchResp are the messages: two integers and a 16-byte string
// there, an integer and a 32-byte string back.
type benchReq struct {
	A, B int64
	Tag  string
}

type benchResp struct {
	Sum  int64
	Text string
}

const benchText = "0123456789abcdef0123456789abcdef"

var (
	benchAdd  = typedrpc.NewMethod[benchReq, benchResp]("bench.add")
	benchEcho = typedrpc.NewMethod[[]byte, []byte]("bench.echo")
)

// fixed is a codec without reflection: what a generated one would do.
type fixed struct{}

func (fixed) Name() string    { return "fixed" }
func (fixed) Check(any) error { return nil }

func (fixed) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *benchReq:
		dst = binary.AppendVarint(dst, v.A)
		dst = binary.AppendVarint(dst, v.B)
		return append(dst, v.Tag...), nil
	case *benchResp:
		dst = binary.AppendVarint(dst, v.Sum)
		return append(dst, v.Text...), nil
	case *[]byte:
		return append(dst, *v...), nil
	}
	return dst, fmt.Errorf("no %T", v)
}

func (fixed) Decode(data []byte, v any) error {
	var n int
	switch v := v.(type) {
	case *benchReq:
		v.A, n = binary.Varint(data)
		data = data[n:]
		v.B, n = binary.Varint(data)
		v.Tag = string(data[n:])
		return nil
	case *benchResp:
		v.Sum, n = binary.Varint(data)
		v.Text = string(data[n:])
		return nil
	case *[]byte:
		*v = append((*v)[:0], data...)
		return nil
	}
	return fmt.Errorf("no %T", v)
}

// benchConn connects to a server over loopback.
func benchConn(b *testing.B, codec typedrpc.Codec) *typedrpc.Conn {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, benchAdd, func(_ context.Context, r benchReq) (benchResp, error) {
		return benchResp{Sum: r.A + r.B, Text: benchText}, nil
	})
	typedrpc.Handle(mux, benchEcho, func(_ context.Context, p []byte) ([]byte, error) { return p, nil })
	srv := &typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{codec}}
	hs := httptest.NewServer(srv)
	b.Cleanup(hs.Close)
	c, err := typedrpc.Dial(b.Context(), hs.URL, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{codec}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// callers splits b.N between n goroutines.
func callers(b *testing.B, n int, call func() error) {
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for range b.N/n + min(1, max(0, b.N%n-i)) {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

var callerCounts = []int{1, 16, 256, 1024}

// BenchmarkCall is the main one: small messages, many callers, one connection.
func BenchmarkCall(b *testing.B) {
	for name, codec := range map[string]typedrpc.Codec{"fixed": fixed{}, "json": typedrpc.JSON} {
		for _, n := range callerCounts {
			b.Run("codec="+name+"/callers="+strconv.Itoa(n), func(b *testing.B) {
				c := benchConn(b, codec)
				ctx, req := b.Context(), benchReq{A: 3, B: 1000, Tag: "0123456789abcdef"}
				callers(b, n, func() error {
					r, err := typedrpc.Call(ctx, c, benchAdd, req)
					if err == nil && r.Sum != 1003 {
						err = fmt.Errorf("sum %d", r.Sum)
					}
					return err
				})
			})
		}
	}
}

// BenchmarkEcho moves larger messages.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run("typedrpc/size="+strconv.Itoa(size), func(b *testing.B) {
			c := benchConn(b, fixed{})
			ctx, msg := b.Context(), make([]byte, size)
			b.SetBytes(int64(2 * size))
			callers(b, 1, func() error {
				_, err := typedrpc.Call(ctx, c, benchEcho, msg)
				return err
			})
		})
		b.Run("websocket/size="+strconv.Itoa(size), func(b *testing.B) {
			b.SetBytes(int64(2 * size))
			bareEcho(b, size)
		})
	}
}

// BenchmarkBareWebSocket is the floor: one caller, no RPC.
func BenchmarkBareWebSocket(b *testing.B) { bareEcho(b, 64) }

// bareEcho sends messages of one size back and forth over coder/websocket, with
// kept buffers and no context, its fastest way.
func bareEcho(b *testing.B, size int) {
	bg := context.Background()
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		ws.SetReadLimit(1 << 20)
		buf := make([]byte, size)
		for {
			_, r, err := ws.Reader(bg)
			if err != nil {
				return
			}
			if readAll(r, buf) != nil || ws.Write(bg, websocket.MessageBinary, buf) != nil {
				return
			}
		}
	}))
	b.Cleanup(hs.Close)
	ws, _, err := websocket.Dial(bg, hs.URL, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ws.CloseNow() })
	ws.SetReadLimit(1 << 20)
	buf := make([]byte, size)
	callers(b, 1, func() error {
		if err := ws.Write(bg, websocket.MessageBinary, buf); err != nil {
			return err
		}
		_, r, err := ws.Reader(bg)
		if err != nil {
			return err
		}
		return readAll(r, buf)
	})
}

func readAll(r io.Reader, buf []byte) error {
	if _, err := io.ReadFull(r, buf); err != nil {
		return err
	}
	_, err := r.Read(buf[:1])
	if err == io.EOF {
		return nil
	}
	return fmt.Errorf("message too long: %v", err)
}

// NetRPCRequest and NetRPCResponse are benchReq and benchResp, exported as
// net/rpc demands.
type (
	NetRPCRequest struct {
		A, B int64
		Tag  string
	}
	NetRPCResponse struct {
		Sum  int64
		Text string
	}
)

type benchService struct{}

// Add is BenchmarkCall's handler for net/rpc.
func (*benchService) Add(r *NetRPCRequest, out *NetRPCResponse) error {
	*out = NetRPCResponse{Sum: r.A + r.B, Text: benchText}
	return nil
}

// BenchmarkNetRPC is the peer: the standard library's net/rpc with gob over TCP.
func BenchmarkNetRPC(b *testing.B) {
	for _, n := range callerCounts {
		b.Run("callers="+strconv.Itoa(n), func(b *testing.B) {
			srv := rpc.NewServer()
			srv.RegisterName("Bench", &benchService{})
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { ln.Close() })
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go srv.ServeConn(c)
				}
			}()
			c, err := rpc.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { c.Close() })
			req := &NetRPCRequest{A: 3, B: 1000, Tag: "0123456789abcdef"}
			callers(b, n, func() error {
				var r NetRPCResponse
				return c.Call("Bench.Add", req, &r)
			})
		})
	}
}
