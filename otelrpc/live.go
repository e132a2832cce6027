package otelrpc

import (
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/typedrpc/typedrpc/stats"
)

// live are the spans that have not ended, by their connections, to be told of links that
// break.
type live struct {
	mu    sync.Mutex
	spans map[any]map[trace.Span]struct{} // by *typedrpc.Conn
}

// add returns what takes it out again.
func (l *live) add(conn any, span trace.Span) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spans == nil {
		l.spans = map[any]map[trace.Span]struct{}{}
	}
	all := l.spans[conn]
	if all == nil {
		all = map[trace.Span]struct{}{}
		l.spans[conn] = all
	}
	all[span] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(all, span)
		if len(all) == 0 && len(l.spans[conn]) == 0 {
			delete(l.spans, conn)
		}
	}
}

// tell adds an event to all spans of a connection.
func (l *live) tell(conn any, event string, attrs ...attribute.KeyValue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for span := range l.spans[conn] {
		span.AddEvent(event, trace.WithAttributes(attrs...))
	}
}

// Link is for the Recorder: spans that are under way learn that their link broke.
func (t *Telemetry) Link(e stats.Link) {
	if !e.Up {
		t.live.tell(e.Conn, "typedrpc.link.down", reasonKey.String(e.End.String()))
	}
	t.recordLink(e)
}

// Session is for the Recorder: spans that are under way learn that they go on, or do not.
func (t *Telemetry) Session(e stats.Session) {
	switch e.Event {
	case stats.SessionResumed:
		t.live.tell(e.Conn, "typedrpc.session.resumed")
	case stats.SessionEnded:
		t.live.tell(e.Conn, "typedrpc.session.ended", reasonKey.String(e.End.String()))
	}
	t.recordSession(e)
}
