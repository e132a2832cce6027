package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

// panicText runs f and returns what it panicked with.
func panicText(f func()) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = fmt.Sprint(p)
		}
	}()
	f()
	return "no panic"
}

func TestNewMethod_badNames(t *testing.T) {
	for name, want := range map[string]string{
		"":                       "needs a name",
		strings.Repeat("x", 256): "256 bytes, at most 255",
		"a b":                    "white space",
		"a\n":                    "white space or control characters",
		"a\x7f":                  "control characters",
		"\xff":                   "not UTF-8",
		"rpc.hello":              "reserved",
		"$/cancelRequest":        "reserved",
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			is.True(strings.Contains(panicText(func() { typedrpc.NewMethod[int, int](name) }), want))
			is.True(strings.Contains(panicText(func() { typedrpc.NewNotification[int](name) }), want))
		})
	}
	is := is.New(t)
	// It is called what it was to be.
	is.True(strings.Contains(panicText(func() { typedrpc.NewNotification[int]("a b") }), `notification name "a b"`))
	is.True(strings.Contains(panicText(func() { typedrpc.NewBidiStream[int, int, int]("") }), "a bidirectional stream needs a name"))
	is.True(strings.Contains(panicText(func() { topic.New[int](strings.Repeat("x", 247)) }), "has 247 bytes, at most 246"))
	longest := strings.Repeat("x", 255)
	is.Equal(typedrpc.NewMethod[int, int](longest).Name(), longest)
	is.Equal(typedrpc.NewNotification[int]("größe").Name(), "größe")
}

func TestNewMethod_badTraits(t *testing.T) {
	for want, trait := range map[string]typedrpc.MethodTrait{
		"nil trait":                  nil,
		"Timeout must be positive":   typedrpc.Timeout(0),
		"MaxSize must be positive":   typedrpc.MaxSize(-1),
		"name 1 is empty":            typedrpc.Params("a", ""),
		`"a" is there twice`:         typedrpc.Params("a", "b", "a"),
		"MaxAttempts must not be":    typedrpc.Retry(typedrpc.RetryPolicy{MaxAttempts: -1}),
		"Backoff: Max 1s is below":   typedrpc.Retry(typedrpc.RetryPolicy{Backoff: typedrpc.Backoff{Min: time.Minute, Max: time.Second}}),
		"Factor 0.5 must be at leas": typedrpc.Retry(typedrpc.RetryPolicy{Backoff: typedrpc.Backoff{Factor: 0.5}}),
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			text := panicText(func() { typedrpc.NewMethod[int, int]("m", trait) })
			is.True(strings.Contains(text, want))
			is.True(strings.HasPrefix(text, "typedrpc: "))
		})
	}
	is := is.New(t)
	text := panicText(func() { typedrpc.NewMethod[int, int]("m", typedrpc.Idempotent, typedrpc.Keyed) })
	is.True(strings.Contains(text, "Idempotent and Keyed"))
	never := typedrpc.Retry(typedrpc.RetryPolicy{Codes: []typedrpc.Code{typedrpc.Unavailable, typedrpc.Aborted}})
	text = panicText(func() { typedrpc.NewMethod[int, int]("m", never) })
	is.True(strings.Contains(text, `retries "aborted", which is always an answer`))
	_ = typedrpc.NewMethod[int, int]("m", never, typedrpc.Idempotent)
	_ = typedrpc.NewMethod[int, int]("m", typedrpc.Keyed, never)
	text = panicText(func() { typedrpc.NewNotification[int]("n", nil) })
	is.True(strings.Contains(text, "nil trait"))
	text = panicText(func() { typedrpc.NewBidiStream[int, int, int]("s", nil) })
	is.True(strings.Contains(text, "nil trait"))
}

func TestHandle_twice(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
	text := panicText(func() { typedrpc.Handle(mux.Group(), lab.Sum, lab.HandleSum) })
	is.Equal(text, `typedrpc: method "math.sum" is registered already`)
	typedrpc.Handle(mux, lab.Tell, func(context.Context, int) error { return nil })
	typedrpc.Handle(mux, lab.Tell, func(context.Context, int) error { return nil }) // allowed
	other := typedrpc.NewNotification[string]("tell")
	is.True(panicText(func() { typedrpc.Handle(mux, other, func(context.Context, string) error { return nil }) }) != "no panic")
	clash := typedrpc.NewNotification[string]("math.sum")
	is.True(panicText(func() { typedrpc.Handle(mux, clash, func(context.Context, string) error { return nil }) }) != "no panic")
}

func TestHandleFallback_twice(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	is.True(strings.Contains(panicText(func() { mux.HandleFallback(nil) }), "needs a Mux and a handler"))
	mux.HandleFallback(func(context.Context, *typedrpc.Request) (typedrpc.Raw, error) { return nil, nil })
	text := panicText(func() {
		mux.HandleFallback(func(context.Context, *typedrpc.Request) (typedrpc.Raw, error) { return nil, nil })
	})
	is.True(strings.Contains(text, "there is a fallback handler already"))
}

