package link

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
)

// behind serves Accept behind a middleware, and returns its address and how each
// Accept ended.
func behind(t *testing.T, middleware func(http.Handler) http.Handler) (url string, ends chan error) {
	t.Helper()
	ends = make(chan error, 8)
	hs := httptest.NewServer(middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr, err := Accept(w, r, "", false)
		ends <- err
		if err == nil {
			t.Cleanup(tr.Kill)
		}
	})))
	t.Cleanup(hs.Close)
	return hs.URL, ends
}

func wrap(w func(http.ResponseWriter) http.ResponseWriter) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) { next.ServeHTTP(w(to), r) })
	}
}

// lateWriter keeps the status back until there is a body, as those of gin and of
// compressing middleware do.
type lateWriter struct {
	http.ResponseWriter
	status int
}

func (w *lateWriter) WriteHeader(status int) { w.status = status }

func (w *lateWriter) Write(p []byte) (int, error) {
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
		w.status = 0
	}
	return w.ResponseWriter.Write(p)
}

func (w *lateWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.ResponseWriter.(http.Hijacker).Hijack() // panics where there is none
}

// openWriter shows what is below it.
type openWriter struct{ *lateWriter }

func (w openWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestAccept_writersThatKeepTheStatusBack(t *testing.T) {
	late := wrap(func(w http.ResponseWriter) http.ResponseWriter { return &lateWriter{ResponseWriter: w} })
	open := wrap(func(w http.ResponseWriter) http.ResponseWriter { return openWriter{&lateWriter{ResponseWriter: w}} })
	for name, middleware := range map[string]func(http.Handler) http.Handler{
		"none":         func(next http.Handler) http.Handler { return next },
		"one":          late,
		"one, open":    open,
		"open in late": func(next http.Handler) http.Handler { return late(open(next)) },
		"late in open": func(next http.Handler) http.Handler { return open(late(next)) },
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			url, ends := behind(t, middleware)
			tr, _, _, err := Dial(t.Context(), url, DialOptions{})
			is.NoErr(err)
			defer tr.Kill()
			is.NoErr(<-ends)
		})
	}
}

func TestAccept_saysWhoHidesTheConnection(t *testing.T) {
	late := wrap(func(w http.ResponseWriter) http.ResponseWriter { return &lateWriter{ResponseWriter: w} })
	open := wrap(func(w http.ResponseWriter) http.ResponseWriter { return openWriter{&lateWriter{ResponseWriter: w}} })
	timeout := func(next http.Handler) http.Handler { return http.TimeoutHandler(next, time.Minute, "") }
	for name, tt := range map[string]struct {
		middleware func(http.Handler) http.Handler
		status     int
		names      string
	}{
		"a timeout":                   {timeout, http.StatusNotImplemented, "*http.timeoutWriter, of http.TimeoutHandler"},
		"below one that shows it":     {func(next http.Handler) http.Handler { return timeout(open(next)) }, http.StatusNotImplemented, "of http.TimeoutHandler"},
		"below one that relies on it": {func(next http.Handler) http.Handler { return timeout(late(next)) }, http.StatusNotImplemented, "Hijack of *link.lateWriter panicked"},
		"one that fails":              {wrap(func(w http.ResponseWriter) http.ResponseWriter { return failingWriter{w} }), http.StatusNotImplemented, "Hijack of link.failingWriter: not today"},
		"none":                        {wrap(func(w http.ResponseWriter) http.ResponseWriter { return plainWriter{w} }), http.StatusNotImplemented, "link.plainWriter, and is no http.Hijacker"},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			url, ends := behind(t, tt.middleware)
			_, _, resp, err := Dial(t.Context(), url, DialOptions{})
			is.True(err != nil)
			is.Equal(resp.StatusCode, tt.status)
			var body strings.Builder
			resp.Write(&body)
			is.True(strings.Contains(body.String(), tt.names)) // the client learns who
			is.Equal(resp.Header.Get("Upgrade"), "")
			is.True(strings.Contains((<-ends).Error(), tt.names)) // and so does the log
		})
	}
}

type failingWriter struct{ http.ResponseWriter }

func (failingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("not today")
}

type plainWriter struct{ http.ResponseWriter }

// What middleware has put into the response goes along, but for what describes a
// body.
func TestAccept_headersOfMiddleware(t *testing.T) {
	is := is.New(t)
	url, _ := behind(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Set-Cookie", "a=b")
			h.Set("X-Request-Id", "7")
			h.Set("Vary", "Accept-Encoding")
			h.Set("Connection", "close")
			h.Set("X-Evil", "a\r\nX-Injected: yes")
			for _, name := range []string{"Content-Encoding", "Content-Type", "Transfer-Encoding", "Content-Length", "Trailer"} {
				h.Set(name, "9")
			}
			next.ServeHTTP(w, r)
		})
	})
	tr, _, resp, err := Dial(t.Context(), url, DialOptions{})
	is.NoErr(err)
	defer tr.Kill()
	is.Equal(resp.Header.Get("Set-Cookie"), "a=b")
	is.Equal(resp.Header.Get("X-Request-Id"), "7")
	is.Equal(resp.Header.Get("Vary"), "Accept-Encoding")
	is.Equal(resp.Header.Get("Connection"), "Upgrade")
	is.Equal(resp.Header.Get("X-Injected"), "")
	_, err = http.ParseTime(resp.Header.Get("Date"))
	is.NoErr(err)
	for _, name := range []string{"Content-Encoding", "Content-Type", "Transfer-Encoding", "Content-Length", "Trailer"} {
		is.Equal(resp.Header.Values(name), nil)
	}
}

// A connection that is gone when the answer is written is told apart.
func TestAccept_answerThatCannotBeWritten(t *testing.T) {
	is := is.New(t)
	url, ends := behind(t, wrap(func(w http.ResponseWriter) http.ResponseWriter { return brokenWriter{w} }))
	_, _, _, err := Dial(t.Context(), url, DialOptions{})
	is.True(err != nil)
	err = <-ends
	is.True(strings.Contains(err.Error(), "the upgrade could not be answered"))
	is.True(errors.Is(err, net.ErrClosed))
}

// brokenWriter gives a connection away that is closed.
type brokenWriter struct{ http.ResponseWriter }

func (w brokenWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := w.ResponseWriter.(http.Hijacker).Hijack()
	if err == nil {
		c.Close()
	}
	return c, rw, err
}

// What the client sent before it had the answer is not lost.
func TestAccept_earlyBytes(t *testing.T) {
	is := is.New(t)
	got := make(chan string, 1)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr, err := Accept(w, r, "", false)
		if err != nil {
			return
		}
		m, _, err := tr.Read(func() {})
		if err == nil {
			got <- string(m.B)
		}
		tr.Kill()
	}))
	defer hs.Close()
	c, err := new(net.Dialer).DialContext(context.Background(), "tcp", hs.Listener.Addr().String())
	is.NoErr(err)
	defer c.Close()
	const head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
	_, err = c.Write(append([]byte(head), 0x81, 0x82, 0, 0, 0, 0, 'h', 'i'))
	is.NoErr(err)
	is.Equal(<-got, "hi")
}
