package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/status"
)

// ServerStream declares a call that is answered by any number of items: a
// request there, items back. Like a Method it is declared once, in a package
// that both sides import, and is safe for concurrent use.
//
// Its handlers send items with send, which waits while the caller is behind by more
// than its window, and end the stream by returning: nil for a good end, or an error,
// which the caller gets after all items that were sent before it. send may be called
// by several goroutines; the order of its returns is the order of the items. When the
// caller leaves, its time or its session is over, ctx ends and send returns an error.
type ServerStream[Req, Item any] struct {
	Declared[func(ctx context.Context, req Req, send func(Item) error) error]
	spec *spec
	next *func(Req, *Item) Req // not nil: restartable. A pointer keeps declarations comparable.
}

// ClientStream declares a call whose caller sends any number of items after
// its request, and which is answered by one response.
//
// In its handlers, items ranges over what the caller sends and ends when the caller has sent all; its error, always the last pair, says that the
// caller failed, left, or is gone. A handler may answer before items has ended: what
// comes after that is dropped. An item whose type has a method Validate() error is
// validated before the handler sees it.
type ClientStream[Req, Item, Resp any] struct {
	Declared[func(ctx context.Context, req Req, items iter.Seq2[Item, error]) (Resp, error)]
	spec *spec
}

// BidiStream declares a call in which both sides send items, in any order, at
// the same time: Up from the caller to the handler, Down from the handler to
// the caller.
//
// Its handlers send and receive with the stream, in any order and from several goroutines, and end it by returning: nil for a good end, or an error, which the
// caller gets after all items that were sent before it. The stream is of no use after
// that. An item whose type has a method Validate() error is validated before it is
// received.
type BidiStream[Req, Up, Down any] struct {
	Declared[func(ctx context.Context, req Req, stream *Stream[Down, Up]) error]
	spec *spec
}

// NewServerStream declares a server stream. It panics like NewMethod.
func NewServerStream[Req, Item any](name string, traits ...ServerStreamTrait) ServerStream[Req, Item] {
	s := newSpec(name, KindServerStream, traits, ServerStreamTrait.serverStream)
	s.carries(new(Req), new(Item))
	s.down.New = func() any { return new(Item) }
	s.check = func(c Codec) error { return errors.Join(checkType[Req](s, c), checkType[Item](s, c)) }
	return ServerStream[Req, Item]{declaredBy(s, serverStreamHandler[Req, Item]), s, nil}
}

// NewClientStream declares a client stream. It panics like NewMethod.
func NewClientStream[Req, Item, Resp any](name string, traits ...CallTrait) ClientStream[Req, Item, Resp] {
	s := newSpec(name, KindClientStream, traits, CallTrait.stream)
	s.carries(new(Req), new(Item), new(Resp))
	s.up.New = func() any { return new(Item) }
	s.check = func(c Codec) error {
		return errors.Join(checkType[Req](s, c), checkType[Item](s, c), checkType[Resp](s, c))
	}
	return ClientStream[Req, Item, Resp]{declaredBy(s, clientStreamHandler[Req, Item, Resp]), s}
}

// NewBidiStream declares a bidirectional stream. It panics like NewMethod.
func NewBidiStream[Req, Up, Down any](name string, traits ...CallTrait) BidiStream[Req, Up, Down] {
	s := newSpec(name, KindBidiStream, traits, CallTrait.stream)
	s.carries(new(Req), new(Up), new(Down))
	s.up.New = func() any { return new(Up) }
	s.down.New = func() any { return new(Down) }
	s.check = func(c Codec) error {
		return errors.Join(checkType[Req](s, c), checkType[Up](s, c), checkType[Down](s, c))
	}
	return BidiStream[Req, Up, Down]{declaredBy(s, bidiStreamHandler[Req, Up, Down]), s}
}

// Restartable returns the declaration with another behaviour of Receive: a
// stream that breaks off with a Gap is opened again, as soon as there is a
// session, with the request that next makes. req is the loop's own request, last
// the latest item that the loop was given, nil if there was none yet:
//
//	var Prices = typedrpc.NewServerStream[PricesRequest, Price]("prices").
//		Restartable(func(req PricesRequest, last *Price) PricesRequest {
//			if last != nil {
//				req.After = last.Seq
//			}
//			return req
//		})
//
// Whether an item is lost or repeated is the handler's affair: it is not if the
// handler goes on behind what the request names. next runs on the goroutine of
// the loop. Loops run it at the same time, so it must not change what they
// share. It panics if next is nil.
//
// See Receive for what the loop sees of it. Only Receive restarts streams;
// transfer.Receive ends with the gap. For the handler each opening is a stream of its
// own. The two declarations have one name, and may both be called and handled. A server that
// handles this one lets plain JSON-RPC subscribers that ask for it, and readers with a GET, go
// on behind an item: for each that it sends them it calls next, where the handler sends,
// with the request of their stream, which may be one that next has made before.
func (s ServerStream[Req, Item]) Restartable(next func(req Req, last *Item) Req) ServerStream[Req, Item] {
	if s.spec == nil {
		panic("typedrpc: Restartable of a ServerStream that was not made by NewServerStream")
	}
	if next == nil {
		panic(fmt.Sprintf("typedrpc: server stream %q: Restartable needs a function that makes the next request", s.spec.name))
	}
	s.next = &next
	s.Declared = declaredBy(s.spec, func(sp *spec, fn func(context.Context, Req, func(Item) error) error) handler {
		return restartableHandler(sp, fn, &next)
	})
	return s
}

