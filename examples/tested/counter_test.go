package tested

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// A handler is a function: typedrpctest.Context makes the context that it is given,
// with who calls, and with what metadata.
func TestAdd(t *testing.T) {
	var c Counter
	ann := typedrpctest.Context(t, typedrpc.Identity{Subject: "ann"}, nil)
	bob := typedrpctest.Context(t, typedrpc.Identity{Subject: "bob"}, nil)
	for _, step := range []struct {
		ctx     context.Context
		n, want int
	}{{ann, 2, 2}, {ann, 3, 5}, {bob, 1, 1}} {
		if got, err := c.Add(step.ctx, step.n); got != step.want || err != nil {
			t.Errorf("Add(%d) = %d, %v, not %d", step.n, got, err, step.want)
		}
	}
	if _, err := c.Add(ann, -1); !errors.Is(err, typedrpc.InvalidArgument) {
		t.Errorf("a negative number: %v", err)
	}
}

// as makes a client's options.
func as(name string) *typedrpc.DialOptions {
	return &typedrpc.DialOptions{SignIn: SignIn.Present(func(context.Context) (string, error) { return name, nil })}
}

// typedrpctest.Pair connects client and server in memory. In a bubble of
// testing/synctest an hour takes no time, and a goroutine left behind fails the test.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Counter
		client, _ := typedrpctest.Pair(t, c.Server(), as("ann"))
		defer client.Close()
		if _, err := typedrpc.Call(t.Context(), client, Add, 2); err != nil {
			t.Fatal(err)
		}

		began := time.Now()
		n, err := typedrpc.Call(t.Context(), client, Wait, time.Hour)
		if n != 2 || err != nil || time.Since(began) != time.Hour {
			t.Errorf("Wait = %d, %v, after %v", n, err, time.Since(began))
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := typedrpc.Call(ctx, client, Wait, 3*time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a minute's time: %v", err)
		}
	})
}

// A handshake that is refused: Dial returns what Pair would fail the test with.
func TestSignIn_refused(t *testing.T) {
	var c Counter
	if _, _, err := typedrpctest.Dial(c.Server(), as("")); !errors.Is(err, typedrpc.Unauthenticated) {
		t.Errorf("without a name: %v", err)
	}
}

// typedrpctest.Network is a network that fails as it is told, with the real HTTP and
// WebSocket on top. Here the answer's way takes a second, in which the link breaks:
// the call has run, and its caller does not know. Without a time of grace the session
// is lost, too; the call is made again, and since Add is Keyed it does not run again.
func TestAdd_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Down: typedrpctest.Conditions{Latency: time.Second}})
		defer n.Close()
		var c Counter
		o := as("ann")
		o.Limits.Grace = -1
		client, _ := n.Host("counter").Pair(t, c.Server(), o)
		defer client.Close()

		call := typedrpc.Go(t.Context(), client, Add, 2)
		time.Sleep(time.Second / 2)
		n.CutAll(typedrpctest.CutReset)
		if got, err := call.Await(t.Context()); got != 2 || err != nil {
			t.Errorf("Add(2) = %d, %v", got, err)
		}
		if got, err := typedrpc.Call(t.Context(), client, Add, 1); got != 3 || err != nil {
			t.Errorf("Add(1) = %d, %v: was 2 added twice?", got, err)
		}
		if n.Stats().Dialled != 2 {
			t.Errorf("%d connections", n.Stats().Dialled)
		}
	})
}
