package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// failing connects a client to a server whose method ask fails with err.
func failing(t *testing.T, o lab.Over, srv *typedrpc.Server, err error) *typedrpc.Conn {
	t.Helper()
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(context.Context, int) (int, error) { return 0, err })
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
	srv.Mux = mux
	client, _ := o.Connect(t, srv, nil)
	return client
}

func TestError_codesCross(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		codes := []typedrpc.Code{100, 1<<53 - 1, 12345}
		for c := typedrpc.Canceled; c <= typedrpc.Unauthenticated; c++ {
			codes = append(codes, c)
		}
		for _, c := range codes {
			is := is.New(t)
			client := failing(t, o, &typedrpc.Server{}, fmt.Errorf("wrapped: %w", typedrpc.Errorf(c, "it is %d", 7)))
			_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
			want := o.Arrives(c)
			is.True(errors.Is(err, want))
			is.Equal(typedrpc.CodeOf(err), want)
			e := lab.AsError(t, err)
			is.Equal(e.Message, "it is 7")
			is.Equal(e.Outcome, typedrpc.Answered)
			is.Equal(errors.Is(err, context.Canceled), want == typedrpc.Canceled)
			is.Equal(errors.Is(err, context.DeadlineExceeded), want == typedrpc.DeadlineExceeded)
		}
	})
}

// All that Errorf wraps is found, here and not at the peer.
func TestErrorf_wraps(t *testing.T) {
	for _, test := range []struct {
		format string
		args   []any
		found  int
	}{
		{"%v and %v", []any{io.EOF, io.ErrClosedPipe}, 0},
		{"%w", []any{io.EOF}, 1},
		{"%w and %w", []any{io.EOF, io.ErrClosedPipe}, 2},
		{"%w and %w", []any{fmt.Errorf("deep: %w", io.ErrClosedPipe), typedrpc.Errorf(typedrpc.NotFound, "%w, %w", io.ErrShortWrite, io.EOF)}, 2},
	} {
		t.Run(test.format, func(t *testing.T) {
			is := is.New(t)
			err := fmt.Errorf("wrapped: %w", typedrpc.Errorf(typedrpc.DataLoss, test.format, test.args...))
			found := 0
			for _, target := range []error{io.EOF, io.ErrClosedPipe} {
				if errors.Is(err, target) {
					found++
				}
			}
			is.Equal(found, test.found)
			is.Equal(typedrpc.CodeOf(err), typedrpc.DataLoss)
			client := failing(t, lab.Over{}, &typedrpc.Server{}, err)
			_, got := typedrpc.Call(t.Context(), client, lab.Ask, 1)
			is.Equal(lab.AsError(t, got).Message, fmt.Sprintf(strings.ReplaceAll(test.format, "%w", "%v"), test.args...))
			is.True(!errors.Is(got, io.EOF) && !errors.Is(got, io.ErrClosedPipe))
		})
	}
}

func TestError_codeAsError(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client := failing(t, o, &typedrpc.Server{}, typedrpc.NotFound)
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.NotFound))
		is.Equal(lab.AsError(t, err).Message, "not found")
		var c typedrpc.Code
		is.True(!errors.Is(err, typedrpc.Internal))
		is.True(!errors.As(err, &c)) // it is an *Error, whose code CodeOf tells
	})
}

func TestError_contextErrorsOfHandler(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		for cause, code := range map[error]typedrpc.Code{
			context.Canceled:         typedrpc.Canceled,
			context.DeadlineExceeded: typedrpc.DeadlineExceeded,
		} {
			is := is.New(t)
			client := failing(t, o, &typedrpc.Server{}, fmt.Errorf("query: %w", cause))
			_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
			is.Equal(errors.Is(err, cause), !o.Plain()) // nobody knows what a plain peer means by its number
			e := lab.AsError(t, err)
			is.Equal(e.Code, o.Arrives(code))
			is.Equal(e.Outcome, typedrpc.Answered) // the peer's, not ours
			is.True(!strings.Contains(e.Message, "query"))
		}
	})
}

func TestError_foreignStaysHere(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		client := failing(t, o, &typedrpc.Server{Logger: log.Logger()}, fmt.Errorf("password hunter2: %w", io.EOF))
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		e := lab.AsError(t, err)
		is.Equal(e.Code, typedrpc.Internal)
		is.Equal(e.Message, "internal error")
		is.Equal(e.Outcome, typedrpc.Answered)
		is.True(!errors.Is(err, io.EOF))
		is.True(log.Has("password hunter2")) // in full, but only here
		is.True(log.Has("method=ask"))
	})
}

