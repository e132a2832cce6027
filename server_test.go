package typedrpc_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// upgrade sends an upgrade request with a head of the test's choice, without a
// socket: a request that is admitted fails later, since a recorder cannot be
// hijacked.
func upgrade(srv *typedrpc.Server, change func(*http.Request)) (status int, body string) {
	r := httptest.NewRequest(http.MethodGet, "http://example.com/rpc", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	change(r)
	w := httptest.NewRecorder()
	quiet(srv, &typedrpc.DialOptions{})
	srv.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestServer_origins(t *testing.T) {
	for _, tt := range []struct {
		name, origin, host string
		tls                bool
		allowed            bool
	}{
		{name: "no browser", origin: "", allowed: true},
		{name: "same origin", origin: "http://example.com", allowed: true},
		{name: "same origin, default port", origin: "http://example.com:80", allowed: true},
		{name: "same origin, other case", origin: "HTTP://EXAMPLE.com", allowed: true},
		{name: "same origin with port", origin: "http://example.com:8080", host: "example.com:8080", allowed: true},
		{name: "same origin over TLS", origin: "https://example.com", tls: true, allowed: true},
		{name: "same origin over TLS, port", origin: "https://example.com:443", tls: true, allowed: true},
		{name: "same origin, IPv6", origin: "http://[2001:db8::1]:8080", host: "[2001:db8::1]:8080", allowed: true},
		{name: "other scheme", origin: "https://example.com"},
		{name: "plain page of a TLS server", origin: "http://example.com", tls: true},
		{name: "other port", origin: "http://example.com:8080"},
		{name: "server on another port", origin: "http://example.com", host: "example.com:8080"},
		{name: "subdomain", origin: "http://evil.example.com"},
		{name: "suffix", origin: "http://example.com.evil.com"},
		{name: "prefix", origin: "http://evilexample.com"},
		{name: "user info", origin: "http://example.com@evil.com"},
		{name: "user info that looks right", origin: "http://evil@example.com"},
		{name: "path", origin: "http://example.com/"},
		{name: "null", origin: "null"},
		{name: "no scheme", origin: "example.com"},
		{name: "file", origin: "file://"},
		{name: "extension", origin: "chrome-extension://abcdef"},
		{name: "two origins", origin: "http://example.com http://evil.com"},
		{name: "garbage", origin: "http://[::1"},
		{name: "listed", origin: "https://app.example.org", allowed: true},
		{name: "listed, default port", origin: "https://app.example.org:443", allowed: true},
		{name: "listed, other case", origin: "https://APP.example.ORG", allowed: true},
		{name: "listed with port", origin: "http://dev.example.org:3000", allowed: true},
		{name: "listed, other scheme", origin: "http://app.example.org"},
		{name: "listed, other port", origin: "http://dev.example.org"},
		{name: "listed, suffix", origin: "https://app.example.org.evil.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			change := func(r *http.Request) {
				r.Header.Set("Content-Type", "application/json")
				if tt.origin != "" {
					r.Header.Set("Origin", tt.origin)
				}
				if tt.host != "" {
					r.Host = tt.host
				}
				if tt.tls {
					r.TLS = new(tls.ConnectionState)
				}
			}
			srv := &typedrpc.Server{Origins: []string{"https://app.example.org", "http://dev.example.org:3000"}}
			status, body := upgrade(srv, change)
			is.Equal(status != http.StatusForbidden, tt.allowed)
			is.Equal(strings.Contains(body, "is not allowed"), !tt.allowed)

			status, _ = upgrade(srv, func(r *http.Request) { // the same rule for POST
				change(r)
				r.Method = http.MethodPost
				r.Body = io.NopCloser(strings.NewReader(`{"jsonrpc":"2.0","method":"x"}`))
			})
			want := http.StatusForbidden
			if tt.allowed {
				want = http.StatusNoContent
			}
			is.Equal(status, want)

			open := &typedrpc.Server{DangerouslyAllowAnyOrigin: true}
			status, _ = upgrade(open, change)
			is.True(status != http.StatusForbidden)
		})
	}
}

