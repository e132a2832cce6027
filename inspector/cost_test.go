package inspector

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/inspector/api"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var who = typedrpc.NewSignIn[string, struct{}]()

// crowded inspects a server that has many connections.
func crowded(t testing.TB, conns int) *Handler {
	is := is.New(t)
	quiet := slog.New(slog.DiscardHandler)
	srv := &typedrpc.Server{Logger: quiet, BeginRate: -1, SignIn: who.Verify(func(_ context.Context, _ *http.Request, s *string) (typedrpc.Identity, struct{}, error) {
		return typedrpc.Identity{Subject: *s}, struct{}{}, nil
	})}
	for i := range conns {
		c, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Logger: quiet, SignIn: who.Present(func(context.Context) (string, error) { return fmt.Sprint("guest ", i), nil })})
		is.NoErr(err)
		t.Cleanup(func() { c.Close() })
	}
	h := &Handler{Server: srv, Logger: quiet}
	is.NoErr(h.Check())
	return h
}

// However many connections there are, and however many are asked for, a page is sent a
// hundred at most, and those who look share what was found out.
func TestPage_isBounded(t *testing.T) {
	is := is.New(t)
	h := crowded(t, 150)
	by, err := orderOf(api.Oldest)
	is.NoErr(err)
	p := h.page(api.Query{Most: 1000}, by)
	is.Equal(p.All, 150)
	is.Equal(len(p.Rows), mostRows)
	is.Equal(p.Rows[0].ID, 1)
	is.Equal(len(h.page(api.Query{}, by).Rows), defaultRows)
	asked := 0
	for range 3 {
		h.sums.get(func() api.Overview { asked++; return api.Overview{} })
	}
	is.Equal(asked, 1)
	one, two := h.conns.hold(), h.conns.hold()
	one()
	is.Equal(len(h.conns.value), 150)
	two()
	is.Equal(len(h.conns.value), 0) // nobody looks
	is.Equal(h.page(api.Query{}, by).All, 150)
}

// What a page costs each second that it is open.
func BenchmarkPage(b *testing.B) {
	h := crowded(b, 10_000)
	for _, order := range []api.Order{api.Newest, api.Memory} {
		by, err := orderOf(order)
		is.New(b).NoErr(err)
		b.Run("list "+string(order), func(b *testing.B) {
			for b.Loop() {
				h.conns = cached[[]row]{}
				h.page(api.Query{Order: order}, by)
			}
		})
	}
	b.Run("overview", func(b *testing.B) {
		for b.Loop() {
			h.overview()
		}
	})
}