func TestMapError(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		mapper := func(ctx context.Context, err error) *typedrpc.Error {
			if errors.Is(err, io.EOF) {
				return typedrpc.Errorf(typedrpc.NotFound, "%s has no more", typedrpc.RequestFrom(ctx).Method)
			}
			return nil
		}
		client := failing(t, o, &typedrpc.Server{Logger: log.Logger(), MapError: mapper}, io.EOF)
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.NotFound))
		is.Equal(lab.AsError(t, err).Message, "ask has no more")
		is.True(!log.Has("handler failed"))

		client = failing(t, o, &typedrpc.Server{Logger: log.Logger(), MapError: mapper}, io.ErrShortWrite)
		_, err = typedrpc.Call(t.Context(), client, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.Internal)) // nil keeps the default
		is.True(log.Has("short write"))
	})
}

func TestMapError_ofClient(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(context.Context, int) (int, error) { return 0, io.EOF })
		_, server := o.Connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux, MapError: func(context.Context, error) *typedrpc.Error {
			return typedrpc.Errorf(typedrpc.DataLoss, "gone")
		}})
		_, err := typedrpc.Call(t.Context(), server, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.DataLoss))
	})
}

func TestHandle_panic(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(context.Context, int) (int, error) { return handlerThatPanics() })
		typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, nil)
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		e := lab.AsError(t, err)
		is.Equal(e.Code, typedrpc.Internal)
		is.Equal(e.Message, "internal error")
		is.True(log.Has("the sky is falling"))
		is.True(log.Has("handlerThatPanics")) // the stack
		_, err = typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
		is.NoErr(err) // one call failed, no more
	})
}

func handlerThatPanics() (int, error) { panic("the sky is falling") }

func TestHandleNotification_panic(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		got := make(chan int, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Tell, func(_ context.Context, n int) error {
			if n == 0 {
				panic("no zeros")
			}
			got <- n
			return nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, nil)
		is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, 0))
		is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, 1))
		is.Equal(<-got, 1) // the lane goes on
		is.True(log.Has("no zeros"))
	})
}

func TestFault_crosses(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		data := lab.Shortage{Left: 3, Hint: "come \"tomorrow\""}
		client := failing(t, o, &typedrpc.Server{}, fmt.Errorf("order 7: %w", lab.NoStock.Errorf(data, "")))
		name := lab.AsError(t, lab.NoStock.Errorf(data, "")).FaultName()
		for range 2 { // one error value may be returned often
			_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
			got, ok := lab.NoStock.From(err)
			is.True(ok)
			is.Equal(got, data)
			is.Equal(lab.AsError(t, err).FaultName(), name)
			is.True(errors.Is(err, typedrpc.FailedPrecondition))
		}
	})
}

func TestFault_from(t *testing.T) {
	is := is.New(t)
	local, ok := lab.NoStock.From(fmt.Errorf("x: %w", lab.NoStock.Errorf(lab.Shortage{Left: 2}, "")))
	is.True(ok) // made here, never sent
	is.Equal(local.Left, 2)
	for _, err := range []error{
		nil,
		io.EOF,
		typedrpc.FailedPrecondition,
		typedrpc.Errorf(typedrpc.FailedPrecondition, "shop.no-stock"), // the text alone
		typedrpc.NewFault[lab.Shortage]("shop.none", typedrpc.FailedPrecondition).Errorf(lab.Shortage{}, "shop.no-stock"),
		typedrpc.NewFault[int]("shop.no-stock", typedrpc.FailedPrecondition).Errorf(1, ""),
	} {
		_, ok := lab.NoStock.From(err)
		is.True(!ok)
	}
}

// Texts and codes may change from one version of an API to the next.
func TestFault_byName(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		newer := typedrpc.NewFault[lab.Shortage]("shop.no-stock", typedrpc.ResourceExhausted)
		for want, err := range map[string]error{
			"shop.no-stock": newer.Errorf(lab.Shortage{Left: 3}, ""),
			"only 3 left.":  newer.Errorf(lab.Shortage{Left: 3}, "only %d left.", 3),
		} {
			_, err := typedrpc.Call(t.Context(), failing(t, o, &typedrpc.Server{}, err), lab.Ask, 1)
			got, ok := lab.NoStock.From(err)
			is.True(ok)
			is.Equal(got.Left, 3)
			is.Equal(lab.AsError(t, err).Message, want)
			is.Equal(typedrpc.CodeOf(err), typedrpc.ResourceExhausted)
		}
		_, err := typedrpc.Call(t.Context(), failing(t, o, &typedrpc.Server{}, typedrpc.Errorf(typedrpc.FailedPrecondition, "shop.no-stock")), lab.Ask, 1)
		_, ok := lab.NoStock.From(err)
		is.True(!ok) // a text is no name
		is.Equal(lab.AsError(t, err).FaultName(), "")
	})
}

