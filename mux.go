package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/jsoncodec"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/stats"
)

// Mux maps names to handlers. One Mux may serve any number of connections, on
// servers and on clients; it is safe for concurrent use, and handlers may be
// added while it serves. Its zero value is empty and works; do not copy it.
type Mux struct {
	own          table
	of           *table // whose group it is; nil: its own
	interceptors []Interceptor
}

// table is where m's handlers are. A nil Mux has none.
func (m *Mux) table() *table {
	switch {
	case m == nil:
		return &noHandlers
	case m.of != nil:
		return m.of
	}
	return &m.own
}

var noHandlers table

// all are the entries by name; not to be changed.
func (t *table) all() map[string]*entry {
	if p := t.entries.Load(); p != nil {
		return *p
	}
	return nil
}

// NewMux makes an empty Mux whose handlers are wrapped by interceptors, the
// first outermost. A name that nobody registered has no handler to wrap, so
// interceptors do not see it; with HandleFallback they do, and find no Tag.
func NewMux(interceptors ...Interceptor) *Mux {
	if err := checkInterceptors("NewMux", interceptors); err != nil {
		panic(err.Error())
	}
	return &Mux{interceptors: slices.Clone(interceptors)}
}

// Group returns a Mux over the same table. Handlers added through it are wrapped
// by m's interceptors and then by these: a group.
func (m *Mux) Group(interceptors ...Interceptor) *Mux {
	if m == nil {
		panic("typedrpc: Group of a Mux that is nil")
	}
	if err := checkInterceptors("Mux.Group", interceptors); err != nil {
		panic(err.Error())
	}
	return &Mux{of: m.table(), interceptors: slices.Concat(m.interceptors, interceptors)}
}

// table is read for every message and hardly ever written: copy on write.
type table struct {
	mu       sync.Mutex // writers
	entries  atomic.Pointer[map[string]*entry]
	fallback atomic.Pointer[entry]
}

// entry is what one name leads to.
type entry struct {
	spec *spec
	// serve decodes, runs and encodes: the only code that knows the types.
	// nil when raw is set.
	serve func(ctx context.Context, r *Request) (*buf.Buf, error)
	// raw is serve wrapped by interceptors, or a fallback.
	raw RawHandler
	// notify holds a notification's handlers in the order of registration.
	notify []RawHandler
	// resumes says who has a stream go on behind a place.
	resumes resumes
}

// HandleFallback registers h for the names that nobody registered. It sees
// the request and its bytes; it may answer, Forward it to another connection,
// or observe it and return Unimplemented. It panics if there is a fallback
// already.
func (m *Mux) HandleFallback(h RawHandler) {
	if m == nil || h == nil {
		panic("typedrpc: HandleFallback needs a Mux and a handler")
	}
	e := &entry{raw: chain(m.interceptors, func(ctx context.Context, r *Request) (Raw, error) {
		if err := r.over(); err != nil { // an interceptor may have waited
			return nil, err
		}
		return h(ctx, r)
	})}
	if !m.table().fallback.CompareAndSwap(nil, e) {
		panic("typedrpc: HandleFallback: there is a fallback handler already")
	}
}

func (m *Mux) add(e *entry) {
	t := m.table()
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := maps.Clone(t.all())
	if entries == nil {
		entries = map[string]*entry{}
	}
	if old := entries[e.spec.name]; old != nil {
		if old.spec != e.spec || e.spec.kind != KindNotification {
			panic(fmt.Sprintf("typedrpc: %s %q is registered already", old.spec.kind, e.spec.name))
		}
		e = &entry{spec: e.spec, notify: slices.Concat(old.notify, e.notify)}
	}
	if e.spec.keyed {
		e.serve = once(e.serve)
	}
	if e.serve != nil && len(m.interceptors) > 0 {
		serve := e.serve
		e.raw = chain(m.interceptors, func(ctx context.Context, r *Request) (Raw, error) {
			b, err := serve(ctx, r)
			return b.Bytes(), err // not released: an interceptor may keep it
		})
		e.serve = nil
	}
	entries[e.spec.name] = e
	t.entries.Store(&entries)
}

