package lab

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// Sign is the sign-in of a porch.
var Sign = typedrpc.NewSignIn[string, int]()

// Or is what v points to; the zero value where it is nil.
func Or[T any](v *T) (x T) {
	if v != nil {
		x = *v
	}
	return x
}

// Pass is one authentication that a porch has seen.
type Pass struct {
	At  time.Time
	who string
	Via string // the remote address
}

// Porch is an authentication that can be watched and steered. Its reply is the
// number of the authentication, from 1.
type Porch struct {
	Life time.Duration // of what it grants; 0: no end

	mu     sync.Mutex
	passes []Pass
	decide func(ctx context.Context, n int, id *typedrpc.Identity) error
	busy   int
	Most   int // at once
}

func (g *Porch) Guard(l *Lab) {
	l.SignIn = Sign.Verify(func(ctx context.Context, r *http.Request, sent *string) (typedrpc.Identity, int, error) {
		who := Or(sent)
		g.mu.Lock()
		g.passes = append(g.passes, Pass{time.Now(), who, r.RemoteAddr})
		n, decide := len(g.passes), g.decide
		g.busy++
		g.Most = max(g.Most, g.busy)
		g.mu.Unlock()
		defer func() {
			g.mu.Lock()
			g.busy--
			g.mu.Unlock()
		}()
		id := typedrpc.Identity{Subject: who}
		if g.Life > 0 {
			id.Expires = time.Now().Add(g.Life)
		}
		if decide != nil {
			if err := decide(ctx, n, &id); err != nil {
				return typedrpc.Identity{}, 0, err
			}
		}
		return id, n, nil
	})
}

func (g *Porch) Seen() []Pass {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]Pass(nil), g.passes...)
}

func (g *Porch) On(decide func(ctx context.Context, n int, id *typedrpc.Identity) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.decide = decide
}

// Ann are credentials that never change.
var Ann = Sign.Present(func(context.Context) (string, error) { return "ann", nil })

// Gated is a client of a lab with a porch, and the server's end of it.
type Gated struct {
	*Porch
	W      *Town
	L      *Lab
	Client *typedrpc.Conn
	Server *typedrpc.Conn
	States *Watch
}

func NewGated(t *testing.T, d typedrpc.Dialect, life time.Duration, o *typedrpc.DialOptions) *Gated {
	t.Helper()
	g := &Gated{Porch: &Porch{Life: life}, L: New(), States: new(Watch)}
	g.Guard(g.L)
	conns := make(chan *typedrpc.Conn, 99)
	g.L.OnConnect = func(c *typedrpc.Conn) { conns <- c }
	g.W = &Town{Srv: g.L.Server}
	opts := typedrpc.DialOptions{SignIn: Ann}
	if o != nil {
		opts = *o
	}
	if opts.Limits.Grace == 0 {
		opts.Limits.Grace = 30 * time.Second
	}
	opts.Dialect, opts.OnState = d, g.States.On
	g.Client = g.W.Dial(t, &opts)
	g.Server = <-conns
	t.Cleanup(func() {
		g.Client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		g.L.Shutdown(ctx) // waits for authentications that are under way
	})
	return g
}

func (g *Gated) Reply(is *is.I) int {
	is.Helper()
	n, err := Sign.Reply(g.Client)
	is.NoErr(err)
	return n
}
