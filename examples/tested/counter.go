// Package tested is a small service whose tests are the example: see counter_test.go.
package tested

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
)

// What server and clients share.
var (
	// Add adds to the caller's own counter, once, and returns what it has.
	Add = typedrpc.NewMethod[int, int]("counter.add", typedrpc.Keyed)
	// Wait returns when the counter has been left alone for so long.
	Wait = typedrpc.NewMethod[time.Duration, int]("counter.wait", typedrpc.Idempotent)

	SignIn = typedrpc.NewSignIn[string, struct{}]()
)

// Counter counts for each user.
type Counter struct {
	mu     sync.Mutex
	counts map[string]int
	last   map[string]time.Time
}

// Server serves the counter. Names are claims here: in earnest signIn looks at a token.
func (c *Counter) Server() *typedrpc.Server {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Add, c.Add)
	typedrpc.Handle(mux, Wait, c.Wait)
	return &typedrpc.Server{Mux: mux, SignIn: SignIn.Verify(signIn)}
}

func signIn(_ context.Context, _ *http.Request, name *string) (id typedrpc.Identity, none struct{}, err error) {
	if name == nil || *name == "" {
		return id, none, typedrpc.Errorf(typedrpc.Unauthenticated, "say your name first")
	}
	return typedrpc.Identity{Subject: *name}, none, nil
}

// Add handles the method of its name. The user is who signed in.
func (c *Counter) Add(ctx context.Context, n int) (int, error) {
	user := typedrpc.ConnFrom(ctx).Identity().Subject
	if n < 0 {
		return 0, typedrpc.Errorf(typedrpc.InvalidArgument, "%d is negative", n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts, c.last = map[string]int{}, map[string]time.Time{}
	}
	c.counts[user] += n
	c.last[user] = time.Now()
	return c.counts[user], nil
}

// Wait handles the method of its name.
func (c *Counter) Wait(ctx context.Context, quiet time.Duration) (int, error) {
	user := typedrpc.ConnFrom(ctx).Identity().Subject
	for {
		c.mu.Lock()
		n, left := c.counts[user], time.Until(c.last[user].Add(quiet))
		c.mu.Unlock()
		if left <= 0 {
			return n, nil
		}
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
