package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/js"
)

func get(t *testing.T, h http.Handler, path string) (*http.Response, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	resp := w.Result()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

var page = fstest.MapFS{
	"index.html": {Data: []byte("<!doctype html><title>page</title>")},
	"page.js":    {Data: []byte("import './api.js';")},
	"main.wasm":  {Data: []byte("\x00asm")},
}

func TestHandler(t *testing.T) {
	h := Handler(page)
	for path, want := range map[string]struct{ contentType, text string }{
		"/":            {"text/html; charset=utf-8", "<title>page</title>"},
		"/page.js":     {"text/javascript; charset=utf-8", "import"},
		"/main.wasm":   {"application/wasm", "\x00asm"},
		"/style.css":   {"text/css; charset=utf-8", "color-scheme: light dark"},
		"/status.js":   {"text/javascript; charset=utf-8", "export function showState"},
		"/dom.js":      {"text/javascript; charset=utf-8", "export function element"},
		"/typedrpc.js": {"text/javascript; charset=utf-8", js.Source()},
	} {
		t.Run(path, func(t *testing.T) {
			is := is.New(t)
			resp, body := get(t, h, path)
			is.Equal(resp.StatusCode, http.StatusOK)
			is.Equal(resp.Header.Get("Content-Type"), want.contentType)
			is.True(strings.Contains(body, want.text))
			is.Equal(resp.Header.Get("X-Content-Type-Options"), "nosniff")
			is.Equal(resp.Header.Get("Cache-Control"), "no-cache")
			policy := resp.Header.Get("Content-Security-Policy")
			is.True(strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; "))
			is.True(!strings.Contains(policy, "unsafe"))
		})
	}
	is := is.New(t)
	resp, _ := get(t, h, "/nothing.js")
	is.Equal(resp.StatusCode, http.StatusNotFound)
}

func TestHandler_scripts(t *testing.T) {
	is := is.New(t)
	resp, _ := get(t, Handler(page, "'wasm-unsafe-eval'"), "/")
	is.True(strings.Contains(resp.Header.Get("Content-Security-Policy"), "; script-src 'self' 'wasm-unsafe-eval'; "))
}
