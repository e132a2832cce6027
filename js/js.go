// Package js has the client of web pages as one built file, for a server of pages that
// have no build step: an ES module that a page imports from where it is served.
//
//	http.Handle("/typedrpc.js", js.Handler())
//
// and in the page
//
//	<script type="module">
//	  import { call, connect, method } from "./typedrpc.js";
//	</script>
//
// The file is that of the same version as the Go packages. README.md beside it says what
// the client can do.
package js

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed dist/typedrpc.js
var source string

// Source returns the client, an ES module, for a program that serves or writes it in its
// own way. It is always the same.
func Source() string { return source }

// Handler returns a handler that serves the client, whatever the path is. It may be used
// by several goroutines at once, and for several paths.
//
// Answers are compressed where that is understood. They have an ETag, and caches are
// told to ask each time whether it still holds: after an update of the server no page
// runs the client of the version before.
func Handler() http.Handler { return http.HandlerFunc(serve) }

// built is what is served: the file, and the file compressed.
var built = sync.OnceValue(func() (b struct {
	etag    string
	gzipped []byte
}) {
	sum := sha256.Sum256([]byte(source))
	b.etag = hex.EncodeToString(sum[:8])
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err == nil {
		_, err = w.Write([]byte(source))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil { // a buffer takes all that is written
		panic(fmt.Sprintf("js: %v", err))
	}
	b.gzipped = buf.Bytes()
	return b
})

func serve(w http.ResponseWriter, r *http.Request) {
	b, h := built(), w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept-Encoding")
	if !gzips(r) {
		h.Set("Etag", strconv.Quote(b.etag))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(source))
		return
	}
	h.Set("Etag", strconv.Quote(b.etag+"-gzip"))
	h.Set("Content-Encoding", "gzip")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b.gzipped))
}

// gzips reports whether r may be answered with gzip: it is named, or everything is, and
// not refused.
func gzips(r *http.Request) bool {
	ok := false
	for _, line := range r.Header.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(line, ",") {
			name, q, _ := strings.Cut(coding, ";")
			_, value, _ := strings.Cut(q, "=")
			weight, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			wanted := err != nil || weight > 0
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "gzip", "x-gzip":
				return wanted
			case "*":
				ok = wanted
			}
		}
	}
	return ok
}