// lookup finds the entry for a name and kind that a peer with hello, or a plain one,
// has said: nil if there is none. A method may be notified.
func (m *Mux) lookup(name string, kind stats.Kind, hello bool) *entry {
	t := m.table()
	if e := t.all()[name]; e != nil {
		if is := e.spec.kind; is != kind && (kind != KindNotification || is != KindMethod) {
			return nil
		}
		return e
	}
	if wire.Kept(name, hello) || checkName("method", name) != nil {
		return nil // not for fallbacks
	}
	return t.fallback.Load()
}

// find is lookup that says why there is none.
func (m *Mux) find(name string, kind stats.Kind, hello bool) (*entry, *status.Error) {
	if e := m.lookup(name, kind, hello); e != nil {
		return e, nil
	}
	if kind == KindNotification {
		return nil, errNobody // which is told nobody
	}
	if e := m.table().all()[name]; e != nil {
		return nil, status.Errorf(status.Unimplemented, "%q is a %s, not a %s", name, e.spec.kind, kind)
	}
	return nil, status.Errorf(status.Unimplemented, "no method %q", name)
}

var errNobody = status.Errorf(status.Unimplemented, "nobody handles the notification")

// intern returns the registered name that b spells, "" if there is none, so
// that reading a known name does not allocate.
func (m *Mux) intern(b []byte) string {
	if e := m.table().all()[string(b)]; e != nil {
		return e.spec.name
	}
	return ""
}

// check asks codec whether it can carry every message of the table.
func (m *Mux) check(c Codec) error {
	for _, e := range m.table().all() {
		if err := e.spec.check(c); err != nil {
			return err
		}
	}
	return nil
}

// decode reads the request's payload into v.
func (r *Request) decode(s *spec, v any) error {
	c := r.Conn.codec
	if !engine.Fits(r.Payload, s.decl.Limit(len(r.Payload))) {
		return Errorf(ResourceExhausted, "the message has %d bytes, %q takes at most %d", len(r.Payload), s.name, s.maxSize)
	}
	var err error
	if c == JSON {
		err = decodeParams(s, r.Payload, v)
	} else {
		err = s.decode(c, r.Payload, v)
	}
	if err != nil {
		return Errorf(InvalidArgument, "cannot decode the request: %w", err)
	}
	return nil
}

// accept reads and validates the request of a stream or a notification.
func (r *Request) accept(v any, validate func(any) error) error {
	if err := r.decode(r.spec, v); err != nil {
		return err
	}
	if validate != nil {
		if err := validate(v); err != nil {
			return err
		}
	}
	return r.over()
}

// over is why no handler is to begin any more: the connection was closed while the
// request was decoded, or in the hands of interceptors, which may take a while.
func (r *Request) over() error {
	if c := r.Conn; c != nil && c.e != nil && c.e.Ended() { // interceptors may make requests of their own
		return errOver
	}
	return nil
}

var errOver = Errorf(Unavailable, "the connection is closing")

// encode writes a response.
func (r *Request) encode(s *spec, v any) (*buf.Buf, error) {
	if r.heavy {
		defer r.Conn.e.Encodes(s.maxSize)()
		defer flow.Heavy()()
	}
	b := buf.Get()
	var err error
	if b.B, err = s.encode(r.Conn.codec, b.B, v); err != nil {
		b.Release()
		return nil, fmt.Errorf("cannot encode the response of %q: %w", s.name, err)
	}
	return b, nil
}

// decodeParams reads JSON-RPC params (PROTOCOL.md section 7): as they are; a
// list by the names that the method declared; or the only element of a list.
func decodeParams(s *spec, data []byte, v any) error {
	if len(data) == 0 {
		switch v.(type) {
		case *string, *bool, *int, *int32, *int64, *uint, *uint32, *uint64, *float64:
			return errors.New("params are missing: one value is wanted")
		}
		data = []byte("null")
	}
	if data[0] == '[' && len(s.params) > 0 {
		named, err := jsoncodec.NameParams(s.params, data)
		if err != nil {
			return err
		}
		return s.decode(JSON, named, v)
	}
	err := s.decode(JSON, data, v)
	if err == nil || data[0] != '[' {
		return err
	}
	if only := jsoncodec.OnlyElement(data); only != nil {
		return s.decode(JSON, only, v)
	}
	return err
}
