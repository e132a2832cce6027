package otelrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/otelrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	double = typedrpc.NewMethod[int, int]("math.double")
	fails  = typedrpc.NewMethod[int, int]("math.fails")
	hangs  = typedrpc.NewMethod[int, int]("math.hangs")
	note   = typedrpc.NewNotification[int]("math.note")
	count  = typedrpc.NewServerStream[int, int]("math.count")
	flaky  = typedrpc.NewMethod[int, int]("math.flaky", typedrpc.Idempotent)
)

// side is one end's telemetry, in memory.
type side struct {
	*otelrpc.Telemetry
	spans   *tracetest.InMemoryExporter
	metrics *sdkmetric.ManualReader
}

func newSide(t *testing.T, address string) *side {
	is := is.New(t)
	s := &side{spans: tracetest.NewInMemoryExporter(), metrics: sdkmetric.NewManualReader()}
	var err error
	s.Telemetry, err = otelrpc.New(&otelrpc.Options{
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.spans)),
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(s.metrics)),
		Propagator:     propagation.TraceContext{},
		ServerAddress:  address,
	})
	is.NoErr(err)
	return s
}

// ended are the spans that have ended, oldest first.
func (s *side) ended() []tracetest.SpanStub {
	synctest.Wait()
	return s.spans.GetSpans()
}

// one is the only span that has ended since the last time.
func (s *side) one(t *testing.T) tracetest.SpanStub {
	t.Helper()
	all := s.ended()
	if len(all) != 1 {
		t.Fatalf("%d spans have ended", len(all))
	}
	s.spans.Reset()
	return all[0]
}

// metric are the points of one instrument: the attributes, and the sum or count.
func (s *side) metric(t *testing.T, name string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := s.metrics.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	points := map[string]int64{}
	key := func(set attribute.Set) string { return set.Encoded(attribute.DefaultEncoder()) }
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch d := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					points[key(p.Attributes)] = int64(p.Count)
				}
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					points[key(p.Attributes)] = p.Value
				}
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					points[key(p.Attributes)] = p.Value
				}
			}
		}
	}
	return points
}

func attrs(s tracetest.SpanStub) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

func events(s tracetest.SpanStub) (names []string) {
	for _, e := range s.Events {
		names = append(names, e.Name)
	}
	return names
}

// pair is a client and a server with telemetry at both ends.
type pair struct {
	near, far *side
	srv       *typedrpc.Server
	mux       *typedrpc.Mux
	opts      *typedrpc.DialOptions
}

func newPair(t *testing.T) *pair {
	p := &pair{near: newSide(t, "rpc.example.com:443"), far: newSide(t, "")}
	p.mux = typedrpc.NewMux(p.far.Intercept)
	typedrpc.Handle(p.mux, double, func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	typedrpc.Handle(p.mux, fails, func(_ context.Context, n int) (int, error) { return 0, typedrpc.Errorf(typedrpc.Code(n), "failed") })
	typedrpc.Handle(p.mux, note, func(context.Context, int) error { return nil })
	typedrpc.Handle(p.mux, count, func(_ context.Context, n int, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
		}
		return nil
	})
	quiet := slog.New(slog.DiscardHandler)
	p.srv = &typedrpc.Server{Mux: p.mux, Recorder: p.far, OutgoingInterceptors: []typedrpc.Interceptor{p.far.Intercept}, Logger: quiet}
	p.opts = &typedrpc.DialOptions{Recorder: p.near, OutgoingInterceptors: []typedrpc.Interceptor{p.near.Intercept}, Logger: quiet}
	return p
}

func (p *pair) dial(t *testing.T) (client, server *typedrpc.Conn) {
	c, s, err := typedrpctest.Dial(p.srv, p.opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, s
}

func bubble(t *testing.T, test func(t *testing.T, is *is.I)) {
	synctest.Test(t, func(t *testing.T) { test(t, is.New(t)) })
}

func TestSpans_call(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		p := newPair(t)
		c, _ := p.dial(t)
		_, err := typedrpc.Call(t.Context(), c, double, 21)
		is.NoErr(err)
		out, in := p.near.one(t), p.far.one(t)
		is.Equal(out.Name, "math.double")
		is.Equal(in.Name, "math.double")
		is.Equal(out.SpanKind, trace.SpanKindClient)
		is.Equal(in.SpanKind, trace.SpanKindServer)
		is.Equal(in.Parent.SpanID(), out.SpanContext.SpanID()) // across the wire
		is.True(in.Parent.IsRemote())
		is.Equal(in.SpanContext.TraceID(), out.SpanContext.TraceID())
		is.Equal(out.Status.Code, codes.Unset)
		is.Equal(attrs(out), map[string]string{
			"rpc.system.name": "typedrpc", "rpc.method": "math.double", "rpc.response.status_code": "OK",
			"server.address": "rpc.example.com", "server.port": "443", "network.protocol.name": "websocket",
			"typedrpc.call.kind": "method",
		})
		is.Equal(attrs(in)["rpc.response.status_code"], "OK")
		is.Equal(attrs(in)["network.peer.address"], "pipe")
		is.Equal(attrs(in)["server.address"], "")
	})
}

