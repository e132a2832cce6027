package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/stats"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// What is nil, or was not made as it should be, gives an error that says so, or a
// panic with a sentence.

func TestZero_calls(t *testing.T) {
	ctx := t.Context()
	pick := func(c *typedrpc.Conn) typedrpc.Caller {
		return typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) { return c, nil })
	}
	callers := map[string]typedrpc.Caller{
		"nil": nil, "nil Conn": (*typedrpc.Conn)(nil), "zero Conn": new(typedrpc.Conn), "picked": pick(new(typedrpc.Conn)),
	}
	calls := map[string]func(c typedrpc.Caller) error{
		"Call":    func(c typedrpc.Caller) error { _, err := typedrpc.Call(ctx, c, lab.Ask, 1); return err },
		"Go":      func(c typedrpc.Caller) error { _, err := typedrpc.Go(ctx, c, lab.Ask, 1).Await(ctx); return err },
		"Notify":  func(c typedrpc.Caller) error { return typedrpc.Notify(ctx, c, lab.Tell, 1) },
		"Receive": func(c typedrpc.Caller) error { return last(typedrpc.Receive(ctx, c, lab.FlowDown, 1)) },
		"Open":    func(c typedrpc.Caller) error { _, err := typedrpc.Open(ctx, c, lab.FlowBoth, ""); return err },
		"SendAll": func(c typedrpc.Caller) error {
			_, err := typedrpc.SendAll(ctx, c, lab.FlowUp, 1, nil)
			return err
		},
	}
	for who, c := range callers {
		for what, call := range calls {
			t.Run(what+" on "+who, func(t *testing.T) { refused(t, call(c)) })
		}
	}
}

func TestZero_callees(t *testing.T) {
	client, _ := typedrpctest.Pair(t, &typedrpc.Server{}, nil)
	ctx := t.Context()
	for what, call := range map[string]func() error{
		"Call": func() error { _, err := typedrpc.Call(ctx, client, typedrpc.Method[int, int]{}, 1); return err },
		"Go": func() error {
			_, err := typedrpc.Go(ctx, client, typedrpc.Method[int, int]{}, 1).Await(ctx)
			return err
		},
		"Notify":  func() error { return typedrpc.Notify(ctx, client, typedrpc.Notification[int]{}, 1) },
		"Receive": func() error { return last(typedrpc.Receive(ctx, client, typedrpc.ServerStream[int, int]{}, 1)) },
		"Open": func() error {
			_, err := typedrpc.Open(ctx, client, typedrpc.BidiStream[int, int, int]{}, 1)
			return err
		},
		"SendAll": func() error {
			_, err := typedrpc.SendAll(ctx, client, typedrpc.ClientStream[int, int, int]{}, 1, nil)
			return err
		},
		"Broadcast": func() error {
			return typedrpc.Broadcast(ctx, func(yield func(*typedrpc.Conn) bool) { yield(client) }, typedrpc.Notification[int]{}, 1)
		},
		"Broadcast to nil": func() error {
			return typedrpc.Broadcast(ctx, func(yield func(*typedrpc.Conn) bool) { yield(nil) }, lab.Tell, 1)
		},
		"Forward nil":  func() error { _, err := typedrpc.Forward(ctx, client, nil); return err },
		"Forward zero": func() error { _, err := typedrpc.Forward(ctx, client, new(typedrpc.Request)); return err },
		"SendAll of no sequence": func() error {
			_, err := typedrpc.SendAll(ctx, client, lab.FlowUp, 1, nil)
			return err
		},
		"Broadcast to no sequence": func() error {
			return typedrpc.Broadcast[*typedrpc.Conn](ctx, nil, lab.Tell, 1)
		},
		"CallAll of nothing":     func() error { return lastOf(typedrpc.CallAll(ctx, one(client), typedrpc.Method[int, int]{}, 1)) },
		"CallAll to nil":         func() error { return lastOf(typedrpc.CallAll(ctx, one((*typedrpc.Conn)(nil)), lab.Ask, 1)) },
		"CallAll to no sequence": func() error { return lastOf(typedrpc.CallAll[*typedrpc.Conn](ctx, nil, lab.Ask, 1)) },
		"Reply of nil":           func() error { _, err := lab.Sign.Reply(nil); return err },
		"Reply of zero":          func() error { _, err := lab.Sign.Reply(new(typedrpc.Conn)); return err },
		"Forward to nil": func() error {
			_, err := typedrpc.Forward(ctx, nil, &typedrpc.Request{Conn: client})
			return err
		},
	} {
		t.Run(what+" of nothing", func(t *testing.T) { refused(t, call()) })
	}
}