// Data that is null is data.
func TestFault_null(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		maybe := typedrpc.NewFault[*int]("maybe", typedrpc.Aborted)
		_, err := typedrpc.Call(t.Context(), failing(t, o, &typedrpc.Server{}, maybe.Errorf(nil, "")), lab.Ask, 1)
		n, ok := maybe.From(err)
		is.True(ok)
		is.True(n == nil)
	})
}

func TestFault_cause(t *testing.T) {
	is := is.New(t)
	err := lab.NoStock.Errorf(lab.Shortage{}, "the shelf: %w", io.EOF)
	is.True(errors.Is(err, io.EOF))
	is.Equal(err.Message, "the shelf: EOF")
}

func TestNewFault_panics(t *testing.T) {
	var zero typedrpc.Fault[int]
	_, ok := zero.From(typedrpc.Errorf(typedrpc.OK, ""))
	is.New(t).True(!ok)
	for want, f := range map[string]func(){
		"typedrpc: a fault needs a name":                                   func() { typedrpc.NewFault[int]("", typedrpc.Aborted) },
		`typedrpc: fault name "a b" has white space or control characters`: func() { typedrpc.NewFault[int]("a b", typedrpc.Aborted) },
		`typedrpc: fault "a" has the code OK, which is no error`:           func() { typedrpc.NewFault[int]("a", typedrpc.OK) },
		"typedrpc: the Fault was not made by NewFault":                     func() { zero.Errorf(1, "") },
	} {
		func() {
			defer func() { is.New(t).Equal(recover(), want) }()
			f()
		}()
	}
}

func TestFault_undecodable(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		other := typedrpc.NewFault[string]("shop.no-stock", typedrpc.FailedPrecondition)
		client := failing(t, o, &typedrpc.Server{}, other.Errorf("text", ""))
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		_, ok := lab.NoStock.From(err)
		is.True(!ok) // the same name with data of another type
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
	})
}

func TestFault_unencodable(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		bad := typedrpc.NewFault[func()]("bad", typedrpc.Aborted)
		client := failing(t, o, &typedrpc.Server{Logger: log.Logger()}, bad.Errorf(func() {}, ""))
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.Internal))
		is.True(log.Has("handler failed"))
	})
}

func TestError_data(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client := failing(t, o, &typedrpc.Server{}, &typedrpc.Error{Code: 200, Message: "m", Data: typedrpc.Raw(`{"k":[1]}`), RetryAfter: 1500 * time.Microsecond})
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		e := lab.AsError(t, err)
		is.Equal(string(e.Data), `{"k":[1]}`)
		if !o.Plain() {
			is.Equal(e.RetryAfter, 2*time.Millisecond) // rounded up
		}
	})
}

func TestError_dataOutOfBounds(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var log lab.Logs
		big := typedrpc.Raw(`"` + strings.Repeat("x", 65<<10) + `"`)
		client := failing(t, o, &typedrpc.Server{Logger: log.Logger()}, &typedrpc.Error{Code: 200, Message: strings.Repeat("m", 9<<10) + "\xff", Data: big})
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		e := lab.AsError(t, err)
		is.Equal(e.Code, typedrpc.Code(200)) // what can be said is said
		is.Equal(len(e.Data), 0)
		is.Equal(len(e.Message), 8<<10)
		is.True(log.Has("error data dropped"))

		large := typedrpc.NewFault[string]("large", typedrpc.Aborted)
		_, err = typedrpc.Call(t.Context(), failing(t, o, &typedrpc.Server{Logger: log.Logger()}, large.Errorf(string(big), "")), lab.Ask, 1)
		_, ok := large.From(err)
		is.True(!ok) // its data is missing
		is.True(errors.Is(err, typedrpc.Aborted))
	})
}

func TestError_dataThatIsNoJSON(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client := failing(t, o, &typedrpc.Server{}, &typedrpc.Error{Code: 200, Message: "m", Data: typedrpc.Raw(`1},"x":{`)})
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.Code(200)))
		_, err = typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
		is.NoErr(err) // the envelope held
	})
}

