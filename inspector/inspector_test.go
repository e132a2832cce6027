package inspector_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/inspector"
	"github.com/typedrpc/typedrpc/inspector/api"
	"github.com/typedrpc/typedrpc/topic"
)

var (
	quiet = slog.New(slog.DiscardHandler)
	name  = typedrpc.NewSignIn[string, struct{}]()
	greet = typedrpc.NewMethod[string, string]("test.greet")
	beat  = typedrpc.NewNotification[int]("test.beat")
	news  = topic.New[string]("test.news", topic.History(3, 0))
)

// inspected is a server, and an inspector of it.
type inspected struct {
	srv  *typedrpc.Server
	hub  *topic.Hub
	look *inspector.Handler
	web  *httptest.Server
}

// letting lets in whoever says one of the secrets.
func letting(rights map[string]inspector.Rights) func(context.Context, *http.Request, string) (inspector.Visitor, error) {
	return func(_ context.Context, _ *http.Request, secret string) (inspector.Visitor, error) {
		r, ok := rights[secret]
		if !ok {
			return inspector.Visitor{}, typedrpc.Errorf(typedrpc.Unauthenticated, "say the secret")
		}
		return inspector.Visitor{Name: secret, Rights: r}, nil
	}
}

func start(t *testing.T, change func(*inspector.Handler)) *inspected {
	is := is.New(t)
	s := &inspected{hub: new(topic.Hub)}
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, greet, func(ctx context.Context, who string) (string, error) {
		if who == "" {
			return "", typedrpc.Errorf(typedrpc.InvalidArgument, "who?")
		}
		return "hello " + who, nil
	})
	typedrpc.Handle(mux, beat, func(context.Context, int) error { return nil })
	topic.Handle(mux, s.hub, news, topic.Everybody)
	s.srv = &typedrpc.Server{Mux: mux, Logger: quiet, SignIn: name.Verify(func(_ context.Context, _ *http.Request, who *string) (typedrpc.Identity, struct{}, error) {
		if who == nil {
			return typedrpc.Identity{}, struct{}{}, nil
		}
		return typedrpc.Identity{Subject: *who}, struct{}{}, nil
	})}
	s.look = &inspector.Handler{Server: s.srv, Hubs: []*topic.Hub{s.hub}, Logger: quiet, Authorize: inspector.Loopback}
	if change != nil {
		change(s.look)
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", s.srv)
	routes.Handle("/inspect/", s.look)
	s.web = httptest.NewServer(routes)
	t.Cleanup(func() {
		is.NoErr(s.look.Shutdown(context.Background()))
		is.NoErr(s.srv.Shutdown(context.Background()))
		is.NoErr(s.hub.Close())
		s.web.Close()
	})
	return s
}

