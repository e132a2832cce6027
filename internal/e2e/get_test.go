package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

type page struct {
	After int `json:"after"`
}

var (
	square  = typedrpc.NewMethod[int, int]("square", typedrpc.Safe)
	deletes = typedrpc.NewMethod[int, int]("delete")
	pages   = typedrpc.NewServerStream[page, int]("pages", typedrpc.Safe).Restartable(func(p page, last *int) page {
		if last != nil {
			p.After = *last
		}
		return p
	})
	waits   = typedrpc.NewServerStream[struct{}, int]("waits", typedrpc.Safe)
	wall    = topic.New[string]("wall", typedrpc.Safe, topic.History(100, 0))
	chatter = topic.New[string]("talk", typedrpc.Safe, topic.MaxQueued(10_000))
)

// getServer has something to read by GET. pages ends behind ten.
func getServer(hub *topic.Hub) *typedrpc.Server {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, square, func(_ context.Context, n int) (int, error) {
		if n < 0 {
			return 0, typedrpc.Errorf(typedrpc.OutOfRange, "negative")
		}
		return n * n, nil
	})
	typedrpc.Handle(mux, deletes, func(_ context.Context, n int) (int, error) { return n, nil })
	typedrpc.Handle(mux, pages, func(_ context.Context, p page, send func(int) error) error {
		if p.After > 10 {
			return typedrpc.Errorf(typedrpc.InvalidArgument, "there are ten")
		}
		for n := p.After + 1; n <= 10; n++ {
			if err := send(n); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, waits, func(ctx context.Context, _ struct{}, send func(int) error) error {
		if err := send(1); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	topic.Handle(mux, hub, wall, func(_ context.Context, a topic.Access) error {
		if a.Key == "closed" {
			return typedrpc.PermissionDenied
		}
		return nil
	})
	topic.Handle(mux, hub, chatter, topic.Everybody)
	return &typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}
}

// get asks for method with params, and headers by pairs.
func get(t *testing.T, at, method, params string, headers ...string) *http.Response {
	t.Helper()
	return request(t, "GET", at+"?"+url.Values{"method": {method}, "params": {params}}.Encode(), headers...)
}

func request(t *testing.T, verb, at string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), verb, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// sse is an event.
type sse struct{ id, event, data, retry string }

// events reads n events of an answer, or all until its end; comments are none.
func events(t *testing.T, body *bufio.Reader, n int) (all []sse) {
	t.Helper()
	var e sse
	for len(all) < n {
		line, err := body.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "":
			if e.data != "" {
				all = append(all, e)
			}
			e = sse{}
		case "id":
			e.id = value
		case "event":
			e.event = value
		case "data":
			e.data += value
		case "retry":
			e.retry = value
		}
	}
	return all
}

func TestGet_method(t *testing.T) {
	is := is.New(t)
	url := serve(t, getServer(new(topic.Hub)))
	for params, want := range map[string]string{
		"7":   `{"jsonrpc":"2.0","id":1,"result":49}`,
		"[7]": `{"jsonrpc":"2.0","id":1,"result":49}`,
		"-1":  `{"jsonrpc":"2.0","id":1,"error":{"code":11,"message":"negative"}}`,
	} {
		resp := get(t, url, "square", params)
		text, err := io.ReadAll(resp.Body)
		is.NoErr(err)
		is.Equal(string(text), want)
		is.Equal(resp.StatusCode, 200)
		is.Equal(resp.Header.Get("Content-Type"), "application/json")
		is.Equal(resp.Header.Get("Cache-Control"), "no-store")
		is.Equal(resp.Header.Get("X-Content-Type-Options"), "nosniff")
	}
}

// TestGet_restartable reads a stream, is cut after three items, and goes on.
func TestGet_restartable(t *testing.T) {
	is := is.New(t)
	url := serve(t, getServer(new(topic.Hub)))
	resp := get(t, url, "pages", "")
	is.Equal(resp.StatusCode, 200)
	is.Equal(resp.Header.Get("Content-Type"), "text/event-stream")
	is.Equal(resp.Header.Get("X-Accel-Buffering"), "no")
	first := events(t, bufio.NewReader(resp.Body), 3)
	is.Equal(first[2], sse{id: `{"after":3}`, data: "3"})
	resp.Body.Close()
	resp = get(t, url, "pages", "", "Last-Event-ID", first[2].id)
	rest := events(t, bufio.NewReader(resp.Body), 100)
	is.Equal(len(rest), 8)
	is.Equal(rest[0], sse{id: `{"after":4}`, data: "4"})
	is.Equal(rest[7], sse{id: "end", event: "done", data: "{}"})
	is.Equal(get(t, url, "pages", "", "Last-Event-ID", "end").StatusCode, http.StatusNoContent)
	is.Equal(get(t, url, "pages", "", "Last-Event-ID", "{").StatusCode, http.StatusBadRequest)
	is.Equal(get(t, url, "pages", "", "Last-Event-ID", `{"after":11}`).StatusCode, 200) // the handler's own refusal
}

// TestGet_topic loses nothing and has nothing twice, wherever it is cut.
func TestGet_topic(t *testing.T) {
	is := is.New(t)
	hub := new(topic.Hub)
	url := serve(t, getServer(hub))
	publish := func(i int) { is.NoErr(topic.Publish(t.Context(), hub, wall, "x", fmt.Sprint(i))) }
	var got []string
	published, last := 0, ""
	for len(got) < 60 {
		for range 3 { // while nobody reads
			publish(published)
			published++
		}
		resp := get(t, url, "wall", `"x"`, "Last-Event-ID", last)
		for range 2 { // while somebody does, who does not have them all
			publish(published)
			published++
		}
		for _, e := range events(t, bufio.NewReader(resp.Body), 4) {
			is.Equal(e.event, "")
			got = append(got, strings.Trim(e.data, `"`))
			last = e.id
		}
		resp.Body.Close()
	}
	// What another hub has told nobody can go on from.
	resp := get(t, url, "wall", `"x"`, "Last-Event-ID", "77-3")
	is.Equal(events(t, bufio.NewReader(resp.Body), 1)[0].event, "missed")
	is.Equal(get(t, url, "wall", `"closed"`).StatusCode, http.StatusForbidden)
	is.Equal(get(t, url, "wall", `7`).StatusCode, http.StatusBadRequest)
}

// TestGet_refused is the table of who is refused what.
func TestGet_refused(t *testing.T) {
	srv := getServer(new(topic.Hub))
	srv.Origins = []string{"https://app.example"}
	srv.MaxPlainConns = 1
	signIn := typedrpc.NewSignIn[string, struct{}]()
	srv.SignIn = signIn.Verify(func(_ context.Context, r *http.Request, _ *string) (typedrpc.Identity, struct{}, error) {
		switch r.Header.Get("Authorization") {
		case "ann":
			return typedrpc.Identity{Subject: "ann"}, struct{}{}, nil
		case "eve":
			return typedrpc.Identity{}, struct{}{}, typedrpc.PermissionDenied
		}
		return typedrpc.Identity{}, struct{}{}, typedrpc.Unauthenticated
	})
	at := serve(t, srv)
	ann := []string{"Authorization", "ann"}
	for _, tt := range []struct {
		name, verb, query string
		headers           []string
		status            int
		body, header      string
	}{
		{name: "who may", query: "method=square&params=3", headers: ann, status: 200, body: `"result":9`},
		{name: "no credentials", query: "method=square&params=3", status: 401},
		{name: "not allowed", query: "method=square&params=3", headers: []string{"Authorization", "eve"}, status: 403},
		{name: "secrets in the URL are none", query: "method=square&params=3&Authorization=ann", status: 401},
		{name: "not Safe", query: "method=delete&params=3", headers: ann, status: 405, body: "not declared Safe"},
		{name: "nothing of that name", query: "method=nobody", headers: ann, status: 404},
		{name: "a subscription by its name", query: "method=rpc.subscribe&params=[%22waits%22]", headers: ann, status: 404},
		{name: "presence that is not told", query: "method=wall.presence&params=%22x%22", headers: ann, status: 404},
		{name: "the params are no JSON", query: "method=square&params={", headers: ann, status: 400},
		{name: "params twice", query: "method=square&params=1&params=2", headers: ann, status: 400},
		{name: "two methods", query: "method=square&method=delete", headers: ann, status: 400},
		{name: "no method", query: "method=", headers: ann, status: 400},
		{name: "the page of another origin", query: "method=square&params=3", headers: append(ann, "Origin", "https://evil.example"), status: 403},
		{name: "another site without an origin", query: "method=square&params=3", headers: append(ann, "Sec-Fetch-Site", "cross-site"), status: 403},
		{name: "the page of an origin on the list", query: "method=square&params=3", headers: append(ann, "Origin", "https://app.example"), status: 200, header: "https://app.example"},
		{name: "its preflight", verb: "OPTIONS", query: "method=square", headers: []string{"Origin", "https://app.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization"}, status: 204, header: "https://app.example"},
		{name: "another's preflight", verb: "OPTIONS", query: "method=square", headers: []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "GET"}, status: 403},
		{name: "the head of a method's answer", verb: "HEAD", query: "method=square&params=-1", headers: ann, status: 200},
		{name: "the head of a stream", verb: "HEAD", query: "method=waits", headers: ann, status: 200},
		{name: "the head of what is not Safe", verb: "HEAD", query: "method=delete", headers: ann, status: 405},
		{name: "a query too long", query: "method=square&params=" + strings.Repeat("1", 70_000), headers: ann, status: 414},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			if tt.verb == "" {
				tt.verb = "GET"
			}
			resp := request(t, tt.verb, at+"?"+tt.query, tt.headers...)
			text, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			is.Equal(resp.StatusCode, tt.status)
			is.True(strings.Contains(string(text), tt.body))
			is.Equal(resp.Header.Get("Access-Control-Allow-Origin"), tt.header)
		})
	}
	is := is.New(t)
	reading := get(t, at, "waits", "", ann...)
	body := bufio.NewReader(reading.Body)
	is.Equal(len(events(t, body, 1)), 1)
	is.Equal(get(t, at, "waits", "", ann...).StatusCode, 503) // one place
	srv.Revoke("ann", nil)
	end := events(t, body, 2)
	is.Equal(len(end), 1)
	is.Equal(end[0].event, "failed")
	is.True(strings.Contains(end[0].data, `"code":16`))

	banned := typedrpc.NewFault[int]("banned", typedrpc.FailedPrecondition)
	for want, o := range map[string]*typedrpc.CloseOptions{ // and not by what ended the one before
		`{"code":7,"message":"banned"}`:                               {Err: typedrpc.Errorf(typedrpc.PermissionDenied, "banned"), StayAway: true},
		`{"code":9,"message":"for 3 days","data":3,"fault":"banned"}`: {Err: banned.Errorf(3, "for %d days", 3)},
		`{"code":7,"message":"the identity was revoked"}`:             {StayAway: true},
		`{"code":16,"message":"the identity was revoked"}`:            nil,
	} {
		for hook.Server(srv).Plain != 0 { // its handler is about to return
			runtime.Gosched()
		}
		body = bufio.NewReader(get(t, at, "waits", "", ann...).Body)
		is.Equal(len(events(t, body, 1)), 1)
		srv.Revoke("ann", o)
		is.Equal(events(t, body, 2), []sse{{event: "failed", data: want}})
	}
}