// Receive calls a server stream and ranges over its items. Each loop over the
// result makes a call of its own, which begins with the loop. Leaving the loop,
// by break, return or panic, ends the call: the handler's context ends, and
// what was on its way is dropped. An error is the last pair, after all items
// that came before it, and an *Error; only a Gap may have others behind it:
//
//	for item, err := range typedrpc.Receive(ctx, conn, Prices, req) {
//		if err != nil {
//			return err
//		}
//		…
//	}
//
// A loop over one variable compiles and hides the error. While the body of the
// loop is busy, items wait, up to the stream's window; then the handler waits.
//
// A stream belongs to one session: when that is lost, or the peer shuts down, the
// loop ends with an error that is a Gap. (One that goes on all the same gets a last
// error, Unavailable, which is no Gap.) One that has not left yet waits for the next session
// as a call does. Streams are not retried.
//
// A stream that is Restartable is opened again instead. The loop gets the gap as
// one pair of no item and an error that is a Gap, after the items that came
// before it, and may go on:
//
//	if errors.Is(err, typedrpc.Gap) {
//		log.Print(err)
//		continue
//	}
//
// A loop that returns on every error ends there, and nothing is opened. Gaps
// with no item between them are one pair. The first pair after it is an item, or
// what the stream ended with in the end: the handler's error, the context's, or
// why the connection ended for good. The context, and a Timeout of the
// declaration, are for the whole loop; metadata, interceptors and Pick for each
// opening. Between openings that brought no item and were over within ten
// seconds, the loop waits by the connection's Backoff.
//
// Nothing is opened again for a caller that is FailFast, or on a connection that
// does not come back by itself, as those that a server accepted: then a loop that
// goes on at the gap gets that last error.
func Receive[Req, Item any](ctx context.Context, c Caller, s ServerStream[Req, Item], req Req) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		var none Item
		var last *Item // of a restartable stream
		l := loop{caller: c, spec: s.spec, restarts: s.next != nil}
		request := func(first bool) any {
			next := req
			switch {
			case first:
			case last == nil:
				next = (*s.next)(req, nil)
			default:
				item := *last
				next = (*s.next)(req, &item)
			}
			return &next
		}
		l.run(ctx, request, func(x face) (Raw, error) {
			for {
				if l.left { // and an interceptor calls next again
					return nil, errLeft
				}
				item, _, err := recvItem[Item](x, &s.spec.down, nil)
				if err == io.EOF {
					return nil, nil
				}
				if err != nil {
					return nil, err
				}
				l.came()
				if l.restarts {
					if last == nil {
						last = new(Item)
					}
					*last = item
				}
				l.left = true
				l.left = !yield(item, nil)
			}
		}, func(err error) bool { return yield(none, err) })
	}
}

// SendAll calls a client stream: it sends all items and returns the response.
// It waits while the handler is behind by more than its window. An error in
// items ends the call with that error, which SendAll returns as an *Error that wraps
// it; the handler sees that the caller left.
// When the handler answers early, SendAll stops pulling items and returns its
// answer. items runs on the caller's goroutine, and SendAll does not return while it
// waits for something else. See Items for a sequence that cannot fail.
func SendAll[Req, Item, Resp any](ctx context.Context, c Caller, s ClientStream[Req, Item, Resp], req Req, items iter.Seq2[Item, error]) (Resp, error) {
	var resp, none Resp
	if items == nil {
		return none, refuse(InvalidArgument, "SendAll: the sequence of items is nil")
	}
	begun := false
	err := converseFor(ctx, c, s.spec, &req, &resp, func(x face) (Raw, error) {
		if begun { // by an interceptor that calls next again
			return nil, Errorf(FailedPrecondition, "the items of %q were sent already and cannot be sent again", s.spec.name)
		}
		for item, err := range items {
			begun = true
			if err != nil {
				return nil, asError(err).with(MayHaveRun) // the call itself has left
			}
			if err := sendItem(x, &s.spec.up, item); err != nil {
				if x.x.Ended() {
					break // answered early, or failed: its own error says it better
				}
				return nil, err
			}
		}
		x.x.CloseSend()
		return x.answer()
	})
	if err != nil {
		return none, err
	}
	return resp, nil
}

