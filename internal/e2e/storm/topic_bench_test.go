package storm_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// The benchmarks publish one message of 64 bytes to many. The publisher is
// paced by the receivers: a round ends when everybody has it, so that an
// operation is one message to all, received. Allocations are those of the whole
// process, both sides of every connection. "encodings/op" counts the codec's
// work, "publish-ns/sub" is the time until Publish returns, by subscriber, and
// "ns/sub" the time until everybody has the message:
//
//	go test -run '^$' -bench Topic -benchmem ./internal/e2e/storm

// onceCodec is plainCodec that counts encodings of messages.
type onceCodec struct {
	plainCodec
	encoded *atomic.Int64
}

func (c onceCodec) Append(dst []byte, v any) ([]byte, error) {
	if _, ok := v.(*numbered); ok {
		c.encoded.Add(1)
	}
	return c.plainCodec.Append(dst, v)
}

// audience counts how often it was reached.
type audience struct {
	size int64
	left atomic.Int64
	all  chan struct{}
}

func (a *audience) begin() { a.left.Store(a.size) }

func (a *audience) reached() {
	if a.left.Add(-1) == 0 {
		a.all <- struct{}{}
	}
}

func newAudience(size int) *audience {
	return &audience{size: int64(size), all: make(chan struct{}, 1)}
}

var (
	benchTopic  = topic.New[numbered]("bench.topic")
	benchNotice = typedrpc.NewNotification[numbered]("bench.notice")
)

// benchSubscribe subscribes each of conns per times and waits until the hub
// has them all.
func benchSubscribe(b *testing.B, hub *topic.Hub, conns []*typedrpc.Conn, per int, a *audience) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.Cleanup(func() { cancel(); wg.Wait() })
	for _, c := range conns {
		for range per {
			wg.Go(func() {
				for _, err := range topic.Subscribe(ctx, c, benchTopic, "x") {
					if err != nil {
						if ctx.Err() == nil {
							b.Error(err)
						}
						return
					}
					a.reached()
				}
			})
		}
	}
	for subs := 0; subs < len(conns)*per; {
		runtime.Gosched()
		subs = len(hook.Room(hub, benchTopic.Name(), "x").Held)
	}
}

func benchPublish(b *testing.B, hub *topic.Hub, a *audience, encoded *atomic.Int64) {
	ctx := context.Background()
	v := numbered{1, 64}
	publish := func() time.Duration {
		began := time.Now()
		a.begin()
		if err := topic.Publish(ctx, hub, benchTopic, "x", v); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		<-a.all
		return took
	}
	for range 20 { // pools and queues find their sizes
		publish()
	}
	encoded.Store(0)
	b.ReportAllocs()
	b.ResetTimer()
	var in time.Duration
	for b.Loop() {
		in += publish()
	}
	b.StopTimer()
	b.ReportMetric(float64(encoded.Load())/float64(b.N), "encodings/op")
	b.ReportMetric(float64(in.Nanoseconds())/float64(b.N)/float64(a.size), "publish-ns/sub")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(a.size), "ns/sub")
}

// BenchmarkTopic_memory is one message to 10,000 subscribers over pipes.
func BenchmarkTopic_memory(b *testing.B) {
	for _, conns := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			var encoded atomic.Int64
			codec := onceCodec{encoded: &encoded}
			hub := &topic.Hub{Codec: codec}
			mux := typedrpc.NewMux()
			topic.Handle(mux, hub, benchTopic, topic.Everybody)
			srv := &typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{codec}, Limits: typedrpc.Limits{KeepAlive: time.Hour, MaxCalls: 2048}} // for a thousand streams
			a := newAudience(10_000)
			var all []*typedrpc.Conn
			for range conns {
				c, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{codec}, Limits: typedrpc.Limits{KeepAlive: time.Hour}})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { c.Close() })
				all = append(all, c)
			}
			benchSubscribe(b, hub, all, 10_000/conns, a)
			benchPublish(b, hub, a, &encoded)
		})
	}
}

// BenchmarkTopic_websocket is one message to 2,000 connections over loopback:
// published, and by a plain loop of Notify.
func BenchmarkTopic_websocket(b *testing.B) {
	const conns = 2000
	var encoded atomic.Int64
	codec := onceCodec{encoded: &encoded}
	hub := &topic.Hub{Codec: codec}
	mux, a := typedrpc.NewMux(), newAudience(conns)
	topic.Handle(mux, hub, benchTopic, topic.Everybody)
	client := typedrpc.NewMux()
	typedrpc.Handle(client, benchNotice, func(context.Context, numbered) error { a.reached(); return nil })
	srv := &typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{codec}, Limits: typedrpc.Limits{KeepAlive: time.Hour}}
	hs := httptest.NewServer(srv)
	b.Cleanup(hs.Close)
	var all []*typedrpc.Conn
	for range conns {
		c, err := typedrpc.Dial(b.Context(), hs.URL, &typedrpc.DialOptions{Mux: client, Codecs: []typedrpc.Codec{codec}, Limits: typedrpc.Limits{KeepAlive: time.Hour}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		all = append(all, c)
	}
	benchSubscribe(b, hub, all, 1, a)
	b.Run("publish", func(b *testing.B) { benchPublish(b, hub, a, &encoded) })
	b.Run("notify", func(b *testing.B) {
		ctx := context.Background()
		var peers []*typedrpc.Conn
		for c := range srv.Conns() {
			peers = append(peers, c)
		}
		b.ReportAllocs()
		encoded.Store(0)
		b.ResetTimer()
		var in time.Duration
		for b.Loop() {
			a.begin()
			began := time.Now()
			for _, c := range peers {
				if err := typedrpc.Notify(ctx, c, benchNotice, numbered{1, 64}); err != nil {
					b.Fatal(err)
				}
			}
			in += time.Since(began)
			<-a.all
		}
		b.StopTimer()
		b.ReportMetric(float64(encoded.Load())/float64(b.N), "encodings/op")
		b.ReportMetric(float64(in.Nanoseconds())/float64(b.N)/conns, "publish-ns/sub")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/conns, "ns/sub")
	})
}