// TestGet_shutdown ends streams in order, and says when to come back.
func TestGet_shutdown(t *testing.T) {
	is := is.New(t)
	hub := new(topic.Hub)
	srv := getServer(hub)
	at := serve(t, srv)
	body := bufio.NewReader(get(t, at, "waits", "").Body)
	is.Equal(len(events(t, body, 1)), 1)
	other := bufio.NewReader(get(t, at, "talk", `"x"`).Body) // answered when it has begun
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	is.NoErr(srv.Shutdown(ctx))
	for _, b := range []*bufio.Reader{body, other} {
		end := events(t, b, 5)
		is.Equal(len(end), 1)
		is.Equal(end[0].event, "failed")
		is.True(end[0].retry != "")
		is.True(strings.Contains(end[0].data, `"code":14`))
	}
	is.Equal(get(t, at, "waits", "").StatusCode, 503)
	is.Equal(hook.Server(srv).Budget, int64(0))
	is.Equal(hook.Server(srv).Plain, 0)
	is.NoErr(lab.Vacated(hub))
}

// TestGet_expires ends a stream with its reader's credentials.
func TestGet_expires(t *testing.T) {
	is := is.New(t)
	srv := getServer(new(topic.Hub))
	signIn := typedrpc.NewSignIn[string, struct{}]()
	srv.SignIn = signIn.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, struct{}, error) {
		return typedrpc.Identity{Subject: "ann", Expires: time.Now().Add(2 * time.Second)}, struct{}{}, nil
	})
	body := bufio.NewReader(get(t, serve(t, srv), "waits", "").Body)
	all := events(t, body, 5)
	is.Equal(all[len(all)-1].event, "failed")
	is.True(strings.Contains(all[len(all)-1].data, "expired"))
}