// Items turns a sequence that cannot fail into one that SendAll takes. It panics if seq
// is nil.
func Items[T any](seq iter.Seq[T]) iter.Seq2[T, error] {
	if seq == nil {
		panic("typedrpc: Items needs a sequence")
	}
	return func(yield func(T, error) bool) {
		for v := range seq {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// Open calls a bidirectional stream. It returns when the call is on its way,
// not when it was accepted: that the handler refused is what Recv says. ctx
// lives as long as the stream: when it ends, the stream does. The caller must
// receive until an error, Cancel the stream, or end ctx; otherwise the stream
// lives as long as its connection.
func Open[Req, Up, Down any](ctx context.Context, c Caller, s BidiStream[Req, Up, Down], req Req) (*Stream[Up, Down], error) {
	x, err := open(ctx, c, s.spec, &req)
	if err != nil {
		return nil, err
	}
	return &Stream[Up, Down]{x: x, out: &s.spec.up, in: &s.spec.down}, nil
}

// Stream is one side of a bidirectional stream: Out is what this side sends, In
// what it receives. Its methods may be called by any goroutine at any time;
// sending and receiving do not wait for each other. They panic on a Stream that
// neither Open made nor a handler was given.
type Stream[Out, In any] struct {
	x        face
	out, in  *sync.Pool
	validate func(any) error
}

// Send sends an item. It waits while the other side is behind by more than its
// window, as long as the stream lives. The order of returns is the order of
// the items. nil says that the item is on its way, not that it was received.
// After the end of the stream the error says why it ended; after a good end it
// is FailedPrecondition and wraps io.EOF.
func (s *Stream[Out, In]) Send(v Out) error { return sendItem(s.face(), s.out, v) }

// Recv waits for the next item. It returns io.EOF after the last one: the
// handler has returned nil, or the caller has called CloseSend. Every other
// error is an *Error, and comes after all items that were sent before it,
// unless it was this side that ended the stream.
func (s *Stream[Out, In]) Recv() (In, error) {
	v, _, err := recvItem[In](s.face(), s.in, s.validate)
	return v, err
}

// All ranges over the items that come until the end, with Recv's errors but
// io.EOF as the last pair; behind a [Gap] there is one more, Unavailable, for a body that
// goes on. Leaving the loop leaves the stream as it is: Cancel ends it.
func (s *Stream[Out, In]) All() iter.Seq2[In, error] {
	return func(yield func(In, error) bool) {
		for {
			v, err := s.Recv()
			switch {
			case err == io.EOF || !yield(v, err):
				return
			case errors.Is(err, Gap):
				yield(v, errBrokeOff)
				return
			case err != nil:
				return
			}
		}
	}
}

// CloseSend says that this side sends no more items: the other side's Recv
// returns io.EOF after the last one. Receiving goes on. On the handler's side
// it only keeps this side from sending: there the end is its return.
func (s *Stream[Out, In]) CloseSend() { s.face().x.CloseSend() }

// Cancel ends this side: what has not been sent or received is dropped, and Send
// and Recv return Canceled. On the caller's side the handler's context ends; a
// stream that has ended already just gives up its memory. It does not wait.
func (s *Stream[Out, In]) Cancel() {
	closed := &status.Error{Code: status.Canceled, Message: "the stream was canceled by this side", Cause: context.Canceled}
	if x := s.face().x; x.Caller() {
		x.Fail(closed)
	} else {
		x.Abandon(closed)
	}
}

// engine is for tests.
func (s *Stream[Out, In]) engine() *engine.Stream { return s.x.x }

func (s *Stream[Out, In]) face() face {
	if s == nil || s.x.x == nil {
		panic("typedrpc: the Stream is nil, or was not made by Open or for a handler")
	}
	return s.x
}

// sendItem sends v. The pool keeps v from being boxed anew for each item.
func sendItem[T any](x face, pool *sync.Pool, v T) error {
	p := pool.Get().(*T)
	*p = v
	err := x.send(p)
	var none T
	*p = none
	pool.Put(p)
	return err
}

// recvItem receives an item, with what its ITEM says of it.
func recvItem[T any](x face, pool *sync.Pool, validate func(any) error) (T, engine.Item, error) {
	p := pool.Get().(*T)
	about, err := x.recv(p, validate)
	v := *p
	var none T
	*p = none
	pool.Put(p)
	if err != nil {
		return none, about, err
	}
	return v, about, nil
}
