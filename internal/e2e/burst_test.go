package e2e_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Who asks for many handlers that work has few of them ready to run at once: the others'
// stand behind those.
func TestBurst_handlersThatWork(t *testing.T) {
	is := is.New(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	l := lab.New()
	work := typedrpc.NewMethod[int, int]("work")
	var most atomic.Int64
	typedrpc.Handle(l.Mux, work, func(_ context.Context, n int) (int, error) {
		if now := int64(runtime.NumGoroutine()); now > most.Load() {
			most.Store(now)
		}
		for began := time.Now(); time.Since(began) < time.Duration(n)*time.Millisecond; {
		}
		return n, nil
	})
	p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
	is.NoErr(err)
	defer p.T.Kill()
	_, err = p.Hello()
	is.NoErr(err)
	base := int64(runtime.NumGoroutine())
	const calls = 30 // fewer than what is a crowd whatever they do
	id := uint64(0)
	for round, takes := range []string{"2", "0", "2", "2"} {
		var fs []wire.Frame
		for range calls {
			id++
			fs = append(fs, wire.Frame{Type: wire.Call, ID: id, Method: work.Name(), Payload: []byte(takes)})
		}
		most.Store(0)
		is.NoErr(p.Send(fs...))
		for range calls {
			_, err = p.Until(wire.Result)
			is.NoErr(err)
		}
		if takes != "0" && round != 2 { // which begins behind those that were fast
			is.True(most.Load()-base <= 12) // 30 without turns
		}
	}
}
