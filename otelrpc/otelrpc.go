// Package otelrpc makes OpenTelemetry's traces and metrics of what typedrpc does, by the
// semantic conventions for RPC, version 1.43: https://opentelemetry.io/docs/specs/semconv/rpc/.
//
//	tel, err := otelrpc.New(nil)
//	mux := typedrpc.NewMux(tel.Intercept)
//	srv := &typedrpc.Server{Mux: mux, Recorder: tel, OutgoingInterceptors: []typedrpc.Interceptor{tel.Intercept}}
//	conn, err := typedrpc.Dial(ctx, url, &typedrpc.DialOptions{Recorder: tel, OutgoingInterceptors: []typedrpc.Interceptor{tel.Intercept}})
//
// Intercept makes the spans, the Recorder the metrics and the events of spans whose link
// broke; either works without the other. The context of a trace travels in metadata, which
// plain JSON-RPC peers do not have.
//
// Names that peers choose are never attributes of metrics: rpc.method is "_OTHER" where
// nobody on this side declared it, and then spans alone have what the peer said, as
// rpc.method_original, cut to 128 bytes.
package otelrpc

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/typedrpc/typedrpc"
)

const scope = "github.com/typedrpc/typedrpc/otelrpc"

// System is rpc.system.name.
const System = "typedrpc"

// other is what is said instead of a name that a peer chose.
const other = "_OTHER"

// Options are New's. nil, and the zero value of every field, are fine.
type Options struct {
	// TracerProvider makes spans. Default the global one.
	TracerProvider trace.TracerProvider
	// MeterProvider makes instruments. Default the global one.
	MeterProvider metric.MeterProvider
	// Propagator writes the context of a trace into metadata, and reads it there.
	// Default the global one, which does nothing until a program sets it.
	Propagator propagation.TextMapPropagator
	// ServerAddress is where the connections lead that are dialled, "host:port" or
	// "host": server.address and server.port of what goes out. "": they are left out.
	ServerAddress string
}

// Telemetry makes spans and metrics. Its methods may be called by any goroutine.
type Telemetry struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	server     []attribute.KeyValue // of ServerAddress
	meter      metric.Meter
	instruments
	live
}

// New makes what a program's servers and connections share. Its error is of the
// instruments.
func New(o *Options) (*Telemetry, error) {
	if o == nil {
		o = &Options{}
	}
	tracers, meters := o.TracerProvider, o.MeterProvider
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	t := &Telemetry{
		tracer:     tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		meter:      meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL)),
		propagator: o.Propagator,
	}
	if t.propagator == nil {
		t.propagator = otel.GetTextMapPropagator()
	}
	if o.ServerAddress != "" {
		host, port := split(o.ServerAddress)
		t.server = append(t.server, semconv.ServerAddress(host))
		if port > 0 {
			t.server = append(t.server, semconv.ServerPort(port))
		}
	}
	return t, t.instruments.init(t.meter)
}

// Intercept is a typedrpc.Interceptor, for both sides: of a call that goes out it makes a
// CLIENT span, of one that came a SERVER span whose parent is the caller's. Retries of a
// policy are in the one span of their call; see OnRetry. A subscription to a topic that
// it wraps holds its goroutine while it lasts: handle topics with a Mux.Group, or a Mux,
// without it where there are thousands.
func (t *Telemetry) Intercept(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
	kind := trace.SpanKindServer
	if r.Outgoing {
		kind = trace.SpanKindClient
	} else {
		ctx = t.propagator.Extract(ctx, propagation.MapCarrier(r.Metadata))
	}
	name := r.Method
	attrs := []attribute.KeyValue{semconv.RPCSystemNameKey.String(System), semconv.RPCMethod(r.Method)}
	if !r.Declared {
		name = System
		attrs[1] = semconv.RPCMethod(other)
		attrs = append(attrs, semconv.RPCMethodOriginal(clip(r.Method)))
	}
	attrs = append(attrs, kindKey.String(r.Kind.String()))
	if r.Outgoing {
		attrs = append(attrs, t.server...)
	}
	attrs = append(attrs, peer(r.Conn)...)
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
	returned := false
	defer func() {
		if !returned {
			span.SetAttributes(semconv.ErrorTypeKey.String("panic"))
			span.SetStatus(codes.Error, "panic")
		}
		span.End()
	}()
	if r.Outgoing {
		if r.Metadata == nil {
			r.Metadata = typedrpc.Metadata{}
		}
		t.propagator.Inject(ctx, propagation.MapCarrier(r.Metadata))
	}
	if span.IsRecording() && r.Kind != typedrpc.KindNotification {
		defer t.live.add(r.Conn, span)()
	}
	raw, err := next(ctx, r)
	returned = true
	t.ended(span, r, err)
	return raw, err
}