// TestGet_keepAlive writes comments while there is nothing to tell, past the http.Server's
// own timeouts.
func TestGet_keepAlive(t *testing.T) {
	is := is.New(t)
	srv := getServer(new(topic.Hub))
	srv.Limits.KeepAlive = 20 * time.Millisecond
	h := httptest.NewUnstartedServer(srv)
	h.Config.ReadTimeout, h.Config.WriteTimeout = time.Second, time.Second // a busy machine needs time for the request
	h.Start()
	defer h.Close()
	body, began := bufio.NewReader(get(t, h.URL, "waits", "").Body), time.Now()
	for comments := 0; comments < 10 || time.Since(began) < 1500*time.Millisecond; {
		line, err := body.ReadString('\n')
		is.NoErr(err)
		if line == ":\n" {
			comments++
		}
	}
	srv.Shutdown(t.Context())
}

// TestGet_stopsReading costs the server what the policy says, and no more.
func TestGet_stopsReading(t *testing.T) {
	is := is.New(t)
	hub := new(topic.Hub)
	srv := getServer(hub)
	at := serve(t, srv)
	resp := get(t, at, "talk", `"x"`)
	text := strings.Repeat("x", 10_000)
	most := int64(0)
	for range 2000 { // 20 MB, of which the sockets hold some
		is.NoErr(topic.Publish(t.Context(), hub, chatter, "x", text))
		most = max(most, hook.Server(srv).Budget)
	}
	is.True(most < 300<<10)
	all := events(t, bufio.NewReader(resp.Body), 3000)
	is.Equal(all[len(all)-1].event, "failed")
	is.True(strings.Contains(all[len(all)-1].data, "too slow"))
}

