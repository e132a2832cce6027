package typedrpc_test

import (
	"bytes"
	"context"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/typedrpc/typedrpc"
)

// streamItem is an item of 64 bytes on the wire.
type streamItem [64]byte

// fixedItems is the codec of the benchmarks on streams: without reflection.
type fixedItems struct{ fixed }

func (fixedItems) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case *streamItem:
		return append(dst, v[:]...), nil
	case *int:
		return append(dst, byte(*v), byte(*v>>8), byte(*v>>16), byte(*v>>24)), nil
	case *typedrpc.Empty:
		return dst, nil
	}
	return fixed{}.Append(dst, v)
}

func (fixedItems) Decode(data []byte, v any) error {
	switch v := v.(type) {
	case *streamItem:
		copy(v[:], data)
		return nil
	case *int:
		*v = int(data[0]) | int(data[1])<<8 | int(data[2])<<16 | int(data[3])<<24
		return nil
	case *typedrpc.Empty:
		return nil
	}
	return fixed{}.Decode(data, v)
}

var (
	benchItems = typedrpc.NewServerStream[int, streamItem]("bench.items")
	benchUp    = typedrpc.NewClientStream[typedrpc.Empty, streamItem, int]("bench.up")
	benchGet   = typedrpc.NewServerStream[int, typedrpc.Bytes]("bench.get")
	benchPut   = typedrpc.NewClientStream[typedrpc.Empty, typedrpc.Bytes, int]("bench.put")
)

func streamMux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.HandleServerStream(mux, benchItems, func(ctx context.Context, n int, send func(streamItem) error) error {
		var item streamItem
		for range n {
			if err := send(item); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.HandleClientStream(mux, benchUp, func(ctx context.Context, _ typedrpc.Empty, items iter.Seq2[streamItem, error]) (int, error) {
		n := 0
		for _, err := range items {
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	})
	typedrpc.HandleServerStream(mux, benchGet, func(ctx context.Context, n int, send func(typedrpc.Bytes) error) error {
		return typedrpc.SendReader(send, bytes.NewReader(benchData[:n]), nil)
	})
	typedrpc.HandleClientStream(mux, benchPut, func(ctx context.Context, _ typedrpc.Empty, items iter.Seq2[typedrpc.Bytes, error]) (int, error) {
		r, err := typedrpc.NewReader(items, nil)
		if err != nil {
			return 0, err
		}
		n, err := io.Copy(io.Discard, r)
		return int(n), err
	})
	typedrpc.Handle(mux, benchAdd, func(_ context.Context, r benchReq) (benchResp, error) {
		return benchResp{Sum: r.A + r.B, Text: benchText}, nil
	})
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
			n, err := typedrpc.SendAll(b.Context(), c, benchUp, typedrpc.Empty{}, typedrpc.Items(func(yield func(streamItem) bool) {
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
						typedrpc.Upload(ctx, c, benchPut, typedrpc.Empty{}, bytes.NewReader(benchData[:]), nil)
					}
				})
				bulk.Go(func() {
					for ctx.Err() == nil {
						if r, err := typedrpc.Download(ctx, c, benchGet, len(benchData), nil); err == nil {
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
					if _, err := typedrpc.Call(ctx, c, benchAdd, benchReq{A: 1, B: 2, Tag: "0123456789abcdef"}); err != nil {
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