// last is the last error of a stream.
func last[T any](seq func(func(T, error) bool)) (failed error) {
	for _, err := range seq {
		failed = err
	}
	return failed
}

// lastOf is last of what CallAll ranges over.
func lastOf[C, T any](seq func(func(C, *typedrpc.Future[T]) bool)) (failed error) {
	for _, f := range seq {
		_, failed = f.Await(context.Background())
	}
	return failed
}

// one is a sequence of one.
func one[C any](c C) func(func(C) bool) { return func(yield func(C) bool) { yield(c) } }

func refused(t *testing.T, err error) {
	t.Helper()
	is := is.NewRelaxed(t)
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
}

// A context that is nil is the caller's mistake, and no panic somewhere below.
func TestZero_context(t *testing.T) {
	client, _ := typedrpctest.Pair(t, &typedrpc.Server{}, nil)
	bounded := typedrpc.NewMethod[int, int]("bounded", typedrpc.Timeout(1))
	again := typedrpc.NewServerStream[int, int]("again", typedrpc.Timeout(1)).Restartable(func(n int, _ *int) int { return n })
	var none context.Context
	for what, call := range map[string]func() error{
		"Call":    func() error { _, err := typedrpc.Call(none, client, lab.Ask, 1); return err },
		"bounded": func() error { _, err := typedrpc.Call(none, client, bounded, 1); return err },
		"Go":      func() error { _, err := typedrpc.Go(none, client, bounded, 1).Await(t.Context()); return err },
		"Notify":  func() error { return typedrpc.Notify(none, client, lab.Tell, 1) },
		"Broadcast": func() error {
			return typedrpc.Broadcast(none, func(yield func(*typedrpc.Conn) bool) { yield(client) }, lab.Tell, 1)
		},
		"Receive":     func() error { return last(typedrpc.Receive(none, client, lab.FlowDown, 1)) },
		"restartable": func() error { return last(typedrpc.Receive(none, client, again, 1)) },
		"Open":        func() error { _, err := typedrpc.Open(none, client, lab.FlowBoth, ""); return err },
		"SendAll": func() error {
			_, err := typedrpc.SendAll(none, client, lab.FlowUp, 1, typedrpc.Items(slices.Values([]string{""})))
			return err
		},
		"Dial":                func() error { _, err := typedrpc.Dial(none, "ws://localhost", nil); return err },
		"Conn.Shutdown":       func() error { return client.Shutdown(none) },
		"Server.Shutdown":     func() error { return new(typedrpc.Server).Shutdown(none) },
		"Conn.Reauthenticate": func() error { return client.Reauthenticate(none) },
		"Conn.Ping":           func() error { _, err := client.Ping(none); return err },
		"CallAll":             func() error { return lastOf(typedrpc.CallAll(none, one(client), lab.Ask, 1)) },
		"Forward": func() error {
			_, err := typedrpc.Forward(none, client, &typedrpc.Request{Conn: client, Method: "x"})
			return err
		},
		"Subscribe": func() error { return last(topic.Subscribe(none, client, zeroTopic, "")) },
		"Watch":     func() error { return last(topic.Watch(none, client, zeroTopic, "")) },
		"Listen":    func() error { return last(topic.Listen(none, new(topic.Hub), zeroTopic, "")) },
		"Publish":   func() error { return topic.Publish(none, new(topic.Hub), zeroTopic, "", 1) },
		"Introduce": func() error { return topic.Introduce(none, "") },
		"Send": func() error {
			_, err := transfer.Send(none, client, transfer.NewUpload[int, int]("up"), 1, strings.NewReader(""), nil)
			return err
		},
		"transfer.Receive": func() error {
			_, err := transfer.Receive(none, client, transfer.NewDownload[int]("down"), 1, nil)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) { refused(t, call()) })
	}
	future := typedrpc.Go(t.Context(), client, lab.Ask, 1)
	for what, wait := range map[string]func() error{
		"Await": func() error { _, err := future.Await(none); return err },
		"All":   func() error { _, err := typedrpc.All(none, future); return err },
		"Any":   func() error { _, err := typedrpc.Any(none, future); return err },
		"Wait":  func() error { return typedrpc.Wait(none, future) },
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			err := wait()
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun) // the call goes on
		})
	}
}