// stalledConn takes nothing more from its server once it is told so.
type stalledConn struct {
	net.Conn
	stall            *atomic.Bool
	blocked, expired chan struct{}
}

func (c stalledConn) Write(b []byte) (int, error) {
	if !c.stall.Load() {
		return c.Conn.Write(b)
	}
	c.blocked <- struct{}{}
	<-c.expired
	return 0, os.ErrDeadlineExceeded
}

func (c stalledConn) SetWriteDeadline(at time.Time) error {
	if !at.IsZero() && time.Until(at) <= 0 {
		close(c.expired)
	}
	return c.Conn.SetWriteDeadline(at)
}

type stalledListener struct {
	net.Listener
	conn stalledConn
}

func (l stalledListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.conn.Conn = c
	return l.conn, err
}

// TestGet_revokedWhileStalled ends the stream of somebody who reads nothing at once.
func TestGet_revokedWhileStalled(t *testing.T) {
	is := is.New(t)
	hub := new(topic.Hub)
	srv := getServer(hub)
	srv.Limits.WriteTimeout = time.Hour
	conn := stalledConn{stall: new(atomic.Bool), blocked: make(chan struct{}, 10), expired: make(chan struct{})}
	h := httptest.NewUnstartedServer(srv)
	h.Listener = stalledListener{h.Listener, conn}
	h.Start()
	defer h.Close()
	get(t, h.URL, "wall", `"x"`)
	conn.stall.Store(true)
	is.NoErr(topic.Publish(t.Context(), hub, wall, "x", "of which nothing is taken"))
	<-conn.blocked
	srv.Revoke("", nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	is.NoErr(srv.Shutdown(ctx))
	for hook.Server(srv).Budget != 0 { // its handler may be about to return
		runtime.Gosched()
	}
}

// TestGet_byPost has a POST ask as a GET of a stream does inside of the server: nobody is
// there to be sent the items, and they would be kept.
func TestGet_byPost(t *testing.T) {
	is := is.New(t)
	at := serve(t, getServer(new(topic.Hub)))
	for _, params := range []string{`{"method":"pages"}`, `["pages"]`} {
		status, text := post(t, at, `{"jsonrpc":"2.0","id":1,"method":"GET a stream","params":`+params+`}`)
		is.Equal(status, 200)
		is.Equal(text, `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no method \"GET a stream\""}}`)
	}
}

func TestSafe_panics(t *testing.T) {
	is := is.New(t)
	for _, declare := range []func(){
		func() { typedrpc.NewMethod[int, int]("a", typedrpc.Safe, typedrpc.Serial) },
		func() { typedrpc.NewMethod[int, int]("a", typedrpc.Safe, typedrpc.Keyed) },
		func() { typedrpc.NewServerStream[int, int]("a", typedrpc.Safe, typedrpc.Serial) },
	} {
		func() {
			defer func() { is.True(recover() != nil) }()
			declare()
		}()
	}
}
