// Package typedrpc has what the analyzers ask of the real one.
package typedrpc

import (
	"context"
	"iter"
)

type (
	spec        struct{}
	CallTrait   interface{ MethodTrait }
	MethodTrait interface{ method(*spec) }
	callTrait   func(*spec)
	own         struct{}

	Caller      interface{ caller() }
	CallOptions struct{}
	Conn        struct{}
	Interceptor func(ctx context.Context) error
	Mux         struct{}
	State       int

	Method[Req, Resp any]             struct{}
	ServerStream[Req, Item any]       struct{}
	ClientStream[Req, Item, Resp any] struct{}
	BidiStream[Req, Up, Down any]     struct{}
	Stream[Out, In any]               struct{}
	Future[T any]                     struct{}
	Handled                           interface{ Name() string }
)

func (callTrait) method(*spec) {}
func (own) method(*spec)       {}

func Timeout(seconds int) CallTrait { return callTrait(nil) }
func Own() own                      { return own{} }
func Alloc[T any]() CallTrait       { return callTrait(nil) }

const Idempotent = idempotent(true)

type idempotent bool

func (idempotent) method(*spec) {}

type (
	Raw          []byte
	Fault[D any] struct{}
)

type SignIn[Creds, Reply any] struct{}

func NewSignIn[Creds, Reply any](traits ...CallTrait) SignIn[Creds, Reply] {
	return SignIn[Creds, Reply]{}
}
func NewFault[D any](name string, code int, traits ...CallTrait) Fault[D] { return Fault[D]{} }

func Dial(ctx context.Context, url string) (*Conn, error) { return nil, nil }
func (c *Conn) With(o CallOptions) Caller                 { return c }
func (c *Conn) State() State                              { return 0 }
func (c *Conn) Close() error                              { return nil }
func (c *Conn) Reconnect()                                {}
func (c *Conn) caller()                                   {}

func NewMux() *Mux                         { return nil }
func (m *Mux) Group(f ...Interceptor) *Mux { return m }
func Handle[F any](m *Mux, d Handled, f F) {}

func NewMethod[Req, Resp any](name string, traits ...MethodTrait) Method[Req, Resp] {
	return Method[Req, Resp]{}
}
func (Method[Req, Resp]) Name() string             { return "" }
func (ClientStream[Req, Item, Resp]) Name() string { return "" }

func (s ServerStream[Req, Item]) Restartable(next func(Req, *Item) Req) ServerStream[Req, Item] {
	return s
}

func Call[Req, Resp any](ctx context.Context, c Caller, m Method[Req, Resp], req Req) (r Resp, err error) {
	return
}
func Go[Req, Resp any](ctx context.Context, c Caller, m Method[Req, Resp], req Req) *Future[Resp] {
	return nil
}
func (f *Future[T]) Cancel() {}
func CallAll[C Caller, Req, Resp any](ctx context.Context, conns iter.Seq[C], m Method[Req, Resp], req Req) iter.Seq2[C, *Future[Resp]] {
	return nil
}

func Receive[Req, Item any](ctx context.Context, c Caller, s ServerStream[Req, Item], req Req) iter.Seq2[Item, error] {
	return nil
}
func Open[Req, Up, Down any](ctx context.Context, c Caller, s BidiStream[Req, Up, Down], req Req) (*Stream[Up, Down], error) {
	return nil, nil
}
func (s *Stream[Out, In]) All() iter.Seq2[In, error] { return nil }
func (s *Stream[Out, In]) Cancel()                   {}

func Items[T any](seq iter.Seq[T]) iter.Seq2[T, error] { return nil }
func (c *Conn) Pairs() iter.Seq2[string, int]          { return nil }