func TestCall_unknownMethod(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, server := o.Connect(t, &typedrpc.Server{}, nil)
		for _, c := range []*typedrpc.Conn{client, server} {
			_, err := typedrpc.Call(t.Context(), c, lab.Ask, 1)
			e := lab.AsError(t, err)
			is.Equal(e.Code, typedrpc.Unimplemented)
			is.True(strings.Contains(e.Message, `"ask"`))
			if !o.Plain() {
				is.Equal(e.Outcome, typedrpc.NotSent) // no handler saw it
			}
		}
	})
}

func TestCall_ofNotification(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Tell, func(context.Context, int) error { t.Error("the handler ran"); return nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, typedrpc.NewMethod[int, int]("tell"), 1)
		e := lab.AsError(t, err)
		is.Equal(e.Code, typedrpc.Unimplemented)
		is.True(strings.Contains(e.Message, "is a notification"))
	})
}

// A method that is notified runs, in the order of notifications, and nobody
// gets its response (JSON-RPC 2.0 section 4.1).
func TestNotify_ofMethod(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		got := make(chan int, 4)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) {
			got <- n
			return n, errors.New("nobody is told")
		})
		typedrpc.Handle(mux, lab.Tell, func(_ context.Context, n int) error { got <- n; return nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		asks := typedrpc.NewNotification[int]("ask")
		is.NoErr(typedrpc.Notify(t.Context(), client, asks, 1))
		is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, 2))
		is.NoErr(typedrpc.Notify(t.Context(), client, asks, 3))
		is.Equal(<-got, 1)
		is.Equal(<-got, 2)
		is.Equal(<-got, 3)
	})
}

func TestErrorf(t *testing.T) {
	is := is.New(t)
	err := typedrpc.Errorf(typedrpc.Aborted, "reading: %w", io.EOF)
	is.Equal(err.Message, "reading: EOF")
	is.True(errors.Is(err, io.EOF)) // on this side
	is.Equal(err.Error(), "aborted: reading: EOF")
	is.Equal(err.Outcome, typedrpc.MayHaveRun) // nobody knows
	is.Equal((&typedrpc.Error{Code: typedrpc.Aborted}).Error(), "aborted")
	is.Equal(new(typedrpc.Error).Error(), "unknown") // as CodeOf says, and no "ok"
}

func TestCodeOf(t *testing.T) {
	is := is.New(t)
	is.Equal(typedrpc.CodeOf(nil), typedrpc.OK)
	is.Equal(typedrpc.CodeOf(io.EOF), typedrpc.Internal) // as a caller sees it
	is.Equal(typedrpc.CodeOf(fmt.Errorf("x: %w", typedrpc.NotFound)), typedrpc.NotFound)
	is.Equal(typedrpc.CodeOf(fmt.Errorf("x: %w", typedrpc.Errorf(typedrpc.Aborted, ""))), typedrpc.Aborted)
	is.Equal(typedrpc.CodeOf(context.Canceled), typedrpc.Canceled)
	is.Equal(typedrpc.CodeOf(fmt.Errorf("x: %w", context.DeadlineExceeded)), typedrpc.DeadlineExceeded)
	for _, err := range []error{io.EOF, typedrpc.NotFound, context.Canceled, typedrpc.Errorf(typedrpc.NotFound, "x"), &typedrpc.Error{}} {
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun) // nobody knows
	}
	is.Equal(typedrpc.OutcomeOf(nil), typedrpc.Answered)
	is.Equal(typedrpc.OutcomeOf(fmt.Errorf("x: %w", &typedrpc.Error{Outcome: typedrpc.NotSent})), typedrpc.NotSent)
	is.Equal(typedrpc.OutcomeOf(&typedrpc.Error{Outcome: typedrpc.Answered}), typedrpc.Answered)
}

func TestNames_asText(t *testing.T) {
	is := is.New(t)
	is.Equal(typedrpc.NotFound.Error(), "not found")
	is.Equal(typedrpc.Code(1234).Error(), "code 1234")
	is.Equal(typedrpc.Code(-1).Error(), "code -1")
	is.Equal(typedrpc.OK.Error(), "ok")
	is.Equal(fmt.Sprint(typedrpc.NotSent, ", ", typedrpc.MayHaveRun, ", ", typedrpc.Answered), "not sent, may have run, answered")
	is.Equal(fmt.Sprint(typedrpc.KindMethod, ", ", typedrpc.KindNotification), "method, notification")
	is.Equal(fmt.Sprint([]typedrpc.State{typedrpc.StateConnecting, typedrpc.StateConnected, typedrpc.StateWaiting, typedrpc.StateClosed}), "[connecting connected waiting closed]")
}

