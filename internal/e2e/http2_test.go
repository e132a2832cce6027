package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/topic"
)

// TestHTTP2_get reads over HTTP/2, several streams over one connection, and leaves one of them.
func TestHTTP2_get(t *testing.T) {
	is := is.New(t)
	srv := getServer(new(topic.Hub))
	h := httptest.NewUnstartedServer(srv)
	h.EnableHTTP2 = true
	h.StartTLS()
	defer h.Close()
	ask := func(ctx context.Context, query, last string) *bufio.Reader {
		r, err := http.NewRequestWithContext(ctx, "GET", h.URL+"?"+query, nil)
		is.NoErr(err)
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		resp, err := h.Client().Do(r)
		is.NoErr(err)
		is.Equal(resp.ProtoMajor, 2)
		is.Equal(resp.StatusCode, http.StatusOK)
		t.Cleanup(func() { resp.Body.Close() })
		return bufio.NewReader(resp.Body)
	}
	ctx, leave := context.WithCancel(t.Context())
	first := ask(ctx, "method=waits", "")
	is.Equal(events(t, first, 1)[0].data, "1") // at once, while the stream goes on
	all := events(t, ask(t.Context(), "method=pages", `{"after":7}`), 100)
	is.Equal(len(all), 4)
	is.Equal(all[0], sse{id: `{"after":8}`, data: "8"})
	is.Equal(all[3].event, "done")
	answer, err := ask(t.Context(), "method=square&params=7", "").ReadString(0)
	is.Equal(err, io.EOF)
	is.Equal(answer, `{"jsonrpc":"2.0","id":1,"result":49}`)
	leave()
	_, err = first.ReadString(0)
	is.True(errors.Is(err, context.Canceled))
	for hook.Server(srv).Budget != 0 || hook.Server(srv).Plain != 0 { // its handler learns it
		runtime.Gosched()
	}
	is.NoErr(srv.Shutdown(t.Context()))
}

// TestHTTP2_feed has items of a POST handled as they come, and answers before its end.
func TestHTTP2_feed(t *testing.T) {
	is := is.New(t)
	f := feedServer()
	h := httptest.NewUnstartedServer(f.Server)
	h.EnableHTTP2 = true
	h.StartTLS()
	defer h.Close()
	for _, last := range []string{"", "-7\n"} {
		body, w := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), "POST", h.URL+"?method=sums&params=1", body)
		is.NoErr(err)
		r.Header.Set("Content-Type", linesType)
		answered := make(chan string, 1)
		go func() {
			resp, err := h.Client().Do(r)
			if err != nil {
				answered <- err.Error()
				return
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			answered <- resp.Proto + " " + resp.Status + " " + string(text)
		}()
		for range 3 {
			io.WriteString(w, "2\n")
			is.Equal(<-f.items, 2)
		}
		if last != "" { // it is answered, and the body has no end
			io.WriteString(w, last)
			is.Equal(<-answered, `HTTP/2.0 200 OK {"jsonrpc":"2.0","id":1,"result":-7}`)
			w.Close()
			continue
		}
		w.Close()
		is.Equal(<-answered, `HTTP/2.0 200 OK {"jsonrpc":"2.0","id":1,"result":7}`)
		is.NoErr(<-f.ends)
	}
	f.vacant()
}
