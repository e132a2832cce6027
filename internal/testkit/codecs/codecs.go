// Package codecs is one table of tests for all codecs: what crosses a connection by
// them, end to end.
package codecs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Kit is a codec, and a message that it is tested with.
type Kit[M any] struct {
	Codec  typedrpc.Codec
	Alloc  []typedrpc.Trait // of M, where that is a pointer
	New    func(number int64, text string) M
	Values func(M) (number int64, text string)
	// Broken is what does not decode as a message.
	Broken []byte
	// Foreign registers a method whose messages the codec cannot carry.
	Foreign func(*typedrpc.Mux)
}

// declared is an API of M.
type declared[M any] struct {
	add     typedrpc.Method[M, M]
	raw     typedrpc.Method[typedrpc.Raw, typedrpc.Raw]
	nothing typedrpc.Method[struct{}, struct{}]
	shout   typedrpc.Method[string, string]
	note    typedrpc.Notification[M]
	count   typedrpc.ServerStream[M, M]
	sum     typedrpc.ClientStream[M, M, M]
	talk    typedrpc.BidiStream[M, M, M]
	news    topic.Topic[M]
	refused typedrpc.Fault[M]
}

func traits[T any](all []typedrpc.Trait, is func(typedrpc.Trait) T) (as []T) {
	for _, t := range all {
		as = append(as, is(t))
	}
	return as
}

func (k Kit[M]) declare() declared[M] {
	method := traits(k.Alloc, func(t typedrpc.Trait) typedrpc.MethodTrait { return t })
	read := traits(k.Alloc, func(t typedrpc.Trait) typedrpc.ServerStreamTrait { return t })
	call := traits(k.Alloc, func(t typedrpc.Trait) typedrpc.CallTrait { return t })
	return declared[M]{
		typedrpc.NewMethod[M, M]("add", method...),
		typedrpc.NewMethod[typedrpc.Raw, typedrpc.Raw]("add"), // the same, by its bytes
		typedrpc.NewMethod[struct{}, struct{}]("nothing"),
		typedrpc.NewMethod[string, string]("shout"),
		typedrpc.NewNotification[M]("note", traits(k.Alloc, func(t typedrpc.Trait) typedrpc.RequestTrait { return t })...),
		typedrpc.NewServerStream[M, M]("count", read...),
		typedrpc.NewClientStream[M, M, M]("sum", call...),
		typedrpc.NewBidiStream[M, M, M]("talk", call...),
		topic.New[M]("news", traits(k.Alloc, func(t typedrpc.Trait) topic.Trait { return t })...),
		typedrpc.NewFault[M]("refused", typedrpc.FailedPrecondition, k.Alloc...),
	}
}

// rig is a server of that API, and a client of it.
type rig[M any] struct {
	Kit[M]
	declared[M]
	client *typedrpc.Conn
	hub    *topic.Hub
	noted  chan M
}

func (k Kit[M]) rig(t *testing.T) *rig[M] {
	r := &rig[M]{Kit: k, declared: k.declare(), hub: new(topic.Hub), noted: make(chan M, 100)}
	r.hub.Codec = k.Codec
	mux, codecs := typedrpc.NewMux(), []typedrpc.Codec{k.Codec}
	r.serve(mux)
	srv := &typedrpc.Server{Mux: mux, Codecs: codecs, Logger: slog.New(slog.DiscardHandler)}
	is := is.New(t)
	is.NoErr(srv.Check())
	r.client, _ = typedrpctest.Pair(t, srv, &typedrpc.DialOptions{Codecs: codecs, Logger: srv.Logger})
	t.Cleanup(func() { r.hub.Close() })
	return r
}