func TestSpans_errors(t *testing.T) {
	for _, tt := range []struct {
		code       typedrpc.Code
		status     string
		outgoing   codes.Code
		incoming   codes.Code
		serverType string
	}{
		{typedrpc.NotFound, "NOT_FOUND", codes.Error, codes.Unset, ""},
		{typedrpc.Canceled, "CANCELLED", codes.Error, codes.Unset, ""},
		{typedrpc.Unavailable, "UNAVAILABLE", codes.Error, codes.Error, "UNAVAILABLE"},
		{4711, "_OTHER", codes.Error, codes.Error, "_OTHER"}, // any number may come
	} {
		t.Run(tt.status, func(t *testing.T) {
			bubble(t, func(t *testing.T, is *is.I) {
				p := newPair(t)
				c, _ := p.dial(t)
				_, err := typedrpc.Call(t.Context(), c, fails, int(tt.code))
				is.Equal(typedrpc.CodeOf(err), tt.code)
				out, in := p.near.one(t), p.far.one(t)
				is.Equal(out.Status.Code, tt.outgoing)
				is.Equal(out.Status.Description, "failed")
				is.Equal(in.Status.Code, tt.incoming)
				is.Equal(attrs(out)["error.type"], tt.status)
				is.Equal(attrs(out)["typedrpc.outcome"], "answered")
				is.Equal(attrs(in)["error.type"], tt.serverType)
				is.Equal(attrs(in)["rpc.response.status_code"], tt.status)
				point := "error.type=" + tt.status + ",rpc.method=math.fails,rpc.response.status_code=" + tt.status + ",rpc.system.name=typedrpc,server.address=rpc.example.com,server.port=443,typedrpc.call.kind=method"
				is.Equal(p.near.metric(t, "rpc.client.call.duration"), map[string]int64{point: 1})
			})
		})
	}
}

// What a handler fails with that is no *Error, or panics with, is Internal to its caller.
func TestSpans_foreignErrors(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		p := newPair(t)
		typedrpc.Handle(p.mux, hangs, func(_ context.Context, n int) (int, error) {
			if n > 0 {
				panic("boom")
			}
			return 0, errors.New("a secret")
		})
		c, _ := p.dial(t)
		for n, kind := range []string{"INTERNAL", "panic"} {
			_, err := typedrpc.Call(t.Context(), c, hangs, n)
			is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
			in := p.far.one(t)
			is.Equal(in.Status.Code, codes.Error)
			is.Equal(attrs(in)["error.type"], kind)
			is.True(!strings.Contains(in.Status.Description, "secret"))
			is.Equal(attrs(p.near.one(t))["error.type"], "INTERNAL")
		}
	})
}

// An *Error that is nil is an error that says nothing: its call is in a span, at both ends.
func TestSpans_errorThatIsNil(t *testing.T) {
	for name, none := range map[string]error{
		"alone":    (*typedrpc.Error)(nil),
		"wrapped":  fmt.Errorf("reading: %w", (*typedrpc.Error)(nil)),
		"together": errors.Join((*typedrpc.Error)(nil), io.EOF),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, is *is.I) {
				p := newPair(t)
				typedrpc.Handle(p.mux, hangs, func(context.Context, int) (int, error) { return 0, none })
				p.opts.OutgoingInterceptors = append(p.opts.OutgoingInterceptors, func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
					next(ctx, r)
					return nil, none
				})
				c, _ := p.dial(t)
				_, err := typedrpc.Call(t.Context(), c, hangs, 1)
				is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
				for _, end := range []*side{p.near, p.far} {
					span := end.one(t)
					is.Equal(span.Status.Code, codes.Error)
					is.Equal(attrs(span)["error.type"], "INTERNAL")
				}
			})
		})
	}
}