var zeroTopic = topic.New[int]("zero", topic.WithPresence)

func TestZero_panics(t *testing.T) {
	var conn *typedrpc.Conn
	var future *typedrpc.Future[int]
	var stream *typedrpc.Stream[int, int]
	for what, f := range map[string]func(){
		"Conn.Err":            func() { conn.Err() },
		"Conn.Close":          func() { new(typedrpc.Conn).Close() },
		"Conn.Shutdown":       func() { conn.Shutdown(t.Context()) },
		"Conn.Context":        func() { conn.Context() },
		"Conn.Codec":          func() { new(typedrpc.Conn).Codec() },
		"Conn.Identity":       func() { conn.Identity() },
		"Conn.State":          func() { conn.State() },
		"Conn.Reconnect":      func() { conn.Reconnect() },
		"Conn.Reauthenticate": func() { conn.Reauthenticate(t.Context()) },
		"Conn.With":           func() { conn.With(typedrpc.CallOptions{}) },
		"Future.Await":        func() { future.Await(t.Context()) },
		"Future.Done":         func() { new(typedrpc.Future[int]).Done() },
		"Future.Cancel":       func() { future.Cancel() },
		"Wait":                func() { typedrpc.Wait(t.Context(), nil) },
		"All":                 func() { typedrpc.All(t.Context(), future) },
		"Stream.Send":         func() { stream.Send(1) },
		"Stream.Recv":         func() { new(typedrpc.Stream[int, int]).Recv() },
		"Stream.CloseSend":    func() { stream.CloseSend() },
		"Stream.Cancel":       func() { stream.Cancel() },
		"ConnFrom nil":        func() { typedrpc.ConnFrom(nil) },    //lint:ignore SA1012 that is what is tried
		"RequestFrom nil":     func() { typedrpc.RequestFrom(nil) }, //lint:ignore SA1012 that is what is tried
		"RequestFrom":         func() { typedrpc.RequestFrom(t.Context()) },
		"ConnFrom":            func() { typedrpc.ConnFrom(t.Context()) },
		"OnItem":              func() { new(typedrpc.Request).OnItem(nil) },
		"OnItem of nil":       func() { (*typedrpc.Request)(nil).OnItem(func(typedrpc.Raw, bool) error { return nil }) },
		"Metadata.Set":        func() { (*typedrpc.Metadata)(nil).Set("key", "value") },
		"Conn.RemoteAddr":     func() { conn.RemoteAddr() },
		"Conn.Stats":          func() { new(typedrpc.Conn).Stats() },
		"Conn.Ping":           func() { conn.Ping(t.Context()) },
		"Conn.CloseWith":      func() { conn.CloseWith(nil) },
		"Conn.Bind":           func() { conn.Bind(idempotency.NewKey()) },
		"Conn.Bind of zero":   func() { new(typedrpc.Conn).Bind(idempotency.NewKey()) },
		"Stream.All":          func() { last(stream.All()) },
		"Any":                 func() { typedrpc.Any(t.Context(), future) },
		"Wait for zero":       func() { typedrpc.Wait(t.Context(), new(typedrpc.Future[int])) },
	} {
		t.Run(what, func(t *testing.T) { panics(t, f) })
	}
}

