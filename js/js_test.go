package js_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/js"
)

// A server of a page that imports the client from "./typedrpc.js".
func ExampleHandler() {
	mux := http.NewServeMux()
	mux.Handle("/typedrpc.js", js.Handler())
	// and mux.Handle("/rpc", server), and the page itself

	server := httptest.NewServer(mux)
	defer server.Close()
	resp, err := http.Get(server.URL + "/typedrpc.js")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, resp.Header.Get("Content-Type"))
	// Output: 200 OK text/javascript; charset=utf-8
}

// get is an answer to a request with these headers.
func get(method string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, "/lib/typedrpc.js", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	js.Handler().ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSource(t *testing.T) {
	is := is.New(t)
	file, err := os.ReadFile("dist/typedrpc.js")
	is.NoErr(err)
	is.Equal(js.Source(), string(file))
	is.True(strings.Contains(js.Source(), "WebSocket")) // it is the client
}

func TestHandler_plain(t *testing.T) {
	for _, accept := range []string{"", "br", "identity", "gzip;q=0", "gzip; q=0.0, br", "*;q=0", "gzip;q=0, *"} {
		t.Run(accept, func(t *testing.T) {
			is := is.New(t)
			resp := get(http.MethodGet, "Accept-Encoding", accept)
			is.Equal(resp.StatusCode, http.StatusOK)
			is.Equal(resp.Header.Get("Content-Type"), "text/javascript; charset=utf-8")
			is.Equal(resp.Header.Get("Content-Encoding"), "")
			is.Equal(resp.Header.Get("X-Content-Type-Options"), "nosniff")
			is.Equal(resp.Header.Get("Vary"), "Accept-Encoding")
			is.Equal(text(t, resp.Body), js.Source())
		})
	}
}

func TestHandler_gzip(t *testing.T) {
	for _, accept := range []string{"gzip", "gzip, deflate, br", "br;q=1, GZIP;q=0.5", "*", "identity;q=0, x-gzip"} {
		t.Run(accept, func(t *testing.T) {
			is := is.New(t)
			resp := get(http.MethodGet, "Accept-Encoding", accept)
			is.Equal(resp.StatusCode, http.StatusOK)
			is.Equal(resp.Header.Get("Content-Type"), "text/javascript; charset=utf-8")
			is.Equal(resp.Header.Get("Content-Encoding"), "gzip")
			r, err := gzip.NewReader(resp.Body)
			is.NoErr(err)
			is.Equal(text(t, r), js.Source())
		})
	}
}

// A page that is loaded again does not fetch the client again.
func TestHandler_cached(t *testing.T) {
	is := is.New(t)
	tags := map[string]bool{}
	for _, accept := range []string{"", "gzip"} {
		tag := get(http.MethodGet, "Accept-Encoding", accept).Header.Get("Etag")
		is.True(!tags[tag]) // what differs has tags that differ
		tags[tag] = true
		resp := get(http.MethodGet, "Accept-Encoding", accept, "If-None-Match", tag)
		is.Equal(resp.StatusCode, http.StatusNotModified)
		is.Equal(resp.Header.Get("Cache-Control"), "no-cache") // but it asks
		is.Equal(text(t, resp.Body), "")
		resp = get(http.MethodGet, "Accept-Encoding", accept, "If-None-Match", `"another"`)
		is.Equal(resp.StatusCode, http.StatusOK)
	}
}

func TestHandler_head(t *testing.T) {
	is := is.New(t)
	resp := get(http.MethodHead)
	is.Equal(resp.StatusCode, http.StatusOK)
	is.Equal(text(t, resp.Body), "")
	is.Equal(resp.ContentLength, int64(len(js.Source())))
}
