package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// nothings are errors that are an *Error which is nil, and what those see who ask.
var nothings = map[string]struct {
	err  error
	code typedrpc.Code
}{
	"alone":                {(*typedrpc.Error)(nil), typedrpc.Internal},
	"wrapped":              {fmt.Errorf("reading: %w", (*typedrpc.Error)(nil)), typedrpc.Internal},
	"in an Error":          {typedrpc.Errorf(typedrpc.NotFound, "reading: %w", (*typedrpc.Error)(nil)), typedrpc.NotFound},
	"beside another":       {errors.Join((*typedrpc.Error)(nil), typedrpc.Errorf(typedrpc.NotFound, "gone")), typedrpc.NotFound},
	"behind another":       {errors.Join(typedrpc.Errorf(typedrpc.NotFound, "gone"), (*typedrpc.Error)(nil)), typedrpc.NotFound},
	"beside a Code":        {fmt.Errorf("%w, %w", (*typedrpc.Error)(nil), typedrpc.NotFound), typedrpc.NotFound},
	"beside a context's":   {errors.Join((*typedrpc.Error)(nil), context.Canceled), typedrpc.Canceled},
	"deep beside another":  {errors.Join(fmt.Errorf("a: %w", (*typedrpc.Error)(nil)), fmt.Errorf("b: %w", typedrpc.Errorf(typedrpc.NotFound, "gone"))), typedrpc.NotFound},
	"a Code that is none":  {typedrpc.OK, typedrpc.Unknown},
	"an Error that is OK":  {&typedrpc.Error{Message: "fine"}, typedrpc.Unknown},
	"wraps what is OK":     {fmt.Errorf("a: %w", &typedrpc.Error{}), typedrpc.Unknown},
	"an error of no codes": {io.ErrClosedPipe, typedrpc.Internal},
}

// Whoever looks into such an error sees an error, and does not panic.
func TestError_thatIsNil(t *testing.T) {
	fault := typedrpc.NewFault[int]("test.fault", typedrpc.NotFound)
	for name, n := range nothings {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			is.Equal(typedrpc.CodeOf(n.err), n.code)
			is.Equal(typedrpc.OutcomeOf(n.err), typedrpc.MayHaveRun)
			is.True(n.err.Error() != "")
			for _, target := range []error{typedrpc.Gap, typedrpc.DataLoss, io.EOF, context.DeadlineExceeded} {
				is.True(!errors.Is(n.err, target))
			}
			is.Equal(errors.Is(n.err, typedrpc.NotFound), n.code == typedrpc.NotFound)
			var other *http.MaxBytesError
			is.True(!errors.As(n.err, &other))
			_, ok := fault.From(n.err)
			is.True(!ok)
		})
	}
	is := is.New(t)
	var none *typedrpc.Error
	is.Equal(none.FaultName(), "")
	is.Equal(none.Unwrap(), nil)
}

// A function that returns one fails its call as every other error does: in handlers of all
// kinds, in interceptors on both sides, in Pick, in OnItem, in what checks a request, in what
// lets subscribe, and in a sign-in. The caller sees what CodeOf told an interceptor.
func TestError_thatIsNilFailsItsCall(t *testing.T) {
	for name, n := range nothings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				ctx := t.Context()
				var logged typedrpc.Code
				mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
					raw, err := next(ctx, r)
					logged = typedrpc.CodeOf(err)
					return raw, err
				})
				var (
					call  = typedrpc.NewMethod[int, int]("call")
					down  = typedrpc.NewServerStream[int, int]("down")
					up    = typedrpc.NewClientStream[int, int, int]("up")
					note  = typedrpc.NewNotification[int]("note")
					check = typedrpc.NewMethod[checked, int]("check")
					fine  = typedrpc.NewMethod[int, int]("fine")
					seen  = typedrpc.NewServerStream[int, int]("seen")
					room  = topic.New[int]("room")
				)
				typedrpc.Handle(mux, call, func(context.Context, int) (int, error) { return 0, n.err })
				typedrpc.Handle(mux, down, func(context.Context, int, func(int) error) error { return n.err })
				typedrpc.Handle(mux, up, func(context.Context, int, iter.Seq2[int, error]) (int, error) { return 0, n.err })
				typedrpc.Handle(mux, note, func(context.Context, int) error { return n.err })
				typedrpc.Handle(mux, check, func(context.Context, checked) (int, error) { return 0, nil })
				typedrpc.Handle(mux, fine, func(context.Context, int) (int, error) { return 7, nil })
				fails := mux.Group(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
					r.OnItem(func(typedrpc.Raw, bool) error { return n.err })
					return next(ctx, r)
				})
				typedrpc.Handle(fails, seen, func(_ context.Context, _ int, send func(int) error) error { return send(1) })
				hub := new(topic.Hub)
				defer hub.Close()
				topic.Handle(mux, hub, room, func(context.Context, topic.Access) error { return n.err })
				checkFails = n.err
				client, _ := lab.TwoWays(t, typedrpc.Binary, nil, mux, typedrpc.Limits{})
				defer client.Close()

				fails1 := func(what string, want typedrpc.Code, err error) {
					t.Helper()
					if err == nil || typedrpc.CodeOf(err) != want {
						t.Errorf("%s: %v, want %v", what, err, want)
					}
				}
				_, err := typedrpc.Call(ctx, client, call, 1)
				fails1("a call", n.code, err)
				is.Equal(logged, n.code)
				_, err = typedrpc.Go(ctx, client, call, 1).Await(ctx)
				fails1("a future", n.code, err)
				fails1("a server stream", n.code, drained(typedrpc.Receive(ctx, client, down, 1)))
				is.Equal(logged, n.code)
				_, err = typedrpc.SendAll(ctx, client, up, 1, typedrpc.Items(slices.Values([]int{1, 2})))
				fails1("a client stream", n.code, err)
				is.NoErr(typedrpc.Notify(ctx, client, note, 1))
				synctest.Wait()
				is.Equal(logged, n.code)
				want := n.code
				if want == typedrpc.Internal {
					want = typedrpc.InvalidArgument // which all are that do not say
				}
				_, err = typedrpc.Call(ctx, client, check, checked{})
				fails1("a check", want, err)
				fails1("a server's OnItem", n.code, drained(typedrpc.Receive(ctx, client, seen, 1)))
				fails1("a subscription", n.code, drained(topic.Subscribe(ctx, client, room, "x")))

				failing := client.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{
					func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) { return nil, n.err },
				}})
				_, err = typedrpc.Call(ctx, failing, fine, 1)
				fails1("an interceptor", n.code, err)
				_, err = typedrpc.Go(ctx, failing, fine, 1).Await(ctx)
				fails1("an interceptor of a future", n.code, err)
				fails1("an interceptor of a notification", n.code, typedrpc.Notify(ctx, failing, note, 1))
				fails1("an interceptor of a stream", n.code, drained(typedrpc.Receive(ctx, failing, down, 1)))

				want = n.code
				if want == typedrpc.Internal {
					want = typedrpc.Unavailable
				}
				pick := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) { return nil, n.err })
				_, err = typedrpc.Call(ctx, pick, fine, 1)
				fails1("Pick", want, err)
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
			})
		})
	}
}