func TestServer_loopbackHost(t *testing.T) {
	srv := &typedrpc.Server{Origins: []string{"https://app.example.org"}}
	url := serve(t, srv)
	for host, allowed := range map[string]bool{
		"localhost":         true,
		"LOCALHOST:1234":    true,
		"app.localhost":     true,
		"127.0.0.1":         true,
		"127.1.2.3:80":      true,
		"[::1]:80":          true,
		"app.example.org":   true, // listed
		"evil.com":          false,
		"localhost.evil.co": false,
		"evillocalhost":     false,
		"192.168.1.1":       false,
	} {
		t.Run(host, func(t *testing.T) {
			is := is.New(t)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"jsonrpc":"2.0","method":"x"}`))
			is.NoErr(err)
			r.Host = host
			r.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(r)
			is.NoErr(err)
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if allowed {
				is.Equal(resp.StatusCode, http.StatusNoContent)
				return
			}
			is.Equal(resp.StatusCode, http.StatusForbidden)
			is.True(strings.Contains(string(body), "on a loopback address"))
		})
	}
}

func TestServer_subprotocols(t *testing.T) {
	url := serve(t, &typedrpc.Server{})
	for _, tt := range []struct {
		offers []string
		want   string
	}{
		{nil, ""},
		{[]string{"jsonrpc"}, "jsonrpc"},
		{[]string{"jsonrpc2"}, "jsonrpc2"},
		{[]string{"graphql-ws", "jsonrpc-2.0", "jsonrpc"}, "jsonrpc-2.0"},
		{[]string{"typedrpc.v1.msgpack", "typedrpc.jsonrpc", "typedrpc.v1.json"}, "typedrpc.jsonrpc"},
		{[]string{"typedrpc.v1.json", "typedrpc.jsonrpc"}, "typedrpc.v1.json"},
	} {
		is := is.New(t)
		is.Equal(dialRaw(t, url, tt.offers...).c.Subprotocol(), tt.want) // the client's first that is supported
	}
	is := is.New(t)
	_, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"typedrpc.v2.json", "soap"}})
	is.True(err != nil)
	is.Equal(resp.StatusCode, http.StatusBadRequest)
	body, _ := io.ReadAll(resp.Body)
	for _, name := range []string{"typedrpc.v1.json", "typedrpc.jsonrpc", "jsonrpc", "jsonrpc2", "jsonrpc-2.0"} {
		is.True(strings.Contains(string(body), `"`+name+`"`))
	}
}

func TestServer_plainRequests(t *testing.T) {
	is := is.New(t)
	url := serve(t, &typedrpc.Server{})
	resp, err := http.Get(url)
	is.NoErr(err)
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	is.Equal(resp.StatusCode, http.StatusUpgradeRequired)
	is.Equal(resp.Header.Get("Upgrade"), "websocket")
	is.True(strings.Contains(string(body), "typedrpc endpoint"))
	is.True(strings.Contains(string(body), "POST JSON-RPC 2.0"))

	r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, url, nil)
	is.NoErr(err)
	resp, err = http.DefaultClient.Do(r)
	is.NoErr(err)
	resp.Body.Close()
	is.Equal(resp.StatusCode, http.StatusMethodNotAllowed)
	is.Equal(resp.Header.Get("Allow"), "GET, POST")
}

func TestServer_cannotHijack(t *testing.T) {
	is := is.New(t)
	var log logs
	status, _ := upgrade(&typedrpc.Server{Logger: log.logger()}, func(*http.Request) {})
	is.Equal(status, http.StatusNotImplemented)
	is.True(log.has("upgrade failed"))
	is.True(log.has("cannot be hijacked"))
}

func TestServer_overTLS(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, sum, handleSum)
	srv := &typedrpc.Server{Mux: mux}
	quiet(srv, &typedrpc.DialOptions{})
	hs := httptest.NewTLSServer(srv)
	defer hs.Close()
	url := strings.Replace(hs.URL, "https", "wss", 1)
	client, err := typedrpc.Dial(t.Context(), url, &typedrpc.DialOptions{HTTPClient: hs.Client()})
	is.NoErr(err)
	defer client.Close()
	r, err := typedrpc.Call(t.Context(), client, sum, pairOf{1, 2})
	is.NoErr(err)
	is.Equal(r.Sum, 3)

	hs.Config.ErrorLog = nil
	_, err = typedrpc.Dial(t.Context(), url, nil) // does not know the certificate
	is.True(errors.Is(err, typedrpc.Unavailable))
	var unknown *tls.CertificateVerificationError
	is.True(errors.As(err, &unknown))
}

func TestServer_compression(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, shout, handleShout)
	srv := &typedrpc.Server{Mux: mux, Compress: true}
	client, _ := over{socket: true}.connect(t, srv, &typedrpc.DialOptions{Compress: true})
	text := strings.Repeat("all work and no play ", 10_000)
	got, err := typedrpc.Call(t.Context(), client, shout, text)
	is.NoErr(err)
	is.Equal(got, strings.ToUpper(text))
}

// The message limit holds for what a message decompresses to.
func TestServer_zipBomb(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, sum, handleSum)
	url := serve(t, &typedrpc.Server{Mux: mux, Compress: true, Limits: typedrpc.Limits{MaxMessage: 100_000}})
	c, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	is.NoErr(err)
	p := rawPeer{t, c}
	defer c.CloseNow()
	p.send(`{"jsonrpc":"2.0","id":1,"method":"math.sum","params":{"A":1,"x":"` + strings.Repeat("0", 50_000) + `"}}`)
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"result":{"Sum":1}}`) // within the limit
	p.send(`{"jsonrpc":"2.0","id":1,"method":"math.sum","params":["` + strings.Repeat("0", 64<<20) + `"]}`)
	code, _ := p.closeCode()
	is.Equal(code, 1009)
	stillServes(t, url)
}

// The login of the authentication tests.
type (
	login struct{ User, Password string }
	grant struct{ Greeting string }
)

var signIn = typedrpc.NewMethod[login, grant]("session.sign-in")

var banned = typedrpc.NewFault[shortage](typedrpc.PermissionDenied, "banned")

type userKey struct{}

// signedIn authenticates by password, or by a header.
func signedIn() typedrpc.Authenticator {
	return typedrpc.Authenticate(signIn, func(ctx context.Context, r *http.Request, l login) (typedrpc.Identity, grant, error) {
		user := l.User
		if h := r.Header.Get("X-User"); h != "" {
			user = h
		}
		switch user {
		case "":
			return typedrpc.Identity{}, grant{}, typedrpc.Errorf(typedrpc.Unauthenticated, "who are you?")
		case "banned":
			return typedrpc.Identity{}, grant{}, banned.New(shortage{Hint: "rules"})
		case "busy":
			return typedrpc.Identity{}, grant{}, &typedrpc.Error{Code: typedrpc.Unavailable, Message: "later", RetryAfter: time.Second}
		case "broken":
			return typedrpc.Identity{}, grant{}, errors.New("database password is hunter2")
		case "panic":
			panic("no such user")
		}
		// The obvious way to carry a value along: from the context at hand.
		id := typedrpc.Identity{Subject: user, Context: context.WithValue(ctx, userKey{}, "user:"+user)}
		return id, grant{"hello " + user + " at " + r.URL.Path}, nil
	})
}

func as(user string) typedrpc.Credential {
	return typedrpc.Credentials(signIn, func(context.Context) (login, error) { return login{user, "pw"}, nil })
}

// whoami is a mux whose text.shout tells who is calling.
func whoami() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, shout, func(ctx context.Context, _ string) (string, error) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		return fmt.Sprint(ctx.Value(userKey{}), " ", typedrpc.ConnFrom(ctx).Identity().Subject), nil
	})
	return mux
}

