package e2e_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// A peer that asks for hundreds of large replies and reads none had all of them
// made.
func TestBought_largeRepliesThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		big := typedrpc.NewMethod[struct{}, string]("big")
		var ran atomic.Int64
		typedrpc.Handle(l.Mux, big, func(context.Context, struct{}) (string, error) {
			ran.Add(1)
			return strings.Repeat("x", 1_000_000), nil
		})
		small := typedrpc.NewMethod[int, int]("small")
		var ranSmall atomic.Int64
		typedrpc.Handle(l.Mux, small, func(_ context.Context, n int) (int, error) { ranSmall.Add(1); return n, nil })
		p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
		is.NoErr(err)
		defer p.T.Kill()
		_, err = p.Hello()
		is.NoErr(err)
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: small.Name(), Payload: []byte("1")}))
		_, err = p.Until(wire.Result)
		is.NoErr(err)
		var calls []wire.Frame
		for id := range uint64(200) {
			calls = append(calls, wire.Frame{Type: wire.Call, ID: id + 2, Method: "big", Payload: []byte("{}")})
		}
		is.NoErr(p.Send(calls...)) // in one message
		time.Sleep(5 * time.Second)
		is.True(ran.Load() <= 50) // 32 of a method that has not answered yet, and 8 MiB of it
		is.True(hook.Server(l.Server).Budget < 80<<20)
		for range 40 { // until eight of them wait, and there is room for less than another
			_, err = p.Until(wire.Result)
			is.NoErr(err)
		}
		synctest.Wait()
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 301, Method: small.Name(), Payload: []byte("1")}))
		synctest.Wait()
		is.Equal(ranSmall.Load(), int64(2)) // it does not wait behind those that answer much
		for range len(calls) + 1 - 40 {     // they begin as their predecessors' replies are read
			_, err = p.Until(wire.Result)
			is.NoErr(err)
		}
		is.Equal(ran.Load(), int64(200))
	})
}

// Handlers that wait are not held back for long, whatever they may answer, and
// small ones not at all once it is known that they are.
func TestBought_handlersThatWait(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d})
		defer c.Close()
		for range 1000 {
			typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		}
		time.Sleep(time.Second)
		is.Equal(l.Running.Load(), int64(1000))
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		close(l.Release)
		time.Sleep(time.Second)
		is.Equal(l.Running.Load(), int64(0))
	})
}

// A handler whose call back needs another call of the peer's does not wait for
// the room that its own reply may take.
func TestBought_callsBackAreNoDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Limits.MaxBuffered = 64 << 10
		deep := typedrpc.NewMethod[int, string]("deep")
		handle := func(ctx context.Context, n int) (string, error) {
			if n > 0 {
				if _, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), deep, n-1); err != nil {
					return "", err
				}
			}
			return strings.Repeat("x", 40_000), nil
		}
		typedrpc.Handle(l.Mux, deep, handle)
		there := typedrpc.NewMux()
		typedrpc.Handle(there, deep, handle)
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Mux: there, Limits: l.Limits})
		defer c.Close()
		for range 3 {
			began := time.Now()
			_, err := typedrpc.Call(t.Context(), c, deep, 20)
			is.NoErr(err)
			is.True(time.Since(began) < time.Second)
		}
	})
}