func TestHandle_whileServing(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
		is.True(errors.Is(err, typedrpc.Unimplemented))
		typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
		_, err = typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
		is.NoErr(err)
	})
}

func TestHandleFallback_answers(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		noted := make(chan string, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
		mux.HandleFallback(func(_ context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			if r.Kind == typedrpc.KindNotification {
				noted <- r.Method + string(r.Payload)
				return nil, nil
			}
			r.ReplyMetadata.Set("via", "fallback")
			return r.Payload, nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		var reply typedrpc.Metadata
		got, err := typedrpc.Call(t.Context(), client.With(typedrpc.CallOptions{ReplyMetadata: &reply}), typedrpc.NewMethod[lab.Pair, lab.Pair]("anything"), lab.Pair{A: 1, B: 2})
		is.NoErr(err)
		is.Equal(got, lab.Pair{A: 1, B: 2})
		if !o.Plain() {
			is.Equal(reply["via"], "fallback")
		}
		is.NoErr(typedrpc.Notify(t.Context(), client, typedrpc.NewNotification[lab.Pair]("some.event"), lab.Pair{A: 3, B: 4}))
		is.Equal(<-noted, `some.event{"A":3,"B":4}`)
		r, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{A: 1, B: 2})
		is.NoErr(err)
		is.Equal(r.Sum, 3) // known names do not get there
	})
}

// A fallback may answer with the request's own bytes. They were in a pooled
// buffer that the next request was read into before the answer was written.
func TestHandleFallback_echoesPayload(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		mux.HandleFallback(func(_ context.Context, r *typedrpc.Request) (typedrpc.Raw, error) { return r.Payload, nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		same := typedrpc.NewMethod[[]string, []string]("same")
		const callers = 16
		errs := make(chan error, callers)
		for i := range callers {
			go func() {
				text := strings.Repeat(fmt.Sprintf("%02d", i), 50)
				for range 100 {
					got, err := typedrpc.Call(t.Context(), client, same, []string{text, "-"})
					if err == nil && got[0] != text {
						err = fmt.Errorf("caller %d was answered %s", i, got)
					}
					if err != nil {
						errs <- err
						return
					}
				}
				errs <- nil
			}()
		}
		for range callers {
			is.NoErr(<-errs)
		}
	})
}

func TestHandleFallback_observes(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		seen := make(chan string, 1)
		mux := typedrpc.NewMux()
		mux.HandleFallback(func(_ context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			seen <- r.Method
			return nil, typedrpc.Unimplemented
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
		is.True(errors.Is(err, typedrpc.Unimplemented))
		is.Equal(<-seen, "math.sum")
	})
}

// proxy connects a client to a proxy whose fallback forwards to a backend.
func proxy(t *testing.T, o lab.Over, backend *typedrpc.Mux) (client *typedrpc.Conn) {
	t.Helper()
	behind, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: backend}, nil)
	mux := typedrpc.NewMux()
	mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
		return typedrpc.Forward(ctx, behind.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"proxy": "p1"}}), r)
	})
	client, _ = o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
	return client
}

func TestForward_calls(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		backend := typedrpc.NewMux()
		typedrpc.Handle(backend, lab.Sum, func(ctx context.Context, p lab.Pair) (lab.Total, error) {
			r := typedrpc.RequestFrom(ctx)
			r.ReplyMetadata.Set("saw", r.Metadata["from"]+"+"+r.Metadata["proxy"])
			if p.A < 0 {
				return lab.Total{}, lab.NoStock.Errorf(lab.Shortage{Left: 5}, "%d left", 5)
			}
			return lab.Total{Sum: p.A + p.B}, nil
		})
		client := proxy(t, o, backend)
		var reply typedrpc.Metadata
		caller := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"from": "client"}, ReplyMetadata: &reply})
		r, err := typedrpc.Call(t.Context(), caller, lab.Sum, lab.Pair{A: 1, B: 2})
		is.NoErr(err)
		is.Equal(r.Sum, 3)
		_, err = typedrpc.Call(t.Context(), caller, lab.Sum, lab.Pair{A: -1, B: 2})
		s, ok := lab.NoStock.From(err)
		is.True(ok) // errors pass with their names, texts and data
		is.Equal(lab.AsError(t, err).Message, "5 left")
		is.Equal(s.Left, 5)
		if !o.Plain() {
			is.Equal(reply["saw"], "client+p1")
		}
		_, err = typedrpc.Call(t.Context(), client, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.Unimplemented)) // the backend's answer
	})
}

func TestForward_cancelAndDeadline(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		h := lab.NewHanging()
		backend := typedrpc.NewMux()
		typedrpc.Handle(backend, lab.Stay, h.Handle)
		client := proxy(t, o, backend)
		call := typedrpc.Go(t.Context(), client, lab.Stay, struct{}{})
		<-h.Begun
		call.Cancel()
		is.Equal(<-h.Ended, context.Canceled) // two hops away
	})
}