// A name that a peer made up is in one span, cut, and in no metric.
func TestSpans_unknownNames(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		p := newPair(t)
		p.mux.HandleFallback(func(context.Context, *typedrpc.Request) (typedrpc.Raw, error) { return nil, typedrpc.Unimplemented })
		c, _ := p.dial(t)
		long := "made.up." + strings.Repeat("x", 200)
		for _, name := range []string{long + "1", long + "2"} {
			_, err := typedrpc.Call(t.Context(), c, typedrpc.NewMethod[int, int](name), 1)
			is.True(errors.Is(err, typedrpc.Unimplemented))
			in := p.far.one(t)
			is.Equal(in.Name, "typedrpc")
			is.Equal(attrs(in)["rpc.method"], "_OTHER")
			is.Equal(attrs(in)["rpc.method_original"], long[:128])
		}
		got := p.far.metric(t, "rpc.server.call.duration")
		is.Equal(got, map[string]int64{"error.type=UNIMPLEMENTED,rpc.method=_OTHER,rpc.response.status_code=UNIMPLEMENTED,rpc.system.name=typedrpc,typedrpc.call.kind=method": 2})
	})
}

func TestSpans_streamsAndNotifications(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		p := newPair(t)
		c, _ := p.dial(t)
		for _, err := range typedrpc.Receive(t.Context(), c, count, 3) {
			is.NoErr(err)
		}
		out, in := p.near.one(t), p.far.one(t)
		is.Equal(attrs(out)["typedrpc.call.kind"], "server stream")
		is.Equal(in.Parent.SpanID(), out.SpanContext.SpanID())
		is.Equal(p.near.metric(t, "typedrpc.stream.items"), map[string]int64{"network.io.direction=receive,rpc.method=math.count": 3})
		is.Equal(p.far.metric(t, "typedrpc.stream.items"), map[string]int64{"network.io.direction=transmit,rpc.method=math.count": 3})
		is.Equal(p.far.metric(t, "typedrpc.stream.io"), map[string]int64{"network.io.direction=transmit,rpc.method=math.count": 3})

		is.NoErr(typedrpc.Notify(t.Context(), c, note, 1))
		out, in = p.near.one(t), p.far.one(t)
		is.Equal(out.Name, "math.note")
		is.Equal(attrs(in)["typedrpc.call.kind"], "notification")
		is.Equal(in.Parent.SpanID(), out.SpanContext.SpanID())
		is.Equal(p.near.metric(t, "typedrpc.client.notifications"), map[string]int64{"rpc.method=math.note,rpc.response.status_code=OK": 1})
	})
}

// A call that survives a cut is one span at each end, with an event for the link that
// broke and one for the session that went on.
func TestSpans_cut(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		net := typedrpctest.NewNetwork(nil)
		defer net.Close()
		p := newPair(t)
		release := make(chan struct{})
		typedrpc.Handle(p.mux, hangs, func(_ context.Context, n int) (int, error) { <-release; return n, nil })
		host := net.Host("server")
		host.Serve(p.srv)
		p.opts.HTTPClient = net.HTTPClient()
		c, err := typedrpc.Dial(t.Context(), host.URL(), p.opts)
		is.NoErr(err)
		defer c.Close()
		f := typedrpc.Go(t.Context(), c, hangs, 7)
		synctest.Wait()
		net.CutAll(typedrpctest.CutReset)
		time.Sleep(10 * time.Second)
		close(release)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 7)
		out, in := p.near.one(t), p.far.one(t)
		for _, s := range []tracetest.SpanStub{out, in} {
			is.Equal(events(s), []string{"typedrpc.link.down", "typedrpc.session.resumed"})
			is.Equal(s.Events[0].Attributes[0], attribute.String("typedrpc.end.reason", "broken"))
			is.Equal(s.Status.Code, codes.Unset)
		}
		is.Equal(in.Parent.SpanID(), out.SpanContext.SpanID())
		is.Equal(p.near.metric(t, "typedrpc.links"), map[string]int64{"typedrpc.dialled=true": 1})
		is.Equal(p.far.metric(t, "typedrpc.link.ends"), map[string]int64{"typedrpc.dialled=false,typedrpc.end.reason=broken": 1})
		is.Equal(p.far.metric(t, "typedrpc.sessions"), map[string]int64{
			"typedrpc.dialled=false,typedrpc.end.reason=none,typedrpc.event=begun": 1, "typedrpc.dialled=false,typedrpc.end.reason=none,typedrpc.event=resumed": 1,
		})
		_, err = typedrpc.Call(t.Context(), c, double, 1)
		is.NoErr(err)
		is.Equal(len(p.near.one(t).Events), 0) // that was before
	})
}

