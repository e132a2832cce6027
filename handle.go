package typedrpc

import (
	"context"
	"fmt"
	"iter"

	"github.com/typedrpc/typedrpc/internal/buf"
)

// Declared is the part of a declaration that it has in common with all others: a name,
// and the type F of the functions that handle it. It is embedded in Method,
// Notification, the streams, and the declarations of package transfer.
type Declared[F any] struct {
	made *made[F] // a pointer keeps declarations comparable
}

type made[F any] struct {
	name    string
	handler func(fn F) handler
}

// Name returns the declaration's name, "" of a zero value.
func (d Declared[F]) Name() string {
	if d.made == nil {
		return ""
	}
	return d.made.name
}

func (d Declared[F]) handlerOf(fn F) (handler, bool) {
	if d.made == nil {
		return handler{}, false
	}
	return d.made.handler(fn), true
}

// declaredBy is what s and a function make that makes its handlers.
func declaredBy[F any](s *spec, of func(s *spec, fn F) handler) Declared[F] {
	return Declared[F]{&made[F]{s.name, func(fn F) handler { return of(s, fn) }}}
}

// declare is for declarations of other packages, see package seam.
func (d *Declared[F]) declare(name string, of func(fn any) any) {
	d.made = &made[F]{name, func(fn F) handler { return of(fn).(handler) }}
}

// anyHandler is handlerOf for other packages.
func (d Declared[F]) anyHandler(fn any) any { return d.made.handler(fn.(F)) }

// Handled is a declaration whose handlers are functions of type F: whatever embeds a
// Declared[F].
type Handled[F any] interface {
	Name() string
	handlerOf(fn F) (handler, bool)
}

// handler is a function with the declaration that it is for.
type handler struct {
	spec *spec
	// serve decodes, runs and encodes; of a notification notify does that.
	serve   func(ctx context.Context, r *Request) (*buf.Buf, error)
	notify  RawHandler
	resumes resumes
}

// Handle registers fn for d on mux. It panics if the name is taken, because that
// is a defect of the program and start-up is the time to see it; but a
// notification may have several handlers, which run in the order of registration.
// The type of fn is d's: see Method and its siblings, which also say when it runs. A value
// of a named function type has to be converted to that first.
//
// fn's context ends when the caller gives up, when the time that the caller gave
// has passed, and when its session is over (but see Keyed, and what a plain peer notified
// before it closed is handled for 30 seconds more); ConnFrom and
// RequestFrom find the connection and the request in it. If the request's type, or
// a pointer to it, has a method Validate() error, it is called first and its error
// answers the call, as InvalidArgument unless it is an *Error or a Code; what the
// request contains is not asked. A panic in fn fails
// the call with Internal and is logged with its stack.
func Handle[F any](mux *Mux, d Handled[F], fn F) {
	if mux == nil {
		panic("typedrpc: Handle: the Mux is nil")
	}
	if nilPointer(d) {
		panic("typedrpc: Handle: the declaration is nil, or a pointer that is nil")
	}
	h, declared := d.handlerOf(fn)
	if !declared {
		panic("typedrpc: Handle: the declaration was not made by a function, such as NewMethod")
	}
	e := &entry{spec: h.spec, serve: h.serve, resumes: h.resumes}
	if h.notify != nil {
		e.notify = []RawHandler{chain(mux.interceptors, h.notify)}
	}
	mux.add(e)
}

// nilPointer reports that d has nothing behind it: pointers to declarations are Handled, too,
// and only a method of theirs tells whether one is nil.
func nilPointer[F any](d Handled[F]) (is bool) {
	if d == nil {
		return true
	}
	defer func() { is = recover() != nil }()
	d.Name()
	return false
}

func methodHandler[Req, Resp any](spec *spec, fn func(context.Context, Req) (Resp, error)) handler {
	spec.needs(fn != nil)
	validate := validatorOf[Req]()
	return handler{spec: spec, serve: func(ctx context.Context, r *Request) (*buf.Buf, error) {
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
		if err := r.over(); err != nil {
			return nil, err
		}
		var err error
		if p.resp, err = fn(ctx, p.req); err != nil {
			return nil, err
		}
		return r.encode(spec, &p.resp)
	}}
}

func notificationHandler[T any](spec *spec, fn func(context.Context, T) error) handler {
	spec.needs(fn != nil)
	validate := validatorOf[T]()
	return handler{spec: spec, notify: func(ctx context.Context, r *Request) (Raw, error) {
		var v T
		if err := r.accept(&v, validate); err != nil {
			return nil, err
		}
		return nil, fn(ctx, v)
	}}
}

func serverStreamHandler[Req, Item any](s *spec, fn func(ctx context.Context, req Req, send func(Item) error) error) handler {
	return restartableHandler(s, fn, nil)
}

// restartableHandler has a next that is not nil where the stream is Restartable.
func restartableHandler[Req, Item any](s *spec, fn func(ctx context.Context, req Req, send func(Item) error) error, next *func(Req, *Item) Req) handler {
	s.needs(fn != nil)
	validate := validatorOf[Req]()
	h := handler{spec: s, serve: func(ctx context.Context, r *Request) (*buf.Buf, error) {
		var req Req
		if err := r.accept(&req, validate); err != nil {
			return nil, err
		}
		r.stream.Accept()
		marks := next != nil && r.stream.Marks()
		return nil, fn(ctx, req, func(item Item) error {
			x := r.face()
			if marks {
				last := item // next may keep it
				following := (*next)(req, &last)
				x.at = s.placeOf(&following)
			}
			return sendItem(x, &s.down, item)
		})
	}}
	if next != nil {
		h.resumes = byRequest
	}
	return h
}

func clientStreamHandler[Req, Item, Resp any](s *spec, fn func(ctx context.Context, req Req, items iter.Seq2[Item, error]) (Resp, error)) handler {
	s.needs(fn != nil)
	validate, validateItem := validatorOf[Req](), validatorOf[Item]()
	return handler{spec: s, serve: func(ctx context.Context, r *Request) (*buf.Buf, error) {
		var req Req
		if err := r.accept(&req, validate); err != nil {
			return nil, err
		}
		items := &Stream[struct{}, Item]{x: r.face(), in: &s.up, validate: validateItem}
		resp, err := fn(ctx, req, items.All())
		if err != nil {
			return nil, err
		}
		return r.encode(s, &resp)
	}}
}

func bidiStreamHandler[Req, Up, Down any](s *spec, fn func(ctx context.Context, req Req, stream *Stream[Down, Up]) error) handler {
	s.needs(fn != nil)
	validate, validateItem := validatorOf[Req](), validatorOf[Up]()
	return handler{spec: s, serve: func(ctx context.Context, r *Request) (*buf.Buf, error) {
		var req Req
		if err := r.accept(&req, validate); err != nil {
			return nil, err
		}
		return nil, fn(ctx, req, &Stream[Down, Up]{x: r.face(), out: &s.down, in: &s.up, validate: validateItem})
	}}
}

// needs panics where the handler is missing.
func (s *spec) needs(handler bool) {
	if !handler {
		panic(fmt.Sprintf("typedrpc: %s %q: the handler is nil", s.kind, s.name))
	}
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
