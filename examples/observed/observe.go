package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/observed/api"
	"github.com/typedrpc/typedrpc/inspector"
	"github.com/typedrpc/typedrpc/otelrpc"
	"github.com/typedrpc/typedrpc/topic"
)

// site is the server with all that shows it.
type site struct {
	rpc       *typedrpc.Server
	inspector *inspector.Handler
	tel       *otelrpc.Telemetry
	routes    http.Handler
	close     func(context.Context) error // writes what has not been, behind the last call
}

func newSite(o options) (*site, error) {
	registry := prometheus.NewRegistry()
	metrics, err := exporter.New(exporter.WithRegisterer(registry))
	if err != nil {
		return nil, err
	}
	traces, err := stdouttrace.New(stdouttrace.WithWriter(o.traces))
	if err != nil {
		return nil, err
	}
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics))
	tracers := sdktrace.NewTracerProvider(sdktrace.WithBatcher(traces), sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "observed"))))
	tel, err := otelrpc.New(&otelrpc.Options{MeterProvider: meters, TracerProvider: tracers, Propagator: propagation.TraceContext{}})
	if err != nil {
		return nil, err
	}
	hub := &topic.Hub{Recorder: tel}
	rpc := &typedrpc.Server{
		Mux:      newMux(hub, tel.Intercept),
		SignIn:   api.SignIn.Verify(signIn),
		Recorder: tel, // what crosses the wire, for /metrics
		// The server calls its clients, too.
		OutgoingInterceptors: []typedrpc.Interceptor{tel.Intercept},
		Schema:               api.Schema,
		Describe:             describe,
		OnConnect: func(c *typedrpc.Conn) {
			name, err := typedrpc.Call(c.Context(), c, api.Hello, struct{}{})
			o.log.Info("connected", "from", c.RemoteAddr(), "says", name, "error", err)
		},
		OnState: func(c *typedrpc.Conn, s typedrpc.StateChange) {
			o.log.Info("link", "who", c.Identity().Subject, "state", s.State, "error", s.Err)
		},
		Logger: o.log,
	}
	inspect := &inspector.Handler{Server: rpc, Hubs: []*topic.Hub{hub}, Authorize: inspector.Loopback, Payloads: true, Logger: o.log}
	if err := errors.Join(rpc.Check(), inspect.Check()); err != nil {
		return nil, err
	}
	unobserve, err := tel.Observe(rpc) // what it holds, asked for at each look at /metrics
	if err != nil {
		return nil, err
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	routes.Handle("/inspect/", inspect)
	routes.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	routes.Handle("/{$}", http.RedirectHandler("/inspect/", http.StatusFound))
	return &site{rpc: rpc, inspector: inspect, tel: tel, routes: routes, close: func(ctx context.Context) error {
		return errors.Join(unobserve(), tracers.Shutdown(ctx), meters.Shutdown(ctx))
	}}, nil
}
