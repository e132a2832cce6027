package typedrpc_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"net/rpc"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/transfer"
)

// The benchmarks measure whole round trips with client and server in one
// process, over loopback, beside a bare coder/websocket echo, which does no RPC
// at all, and net/rpc over TCP. Compare ratios within one run:
//
//	go test -run '^$' -bench . -count 6 . | tee new.txt; benchstat new.txt

var (
	benchAdd  = typedrpc.NewMethod[lab.BenchReq, lab.BenchResp]("bench.add")
	benchNow  = typedrpc.NewMethod[lab.BenchReq, lab.BenchResp]("bench.now", typedrpc.Inline)
	benchEcho = typedrpc.NewMethod[[]byte, []byte]("bench.echo")
)

// benchConn connects to a server over loopback.
func benchConn(b *testing.B, codec typedrpc.Codec) *typedrpc.Conn {
	mux := typedrpc.NewMux()
	add := func(_ context.Context, r lab.BenchReq) (lab.BenchResp, error) {
		return lab.BenchResp{Sum: r.A + r.B, Text: lab.BenchText}, nil
	}
	typedrpc.Handle(mux, benchAdd, add)
	typedrpc.Handle(mux, benchNow, add)
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
	for name, bench := range map[string]struct {
		codec  typedrpc.Codec
		method typedrpc.Method[lab.BenchReq, lab.BenchResp]
	}{"fixed": {lab.Fixed{}, benchAdd}, "fixed-inline": {lab.Fixed{}, benchNow}, "json": {typedrpc.JSON, benchAdd}} {
		for _, n := range callerCounts {
			b.Run("codec="+name+"/callers="+strconv.Itoa(n), func(b *testing.B) {
				c := benchConn(b, bench.codec)
				ctx, req := b.Context(), lab.BenchReq{A: 3, B: 1000, Tag: "0123456789abcdef"}
				callers(b, n, func() error {
					r, err := typedrpc.Call(ctx, c, bench.method, req)
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
			c := benchConn(b, lab.Fixed{})
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

// NetRPCRequest and NetRPCResponse are BenchReq and BenchResp, declared as
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
	*out = NetRPCResponse{Sum: r.A + r.B, Text: lab.BenchText}
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

// What it costs that a session can be resumed, against the same with resume
// off, in one run:
//
//	go test -run '^$' -bench Resume -benchtime 1x -count 5 .

// resumeConn connects to a server over loopback, with or without resume.
func resumeConn(b *testing.B, srv *httptest.Server, on bool) *typedrpc.Conn {
	o := &typedrpc.DialOptions{Codecs: []typedrpc.Codec{lab.Fixed{}}}
	if !on {
		o.Limits.Grace = -1
	}
	c, err := typedrpc.Dial(b.Context(), srv.URL, o)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func resumeServer(b *testing.B) *httptest.Server {
	mux := typedrpc.NewMux()
	add := func(_ context.Context, r lab.BenchReq) (lab.BenchResp, error) {
		return lab.BenchResp{Sum: r.A + r.B, Text: lab.BenchText}, nil
	}
	typedrpc.Handle(mux, benchAdd, add)
	typedrpc.Handle(mux, benchNow, add)
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{lab.Fixed{}}})
	b.Cleanup(hs.Close)
	return hs
}

// BenchmarkResume_calls is 256 callers on one connection. Both connections take
// turns, many times, because other things run on the machine: the medians of the
// turns are compared.
func BenchmarkResume_calls(b *testing.B) {
	const callers, turns, calls = 256, 30, 100_000
	hs := resumeServer(b)
	conns := map[bool]*typedrpc.Conn{true: resumeConn(b, hs, true), false: resumeConn(b, hs, false)}
	for _, c := range conns {
		defer c.Close()
	}
	turn := func(c *typedrpc.Conn) float64 {
		began := time.Now()
		var g sync.WaitGroup
		for range callers {
			g.Go(func() {
				for range calls / callers {
					if _, err := typedrpc.Call(b.Context(), c, benchAdd, lab.BenchReq{A: 3, B: 1000, Tag: "0123456789abcdef"}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		g.Wait()
		return calls / time.Since(began).Seconds()
	}
	for b.Loop() {
		var speed [2][]float64
		for range turns {
			speed[0] = append(speed[0], turn(conns[true]))
			speed[1] = append(speed[1], turn(conns[false]))
		}
		on, off := median(speed[0]), median(speed[1])
		b.ReportMetric(on, "on-calls/s")
		b.ReportMetric(off, "off-calls/s")
		b.ReportMetric(100*(off-on)/off, "%slower")
	}
}

// BenchmarkResume_idle is what an idle connection holds, both ends of it, in
// bytes of heap and stacks, after some calls whose answers were acknowledged.
func BenchmarkResume_idle(b *testing.B) {
	const conns = 500
	hold := func(on bool) float64 {
		hs := resumeServer(b)
		before := memory()
		all := make([]*typedrpc.Conn, conns)
		for i := range all {
			all[i] = resumeConn(b, hs, on)
			for range 10 {
				if _, err := typedrpc.Call(b.Context(), all[i], benchAdd, lab.BenchReq{A: 3}); err != nil {
					b.Fatal(err)
				}
			}
		}
		time.Sleep(4 * time.Second) // acknowledgements, and writers that end
		held := memory() - before
		for _, c := range all {
			c.Close()
		}
		return held / conns
	}
	for b.Loop() {
		var bytes [2][]float64
		for range 3 {
			bytes[0] = append(bytes[0], hold(true))
			bytes[1] = append(bytes[1], hold(false))
		}
		on, off := median(bytes[0]), median(bytes[1])
		b.ReportMetric(on, "on-B/conn")
		b.ReportMetric(off, "off-B/conn")
		b.ReportMetric(on-off, "B-more")
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func memory() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// streamItem is an item of 64 bytes on the wire.
type streamItem [64]byte

// fixedItems is the codec of the benchmarks on streams: without reflection.
type fixedItems struct{ lab.Fixed }

func (fixedItems) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *streamItem:
		return append(dst, v[:]...), nil
	case *int:
		return append(dst, byte(*v), byte(*v>>8), byte(*v>>16), byte(*v>>24)), nil
	case *struct{}:
		return dst, nil
	}
	return lab.Fixed{}.Append(dst, v)
}

func (fixedItems) Decode(data []byte, v any) error {
	switch v := v.(type) {
	case *streamItem:
		copy(v[:], data)
		return nil
	case *int:
		*v = int(data[0]) | int(data[1])<<8 | int(data[2])<<16 | int(data[3])<<24
		return nil
	case *struct{}:
		return nil
	}
	return lab.Fixed{}.Decode(data, v)
}

var (
	benchItems = typedrpc.NewServerStream[int, streamItem]("bench.items")
	benchUp    = typedrpc.NewClientStream[struct{}, streamItem, int]("bench.up")
	benchGet   = transfer.NewDownload[int]("bench.get")
	benchPut   = transfer.NewUpload[struct{}, int]("bench.put")
)

func streamMux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, benchItems, func(ctx context.Context, n int, send func(streamItem) error) error {
		var item streamItem
		for range n {
			if err := send(item); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, benchUp, func(ctx context.Context, _ struct{}, items iter.Seq2[streamItem, error]) (int, error) {
		n := 0
		for _, err := range items {
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
	typedrpc.Handle(mux, benchGet, func(ctx context.Context, n int, w *transfer.Writer) error {
		return w.Send(bytes.NewReader(benchData[:n]), nil)
	})
	typedrpc.Handle(mux, benchPut, func(ctx context.Context, _ struct{}, r *transfer.Reader) (int, error) {
		n, err := io.Copy(io.Discard, r)
		return int(n), err
	})
	add := func(_ context.Context, r lab.BenchReq) (lab.BenchResp, error) {
		return lab.BenchResp{Sum: r.A + r.B, Text: lab.BenchText}, nil
	}
	typedrpc.Handle(mux, benchAdd, add)
	typedrpc.Handle(mux, benchNow, add)
	return mux
}

func streamConn(b *testing.B) *typedrpc.Conn {
	codecs := []typedrpc.Codec{fixedItems{}}
	hs := httptest.NewServer(&typedrpc.Server{Mux: streamMux(), Codecs: codecs})
	b.Cleanup(hs.Close)
	c, err := typedrpc.Dial(b.Context(), hs.URL, &typedrpc.DialOptions{Codecs: codecs})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

const benchItemCount = 1_000_000

// benchData is what is uploaded and downloaded.
var benchData [64 << 20]byte

// BenchmarkStream_items sends a million items of 64 bytes over one stream; the
// bare sender of coder/websocket writes one message for each.
func BenchmarkStream_items(b *testing.B) {
	b.Run("down", func(b *testing.B) {
		c := streamConn(b)
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for _, err := range typedrpc.Receive(b.Context(), c, benchItems, benchItemCount) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			if n != benchItemCount {
				b.Fatal(n)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchItemCount), "ns/item")
	})
	b.Run("up", func(b *testing.B) {
		c := streamConn(b)
		b.ReportAllocs()
		for b.Loop() {
			n, err := typedrpc.SendAll(b.Context(), c, benchUp, struct{}{}, typedrpc.Items(func(yield func(streamItem) bool) {
				for range benchItemCount {
					if !yield(streamItem{}) {
						return
					}
				}
			}))
			if err != nil || n != benchItemCount {
				b.Fatal(n, err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchItemCount), "ns/item")
	})
	b.Run("bare", func(b *testing.B) {
		hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer ws.CloseNow()
			ctx := context.Background()
			for {
				if _, _, err := ws.Read(ctx); err != nil { // the signal to begin
					return
				}
				var item streamItem
				for range benchItemCount {
					if err := ws.Write(ctx, websocket.MessageBinary, item[:]); err != nil {
						return
					}
				}
			}
		}))
		defer hs.Close()
		ctx := context.Background()
		ws, _, err := websocket.Dial(ctx, hs.URL, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer ws.CloseNow()
		room := make([]byte, 256)
		b.ReportAllocs()
		for b.Loop() {
			if err := ws.Write(ctx, websocket.MessageBinary, nil); err != nil {
				b.Fatal(err)
			}
			for range benchItemCount {
				_, r, err := ws.Reader(ctx)
				if err != nil {
					b.Fatal(err)
				}
				for {
					if _, err := r.Read(room); err == io.EOF {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchItemCount), "ns/item")
	})
}

// BenchmarkBlocking prints the latency of small calls, a thousand a second: on
// an idle connection, while 64 MiB go up and 64 MiB come down on it, and while
// they do so on another connection of the same process. What the last two
// differ in is what the connection costs; the rest is the machine's.
func BenchmarkBlocking(b *testing.B) {
	for _, name := range []string{"idle", "busy", "other"} {
		b.Run(name, func(b *testing.B) {
			c := streamConn(b)
			ctx, stop := context.WithCancel(b.Context())
			defer stop()
			var bulk sync.WaitGroup
			if name != "idle" {
				c := c
				if name == "other" {
					c = streamConn(b)
				}
				bulk.Go(func() {
					for ctx.Err() == nil {
						transfer.Send(ctx, c, benchPut, struct{}{}, bytes.NewReader(benchData[:]), nil)
					}
				})
				bulk.Go(func() {
					for ctx.Err() == nil {
						if r, err := transfer.Receive(ctx, c, benchGet, len(benchData), nil); err == nil {
							io.Copy(io.Discard, r)
							r.Close()
						}
					}
				})
			}
			var mu sync.Mutex
			var took []time.Duration
			var calls sync.WaitGroup
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for b.Loop() {
				<-tick.C
				calls.Go(func() {
					began := time.Now()
					if _, err := typedrpc.Call(ctx, c, benchAdd, lab.BenchReq{A: 1, B: 2, Tag: "0123456789abcdef"}); err != nil {
						b.Error(err)
					}
					d := time.Since(began)
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				})
			}
			calls.Wait()
			stop()
			bulk.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
		})
	}
}