func TestAuthenticate_accepted(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		client, server := o.connect(t, &typedrpc.Server{Mux: whoami(), Authenticate: signedIn()}, &typedrpc.DialOptions{Auth: as("ann")})
		got, err := typedrpc.Call(t.Context(), client, shout, "")
		is.NoErr(err)
		is.Equal(got, "user:ann ann")
		is.Equal(server.Identity().Subject, "ann")
		is.Equal(server.Context().Value(userKey{}), "user:ann")
		is.Equal(client.Identity(), typedrpc.Identity{})
		reply, err := typedrpc.AuthReply(client, signIn)
		is.NoErr(err)
		is.Equal(reply, grant{"hello ann at /"})
		client.Close()
		<-server.Done()
		is.True(server.Context().Err() != nil)
	})
}

// Plain peers are known by their upgrade request, whose end is not the
// connection's.
func TestAuthenticate_plain(t *testing.T) {
	for _, socket := range []bool{false, true} {
		is := is.New(t)
		o := over{socket, typedrpc.PlainJSONRPC}
		client, server := o.connect(t, &typedrpc.Server{Mux: whoami(), Authenticate: signedIn()},
			&typedrpc.DialOptions{Header: http.Header{"X-User": {"bob"}}})
		for range 3 {
			got, err := typedrpc.Call(t.Context(), client, shout, "")
			is.NoErr(err)
			is.Equal(got, "user:bob bob")
		}
		is.Equal(server.Identity().Subject, "bob")
		_, err := typedrpc.AuthReply(client, signIn)
		is.True(errors.Is(err, typedrpc.FailedPrecondition)) // it has no place for a reply

		_, err = o.dial(t, &typedrpc.Server{Authenticate: signedIn()}, &typedrpc.DialOptions{})
		is.True(errors.Is(err, typedrpc.Unauthenticated))
		var u *typedrpc.UpgradeError
		is.True(errors.As(err, &u))
		is.Equal(u.Status, http.StatusUnauthorized)
		is.Equal(strings.TrimSpace(u.Body), "who are you?")
	}
}