func TestForward_notification(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		got := make(chan int, 1)
		backend := typedrpc.NewMux()
		typedrpc.Handle(backend, lab.Tell, func(_ context.Context, n int) error { got <- n; return nil })
		client := proxy(t, o, backend)
		is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, 77))
		is.Equal(<-got, 77)
	})
}

func TestForward_otherCodec(t *testing.T) {
	is := is.New(t)
	backend := typedrpc.NewMux()
	typedrpc.Handle(backend, lab.Sum, lab.HandleSum)
	behind, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: backend}, nil)
	mux := typedrpc.NewMux()
	mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
		return typedrpc.Forward(ctx, behind, r)
	})
	srv := &typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{hexed{}}}
	client, _ := lab.Over{}.Connect(t, srv, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{hexed{}}})
	_, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
	is.True(errors.Is(err, typedrpc.FailedPrecondition))
	is.True(strings.Contains(err.Error(), `codec "hexed"`))
}

// age validates itself by value, name by pointer.
type age int

func (a age) Validate() error {
	switch {
	case a < 0:
		return errors.New("nobody is that young")
	case a > 150:
		return typedrpc.Errorf(typedrpc.OutOfRange, "nobody is that old")
	case a == 13:
		return typedrpc.PermissionDenied
	}
	return nil
}

type name struct{ First string }

func (n *name) Validate() error {
	if n.First == "" {
		return errors.New("a name is missing")
	}
	return nil
}

func TestHandle_validates(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		ran := 0
		byValue := typedrpc.NewMethod[age, int]("age", typedrpc.Serial)
		byPointer := typedrpc.NewMethod[name, int]("name", typedrpc.Serial)
		pointer := typedrpc.NewMethod[*name, int]("pointer", typedrpc.Alloc[name](), typedrpc.Serial)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, byValue, func(context.Context, age) (int, error) { ran++; return ran, nil })
		typedrpc.Handle(mux, byPointer, func(context.Context, name) (int, error) { ran++; return ran, nil })
		typedrpc.Handle(mux, pointer, func(context.Context, *name) (int, error) { ran++; return ran, nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)

		call := func(a age) error {
			_, err := typedrpc.Call(t.Context(), client, byValue, a)
			return err
		}
		is := is.New(t)
		is.NoErr(call(30))
		for a, want := range map[age]*typedrpc.Error{
			-1:  {Code: typedrpc.InvalidArgument, Message: "nobody is that young"},
			151: {Code: typedrpc.OutOfRange, Message: "nobody is that old"},
			13:  {Code: typedrpc.PermissionDenied, Message: "permission denied"},
		} {
			e := lab.AsError(t, call(a))
			is.Equal(e.Code, want.Code)
			is.Equal(e.Message, want.Message)
		}
		_, err := typedrpc.Call(t.Context(), client, byPointer, name{})
		is.Equal(lab.AsError(t, err).Message, "a name is missing")
		_, err = typedrpc.Call(t.Context(), client, pointer, &name{})
		is.Equal(lab.AsError(t, err).Message, "a name is missing")
		n, err := typedrpc.Call(t.Context(), client, pointer, &name{"Ann"})
		is.NoErr(err)
		is.Equal(n, 2) // handlers ran for what was valid, and for nothing else
	})
}

func TestHandleNotification_validates(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		got := make(chan age, 2)
		birthday := typedrpc.NewNotification[age]("birthday")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, birthday, func(_ context.Context, a age) error { got <- a; return nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, nil)
		is.NoErr(typedrpc.Notify(t.Context(), client, birthday, -5))
		is.NoErr(typedrpc.Notify(t.Context(), client, birthday, 5))
		is.Equal(<-got, age(5))
		is.True(log.Has("nobody is that young")) // there is nobody to answer
	})
}

func TestHandle_mistakes(t *testing.T) {
	for want, f := range map[string]func(){
		"the Mux is nil":                   func() { typedrpc.Handle(nil, lab.Sum, lab.HandleSum) },
		"of a Mux that is nil":             func() { (*typedrpc.Mux)(nil).Group() },
		"NewMux: interceptor 0 is nil":     func() { typedrpc.NewMux(nil) },
		"Mux.Group: interceptor 0 is nil":  func() { new(typedrpc.Mux).Group(nil) },
		"not made by a function":           func() { typedrpc.Handle(typedrpc.NewMux(), typedrpc.Method[int, int]{}, nil) },
		"\"math.sum\": the handler is nil": func() { typedrpc.Handle(typedrpc.NewMux(), lab.Sum, nil) },
		"\"tell\": the handler is nil":     func() { typedrpc.Handle(typedrpc.NewMux(), lab.Tell, nil) },
	} {
		is := is.New(t)
		is.True(strings.Contains(panicText(f), want))
	}
}
