// Prometheus shows a server's metrics at /metrics, in Prometheus' format, while a client
// of its own gives it something to count:
//
//	go run ./examples/prometheus
//	curl -s localhost:8088/metrics | grep rpc_
//
// The file prometheus.yml beside this one lets a Prometheus server collect them. It is
// one binary, from https://prometheus.io/download/:
//
//	./prometheus --config.file=prometheus.yml
//
// and then shows, at http://localhost:9090, what the slowest twentieth of calls takes:
//
//	histogram_quantile(0.95, sum by (le, rpc_method) (rate(rpc_server_call_duration_seconds_bucket[1m])))
package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/otelrpc"
)

const addr = "localhost:8088"

var double = typedrpc.NewMethod[int, int]("math.double")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	site, _, err := newSite()
	if err != nil {
		log.Fatal(err)
	}
	hs := &http.Server{Addr: addr, Handler: site}
	go func() {
		if err := hs.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	fmt.Printf("metrics at http://%s/metrics\n", addr)
	if err := visit(ctx, "ws://"+addr+"/rpc", 100*time.Millisecond); err != nil {
		log.Fatal(err)
	}
	hs.Close()
}

// newSite serves calls at /rpc and metrics at /metrics.
func newSite() (http.Handler, *typedrpc.Server, error) {
	registry := prometheus.NewRegistry()
	reader, err := exporter.New(exporter.WithRegisterer(registry))
	if err != nil {
		return nil, nil, err
	}
	tel, err := otelrpc.New(&otelrpc.Options{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	if err != nil {
		return nil, nil, err
	}
	mux := typedrpc.NewMux(tel.Intercept)
	typedrpc.Handle(mux, double, func(_ context.Context, n int) (int, error) {
		time.Sleep(rand.N(30 * time.Millisecond))
		return 2 * n, nil
	})
	srv := &typedrpc.Server{Mux: mux, Recorder: tel}
	if _, err := tel.Observe(srv); err != nil { // for as long as the program runs
		return nil, nil, err
	}
	site := http.NewServeMux()
	site.Handle("/rpc", srv)
	site.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return site, srv, nil
}

// visit calls until ctx ends.
func visit(ctx context.Context, url string, every time.Duration) error {
	conn, err := typedrpc.Dial(context.WithoutCancel(ctx), url, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	for n := 0; ctx.Err() == nil; n++ {
		if _, err := typedrpc.Call(ctx, conn, double, n); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
		}
	}
	return nil
}