// The numbers of codes below the API are the API's, and outcomes have their texts.
func TestCode_sameBelow(t *testing.T) {
	is := is.New(t)
	for c := typedrpc.Code(-1); c < 20; c++ {
		is.Equal(c.Error(), status.Code(c).String())
	}
	is.Equal(int(typedrpc.Unauthenticated), int(status.Unauthenticated))
	is.Equal(int(typedrpc.ResourceExhausted), int(status.ResourceExhausted))
	is.Equal(typedrpc.NotSent.String(), status.NotSent.String())
	is.Equal(typedrpc.MayHaveRun.String(), status.MayHaveRun.String())
	is.Equal(typedrpc.Answered.String(), status.Answered.String())
	is.Equal(typedrpc.Outcome(9).String(), status.MayHaveRun.String())
	is.Equal(string(typedrpc.StateClosed), "closed")
	is.Equal(typedrpc.State(""), typedrpc.StateChange{}.State) // none, and not that it connects
}

// below finds what of err, and of all that it wraps, programs must not see.
func below(err error) string {
	if err == nil {
		return ""
	}
	for _, layer := range []string{"*status.", "*client.", "*engine.", "*server.", "*hub.", "*replay."} {
		if strings.HasPrefix(fmt.Sprintf("%T", err), layer) {
			return fmt.Sprintf("%T: %v", err, err)
		}
	}
	switch x := err.(type) {
	case interface{ Unwrap() error }:
		return below(x.Unwrap())
	case interface{ Unwrap() []error }:
		for _, e := range x.Unwrap() {
			if found := below(e); found != "" {
				return found
			}
		}
	}
	return ""
}

// soon is a context that ends in a second.
func soon() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(time.Second, cancel)
	return ctx
}

// However a connection ends, no error of the layers below reaches a program.
func TestError_nothingFromBelow(t *testing.T) {
	for how, end := range map[string]func(srv *typedrpc.Server, client, server *typedrpc.Conn){
		"client closes":   func(_ *typedrpc.Server, client, _ *typedrpc.Conn) { client.Close() },
		"server closes":   func(_ *typedrpc.Server, _, server *typedrpc.Conn) { server.Close() },
		"client shuts":    func(_ *typedrpc.Server, client, _ *typedrpc.Conn) { client.Shutdown(soon()) },
		"server shuts":    func(srv *typedrpc.Server, _, _ *typedrpc.Conn) { srv.Shutdown(soon()) },
		"revoked":         func(srv *typedrpc.Server, _, _ *typedrpc.Conn) { srv.Revoke("ann", nil) },
		"link is refused": func(_ *typedrpc.Server, client, _ *typedrpc.Conn) { client.Reconnect() },
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var errs []error
				note := func(err error) {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
				sign := typedrpc.NewSignIn[string, int]()
				hang := typedrpc.NewMethod[struct{}, struct{}]("hang")
				mux := typedrpc.NewMux()
				typedrpc.Handle(mux, hang, func(ctx context.Context, _ struct{}) (struct{}, error) {
					<-ctx.Done()
					note(context.Cause(ctx))
					return struct{}{}, ctx.Err()
				})
				var out atomic.Bool
				srv := &typedrpc.Server{
					Mux:          mux,
					Limits:       typedrpc.Limits{Grace: -1},
					OnDisconnect: func(_ *typedrpc.Conn, err error) { note(err) },
					SignIn: sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
						if out.Load() {
							return typedrpc.Identity{}, 0, fmt.Errorf("wrapped: %w", typedrpc.Errorf(typedrpc.PermissionDenied, "no"))
						}
						return typedrpc.Identity{Subject: "ann"}, 0, nil
					}),
				}
				client, server := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{
					Limits:  typedrpc.Limits{Grace: -1},
					OnState: func(s typedrpc.StateChange) { note(s.Err) },
					SignIn:  sign.Present(func(context.Context) (string, error) { return "ann", nil }),
				})
				f := typedrpc.Go(t.Context(), client, hang, struct{}{})
				synctest.Wait()
				out.Store(true)
				go end(srv, client, server)
				_, err := f.Await(t.Context())
				note(err)
				time.Sleep(5 * time.Second)
				client.Close()
				<-server.Context().Done()
				synctest.Wait()
				_, err = typedrpc.Call(t.Context(), client, hang, struct{}{})
				for _, e := range []error{err, client.Err(), server.Err(), context.Cause(client.Context()), context.Cause(server.Context())} {
					note(e)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, e := range errs {
					if found := below(e); found != "" {
						t.Errorf("%v wraps %s", e, found)
					}
				}
				srv.Shutdown(t.Context())
			})
		})
	}
}