func TestAuthenticate_post(t *testing.T) {
	url := serve(t, &typedrpc.Server{Mux: whoami(), Authenticate: signedIn()})
	for user, want := range map[string]struct {
		status int
		body   string
	}{
		"carl":   {http.StatusOK, `{"jsonrpc":"2.0","id":1,"result":"user:carl carl"}`},
		"":       {http.StatusUnauthorized, "who are you?"},
		"banned": {http.StatusForbidden, "banned"},
		"busy":   {http.StatusServiceUnavailable, "later"},
		"broken": {http.StatusUnauthorized, "not authenticated"},
		"panic":  {http.StatusUnauthorized, "not authenticated"},
	} {
		t.Run(user, func(t *testing.T) {
			is := is.New(t)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"text.shout","params":["x"]}`))
			is.NoErr(err)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-User", user)
			resp, err := http.DefaultClient.Do(r)
			is.NoErr(err)
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			is.Equal(resp.StatusCode, want.status)
			is.Equal(strings.TrimSpace(string(body)), want.body)
		})
	}
}

func TestAuthenticate_refused(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		for user, want := range map[string]typedrpc.Error{
			"":       {Code: typedrpc.Unauthenticated, Message: "who are you?"},
			"banned": {Code: typedrpc.PermissionDenied, Message: "banned"},
			"busy":   {Code: typedrpc.Unavailable, Message: "later", RetryAfter: time.Second},
			"broken": {Code: typedrpc.Unauthenticated, Message: "not authenticated"},
			"panic":  {Code: typedrpc.Unauthenticated, Message: "not authenticated"},
		} {
			t.Run(user, func(t *testing.T) {
				is := is.New(t)
				var log logs
				_, err := o.dial(t, &typedrpc.Server{Authenticate: signedIn(), Logger: log.logger()}, &typedrpc.DialOptions{Auth: as(user)})
				e := asError(t, err)
				is.Equal(e.Code, want.Code)
				is.Equal(e.Message, want.Message)
				is.Equal(e.RetryAfter, want.RetryAfter)
				is.Equal(e.Outcome, typedrpc.NotSent)
				s, ok := banned.From(err)
				is.Equal(ok, user == "banned") // with its data
				is.Equal(s.Hint == "rules", user == "banned")
				is.True(user != "broken" || log.has("hunter2")) // what a stranger is not told
				is.True(user != "panic" || log.has("no such user"))
			})
		}
	})
}

func TestAuthenticate_closeCodes(t *testing.T) {
	url := serve(t, &typedrpc.Server{Authenticate: signedIn()})
	for user, want := range map[string]int{"": 4401, "banned": 4403, "busy": 1013, "broken": 4401} {
		is := is.New(t)
		p := dialRaw(t, url, "typedrpc.jsonrpc")
		creds, _ := json.Marshal(login{User: user})
		p.send(strings.Replace(helloText, `"attempt":1,`, `"attempt":1,"credentials":`+string(creds)+`,`, 1))
		is.True(strings.Contains(p.receive(), `"error":{"code":`)) // says why first
		code, _ := p.closeCode()
		is.Equal(code, want)
	}
}

func TestAuthenticate_undecodable(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		other := typedrpc.NewMethod[string, grant]("session.sign-in")
		_, err := o.dial(t, &typedrpc.Server{Authenticate: signedIn()}, &typedrpc.DialOptions{
			Auth: typedrpc.Credentials(other, func(context.Context) (string, error) { return "token", nil }),
		})
		is.True(errors.Is(err, typedrpc.InvalidArgument))
	})
}

func TestAuthenticate_otherCodec(t *testing.T) {
	is := is.New(t)
	srv := &typedrpc.Server{Mux: whoami(), Authenticate: signedIn(), Codecs: []typedrpc.Codec{hexed{}}}
	opts := &typedrpc.DialOptions{Auth: as("dora"), Codecs: []typedrpc.Codec{hexed{}}}
	client, _ := over{socket: true}.connect(t, srv, opts)
	reply, err := typedrpc.AuthReply(client, signIn)
	is.NoErr(err)
	is.Equal(reply.Greeting, "hello dora at /")

	_, err = over{}.dial(t, srv, &typedrpc.DialOptions{Auth: as("banned"), Codecs: []typedrpc.Codec{hexed{}}})
	is.True(errors.Is(err, typedrpc.PermissionDenied))
}

func TestCredentials_fail(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		cause := errors.New("the keyring is locked")
		_, err := o.dial(t, &typedrpc.Server{Authenticate: signedIn()}, &typedrpc.DialOptions{
			Auth: typedrpc.Credentials(signIn, func(context.Context) (login, error) { return login{}, cause }),
		})
		is.True(errors.Is(err, typedrpc.Unauthenticated))
		is.True(errors.Is(err, cause))
		_, err = o.dial(t, &typedrpc.Server{Authenticate: signedIn()}, &typedrpc.DialOptions{
			Auth: typedrpc.Credentials(signIn, func(context.Context) (login, error) { return login{}, typedrpc.Errorf(typedrpc.Aborted, "own") }),
		})
		is.True(errors.Is(err, typedrpc.Aborted))
	})
}

// entry lets everybody in as id.
func entry(id typedrpc.Identity) typedrpc.Authenticator {
	return typedrpc.Authenticate(signIn, func(context.Context, *http.Request, login) (typedrpc.Identity, grant, error) {
		return id, grant{}, nil
	})
}

func TestIdentity_expires(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		auth := typedrpc.Authenticate(signIn, func(context.Context, *http.Request, login) (typedrpc.Identity, grant, error) {
			return typedrpc.Identity{Subject: "x", Expires: time.Now().Add(300 * time.Millisecond)}, grant{}, nil
		})
		_, server := o.connect(t, &typedrpc.Server{Authenticate: auth}, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		<-server.Done()
		is.True(strings.Contains(fmt.Sprint(errors.Unwrap(server.Err())), "4401"))
	})
}

func TestIdentity_contextEnds(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		ctx, revoke := context.WithCancel(t.Context())
		defer revoke()
		h := newHanging()
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, hang, h.handle)
		srv := &typedrpc.Server{Mux: mux, Authenticate: entry(typedrpc.Identity{Context: ctx})}
		client, server := o.connect(t, srv, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		call := typedrpc.Go(t.Context(), client, hang, typedrpc.Empty{})
		<-h.begun
		revoke()
		is.True(<-h.ended != nil)
		<-server.Done()
		_, err := call.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
	})
}

func TestServer_plainConnsAreCapped(t *testing.T) {
	is := is.New(t)
	url := serve(t, &typedrpc.Server{MaxPlainConns: 2})
	first := dialRaw(t, url)
	dialRaw(t, url, "jsonrpc")
	_, resp, err := websocket.Dial(t.Context(), url, nil)
	is.True(err != nil)
	is.Equal(resp.StatusCode, http.StatusServiceUnavailable)
	body, _ := io.ReadAll(resp.Body)
	is.True(strings.Contains(string(body), "typedrpc.jsonrpc")) // the way out
	typed, err := typedrpc.Dial(t.Context(), url, nil)
	is.NoErr(err) // they are not capped
	typed.Close()

	first.c.Close(websocket.StatusNormalClosure, "")
	for { // its place is free as soon as the server has noticed
		c, resp, err := websocket.Dial(t.Context(), url, nil)
		if err == nil {
			c.CloseNow()
			break
		}
		is.Equal(resp.StatusCode, http.StatusServiceUnavailable)
	}
}

// A refused login does not keep a plain peer's place.
func TestServer_refusedPeersFreeTheirPlace(t *testing.T) {
	is := is.New(t)
	url := serve(t, &typedrpc.Server{MaxPlainConns: 1, Authenticate: signedIn()})
	for range 3 {
		_, resp, err := websocket.Dial(t.Context(), url, nil)
		is.True(err != nil)
		is.Equal(resp.StatusCode, http.StatusUnauthorized)
	}
}

func TestServer_check(t *testing.T) {
	is := is.New(t)
	is.NoErr((&typedrpc.Server{}).Check())
	is.NoErr((&typedrpc.Server{Origins: []string{"https://example.com", "http://localhost:3000"}}).Check())
	for want, srv := range map[string]*typedrpc.Server{
		"Limits.MaxMessage is -1":                                           {Limits: typedrpc.Limits{MaxMessage: -1}},
		"Limits.MaxMessage is 16777216":                                     {Limits: typedrpc.Limits{MaxMessage: 16 << 20}},
		"Limits.MaxDepth is 20000":                                          {Limits: typedrpc.Limits{MaxDepth: 20_000}},
		"Limits.KeepAlive is negative":                                      {Limits: typedrpc.Limits{KeepAlive: -1}},
		"MaxPlainConns, MaxBuffered, MaxKept, MaxKeptBytes and RetryWindow": {MaxPlainConns: -1},
		`"example.com" is no origin`:                                        {Origins: []string{"example.com"}},
		`"https://a.com/" is no origin`:                                     {Origins: []string{"https://a.com/"}},
		`"*" is no origin`:                                                  {Origins: []string{"*"}},
		"Server.Retry: RetryPolicy: Atte":                                   {Retry: &typedrpc.RetryPolicy{Attempts: -1}},
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			err := srv.Check()
			is.True(err != nil)
			is.True(strings.Contains(err.Error(), want))
			var log logs
			srv.Logger = log.logger()
			status, body := upgrade(srv, func(*http.Request) {})
			is.Equal(status, http.StatusInternalServerError)
			is.True(!strings.Contains(body, want)) // for the log, not for strangers
			is.True(log.has("misconfigured"))
			is.True(srv.Shutdown(t.Context()) != nil)
		})
	}
}

func TestDial_badOptions(t *testing.T) {
	for want, o := range map[string]*typedrpc.DialOptions{
		"Limits.MaxCalls is -1":      {Limits: typedrpc.Limits{MaxCalls: -1}},
		"DialOptions.Backoff: Min":   {Backoff: typedrpc.Backoff{Min: -1}},
		"DialOptions.Retry: Retry":   {Retry: &typedrpc.RetryPolicy{Attempts: -1}},
		"DialOptions.Dialect 7 is n": {Dialect: 7},
	} {
		is := is.New(t)
		_, err := typedrpc.Dial(t.Context(), "ws://127.0.0.1:1/", o)
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.True(strings.Contains(err.Error(), want))
	}
	for _, url := range []string{"", "127.0.0.1:80", "ftp://127.0.0.1", "ws://", "/rpc", "ws://%zz"} {
		is := is.New(t)
		_, err := typedrpc.Dial(t.Context(), url, nil)
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.True(strings.Contains(err.Error(), "URL"))
	}
}

func TestDial_refusedUpgrade(t *testing.T) {
	for status, code := range map[int]typedrpc.Code{
		http.StatusBadRequest:          typedrpc.InvalidArgument,
		http.StatusUnauthorized:        typedrpc.Unauthenticated,
		http.StatusForbidden:           typedrpc.PermissionDenied,
		http.StatusNotFound:            typedrpc.Unimplemented,
		http.StatusTooManyRequests:     typedrpc.ResourceExhausted,
		http.StatusInternalServerError: typedrpc.Unavailable,
		http.StatusBadGateway:          typedrpc.Unavailable,
		http.StatusOK:                  typedrpc.Unavailable,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			is := is.New(t)
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Proxy", "p")
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(status)
				fmt.Fprint(w, "because ", strings.Repeat("x", 5000))
			}))
			defer hs.Close()
			_, err := typedrpc.Dial(t.Context(), hs.URL, nil)
			e := asError(t, err)
			is.Equal(e.Code, code)
			is.Equal(e.Outcome, typedrpc.NotSent)
			is.Equal(e.RetryAfter, 7*time.Second)
			var u *typedrpc.UpgradeError
			is.True(errors.As(err, &u))
			is.Equal(u.Status, status)
			is.Equal(u.Header.Get("X-Proxy"), "p")
			is.True(strings.HasPrefix(u.Body, "because xxx"))
			is.True(len(u.Body) <= 1024)
			is.True(strings.Contains(err.Error(), fmt.Sprint(status)))
		})
	}
}

func TestDial_noServer(t *testing.T) {
	is := is.New(t)
	hs := httptest.NewServer(http.NotFoundHandler())
	hs.Close() // now nobody listens there
	_, err := typedrpc.Dial(t.Context(), hs.URL, nil)
	is.True(errors.Is(err, typedrpc.Unavailable))
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
	is.True(strings.Contains(err.Error(), "connection refused"))
}

func TestDial_contextEnds(t *testing.T) {
	is := is.New(t)
	stuck := make(chan struct{})
	hs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	defer hs.Close()
	defer close(stuck)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := typedrpc.Dial(ctx, hs.URL, nil)
	is.True(errors.Is(err, context.DeadlineExceeded))
	_, err = typedrpc.Dial(ended(t), hs.URL, nil)
	is.True(errors.Is(err, context.Canceled))
	_, err = typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Limits: typedrpc.Limits{HandshakeTimeout: 50 * time.Millisecond}})
	is.True(err != nil) // bounded also without a deadline of its own
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
}

// A WebSocket server that is none of ours.
func TestDial_foreignServer(t *testing.T) {
	is := is.New(t)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			c.Read(r.Context())
			c.CloseNow()
		}
	}))
	defer hs.Close()
	_, err := typedrpc.Dial(t.Context(), hs.URL, nil)
	is.True(errors.Is(err, typedrpc.Unimplemented))
	is.True(strings.Contains(err.Error(), "PlainJSONRPC")) // what would work
}

// Secrets in a URL stay out of every error.
func TestDial_secretsStayOut(t *testing.T) {
	const user, query = "s3cr3t-user", "s3cr3t-query"
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	defer refusing.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	redirecting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, gone.URL+"/?token="+query, http.StatusFound)
	}))
	defer redirecting.Close()
	stuck := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	defer hanging.Close()
	defer close(stuck)
	with := func(base string) string {
		return strings.Replace(base, "://", "://"+user+":"+user+"@", 1) + "/rpc?token=" + query
	}
	for _, url := range []string{
		with(refusing.URL), with(gone.URL), with(redirecting.URL), with(hanging.URL),
		"http://" + user + ":" + user + "@127.0.0.1:99999/?token=" + query, // bad port
		"ws://127.0.0.1/%zz" + user + "?" + query,                          // does not parse
		"ftp://" + user + "@127.0.0.1/?" + query,                           // bad scheme
		user + ":" + user + "@127.0.0.1/rpc?" + query,                      // no scheme
	} {
		is := is.New(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := typedrpc.Dial(ctx, url, nil)
		cancel()
		is.True(err != nil)
		for ; err != nil; err = errors.Unwrap(err) {
			if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "s3cr3t") {
				t.Errorf("Dial of %s tells: %s", url, text)
			}
		}
	}
}