func (r *rig[M]) serve(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, r.add, func(_ context.Context, m M) (M, error) {
		n, text := r.Values(m)
		if n < 0 {
			return m, r.refused.Errorf(m, "negative")
		}
		return r.New(n+1, text+text), nil
	})
	typedrpc.Handle(mux, r.nothing, func(context.Context, struct{}) (struct{}, error) {
		return struct{}{}, nil
	})
	typedrpc.Handle(mux, r.shout, func(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil })
	typedrpc.Handle(mux, r.note, func(_ context.Context, m M) error { r.noted <- m; return nil })
	typedrpc.Handle(mux, r.count, func(_ context.Context, m M, send func(M) error) error {
		n, text := r.Values(m)
		for i := range n {
			if err := send(r.New(i, text)); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, r.sum, func(_ context.Context, m M, items iter.Seq2[M, error]) (M, error) {
		sum, all := r.Values(m)
		for item, err := range items {
			if err != nil {
				return m, err
			}
			n, text := r.Values(item)
			sum, all = sum+n, all+text
		}
		return r.New(sum, all), nil
	})
	typedrpc.Handle(mux, r.talk, func(_ context.Context, m M, s *typedrpc.Stream[M, M]) error {
		for item, err := range s.All() {
			if err != nil {
				return err
			}
			if err := s.Send(item); err != nil {
				return err
			}
		}
		return nil
	})
	topic.Handle(mux, r.hub, r.news, topic.Everybody)
}

// Run tests a codec.
func Run[M any](t *testing.T, k Kit[M]) {
	for name, test := range map[string]func(*testing.T, *is.I, *rig[M]){
		"calls": calls[M], "broken": broken[M], "streams": streams[M], "notifications": notifications[M],
		"topics": topics[M], "faults": faults[M],
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, is.New(t), k.rig(t)) })
		})
	}
	t.Run("check", func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		k.Foreign(mux)
		err := (&typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{k.Codec}}).Check()
		is.True(err != nil)
		is.True(strings.Contains(err.Error(), fmt.Sprintf("codec %q cannot carry", k.Codec.Name())))
	})
	t.Run("negotiation", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { negotiation(t, is.New(t), k) })
	})
}

func calls[M any](t *testing.T, is *is.I, r *rig[M]) {
	for _, text := range []string{"", "a", "ä€𝄞\x00", strings.Repeat("x", 1<<20)} {
		for _, n := range []int64{0, 1, 1 << 40, 1<<63 - 2} {
			m, err := typedrpc.Call(t.Context(), r.client, r.add, r.New(n, text))
			is.NoErr(err)
			got, both := r.Values(m)
			is.Equal(got, n+1)
			is.Equal(both, text+text)
		}
	}
	_, err := typedrpc.Call(t.Context(), r.client, r.nothing, struct{}{})
	is.NoErr(err)
	loud, err := typedrpc.Call(t.Context(), r.client, r.shout, "hello, wörld")
	is.NoErr(err)
	is.Equal(loud, "HELLO, WÖRLD")
	// Raw is the encoding of the message.
	raw, err := r.Codec.Append(nil, r.pointer(r.New(6, "six")))
	is.NoErr(err)
	answer, err := typedrpc.Call(t.Context(), r.client, r.raw, raw)
	is.NoErr(err)
	want, err := r.Codec.Append(nil, r.pointer(r.New(7, "sixsix")))
	is.NoErr(err)
	is.Equal(string(answer), string(want))
}

// pointer is what a codec is given: the message itself if that is a pointer.
func (r *rig[M]) pointer(m M) any {
	if len(r.Alloc) > 0 {
		return m
	}
	return &m
}

func broken[M any](t *testing.T, is *is.I, r *rig[M]) {
	_, err := typedrpc.Call(t.Context(), r.client, r.raw, r.Broken)
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
	_, err = typedrpc.Call(t.Context(), r.client, r.add, r.New(1, "")) // and the connection is well
	is.NoErr(err)
}

