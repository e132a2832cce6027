package cli

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// Who connects to what is no server of ours is told what to do about it, in few lines.
func TestAdvice(t *testing.T) {
	silent := log.New(io.Discard, "", 0)
	page := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); io.WriteString(w, text) }
	}
	html := page(200, "<!doctype html>\n<html>\n<body>"+strings.Repeat("x", 2000))
	serve := func(h http.Handler) string {
		hs := httptest.NewUnstartedServer(h)
		hs.Config.ErrorLog = silent
		hs.Start()
		t.Cleanup(hs.Close)
		return strings.TrimPrefix(hs.URL, "http://")
	}
	quiet := httptest.NewUnstartedServer(html)
	quiet.Config.ErrorLog = silent
	quiet.StartTLS()
	t.Cleanup(quiet.Close)
	tls := strings.TrimPrefix(quiet.URL, "https://")
	for _, tt := range []struct {
		name, url, err, advice string
		status                 int
	}{
		{"a page", serve(html), "the server answered 200 OK: <!doctype html> … (not sent)", "at this path", 64 + 14},
		{"a long line", serve(page(200, strings.Repeat("x", 1000))), "xxx … (not sent)", "at this path", 64 + 14},
		{"another path", serve(http.NotFoundHandler()), "404 Not Found", "at this path", 64 + 12},
		{"another method", serve(page(405, "no")), "405 ", "at this path", 0},
		{"not allowed", serve(page(401, "who?")), "401 Unauthorized: who?", "-token", 64 + 16},
		{"nobody knows who", "wss://" + tls, "certificate", "-insecure", 64 + 14},
		{"TLS is missing", tls, "400 Bad Request", "use wss://", 64 + 3},
		{"TLS is too much", "wss://" + serve(html), "HTTP response to HTTPS client", "use ws://", 64 + 14},
		{"no URL", "http://[::1", "typedrpc: the first argument is the server's URL", "typedrpc help call", 2},
		{"no host at all", "/rpc", "the server's URL", "", 2},
		{"another scheme", "ftp://s3cret@localhost/", "not with ftp://", "", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			var r, asJSON session
			status := r.run(t.Context(), "call", tt.url, "shop.price", "1")
			is.True(status == tt.status || tt.status == 0)
			text := r.err.String()
			if !strings.Contains(text, tt.err) || !strings.Contains(text, tt.advice) {
				t.Errorf("it says %s", text)
			}
			is.True(strings.Count(text, "\n") <= 2 && len(text) < 600)
			is.True(!strings.Contains(text, "s3cret"))
			is.Equal(asJSON.run(t.Context(), "call", tt.url, "shop.price", "1", "-json"), status)
			is.True(status == statusUsage || strings.Contains(asJSON.err.String(), `"advice":"`))
		})
	}
}

// A name that nobody knows may be a declaration's, before which the URL is missing.
func TestAdvice_noHost(t *testing.T) {
	is := is.New(t)
	err := typedrpc.Errorf(typedrpc.Unavailable, "cannot connect: %w", &net.DNSError{Err: "no such host", Name: "shop.price", IsNotFound: true})
	is.True(strings.Contains(advice(failure{err}), "the server's URL"))
	is.Equal(advice(failure{typedrpc.NotFound}), "")
}

// A command line that makes no sense is told what would.
func TestUsage(t *testing.T) {
	for _, tt := range []struct{ args, in, err string }{
		{`call`, "", `the arguments are "url method [request]", and none is given; "typedrpc help call" says more`},
		{`list a b`, "", `the arguments are "[url]", and 2 arguments are given; "typedrpc help list" says more`},
		{`call localhost:1 a -`, " \n", "the request is empty"},
		{`call localhost:1 a {"text":1`, "", "the request is not JSON: unexpected end of JSON input;"},
		{`call localhost:1 a x`, "", `(a string has quotes of its own: '"x"')`},
		{`receive localhost:1 a -n -1`, "", `"-1" for "-n, --count"`},
		{`subscribe localhost:1 a b -n -1`, "", `"-1" for "-n, --count"`},
		{`bench localhost:1 a -n -1`, "", `"-1" for "-n, --count"`},
		{`call localhost:1 a -timeout -1s`, "", "-timeout is a time"},
		{`watch localhost:1 -listen 8080`, "", "it is host:port"},
		{`watch ftp://localhost`, "", "not with ftp://"},
		{`help cal`, "", `there is no command "cal": did you mean call?`},
		{`completion`, "", "for a shell: typedrpc completion bash"},
		{`completion tcsh`, "", "for a shell: typedrpc completion bash"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			is := is.New(t)
			r := session{in: tt.in}
			is.Equal(r.run(t.Context(), strings.Split(tt.args, " ")...), statusUsage)
			is.Equal(r.out.String(), "")
			if !strings.Contains(r.err.String(), tt.err) {
				t.Errorf("it says %s", r.err.String())
			}
		})
	}
	for _, args := range [][]string{{"help"}, {"help", "call"}, {"help", "completion", "bash"}} {
		is := is.New(t)
		var r session
		is.Equal(r.run(t.Context(), args...), 0)
		is.True(strings.Contains(r.out.String(), "Usage:"))
		is.Equal(r.err.String(), "")
	}
}

// What nobody reads is no terminal, which files are kept from.
func TestDownload_null(t *testing.T) {
	is := is.New(t)
	s := open(t)
	s.photos.Store("a", picture(10))
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	is.NoErr(err)
	defer null.Close()
	var problems text
	is.Equal(Main(t.Context(), &Env{Args: []string{"download", s.url, "shop.get", `{"name":"a"}`}, Out: null, Err: &problems, Getenv: os.Getenv}), 0)
	is.Equal(problems.String(), "")
}

// Packages that cannot be loaded are an error of go's, not of the call of it.
func TestGenerate_nowhere(t *testing.T) {
	is := is.New(t)
	t.Chdir(t.TempDir())
	for _, command := range []string{"ts", "schema", "json"} {
		var r session
		is.Equal(r.run(t.Context(), command, "."), statusFailed)
		is.True(strings.HasPrefix(r.err.String(), "typedrpc: the packages cannot be loaded: go: "))
		is.True(strings.Contains(r.err.String(), "-C dir"))
	}
}
