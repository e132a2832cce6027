package otelrpc

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/stats"
)

// instruments are the metrics that come of events.
type instruments struct {
	client   rpcconv.ClientCallDuration
	handler  rpcconv.ServerCallDuration
	retries  metric.Int64Counter
	notes    metric.Int64Counter
	items    metric.Int64Counter
	bytes    metric.Int64Counter
	links    metric.Int64UpDownCounter
	ends     metric.Int64Counter
	sessions metric.Int64Counter
	topics   metric.Int64Counter
}

func (i *instruments) init(m metric.Meter) error {
	var errs []error
	count := func(name, unit, what string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
		errs = append(errs, err)
		return c
	}
	var err error
	i.client, err = rpcconv.NewClientCallDuration(m)
	errs = append(errs, err)
	i.handler, err = rpcconv.NewServerCallDuration(m)
	errs = append(errs, err)
	i.links, err = m.Int64UpDownCounter("typedrpc.links", metric.WithUnit("{link}"), metric.WithDescription("Links of connections that are open."))
	errs = append(errs, err)
	i.retries = count("typedrpc.client.retries", "{attempt}", "Attempts of calls after their first.")
	i.notes = count("typedrpc.client.notifications", "{notification}", "Notifications that were sent.")
	i.items = count("typedrpc.stream.items", "{item}", "Items of streams, sent and received.")
	i.bytes = count("typedrpc.stream.io", "By", "Encoded bytes of those items.")
	i.ends = count("typedrpc.link.ends", "{link}", "Links that have ended, by the reason.")
	i.sessions = count("typedrpc.sessions", "{session}", "Sessions that began, went on over another link, or ended, by the reason.")
	i.topics = count("typedrpc.topic.events", "{event}", "Messages and subscriptions of topics, by what became of them.")
	return errors.Join(errs...)
}

const (
	reasonKey  = attribute.Key("typedrpc.end.reason")
	dialledKey = attribute.Key("typedrpc.dialled")
	eventKey   = attribute.Key("typedrpc.event")
	topicKey   = attribute.Key("typedrpc.topic.name")
	wayKey     = attribute.Key("network.io.direction")
)

func method(name string) attribute.KeyValue {
	if name == "" {
		name = other
	}
	return semconv.RPCMethod(name)
}

// Call is for the Recorder.
func (t *Telemetry) Call(e stats.Call) {
	ctx := context.Background()
	status := statusOf(e.Code)
	attrs := []attribute.KeyValue{method(e.Method), semconv.RPCResponseStatusCode(status)}
	if failed(e.Code, e.Outgoing) {
		attrs = append(attrs, semconv.ErrorTypeKey.String(status))
	}
	if e.Outgoing && e.Kind == stats.Notification {
		t.notes.Add(ctx, 1, metric.WithAttributes(attrs...))
		return
	}
	attrs = append(attrs, kindKey.String(e.Kind.String()))
	if !e.Outgoing {
		t.handler.Record(ctx, e.Duration.Seconds(), System, attrs...)
		return
	}
	t.client.Record(ctx, e.Duration.Seconds(), System, append(attrs, t.server...)...)
	if e.Attempts > 1 {
		t.retries.Add(ctx, int64(e.Attempts-1), metric.WithAttributes(method(e.Method)))
	}
}

// Item is for the Recorder.
func (t *Telemetry) Item(e stats.Item) {
	way := "receive"
	if e.Sent {
		way = "transmit"
	}
	attrs := metric.WithAttributes(method(e.Method), wayKey.String(way))
	t.items.Add(context.Background(), 1, attrs)
	t.bytes.Add(context.Background(), int64(e.Bytes), attrs)
}

func (t *Telemetry) recordLink(e stats.Link) {
	ctx, dialled := context.Background(), dialledKey.Bool(e.Dialled)
	if e.Up {
		t.links.Add(ctx, 1, metric.WithAttributes(dialled))
		return
	}
	t.links.Add(ctx, -1, metric.WithAttributes(dialled))
	t.ends.Add(ctx, 1, metric.WithAttributes(dialled, reasonKey.String(e.End.String())))
}