// ended notes how a call has ended.
func (t *Telemetry) ended(span trace.Span, r *typedrpc.Request, err error) {
	if !span.IsRecording() {
		return
	}
	var e *typedrpc.Error
	code := typedrpc.CodeOf(err)
	typed := errors.As(err, &e) && e != nil
	status := statusOf(int64(code))
	span.SetAttributes(semconv.RPCResponseStatusCode(status))
	if err == nil {
		return
	}
	if !failed(int64(code), r.Outgoing) {
		return
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(status))
	text := status
	if typed {
		text = e.Message
		if r.Outgoing {
			span.SetAttributes(outcomeKey.String(e.Outcome.String()))
		}
	}
	span.SetStatus(codes.Error, clip(text))
}

// OnRetry is a RetryPolicy.OnRetry: it adds an event to the span of the call that is made
// again.
func (t *Telemetry) OnRetry(ctx context.Context, _ string, failed int, err error) {
	trace.SpanFromContext(ctx).AddEvent("typedrpc.retry", trace.WithAttributes(
		attribute.Int("typedrpc.retry.failed", failed), semconv.RPCResponseStatusCode(statusOf(int64(typedrpc.CodeOf(err))))))
}

const (
	kindKey    = attribute.Key("typedrpc.call.kind")
	outcomeKey = attribute.Key("typedrpc.outcome")
)

// statuses are the codes in the spelling of the conventions.
var statuses = func() map[int64]string {
	all := map[int64]string{0: "OK", int64(typedrpc.Canceled): "CANCELLED"}
	for _, c := range []typedrpc.Code{
		typedrpc.Unknown, typedrpc.InvalidArgument, typedrpc.DeadlineExceeded, typedrpc.NotFound, typedrpc.AlreadyExists,
		typedrpc.PermissionDenied, typedrpc.ResourceExhausted, typedrpc.FailedPrecondition, typedrpc.Aborted, typedrpc.OutOfRange,
		typedrpc.Unimplemented, typedrpc.Internal, typedrpc.Unavailable, typedrpc.DataLoss, typedrpc.Unauthenticated,
	} {
		all[int64(c)] = strings.ToUpper(strings.ReplaceAll(c.Error(), " ", "_"))
	}
	return all
}()

// statusOf is a code as an attribute: of a few, for peers may send any number.
func statusOf(code int64) string {
	if s, ok := statuses[code]; ok {
		return s
	}
	return other
}

// failed reports whether a code is an error to the side that calls, or handles: a
// handler that refuses a bad request has done what it should.
func failed(code int64, outgoing bool) bool {
	switch typedrpc.Code(code) {
	case typedrpc.OK:
		return false
	case typedrpc.Unknown, typedrpc.DeadlineExceeded, typedrpc.Unimplemented, typedrpc.Internal, typedrpc.Unavailable, typedrpc.DataLoss:
		return true
	}
	return outgoing || statusOf(code) == other
}

// peer is where a connection that was accepted came from.
func peer(c *typedrpc.Conn) []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.NetworkProtocolName("websocket")}
	addr := c.RemoteAddr()
	if addr == "" {
		return attrs
	}
	host, port := split(addr)
	attrs = append(attrs, semconv.NetworkPeerAddress(host))
	if port > 0 {
		attrs = append(attrs, semconv.NetworkPeerPort(port))
	}
	return attrs
}

func split(addr string) (host string, port int) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, 0
	}
	port, _ = strconv.Atoi(text)
	return host, port
}

// most is how long an attribute may be that a peer chose.
const most = 128

func clip(s string) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "�")
}
