package typedrpc

import (
	"context"
	"iter"

	"github.com/typedrpc/typedrpc/internal/buf"
)

// mostAsked is how many calls of one CallAll are in flight.
const mostAsked = 1024

// CallAll calls m at many connections and ranges over those it asked, as they answer: for each
// there is one pair, of who was asked, as conns had it, and of its call's future, which is done.
// The request is encoded once for each codec and dialect, and each connection's limits hold for
// it as in Call. Nobody waits for a connection that is slow or silent: it has what ctx, or the
// trait Timeout, allows for itself.
//
// The second value is no error, and never nil: its Await has the error. slices.Values makes a
// sequence of a slice. A Key is for one peer: several need one for each.
//
// At most 1,024 of the calls are in flight, and conns is asked for the next connection
// when there is a place. Leaving the loop cancels them, and asks nobody else. The loop, conns
// and the decoding of answers run on the caller's goroutine; each loop asks anew. Callers made
// by With bring their metadata and interceptors. Without a method or without conns there is one
// pair, of nobody, whose future has the error.
//
//	for c, f := range typedrpc.CallAll(ctx, srv.ConnsOf("ann"), Confirm, question) {
//		yes, err := f.Await(ctx) // does not wait: it has answered
//		…
//	}
func CallAll[C Caller, Req, Resp any](ctx context.Context, conns iter.Seq[C], m Method[Req, Resp], req Req) iter.Seq2[C, *Future[Resp]] {
	return func(yield func(C, *Future[Resp]) bool) {
		none := *new(C)
		if m.spec == nil {
			_, err := aim(ctx, nil, nil, "NewMethod")
			yield(none, &Future[Resp]{p: unmade(err)})
			return
		}
		if conns == nil {
			yield(none, &Future[Resp]{p: unmade(refuse(InvalidArgument, "CallAll: the sequence of connections is nil"))})
			return
		}
		a := newAsked(m.spec, &req)
		defer a.leave()
		from := make([]C, 0, 8) // by place
		answered := func(i int) bool {
			c, f := from[i], &Future[Resp]{p: a.take(i)}
			from[i] = none
			<-f.Done()  // who watches may be told a moment earlier
			f.resolve() // here, so that nothing of the answer is held in vain
			return yield(c, f)
		}
		for c := range conns {
			i := a.place()
			if i == len(from) {
				from = append(from, c)
			}
			from[i] = c
			a.ask(ctx, c, i)
			for i := range a.ready() {
				if !answered(i) {
					return
				}
			}
		}
		for a.flying > 0 {
			if !answered(<-a.settled) {
				return
			}
		}
	}
}

// asked are the calls of one CallAll without its types.
type asked struct {
	once    broadcast // the encodings
	req     any
	calls   []*pending // by place; nil: it is free
	free    []int
	flying  int
	settled chan int // places; it has room for all of them
}

func newAsked(s *spec, req any) *asked {
	return &asked{once: broadcast{spec: s, bodies: map[encodedFor]encoded{}}, req: req, settled: make(chan int, mostAsked)}
}

// place is a place for one more call. There is one.
func (a *asked) place() int {
	if n := len(a.free); n > 0 {
		i := a.free[n-1]
		a.free = a.free[:n-1]
		return i
	}
	a.calls = append(a.calls, nil)
	return len(a.calls) - 1
}

// ask begins a call.
func (a *asked) ask(ctx context.Context, c Caller, i int) {
	p := beginWith(ctx, c, a.once.spec, func(t *target) (*buf.Buf, *Error) {
		body, err := a.once.body(t, a.req)
		if err != nil {
			return nil, err
		}
		return body.Retain(), nil
	})
	a.calls[i] = p
	a.flying++
	p.watch(a.settled, i)
}

// ready ranges over the calls that have ended, and waits for one while there is no place
// for another.
func (a *asked) ready() iter.Seq[int] {
	return func(yield func(int) bool) {
		for {
			select {
			case i := <-a.settled:
				if !yield(i) {
					return
				}
				continue
			default:
			}
			if a.flying < mostAsked {
				return
			}
			if !yield(<-a.settled) {
				return
			}
		}
	}
}

// take returns the call that has ended, and frees its place.
func (a *asked) take(i int) *pending {
	p := a.calls[i]
	a.calls[i] = nil
	a.free = append(a.free, i)
	a.flying--
	return p
}

// leave cancels what has not ended.
func (a *asked) leave() {
	for _, p := range a.calls {
		if p != nil {
			p.unwatch(a.settled)
			p.cancel()
		}
	}
	a.once.release()
}
