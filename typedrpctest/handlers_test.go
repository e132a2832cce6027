package typedrpctest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	nap  = typedrpc.NewMethod[time.Duration, int]("nap")
	napN = typedrpc.NewNotification[time.Duration]("nap.n")
)

// A handler that sleeps, whatever its context says, is waited for in the bubble's time.
func TestPair_outlastsHandlers(t *testing.T) {
	for name, early := range map[string]bool{"closed by the test": true, "closed by the cleanup": false} {
		for kind, use := range map[string]func(*typedrpc.Conn){
			"call":         func(c *typedrpc.Conn) { typedrpc.Go(context.Background(), c, nap, 3*time.Hour) },
			"notification": func(c *typedrpc.Conn) { typedrpc.Notify(context.Background(), c, napN, 3*time.Hour) },
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				var woke atomic.Int32
				mux := typedrpc.NewMux()
				typedrpc.Handle(mux, nap, func(_ context.Context, d time.Duration) (int, error) { time.Sleep(d); woke.Add(1); return 0, nil })
				typedrpc.Handle(mux, napN, func(_ context.Context, d time.Duration) error { time.Sleep(d); woke.Add(1); return nil })
				synctest.Test(t, func(t *testing.T) {
					client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
					other, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
					use(client)
					use(other)
					synctest.Wait()
					if early {
						client.Close()
						other.Close()
					}
				})
				is.New(t).Equal(woke.Load(), int32(2))
			})
		}
	}
}

// One that never returns is named, with what to do.
func TestPair_namesHandlersThatStay(t *testing.T) {
	if os.Getenv("TYPEDRPC_STAYS") != "" {
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, nap, func(context.Context, time.Duration) (int, error) { select {} })
		synctest.Test(t, func(t *testing.T) {
			client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
			typedrpc.Go(t.Context(), client, nap, 0)
			synctest.Wait()
		})
		return
	}
	is := is.New(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestPair_namesHandlersThatStay$")
	cmd.Env = append(os.Environ(), "TYPEDRPC_STAYS=1")
	out, err := cmd.CombinedOutput()
	is.True(err != nil)
	says, _, panics := strings.Cut(string(out), "panic: deadlock")
	is.True(panics)
	is.True(strings.Contains(says, "1 handlers or callbacks still run"))
	is.True(strings.Contains(says, "have each end with its context"))
	is.True(strings.Contains(says, "TestPair_namesHandlersThatStay.func1")) // the handler itself
}