func streams[M any](t *testing.T, is *is.I, r *rig[M]) {
	at := int64(0)
	for m, err := range typedrpc.Receive(t.Context(), r.client, r.count, r.New(1000, "item")) {
		is.NoErr(err)
		n, text := r.Values(m)
		is.Equal(n, at)
		is.Equal(text, "item")
		at++
	}
	is.Equal(at, int64(1000))
	m, err := typedrpc.SendAll(t.Context(), r.client, r.sum, r.New(100, ""), func(yield func(M, error) bool) {
		for i := range int64(100) {
			if !yield(r.New(i, "x"), nil) {
				return
			}
		}
	})
	is.NoErr(err)
	n, text := r.Values(m)
	is.Equal(n, int64(100+99*50))
	is.Equal(text, strings.Repeat("x", 100))
	s, err := typedrpc.Open(t.Context(), r.client, r.talk, r.New(0, ""))
	is.NoErr(err)
	for i := range int64(10) {
		is.NoErr(s.Send(r.New(i, "echo")))
		m, err := s.Recv()
		is.NoErr(err)
		n, text := r.Values(m)
		is.Equal(n, i)
		is.Equal(text, "echo")
	}
	s.CloseSend()
	_, err = s.Recv()
	is.True(errors.Is(err, io.EOF))
}

func notifications[M any](t *testing.T, is *is.I, r *rig[M]) {
	for i := range int64(50) {
		is.NoErr(typedrpc.Notify(t.Context(), r.client, r.note, r.New(i, "note")))
	}
	for i := range int64(50) {
		n, text := r.Values(<-r.noted)
		is.Equal(n, i)
		is.Equal(text, "note")
	}
}

func topics[M any](t *testing.T, is *is.I, r *rig[M]) {
	go func() {
		synctest.Wait()
		for i := range int64(10) {
			topic.Publish(t.Context(), r.hub, r.news, "a key", r.New(i, "news"))
		}
	}()
	at := int64(0)
	for event, err := range topic.Subscribe(t.Context(), r.client, r.news, "a key") {
		is.NoErr(err)
		n, text := r.Values(event.Value)
		is.Equal(n, at)
		is.Equal(text, "news")
		if at++; at == 10 {
			return
		}
	}
}

func faults[M any](t *testing.T, is *is.I, r *rig[M]) {
	_, err := typedrpc.Call(t.Context(), r.client, r.add, r.New(-5, "why"))
	is.True(errors.Is(err, typedrpc.FailedPrecondition))
	m, ok := r.refused.From(err)
	is.True(ok)
	n, text := r.Values(m)
	is.Equal(n, int64(-5))
	is.Equal(text, "why")
}

// negotiation: the client's first choice that the server has, and an error where there is
// none.
func negotiation[M any](t *testing.T, is *is.I, k Kit[M]) {
	r := &rig[M]{Kit: k, declared: k.declare(), noted: make(chan M, 1), hub: new(topic.Hub)}
	defer r.hub.Close()
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, r.shout, func(_ context.Context, s string) (string, error) { return s + "!", nil })
	quiet := slog.New(slog.DiscardHandler)
	both := []typedrpc.Codec{k.Codec, typedrpc.JSON}
	srv := &typedrpc.Server{Mux: mux, Codecs: both, Logger: quiet}
	for _, offered := range [][]typedrpc.Codec{{k.Codec}, {typedrpc.JSON}, both, {typedrpc.JSON, k.Codec}} {
		client, _ := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{Codecs: offered, Logger: quiet})
		is.Equal(client.Codec().Name(), offered[0].Name())
		got, err := typedrpc.Call(t.Context(), client, r.shout, "a")
		is.NoErr(err)
		is.Equal(got, "a!")
	}
	_, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{typedrpc.JSON}, Logger: quiet},
		&typedrpc.DialOptions{Codecs: []typedrpc.Codec{k.Codec}, Logger: quiet})
	is.True(err != nil)
}

// Handle registers a method that is never called.
func Handle[Req, Resp any](mux *typedrpc.Mux, m typedrpc.Method[Req, Resp]) {
	typedrpc.Handle(mux, m, func(context.Context, Req) (resp Resp, err error) { return resp, nil })
}
