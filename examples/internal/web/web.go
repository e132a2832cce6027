// Package web serves the pages of the examples: a page's own files, and beside them what
// all pages share.
//
//	style.css     one look
//	status.js     what a connection is doing, in the bar at the top
//	dom.js        elements
//	typedrpc.js   the client, as package js has it
package web

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"

	"github.com/typedrpc/typedrpc/js"
)

//go:embed shared
var shared embed.FS

// Handler serves the files of page at /, and what is shared beside them, as Guard does. It
// takes the paths of both: what is not there is not found. scripts are as Guard's.
func Handler(page fs.FS, scripts ...string) http.Handler {
	own, err := fs.Sub(shared, "shared")
	if err != nil { // it is a constant
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServerFS(page))
	for _, name := range []string{"style.css", "status.js", "dom.js"} {
		mux.Handle("/"+name, http.FileServerFS(own))
	}
	mux.Handle("/typedrpc.js", js.Handler())
	return Guard(mux, scripts...)
}

// Guard serves what files does, with the headers that say what a page may do.
//
// A page may run scripts of its own server and use its styles, and nothing else. What
// others write is inserted as text anyway; this is for the day of a mistake. scripts are
// more that it may do, such as 'wasm-unsafe-eval' to run WebAssembly.
func Guard(files http.Handler, scripts ...string) http.Handler {
	policy := strings.Join([]string{
		"default-src 'none'",
		"script-src " + strings.Join(append([]string{"'self'"}, scripts...), " "),
		"style-src 'self'",
		"connect-src 'self'",
		"img-src 'self' data:",
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		files.ServeHTTP(w, r)
	})
}