// What a program declares and registers when it starts.
func TestZero_declarations(t *testing.T) {
	handler := func(context.Context, int) (int, error) { return 0, nil }
	for what, f := range map[string]func(){
		"Pick":               func() { typedrpc.Pick(nil) },
		"Handle without mux": func() { typedrpc.Handle(nil, lab.Ask, handler) },
		"Handle of nothing":  func() { typedrpc.Handle(new(typedrpc.Mux), typedrpc.Method[int, int]{}, handler) },
		"Handle a nil pointer": func() {
			typedrpc.Handle[func(context.Context, int) (int, error)](new(typedrpc.Mux), (*typedrpc.Method[int, int])(nil), handler)
		},
		"Handle nil": func() { typedrpc.Handle(new(typedrpc.Mux), lab.Ask, nil) },
		"Restartable": func() {
			typedrpc.ServerStream[int, int]{}.Restartable(func(int, *int) int { return 0 })
		},
		"Items":            func() { typedrpc.Items[int](nil) },
		"Mux.Group":        func() { (*typedrpc.Mux)(nil).Group() },
		"Mux.Group of nil": func() { new(typedrpc.Mux).Group(nil) },
		"NewMux of nil":    func() { typedrpc.NewMux(nil) },
		"HandleFallback": func() {
			(*typedrpc.Mux)(nil).HandleFallback(func(context.Context, *typedrpc.Request) (typedrpc.Raw, error) { return nil, nil })
		},
		"HandleFallback of nil": func() { new(typedrpc.Mux).HandleFallback(nil) },
		"Handle nothing":        func() { typedrpc.Handle[func()](new(typedrpc.Mux), nil, nil) },
		"Handle a Declared":     func() { typedrpc.Handle(new(typedrpc.Mux), typedrpc.Declared[func()]{}, func() {}) },
		"SignIn.Verify":         func() { lab.Sign.Verify(nil) },
		"SignIn.Present":        func() { lab.Sign.Present(nil) },
		"a nil trait":           func() { typedrpc.NewMethod[int, int]("x", nil) },
		"a fault's nil trait":   func() { typedrpc.NewFault[int]("x", typedrpc.NotFound, nil) },
		"a sign-in's nil trait": func() { typedrpc.NewSignIn[int, int](nil) },
		"Fault.Errorf":          func() { typedrpc.Fault[int]{}.Errorf(1, "") },
	} {
		t.Run(what, func(t *testing.T) { panics(t, f) })
	}
}

// panics is for f that panics with a sentence.
func panics(t *testing.T, f func()) {
	t.Helper()
	is := is.New(t)
	defer func() {
		p := recover()
		_, bare := p.(runtime.Error)
		is.True(p != nil && !bare)
		is.True(strings.HasPrefix(fmt.Sprint(p), "typedrpc: "))
	}()
	f()
}

func TestZero_works(t *testing.T) {
	is := is.New(t)
	var mux typedrpc.Mux
	typedrpc.Handle(&mux, lab.Ask, func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: &mux, Replays: new(idempotency.Cache)}, nil)
	n, err := typedrpc.Call(t.Context(), client, lab.Ask, 21)
	is.NoErr(err)
	is.Equal(n, 42)

	var srv *typedrpc.Server
	is.True(srv.Check() != nil)
	is.True(srv.Shutdown(t.Context()) != nil)
	is.Equal(srv.Revoke("x", nil), 0)
	is.Equal(srv.Revoke("x", &typedrpc.CloseOptions{StayAway: true}), 0)
	is.Equal(srv.Stats(), stats.Server{})
	for range srv.ConnsOf("") {
		t.Error("a connection of nobody")
	}
	for range srv.Conns() {
		t.Error("a connection of nobody")
	}
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	is.Equal(w.Code, http.StatusInternalServerError)

	is.Equal(stats.Kind(99).String(), "unknown")
	is.Equal(typedrpc.KindMethod.String(), "method")
	is.Equal((*typedrpc.Error)(nil).Error(), "an *Error that is nil")
	is.Equal((*typedrpc.UpgradeError)(nil).Error(), "an *UpgradeError that is nil")
	is.Equal((*typedrpc.CloseError)(nil).Error(), "a *CloseError that is nil")
	is.Equal((*typedrpc.Error)(nil).FaultName(), "")
	is.Equal((*typedrpc.Error)(nil).Unwrap(), nil)
	is.True(!(*typedrpc.Error)(nil).Is(typedrpc.Gap))
	_, tagged := typedrpc.TagOf[int](nil)
	is.True(!tagged)
	_, mine := typedrpc.Fault[int]{}.From(typedrpc.NewFault[int]("x", typedrpc.NotFound).Errorf(1, ""))
	is.True(!mine)
	is.Equal(idempotency.Key{}.String(), "")
	is.Equal(typedrpc.Method[int, int]{}.Name(), "")
	is.Equal(typedrpc.ServerStream[int, int]{}.Name(), "")
	is.Equal(typedrpc.Notification[int]{}.Name(), "")
}

