package typedrpc

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/schema"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
)

// What packages topic and transfer, and the inspector, use of this one, see package seam.
func init() {
	seam.Declared = func(stream any) seam.Decl { return decl{stream.(interface{ untyped() *spec }).untyped()} }
	seam.Open = func(ctx context.Context, caller, stream, req any) (func(any) error, func(), error) {
		c, _ := caller.(Caller) // what is nil, open refuses
		x, err := open(ctx, c, stream.(interface{ untyped() *spec }).untyped(), req)
		if err != nil {
			return nil, nil, err
		}
		return func(item any) error { _, err := x.recv(item, nil); return err }, (&Stream[struct{}, struct{}]{x: x}).Cancel, nil
	}
	seam.Serve = func(mux any, d seam.Decl, marks bool, begin func(context.Context, *engine.Stream, string) (engine.Resumer, error)) {
		m, s := mux.(*Mux), d.(decl).spec
		by := byNobody
		if marks {
			by = byHandler
		}
		m.add(&entry{spec: s, resumes: by, serve: serveResumed(s, begin, len(m.interceptors) > 0)})
	}
	seam.Follow = func(ctx context.Context, caller any, d seam.Decl, restarts bool, key string, item any,
		each func(engine.Item, bool) (bool, error), fail func(error) bool) {
		c, _ := caller.(Caller) // what is nil, the loop refuses
		l := loop{caller: c, spec: d.(decl).spec, restarts: restarts}
		l.run(ctx, func(bool) any { return &key }, func(x face) (Raw, error) { return nil, l.follow(x, item, each) }, fail)
	}
	seam.Declare = func(declared any, name string, of func(any) any) {
		declared.(interface {
			declare(name string, of func(any) any)
		}).declare(name, of)
	}
	seam.Handler = func(declaration, fn any) any { return declaration.(interface{ anyHandler(any) any }).anyHandler(fn) }
	seam.Conn = func(c *engine.Conn) any { return connOf(c) }
	seam.Tap = func(conn any, payload int) *session.Tap { return conn.(*Conn).engine().Tap(payload) }
	seam.AboutConn = func(conn any) seam.About { return conn.(*Conn).about() }
	seam.Lift = func(err error) error { return lift(err, nil) }
	seam.Lower = func(err error) *status.Error { return lower(cmp.Or(tellable(err), errHidden)) }
	seam.Down = down
	seam.Describe = func(srv any) ([]byte, error) {
		s := srv.(*Server)
		if err := s.Check(); err != nil {
			return nil, err
		}
		return s.described.document()
	}
}

func (s ServerStream[Req, Item]) untyped() *spec       { return s.spec }
func (s ClientStream[Req, Item, Resp]) untyped() *spec { return s.spec }

// decl is a declaration as package topic knows it.
type decl struct{ *spec }

func (d decl) Engine() *engine.Decl     { return &d.spec.decl }
func (d decl) Listed() bool             { return len(d.params) > 0 }
func (d decl) Tagged(as seam.Decl)      { d.tags, d.safe = as.(decl).tags, as.(decl).safe }
func (d decl) Check(c seam.Codec) error { return d.check(c) }

func (d decl) Described(r schema.Registered) { d.described = r }

func (d decl) Encode(c seam.Codec, dst []byte, v any) ([]byte, error) { return d.encode(c, dst, v) }

func (d decl) Decode(c seam.Codec, data []byte, v any) error { return d.decode(c, data, v) }

// serveResumed is the handler of a stream whose request is a string. It returns when
// what begin has begun rests, unless interceptors wait for its end.
func serveResumed(s *spec, begin func(context.Context, *engine.Stream, string) (engine.Resumer, error), wrapped bool) func(context.Context, *Request) (*buf.Buf, error) {
	return func(ctx context.Context, r *Request) (*buf.Buf, error) {
		var key string
		if err := r.accept(&key, nil); err != nil {
			return nil, err
		}
		h, err := begin(ctx, r.stream, key)
		if err == nil {
			r.stream.Accept()
		}
		switch {
		case err != nil:
		case wrapped:
			err = r.stream.Attend(ctx, h)
		default:
			r.stream.Entrust(h)
			r.stream.Wake()
			err = engine.ErrRests
		}
		return nil, lift(err, r.Conn.codec)
	}
}

// follow receives the items of one opening of a loop.
func (l *loop) follow(x face, item any, each func(about engine.Item, afterGap bool) (bool, error)) error {
	for {
		if l.left {
			return errLeft
		}
		about, err := x.recv(item, nil)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		afterGap := l.came()
		l.left = true
		stay, err := each(about, afterGap)
		l.left = !stay && err == nil
		if err != nil {
			return err
		}
	}
}

// about is what a server knows of c that its API does not tell.
func (c *Conn) about() (a seam.About) {
	e := c.engine()
	if k, ok := c.keeper.(interface{ Began() (uint32, time.Time) }); ok {
		a.Number, a.Began = k.Began()
	}
	a.Dialect = e.Dialect()
	since, why := e.Without()
	if a.Without = since; !since.IsZero() && why != nil {
		a.Lost = why.Message
	}
	return a
}
