package e2e_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// panicky is middleware's writer, which panics in one of its methods, from the second call on.
type panicky struct {
	http.ResponseWriter
	in    string
	calls int
}

func (p *panicky) does(what string) {
	if what != p.in {
		return
	}
	if p.calls++; p.calls > 1 {
		panic("the middleware's " + what)
	}
}

func (p *panicky) Write(b []byte) (int, error) {
	p.does("Write")
	return p.ResponseWriter.Write(b)
}

func (p *panicky) FlushError() error {
	p.does("Flush")
	return http.NewResponseController(p.ResponseWriter).Flush()
}

func (p *panicky) SetWriteDeadline(t time.Time) error {
	p.does("SetWriteDeadline")
	return http.NewResponseController(p.ResponseWriter).SetWriteDeadline(t)
}

// Middleware that panics ends the answer of a GET, and not the process: items are written on
// goroutines of the library's.
func TestGet_writerPanics(t *testing.T) {
	ticks := typedrpc.NewServerStream[int, int]("ticks", typedrpc.Safe)
	for _, in := range []string{"Write", "Flush", "SetWriteDeadline"} {
		t.Run(in, func(t *testing.T) {
			is := is.New(t)
			ended := make(chan error, 1)
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, ticks, func(ctx context.Context, n int, send func(int) error) error {
				for i := range n {
					if err := send(i); err != nil {
						ended <- err
						return err
					}
				}
				if in == "SetWriteDeadline" { // whose errors do not matter
					ended <- io.EOF
					return nil
				}
				<-ctx.Done()
				ended <- ctx.Err()
				return ctx.Err()
			})
			srv := &typedrpc.Server{Mux: mux, Logger: new(lab.Logs).Logger()}
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				srv.ServeHTTP(&panicky{ResponseWriter: w, in: in}, r)
			}))
			defer hs.Close()
			defer srv.Shutdown(t.Context())
			resp, err := http.Get(hs.URL + "?method=ticks&params=3")
			is.NoErr(err)
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			is.True(<-ended != nil)
		})
	}
}
