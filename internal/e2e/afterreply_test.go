package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

var (
	subEvent = typedrpc.NewNotification[int]("sub.event")
	subBegin = typedrpc.NewMethod[int, int]("sub.begin")
	subLine  = typedrpc.NewMethod[int, int]("sub.line", typedrpc.Serial)
	subLarge = typedrpc.NewMethod[int, []byte]("sub.large")
)

// subscribes answers n, and sends n events behind that.
func subscribes(ctx context.Context, n int, fails error) (int, error) {
	r := typedrpc.RequestFrom(ctx)
	r.AfterReply = func(ctx context.Context, err error) {
		for i := range n {
			if err == nil {
				typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), subEvent, i) // r.Conn, too
			}
		}
	}
	return n, fails
}

func subMux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	begin := func(ctx context.Context, n int) (int, error) { return subscribes(ctx, n, nil) }
	typedrpc.Handle(mux, subBegin, begin)
	typedrpc.Handle(mux, subLine, begin)
	typedrpc.Handle(mux, subLarge, func(ctx context.Context, n int) ([]byte, error) {
		subscribes(ctx, n, nil)
		return make([]byte, 300<<10), nil
	})
	return mux
}

// What is sent behind a reply leaves behind it, also when others load the connection.
func TestAfterReply_order(t *testing.T) {
	lab.Strangers(t, subMux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, _ *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		for _, method := range []string{"begin", "line"} {
			for id := range 300 {
				s.Send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"sub.%s","params":[2]}`, id, method))
			}
			events, replies := 0, 0
			for _, text := range s.Got() {
				if strings.Contains(text, "sub.event") {
					events++
				} else {
					replies++
				}
				is.True(events <= 2*replies)
			}
			is.Equal(replies, 300)
			is.Equal(events, 600)
		}
		s.Send(`[{"jsonrpc":"2.0","id":1,"method":"sub.begin","params":[1]},{"jsonrpc":"2.0","id":2,"method":"sub.line","params":[1]},{"id":3}]`)
		got := s.Got()
		is.Equal(len(got), 3)
		is.True(strings.HasPrefix(got[0], "["))
	})
}

// Over frames too, and when the reply leaves in fragments.
func TestAfterReply_largeReply(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		testkit.Bubble(t, []string{"binary", "text"}[d], func(t *testing.T, is *is.I) {
			srv := &typedrpc.Server{Mux: subMux()}
			p, _ := lab.RawClient(t, d, srv)
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: subLarge.Name(), Payload: []byte("2")}))
			fs := p.Got(wire.Result, wire.Chunk, wire.Notify)
			is.True(len(fs) >= 3)
			is.Equal(fs[0].Type, wire.Result)
			for i, f := range fs {
				is.Equal(f.Type == wire.Notify, i >= len(fs)-2)
			}
			p.T.Kill()
			is.NoErr(srv.Shutdown(t.Context()))
		})
	}
}

// It is called once, whatever becomes of the call, and nothing of it ends anything else.
func TestAfterReply_whatBecameOfIt(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		told := make(chan error, 9)
		hold := make(chan struct{})
		began := make(chan struct{}, 9)
		mux := typedrpc.NewMux()
		after := func(ctx context.Context, then func()) {
			typedrpc.RequestFrom(ctx).AfterReply = func(ctx context.Context, err error) {
				if ctx.Err() != nil && err == nil {
					err = errors.New("the context had ended")
				}
				told <- err
				then()
			}
		}
		ways := map[string]func(ctx context.Context) (int, error){
			"well":   func(ctx context.Context) (int, error) { after(ctx, func() {}); return 1, nil },
			"error":  func(ctx context.Context) (int, error) { after(ctx, func() {}); return 0, typedrpc.NotFound },
			"panic":  func(ctx context.Context) (int, error) { after(ctx, func() {}); panic("handler") },
			"goexit": func(ctx context.Context) (int, error) { after(ctx, func() {}); runtime.Goexit(); return 0, nil },
			"then panics": func(ctx context.Context) (int, error) {
				after(ctx, func() { panic("after") })
				return 1, nil
			},
			"then ends": func(ctx context.Context) (int, error) { after(ctx, runtime.Goexit); return 1, nil },
			"lost": func(ctx context.Context) (int, error) {
				after(ctx, func() {})
				began <- struct{}{}
				<-hold
				return 1, nil
			},
		}
		var calls []typedrpc.Method[int, int]
		for name, way := range ways {
			for _, traits := range [][]typedrpc.MethodTrait{nil, {typedrpc.Serial}} {
				m := typedrpc.NewMethod[int, int](fmt.Sprint(strings.ReplaceAll(name, " ", "."), len(traits)), traits...)
				typedrpc.Handle(mux, m, func(ctx context.Context, _ int) (int, error) { return way(ctx) })
				if name != "lost" {
					calls = append(calls, m)
				}
			}
		}
		log := new(lab.Logs)
		client, server := o.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, nil)
		for _, m := range calls {
			_, err := typedrpc.Call(t.Context(), client, m, 1)
			heard := <-told
			is.Equal(err == nil, heard == nil) // what the caller is told
			if err != nil && strings.HasPrefix(m.Name(), "error") {
				is.True(errors.Is(heard, typedrpc.NotFound))
			}
		}
		for !log.Has("after") {
			time.Sleep(time.Millisecond)
		}
		is.NoErr(typedrpc.Notify(t.Context(), client, typedrpc.NewNotification[int]("well0"), 1))
		is.Equal(typedrpc.CodeOf(<-told), typedrpc.FailedPrecondition) // nothing answers it

		ctx, cancel := context.WithCancel(t.Context())
		lost := typedrpc.NewMethod[int, int]("lost0")
		f := typedrpc.Go(ctx, client, lost, 1)
		<-began
		cancel() // it is answered all the same
		f.Await(t.Context())
		hold <- struct{}{}
		is.NoErr(<-told)

		typedrpc.Go(t.Context(), client, lost, 1)
		<-began
		server.Close()
		hold <- struct{}{}
		is.Equal(typedrpc.CodeOf(<-told), typedrpc.Unavailable)
		is.Equal(len(told), 0)
	})
}

// Of a batch that is lost all are told.
func TestAfterReply_batchIsLost(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		told, hold := make(chan error, 9), make(chan struct{})
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) {
			typedrpc.RequestFrom(ctx).AfterReply = func(_ context.Context, err error) { told <- err }
			if n == 0 {
				<-hold
			}
			return n, nil
		})
		srv := &typedrpc.Server{Mux: mux}
		s, _ := lab.Page(t, srv)
		s.Send(`[{"jsonrpc":"2.0","id":1,"method":"ask","params":[1]},{"jsonrpc":"2.0","id":2,"method":"ask","params":[0]}]`)
		synctest.Wait()
		is.Equal(len(told), 0)
		s.T.Kill()
		synctest.Wait()
		is.Equal(len(told), 1)
		close(hold)
		for range 2 {
			is.Equal(typedrpc.CodeOf(<-told), typedrpc.Unavailable)
		}
		is.NoErr(srv.Shutdown(t.Context()))
	})
}

// By POST the reply is written, and there is no connection to send on.
func TestAfterReply_post(t *testing.T) {
	is := is.New(t)
	told := make(chan error, 2)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) {
		r := typedrpc.RequestFrom(ctx)
		r.AfterReply = func(ctx context.Context, err error) {
			told <- err
			told <- typedrpc.Notify(ctx, r.Conn, subEvent, n)
		}
		return n, nil
	})
	url := serve(t, &typedrpc.Server{Mux: mux})
	for _, body := range []string{`{"jsonrpc":"2.0","id":1,"method":"ask","params":[1]}`, `[{"jsonrpc":"2.0","id":1,"method":"ask","params":[1]}]`} {
		_, text := post(t, url, body)
		is.True(strings.Contains(text, `"result":1`))
		is.NoErr(<-told)
		is.Equal(typedrpc.OutcomeOf(<-told), typedrpc.NotSent)
	}
}
