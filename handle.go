package typedrpc

import (
	"context"
	"fmt"

	"github.com/typedrpc/typedrpc/internal/buf"
)

// Handled is a declaration whose handlers are functions of type F: a Method, a
// Notification, a stream, or something that is made of one.
type Handled[F any] interface {
	// Handler makes fn a handler of the declaration, for Handle.
	Handler(fn F) Handler
}

// Handler is a function with the declaration that it is for. It is made by the
// Handler method of a declaration; its zero value is none.
type Handler struct {
	spec *spec
	// serve decodes, runs and encodes; of a notification notify does that.
	serve  func(ctx context.Context, r *Request) (*buf.Buf, error)
	notify RawHandler
}

// Handle registers fn for d on mux. It panics if the name is taken, because that
// is a defect of the program and start-up is the time to see it; but a
// notification may have several handlers, which run in the order of registration.
// The type of fn is d's: see Method.Handler and its siblings, which also say when
// it runs.
//
// fn's context ends when the caller gives up, when the time that the caller gave
// has passed, and when its session is over (but see Keyed); ConnFrom and
// RequestFrom find the connection and the request in it. If the request's type, or
// a pointer to it, has a method Validate() error, it is called first and its error
// answers the call, as InvalidArgument unless it is an *Error. A panic in fn fails
// the call with Internal and is logged with its stack.
func Handle[F any](mux *Mux, d Handled[F], fn F) {
	h := d.Handler(fn)
	switch {
	case mux == nil:
		panic("typedrpc: Handle: the Mux is nil")
	case h.spec == nil:
		panic("typedrpc: Handle: the declaration was not made by a function, such as NewMethod")
	}
	e := &entry{spec: h.spec, serve: h.serve}
	if h.notify != nil {
		e.notify = []RawHandler{chain(mux.interceptors, h.notify)}
	}
	mux.add(e)
}

// Handler makes fn a handler of m, for Handle. Calls run concurrently, each on its
// own goroutine, unless m is Serial. A peer may also notify a method: then fn runs
// like a notification's handler, and its response is dropped.
func (m Method[Req, Resp]) Handler(fn func(context.Context, Req) (Resp, error)) Handler {
	if m.spec.needs(fn != nil) == nil {
		return Handler{}
	}
	spec, validate := m.spec, validatorOf[Req]()
	return Handler{spec: spec, serve: func(ctx context.Context, r *Request) (*buf.Buf, error) {
		p := spec.pool.Get().(*pair[Req, Resp])
		defer func() { *p = pair[Req, Resp]{}; spec.pool.Put(p) }()
		if err := r.decode(spec, &p.req); err != nil {
			return nil, err
		}
		if validate != nil {
			if err := validate(&p.req); err != nil {
				return nil, err
			}
		}
		var err error
		if p.resp, err = fn(ctx, p.req); err != nil {
			return nil, err
		}
		return r.encode(spec, &p.resp)
	}}
}

// Handler makes fn a handler of n, for Handle. All notifications of a connection are
// handled one after another in the order of arrival, on one goroutine, which is
// also the lane of Serial methods: a slow handler delays those behind it and
// in time the sender, so hand long work to another goroutine. An error reaches
// nobody but the interceptors and the log.
func (n Notification[T]) Handler(fn func(context.Context, T) error) Handler {
	if n.spec.needs(fn != nil) == nil {
		return Handler{}
	}
	spec, validate := n.spec, validatorOf[T]()
	return Handler{spec: spec, notify: func(ctx context.Context, r *Request) (Raw, error) {
		var v T
		if err := r.accept(&v, validate); err != nil {
			return nil, err
		}
		return nil, fn(ctx, v)
	}}
}

// needs is s, and panics where the handler is missing.
func (s *spec) needs(handler bool) *spec {
	if s != nil && !handler {
		panic(fmt.Sprintf("typedrpc: %s %q: the handler is nil", s.kind, s.name))
	}
	return s
}

// validatorOf finds out once whether T validates itself. v is a *T.
func validatorOf[T any]() func(v any) error {
	type validator interface{ Validate() error }
	var zero T
	var of func(v any) validator
	if _, ok := any(&zero).(validator); ok {
		of = func(v any) validator { return v.(validator) }
	} else if _, ok := any(zero).(validator); ok {
		of = func(v any) validator { return any(*v.(*T)).(validator) }
	} else {
		return nil
	}
	return func(v any) error {
		err := of(v).Validate()
		if _, coded := codeIn(err); coded {
			return err
		}
		return &Error{Code: InvalidArgument, Message: err.Error(), cause: err}
	}
}
