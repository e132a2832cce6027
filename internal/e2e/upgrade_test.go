package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// knocked is a server that keeps the requests that came.
func knocked(o lab.Over) (*typedrpc.Server, chan *http.Request) {
	came := make(chan *http.Request, 10)
	return &typedrpc.Server{SignIn: lab.Sign.Verify(func(_ context.Context, r *http.Request, _ *string) (typedrpc.Identity, int, error) {
		came <- r
		return typedrpc.Identity{}, 0, nil
	})}, came
}

func TestDialHeader_host(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		for _, name := range []string{"Host", "host"} {
			is := is.New(t)
			srv, came := knocked(o)
			o.Connect(t, srv, &typedrpc.DialOptions{Header: http.Header{name: {"tenant.example:81"}, "x-other": {"y"}}})
			r := <-came
			is.Equal(r.Host, "tenant.example:81")
			is.Equal(r.Header.Values("Host"), nil)
			is.Equal(r.Header.Get("X-Other"), "y")
		}
	})
}

// An own subprotocol beside ours: the server is shown it, and chooses one of ours.
func TestDialHeader_subprotocols(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		srv, came := knocked(o)
		own := []string{"token.abc", "mqtt, jsonrpc"}
		client, err := o.Dial(t, srv, &typedrpc.DialOptions{Header: http.Header{"Sec-WebSocket-Protocol": own}})
		is.NoErr(err)
		defer client.Close()
		r := <-came
		if o.Socket {
			all := strings.Split(r.Header.Get("Sec-WebSocket-Protocol"), ",")
			is.True(slices.Equal(all[len(all)-3:], []string{"token.abc", "mqtt", "jsonrpc"}))
			is.Equal(len(all) > 3, !o.Plain()) // ours first
		}
		client.Reconnect() // and again, though the choice is made
		if !o.Plain() {
			<-came
		}
	})
}

// A server that is none of ours may insist on one.
func TestDialHeader_subprotocolOfAForeignServer(t *testing.T) {
	is := is.New(t)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"ocpp1.6"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		if c.Subprotocol() == "" {
			return
		}
		c.Read(r.Context())
		c.Write(r.Context(), websocket.MessageText, []byte(`{"jsonrpc":"2.0","id":1,"result":"X"}`))
		c.Read(r.Context())
	}))
	defer hs.Close()
	h := http.Header{"Sec-Websocket-Protocol": {"ocpp2.0.1, ocpp1.6"}}
	c, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC, Header: h})
	is.NoErr(err)
	got, err := typedrpc.Call(t.Context(), c, lab.Shout, "x")
	is.NoErr(err)
	is.Equal(got, "X")
	is.NoErr(c.Close())

	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} { // which it does not speak
		_, err = typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Dialect: d, Header: h})
		is.True(strings.Contains(err.Error(), `selected subprotocol "ocpp1.6", which is none of those that typedrpc offered`))
	}
}

// What cannot be sent is refused, and not left out.
func TestDialHeader_refused(t *testing.T) {
	for want, h := range map[string]http.Header{
		`DialOptions.Header has the Host`:                                       {"Host": {"a", "b"}},
		`DialOptions.Header has the Host [""]`:                                  {"Host": {""}},
		`DialOptions.Header has the Host ["http://a/"]`:                         {"host": {"http://a/"}},
		`has the Sec-WebSocket-Protocol "a b"`:                                  {"Sec-Websocket-Protocol": {"a b"}},
		`has the Sec-WebSocket-Protocol ""`:                                     {"sec-websocket-protocol": {"a,,b"}},
		`has the Sec-WebSocket-Protocol "ä"`:                                    {"Sec-Websocket-Protocol": {"ä"}},
		`offers the subprotocol "a" twice`:                                      {"Sec-Websocket-Protocol": {"a", "a"}},
		`must not offer the subprotocol "typedrpc.v1.json": Dialect and Codecs`: {"Sec-Websocket-Protocol": {"typedrpc.v1.json"}},
		`must not offer the subprotocol "typedrpc.jsonrpc"`:                     {"Sec-Websocket-Protocol": {"x, typedrpc.jsonrpc"}},
		`must not have Sec-Websocket-Key`:                                       {"Sec-WebSocket-Key": {"x"}},
		`DialOptions.Header: "" is no name of a header`:                         {"": {"x"}},
		`DialOptions.Header: "X Id" is no name of a header`:                     {"X Id": {"x"}},
		`a value of X-Id has a control character`:                               {"X-Id": {"ok", "a\r\nX-Admin: yes"}},
		`must not have Sec-Websocket-Extensions`:                                {"Sec-WebSocket-Extensions": {"permessage-deflate"}},
	} {
		for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
			is := is.New(t)
			_, err := typedrpc.Dial(t.Context(), "ws://127.0.0.1:1/", &typedrpc.DialOptions{Header: h, Dialect: d})
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.True(strings.Contains(err.Error(), want))
		}
	}
}

// A server may say when to come back with a date, which is by its own clock.
func TestDial_retryAfterADate(t *testing.T) {
	is := is.New(t)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(-3 * time.Hour) // its clock is slow
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		w.Header().Set("Retry-After", now.Add(90*time.Second).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer hs.Close()
	_, err := typedrpc.Dial(t.Context(), hs.URL, nil)
	e := lab.AsError(t, err)
	is.Equal(e.Code, typedrpc.Unavailable)
	is.Equal(e.RetryAfter, 90*time.Second)
}

// A client that is no browser may come by any name, also where a proxy on the same
// machine hands on what it was asked for: calls over WebSockets and POSTs.
func TestServer_behindAProxyOnThisMachine(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
	url := serve(t, &typedrpc.Server{Mux: mux})
	c, err := typedrpc.Dial(t.Context(), url, &typedrpc.DialOptions{Header: http.Header{"Host": {"api.example.com"}}})
	is.NoErr(err)
	defer c.Close()
	got, err := typedrpc.Call(t.Context(), c, lab.Shout, "x")
	is.NoErr(err)
	is.Equal(got, "X")

	post := func(origin string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"`+lab.Shout.Name()+`","params":["x"]}`))
		is.NoErr(err)
		r.Host = "api.example.com"
		r.Header.Set("Content-Type", "application/json")
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		resp, err := http.DefaultClient.Do(r)
		is.NoErr(err)
		resp.Body.Close()
		return resp
	}
	is.Equal(post("").StatusCode, http.StatusOK)
	is.Equal(post("http://api.example.com").StatusCode, http.StatusForbidden) // the page of a name that leads here
}