// Attempts of one call are one span at the caller, with an event for each, and one for
// each at the handler.
func TestSpans_retries(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		p := newPair(t)
		var mu sync.Mutex
		runs := 0
		typedrpc.Handle(p.mux, flaky, func(_ context.Context, n int) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			if runs++; runs < 3 {
				return 0, typedrpc.Unavailable
			}
			return n, nil
		})
		c, _ := p.dial(t)
		retry := &typedrpc.RetryPolicy{MaxAttempts: 5, OnRetry: p.near.OnRetry}
		_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Retry: retry}), flaky, 1)
		is.NoErr(err)
		out := p.near.one(t)
		is.Equal(events(out), []string{"typedrpc.retry", "typedrpc.retry"})
		is.Equal(out.Status.Code, codes.Unset)
		all := p.far.ended()
		is.Equal(len(all), 3)
		for i, in := range all {
			is.Equal(in.Parent.SpanID(), out.SpanContext.SpanID())
			is.Equal(in.Status.Code == codes.Error, i < 2)
		}
		is.Equal(p.near.metric(t, "typedrpc.client.retries"), map[string]int64{"rpc.method=math.flaky": 2})
		is.Equal(slices.Collect(maps.Values(p.near.metric(t, "rpc.client.call.duration"))), []int64{1})
	})
}

// A server's own calls are spans of the same trace when they are made by a handler.
func TestSpans_back(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		p := newPair(t)
		typedrpc.Handle(p.mux, hangs, func(ctx context.Context, n int) (int, error) {
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), double, n)
		})
		p.opts.Mux = typedrpc.NewMux(p.near.Intercept)
		typedrpc.Handle(p.opts.Mux, double, func(_ context.Context, n int) (int, error) { return n, nil })
		c, _ := p.dial(t)
		_, err := typedrpc.Call(t.Context(), c, hangs, 1)
		is.NoErr(err)
		near, far := p.near.ended(), p.far.ended()
		is.Equal(len(near), 2)
		is.Equal(len(far), 2)
		for _, s := range slices.Concat(near, far) {
			is.Equal(s.SpanContext.TraceID(), near[0].SpanContext.TraceID())
		}
		is.Equal(near[0].Parent.SpanID(), far[0].SpanContext.SpanID()) // the call back
		is.Equal(far[0].Parent.SpanID(), far[1].SpanContext.SpanID())  // within the handler
	})
}

// Plain JSON-RPC has no metadata: both ends have spans, of two traces.
func TestSpans_plain(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		p := newPair(t)
		p.opts.Dialect = typedrpc.JSONRPC
		c, _ := p.dial(t)
		_, err := typedrpc.Call(t.Context(), c, double, 21)
		is.NoErr(err)
		out, in := p.near.one(t), p.far.one(t)
		is.Equal(in.Name, out.Name)
		is.True(!in.Parent.IsValid())
	})
}

func TestMetrics_topicsAndServer(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		p := newPair(t)
		stop, err := p.far.Observe(p.srv)
		is.NoErr(err)
		news := topic.New[string]("math.news")
		hub := &topic.Hub{Recorder: p.far}
		topic.Handle(p.mux.Group(), hub, news, topic.Everybody)
		c, _ := p.dial(t)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for range topic.Subscribe(ctx, c, news, "a") {
			}
		}()
		synctest.Wait()
		is.NoErr(topic.Publish(t.Context(), hub, news, "a", "hello"))
		synctest.Wait()
		is.Equal(p.far.metric(t, "typedrpc.topic.events"), map[string]int64{
			"typedrpc.event=subscribed,typedrpc.topic.name=math.news": 1,
			"typedrpc.event=published,typedrpc.topic.name=math.news":  1,
			"typedrpc.event=delivered,typedrpc.topic.name=math.news":  1,
		})
		is.Equal(p.far.metric(t, "typedrpc.server.connections"), map[string]int64{"": 1})
		is.Equal(p.far.metric(t, "typedrpc.server.streams"), map[string]int64{"": 1})
		is.True(p.far.metric(t, "typedrpc.server.io")["network.io.direction=receive"] > 0)
		is.Equal(len(p.far.metric(t, "typedrpc.server.evictions")), 3)
		cancel()
		synctest.Wait()
		is.Equal(p.far.metric(t, "typedrpc.server.streams"), map[string]int64{"": 0})
		is.NoErr(stop())
		is.NoErr(hub.Close())
		is.Equal(len(p.far.metric(t, "typedrpc.server.connections")), 0)
	})
}