func TestZero_topics(t *testing.T) {
	client, _ := typedrpctest.Pair(t, &typedrpc.Server{}, nil)
	ctx := t.Context()
	for what, at := range map[string]struct {
		hub *topic.Hub
		t   topic.Topic[int]
	}{"a nil Hub": {nil, zeroTopic}, "a zero Topic": {new(topic.Hub), topic.Topic[int]{}}} {
		for does, do := range map[string]func() error{
			"Publish":  func() error { return topic.Publish(ctx, at.hub, at.t, "", 1) },
			"Listen":   func() error { return last(topic.Listen(ctx, at.hub, at.t, "")) },
			"Members":  func() error { _, err := topic.Members(at.hub, at.t, ""); return err },
			"Remove":   func() error { _, err := topic.Remove(at.hub, at.t, "", "", nil); return err },
			"SetAbout": func() error { return topic.SetAbout(at.hub, at.t, "", "", "") },
		} {
			t.Run(does+" of "+what, func(t *testing.T) { refused(t, do()) })
		}
		for who, mux := range map[string]*typedrpc.Mux{"mux": new(typedrpc.Mux), "nil": nil} {
			t.Run("Handle of "+what+" for "+who, func(t *testing.T) {
				panics(t, func() { topic.Handle(mux, at.hub, at.t, topic.Everybody) })
			})
		}
	}
	for what, call := range map[string]func() error{
		"Subscribe":        func() error { return last(topic.Subscribe(ctx, client, topic.Topic[int]{}, "")) },
		"Watch":            func() error { return last(topic.Watch(ctx, client, topic.Topic[int]{}, "")) },
		"Subscribe at nil": func() error { return last(topic.Subscribe(ctx, nil, zeroTopic, "")) },
		"Watch at nil":     func() error { return last(topic.Watch(ctx, (*typedrpc.Conn)(nil), zeroTopic, "")) },
		"Close":            func() error { return (*topic.Hub)(nil).Close() },
	} {
		t.Run(what, func(t *testing.T) { refused(t, call()) })
	}
	t.Run("New with a nil trait", func(t *testing.T) { panics(t, func() { topic.New[int]("x", nil) }) })
}

func TestZero_transfers(t *testing.T) {
	client, _ := typedrpctest.Pair(t, &typedrpc.Server{}, nil)
	ctx := t.Context()
	up, down := transfer.NewUpload[int, int]("up"), transfer.NewDownload[int]("down")
	send := func(c typedrpc.Caller, u transfer.Upload[int, int]) error {
		_, err := transfer.Send(ctx, c, u, 1, strings.NewReader(""), nil)
		return err
	}
	receive := func(c typedrpc.Caller, d transfer.Download[int]) error {
		_, err := transfer.Receive(ctx, c, d, 1, nil)
		return err
	}
	for what, call := range map[string]func() error{
		"Send of nothing":    func() error { return send(client, transfer.Upload[int, int]{}) },
		"Send to nil":        func() error { return send(nil, up) },
		"Send of no source":  func() error { _, err := transfer.Send(ctx, client, up, 1, nil, nil); return err },
		"Receive of nothing": func() error { return receive(client, transfer.Download[int]{}) },
		"Receive from nil":   func() error { return receive((*typedrpc.Conn)(nil), down) },
	} {
		t.Run(what, func(t *testing.T) { refused(t, call()) })
	}
	for what, r := range map[string]*transfer.Reader{"nil": nil, "zero": new(transfer.Reader), "of nil": transfer.NewReader(nil)} {
		t.Run("Reader "+what, func(t *testing.T) {
			is := is.New(t)
			is.True(errors.Is(r.Begin(nil), typedrpc.FailedPrecondition))
			_, err := r.Read(make([]byte, 1))
			is.True(errors.Is(err, typedrpc.FailedPrecondition))
			_, err = r.WriteTo(io.Discard)
			is.True(errors.Is(err, typedrpc.FailedPrecondition))
			is.Equal(r.Total(), int64(-1))
			is.Equal(len(r.Sum()), 32)
			is.NoErr(r.Close())
		})
	}
	for what, w := range map[string]*transfer.Writer{"nil": nil, "zero": new(transfer.Writer), "of nil": transfer.NewWriter(nil)} {
		t.Run("Writer "+what, func(t *testing.T) {
			is := is.New(t)
			_, err := w.Write([]byte("x"))
			is.True(errors.Is(err, typedrpc.FailedPrecondition))
			is.True(errors.Is(w.Send(strings.NewReader("x"), nil), typedrpc.FailedPrecondition))
			is.True(errors.Is(w.Close(), typedrpc.FailedPrecondition))
		})
	}
}