// checked is a request that is always refused.
type checked struct{ N int }

var checkFails error

func (checked) Validate() error { return checkFails }

// drained is the error that a loop ends with.
func drained[E any](seq iter.Seq2[E, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

// A sign-in that fails with one lets nobody in.
func TestError_thatIsNilRefusesASignIn(t *testing.T) {
	for name, n := range nothings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				signIn := typedrpc.NewSignIn[string, string]()
				srv := lab.New().Server
				srv.SignIn = signIn.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, string, error) {
					return typedrpc.Identity{}, "", n.err
				})
				_, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{SignIn: signIn.Present(func(context.Context) (string, error) { return "", nil })})
				is.True(err != nil)
				switch n.code {
				case typedrpc.Internal:
					is.Equal(typedrpc.CodeOf(err), typedrpc.Unauthenticated)
				case typedrpc.Canceled:
					is.Equal(typedrpc.CodeOf(err), typedrpc.DeadlineExceeded)
				default:
					is.Equal(typedrpc.CodeOf(err), n.code)
				}

				srv.SignIn = signIn.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, string, error) {
					return typedrpc.Identity{}, "", nil
				})
				_, _, err = typedrpctest.Dial(srv, &typedrpc.DialOptions{SignIn: signIn.Present(func(context.Context) (string, error) { return "", n.err })})
				is.True(err != nil)
			})
		})
	}
}

// A code that is returned as it is reads as one word, on both sides.
func TestError_codeReadsAsOne(t *testing.T) {
	is := is.New(t)
	client := failing(t, lab.Over{}, &typedrpc.Server{}, typedrpc.PermissionDenied)
	_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
	is.Equal(err.Error(), "permission denied")
	client = failing(t, lab.Over{}, &typedrpc.Server{}, fmt.Errorf("reading: %w", typedrpc.PermissionDenied))
	_, err = typedrpc.Call(t.Context(), client, lab.Ask, 1)
	is.Equal(err.Error(), "permission denied")
	is.Equal(typedrpc.Errorf(typedrpc.PermissionDenied, "permission denied").Error(), "permission denied")
	is.Equal(typedrpc.Errorf(4711, "code 4711: no").Error(), "code 4711: code 4711: no") // what somebody wrote
}

// A connection that is closed for one ends, from either side, and its peer is told an error.
func TestError_thatIsNilIsWhyAConnectionIsClosed(t *testing.T) {
	closes := map[string]func(srv *typedrpc.Server, client, server *typedrpc.Conn, o *typedrpc.CloseOptions) (told *typedrpc.Conn){
		"by the server": func(_ *typedrpc.Server, client, server *typedrpc.Conn, o *typedrpc.CloseOptions) *typedrpc.Conn {
			server.CloseWith(o)
			return client
		},
		"by the client": func(_ *typedrpc.Server, client, server *typedrpc.Conn, o *typedrpc.CloseOptions) *typedrpc.Conn {
			client.CloseWith(o)
			return server
		},
		"by Revoke": func(srv *typedrpc.Server, client, _ *typedrpc.Conn, o *typedrpc.CloseOptions) *typedrpc.Conn {
			srv.Revoke("", o)
			return client
		},
	}
	for name, n := range nothings {
		for how, end := range closes {
			for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, how, d), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						is := is.New(t)
						srv := lab.New().Server
						client, server, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, MaxAttempts: -1})
						is.NoErr(err)
						defer client.Close()
						told := end(srv, client, server, &typedrpc.CloseOptions{Err: n.err, StayAway: true})
						synctest.Wait()
						is.True(client.Err() != nil)
						is.True(server.Err() != nil)
						if d != typedrpc.JSONRPC { // which has no codes for this
							is.Equal(typedrpc.CodeOf(told.Err()), n.code)
						}
					})
				})
			}
		}
	}
}