func (t *Telemetry) recordSession(e stats.Session) {
	t.sessions.Add(context.Background(), 1, metric.WithAttributes(dialledKey.Bool(e.Dialled), eventKey.String(e.Event.String()), reasonKey.String(e.End.String())))
}

// Topic is for the Recorder.
func (t *Telemetry) Topic(e stats.Topic) {
	t.topics.Add(context.Background(), int64(e.N), metric.WithAttributes(topicKey.String(e.Name), eventKey.String(e.Event.String())))
}

var _ stats.Recorder = (*Telemetry)(nil)

// Observe makes gauges and sums of a server's Stats, which is asked whenever metrics are
// collected. stop ends that.
func (t *Telemetry) Observe(srv *typedrpc.Server) (stop func() error, err error) {
	o := observer{meter: t.meter}
	conns := o.gauge("typedrpc.server.connections", "{connection}", "Open connections, those without a link included.")
	kept := o.gauge("typedrpc.server.sessions.kept", "{session}", "Sessions without a link whose clients may come back.")
	calls := o.gauge("typedrpc.server.calls", "{call}", "Calls and streams of clients that run.")
	streams := o.gauge("typedrpc.server.streams", "{stream}", "Streams among them.")
	memory := o.gauge("typedrpc.server.memory.usage", "By", "What clients make the server hold.")
	limit := o.gauge("typedrpc.server.memory.limit", "By", "Server.MaxMemory.")
	buffered := o.gauge("typedrpc.server.buffered", "By", "What waits for sockets.")
	unacked := o.gauge("typedrpc.server.unacknowledged", "By", "What was sent and not acknowledged.")
	io := o.sum("typedrpc.server.io", "By", "Bytes of messages, each way.")
	messages := o.sum("typedrpc.server.messages", "{message}", "WebSocket messages, each way.")
	evicted := o.sum("typedrpc.server.evictions", "{eviction}", "What was ended because of a bound, by the bound.")
	resumes := o.sum("typedrpc.server.resumes", "{resume}", "How often sessions went on over another link.")
	if err := errors.Join(o.errs...); err != nil {
		return nil, err
	}
	in, out := metric.WithAttributes(wayKey.String("receive")), metric.WithAttributes(wayKey.String("transmit"))
	reg, err := t.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		s := srv.Stats()
		to.ObserveInt64(conns, int64(s.Conns))
		to.ObserveInt64(kept, int64(s.Kept))
		to.ObserveInt64(calls, int64(s.In.Calls))
		to.ObserveInt64(streams, int64(s.In.Streams))
		to.ObserveInt64(memory, s.Memory)
		to.ObserveInt64(limit, s.MaxMemory)
		to.ObserveInt64(buffered, s.Buffered)
		to.ObserveInt64(unacked, s.Unacked)
		to.ObserveInt64(io, s.Received.Bytes, in)
		to.ObserveInt64(io, s.Sent.Bytes, out)
		to.ObserveInt64(messages, s.Received.Messages, in)
		to.ObserveInt64(messages, s.Sent.Messages, out)
		to.ObserveInt64(resumes, s.Resumes)
		for end, n := range map[stats.End]int64{stats.EndGrace: s.Evicted.Grace, stats.EndEvicted: s.Evicted.Kept, stats.EndMemory: s.Evicted.Memory} {
			to.ObserveInt64(evicted, n, metric.WithAttributes(reasonKey.String(end.String())))
		}
		return nil
	}, o.all...)
	if err != nil {
		return nil, err
	}
	return reg.Unregister, nil
}

// observer makes instruments that are asked.
type observer struct {
	meter metric.Meter
	all   []metric.Observable
	errs  []error
}

func (o *observer) gauge(name, unit, what string) metric.Int64Observable {
	g, err := o.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
	o.all, o.errs = append(o.all, g), append(o.errs, err)
	return g
}

func (o *observer) sum(name, unit, what string) metric.Int64Observable {
	c, err := o.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	o.all, o.errs = append(o.all, c), append(o.errs, err)
	return c
}