// visit connects as the page does.
func (s *inspected) visit(t *testing.T, secret string, header http.Header) (*typedrpc.Conn, error) {
	c, err := typedrpc.Dial(t.Context(), s.web.URL+"/inspect/rpc", &typedrpc.DialOptions{
		Header: header, Logger: quiet, SignIn: api.SignIn.Present(func(context.Context) (api.Creds, error) { return api.Creds{Secret: secret}, nil }),
	})
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// guest connects to the inspected server.
func (s *inspected) guest(t *testing.T, who string, o typedrpc.DialOptions) *typedrpc.Conn {
	o.Logger = quiet
	o.SignIn = name.Present(func(context.Context) (string, error) { return who, nil })
	c, err := typedrpc.Dial(t.Context(), s.web.URL+"/rpc", &o)
	is.New(t).NoErr(err)
	t.Cleanup(func() { c.Close() })
	return c
}

// get asks for a file.
func (s *inspected) get(t *testing.T, path string, header http.Header) (*http.Response, string) {
	is := is.New(t)
	r, err := http.NewRequest(http.MethodGet, s.web.URL+path, nil)
	is.NoErr(err)
	for k, v := range header {
		r.Header[k] = v
	}
	if host := header.Get("Host"); host != "" {
		r.Host = host
	}
	resp, err := http.DefaultClient.Do(r)
	is.NoErr(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	is.NoErr(err)
	return resp, string(body)
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func TestHandler_files(t *testing.T) {
	s := start(t, nil)
	for path, want := range map[string]struct {
		status      int
		contentType string
		text        string
	}{
		"/inspect/":              {200, "text/html; charset=utf-8", "app.js"},
		"/inspect/index.html":    {200, "text/html; charset=utf-8", "app.js"},
		"/inspect/app.js":        {200, "text/javascript; charset=utf-8", "connect"},
		"/inspect/style.css":     {200, "text/css; charset=utf-8", "color-scheme"},
		"/inspect/typedrpc.js":   {200, "text/javascript; charset=utf-8", "WebSocket"},
		"/inspect/app.svg":       {200, "image/svg+xml", "<svg"},
		"/inspect/nothing.js":    {404, "text/plain; charset=utf-8", "no such file"},
		"/inspect/..%2fgo.mod":   {404, "text/plain; charset=utf-8", ""},
		"/inspect/tsconfig.json": {404, "text/plain; charset=utf-8", ""},
	} {
		t.Run(path, func(t *testing.T) {
			is := is.New(t)
			resp, body := s.get(t, path, nil)
			is.Equal(resp.StatusCode, want.status)
			is.Equal(resp.Header.Get("Content-Type"), want.contentType)
			is.True(strings.Contains(body, want.text))
			csp := resp.Header.Get("Content-Security-Policy")
			is.True(strings.HasPrefix(csp, "default-src 'none'; script-src 'self';"))
			is.True(strings.Contains(csp, "frame-ancestors 'none'"))
			is.True(!strings.Contains(csp, "unsafe"))
			is.Equal(resp.Header.Get("Cross-Origin-Resource-Policy"), "same-origin")
			is.Equal(resp.Header.Get("Referrer-Policy"), "no-referrer")
		})
	}
}

// The page has nothing inline, which its policy would not let run.
func TestHandler_nothingInline(t *testing.T) {
	is := is.New(t)
	_, page := start(t, nil).get(t, "/inspect/", nil)
	for _, word := range []string{"<style", " style=", " onclick", "javascript:", "<script>"} {
		is.True(!strings.Contains(page, word))
	}
}

// Who is refused what, before anything is shown.
func TestHandler_whoIsLetIn(t *testing.T) {
	down := errors.New("the directory is down")
	own := func(url string) string { return "http://" + strings.TrimPrefix(url, "http://") }
	for what, test := range map[string]struct {
		authorize func(context.Context, *http.Request, string) (inspector.Visitor, error)
		secret    string
		header    func(url string) http.Header
		page      int           // the status of the page
		code      typedrpc.Code // of the connection; 0: it is let in
	}{
		"nobody is, without a function": {nil, "", nil, 403, typedrpc.PermissionDenied},
		"this machine":                  {inspector.Loopback, "", nil, 200, 0},
		"this machine, behind a proxy":  {inspector.Loopback, "", func(string) http.Header { return header("X-Forwarded-For", "192.0.2.1") }, 403, typedrpc.PermissionDenied},
		"this machine by another name":  {inspector.Loopback, "", func(string) http.Header { return header("Host", "evil.example") }, 403, typedrpc.PermissionDenied},
		"the secret is asked for":       {letting(map[string]inspector.Rights{"x": inspector.Look}), "", nil, 200, typedrpc.Unauthenticated},
		"the secret is wrong":           {letting(map[string]inspector.Rights{"x": inspector.Look}), "y", nil, 200, typedrpc.Unauthenticated},
		"the secret is right":           {letting(map[string]inspector.Rights{"x": inspector.Look}), "x", nil, 200, 0},
		"no rights at all":              {letting(map[string]inspector.Rights{"": 0}), "", nil, 403, typedrpc.PermissionDenied},
		"rights, but not to look":       {letting(map[string]inspector.Rights{"": inspector.End}), "", nil, 403, typedrpc.PermissionDenied},
		"the function fails": {func(context.Context, *http.Request, string) (inspector.Visitor, error) {
			return inspector.Visitor{}, down
		}, "", nil, 403, typedrpc.Unauthenticated},
		"a page of another site":           {inspector.Loopback, "", func(string) http.Header { return header("Origin", "https://evil.example") }, 403, typedrpc.PermissionDenied},
		"a page of another port":           {inspector.Loopback, "", func(string) http.Header { return header("Origin", "http://127.0.0.1:1") }, 403, typedrpc.PermissionDenied},
		"a page of another scheme":         {inspector.Loopback, "", func(url string) http.Header { return header("Origin", strings.Replace(own(url), "http:", "https:", 1)) }, 403, typedrpc.PermissionDenied},
		"its own page":                     {inspector.Loopback, "", func(url string) http.Header { return header("Origin", own(url), "Sec-Fetch-Site", "same-origin") }, 200, 0},
		"a browser that says another site": {inspector.Loopback, "", func(string) http.Header { return header("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors") }, 403, typedrpc.PermissionDenied},
		"a sibling of the site":            {inspector.Loopback, "", func(string) http.Header { return header("Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "websocket") }, 403, typedrpc.PermissionDenied},
		"a frame of another site": {inspector.Loopback, "", func(string) http.Header {
			return header("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe")
		}, 403, typedrpc.PermissionDenied},
		"a link on another site, to the page": {inspector.Loopback, "", func(string) http.Header {
			return header("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
		}, 200, typedrpc.PermissionDenied},
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			s := start(t, func(h *inspector.Handler) { h.Authorize = test.authorize })
			var head http.Header
			if test.header != nil {
				head = test.header(s.web.URL)
			}
			resp, _ := s.get(t, "/inspect/", head)
			is.Equal(resp.StatusCode, test.page)
			if head.Get("Host") != "" {
				return // Go's client sends the address's
			}
			_, err := s.visit(t, test.secret, head)
			is.Equal(typedrpc.CodeOf(err), test.code)
		})
	}
}

func TestHandler_onlyGet(t *testing.T) {
	is := is.New(t)
	s := start(t, nil)
	resp, err := http.Post(s.web.URL+"/inspect/rpc", "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"inspector.end","params":{"subject":"ann"}}`))
	is.NoErr(err)
	resp.Body.Close()
	is.Equal(resp.StatusCode, http.StatusMethodNotAllowed)
}

func TestHandler_misconfigured(t *testing.T) {
	is := is.New(t)
	for _, h := range []*inspector.Handler{{Logger: quiet}, {Server: &typedrpc.Server{}, Hubs: []*topic.Hub{nil}, Logger: quiet}, {Server: &typedrpc.Server{MaxMemory: -1}, Logger: quiet}} {
		is.True(h.Check() != nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		is.Equal(w.Code, http.StatusInternalServerError)
		is.True(h.Shutdown(t.Context()) != nil)
	}
}

// Looking, trying and ending are rights of their own.
func TestRights(t *testing.T) {
	for what, test := range map[string]struct {
		rights    inspector.Rights
		call, end bool
	}{
		"look":          {inspector.Look, false, false},
		"look and call": {inspector.Look | inspector.Call, true, false},
		"look and end":  {inspector.Look | inspector.End, false, true},
		"all":           {inspector.Look | inspector.Call | inspector.End, true, true},
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			s := start(t, func(h *inspector.Handler) { h.Authorize = letting(map[string]inspector.Rights{"x": test.rights}) })
			ann := s.guest(t, "ann", typedrpc.DialOptions{})
			c, err := s.visit(t, "x", nil)
			is.NoErr(err)
			welcome, err := api.SignIn.Reply(c)
			is.NoErr(err)
			is.Equal(welcome, api.Welcome{Name: "x", Call: test.call, End: test.end, Topics: true})

			doc, err := typedrpc.Call(t.Context(), c, api.Describe, struct{}{})
			is.NoErr(err)
			is.True(json.Valid([]byte(doc.OpenRPC)))
			is.True(strings.Contains(doc.OpenRPC, "test.greet"))

			ticket, err := typedrpc.Call(t.Context(), c, api.Admit, struct{}{})
			is.Equal(err == nil, test.call)
			is.Equal(ticket.Value != "", test.call)
			if !test.call {
				is.Equal(typedrpc.CodeOf(err), typedrpc.PermissionDenied)
			}
			ended, err := typedrpc.Call(t.Context(), c, api.End, api.Ending{Subject: "ann", StayAway: true})
			is.Equal(err == nil, test.end)
			is.Equal(ended.Conns == 1, test.end)
			if test.end {
				<-ann.Context().Done()
			} else {
				is.Equal(typedrpc.CodeOf(err), typedrpc.PermissionDenied)
				is.NoErr(ann.Err())
			}
		})
	}
}

// A ticket lets the page in at the inspected server, as long as its connection lives.
func TestTicket(t *testing.T) {
	is := is.New(t)
	var cookies atomic.Value
	s := start(t, nil)
	s.srv.SignIn = name.Verify(func(_ context.Context, r *http.Request, _ *string) (typedrpc.Identity, struct{}, error) {
		cookies.Store(r.Header.Get("Cookie") + "|" + r.Header.Get("Origin"))
		return typedrpc.Identity{}, struct{}{}, nil
	})
	try := func(cookie string, more ...string) error {
		h := header(append([]string{"Cookie", cookie}, more...)...)
		c, err := typedrpc.Dial(t.Context(), s.web.URL+"/inspect/target", &typedrpc.DialOptions{Header: h, Logger: quiet})
		if err == nil {
			defer c.Close()
			_, err = typedrpc.Call(t.Context(), c, greet, "ann")
		}
		return err
	}
	is.True(try("") != nil)
	is.True(try("typedrpc-inspector=guessed") != nil)
	c, err := s.visit(t, "", nil)
	is.NoErr(err)
	ticket, err := typedrpc.Call(t.Context(), c, api.Admit, struct{}{})
	is.NoErr(err)
	again, err := typedrpc.Call(t.Context(), c, api.Admit, struct{}{})
	is.NoErr(err)
	is.Equal(again, ticket)
	with := "theirs=1; typedrpc-inspector=" + ticket.Value
	is.NoErr(try(with))
	is.NoErr(try(with, "Origin", s.web.URL))
	is.Equal(cookies.Load(), "theirs=1|") // the server sees neither the ticket nor the page's origin
	is.True(try(with, "Origin", "https://evil.example") != nil)
	is.True(try(with, "Sec-Fetch-Site", "same-site") != nil)
	resp, _ := s.get(t, "/inspect/target", header("Cookie", with))
	is.Equal(resp.StatusCode, http.StatusUpgradeRequired)
	guest, err := typedrpc.Dial(t.Context(), s.web.URL+"/inspect/target", &typedrpc.DialOptions{Header: header("Cookie", with), MaxAttempts: -1, Limits: typedrpc.Limits{Grace: -1}, Logger: quiet})
	is.NoErr(err)
	c.Close()
	<-guest.Context().Done() // it is there by the other's leave
	for try(with) == nil {   // until its server knows, too
	}
}
