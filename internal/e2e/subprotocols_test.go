package e2e_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var ownNames = map[string]string{"acme.v2": "typedrpc.v1.json", "acme.text": "typedrpc.jsonrpc", "acme.plain": "jsonrpc"}

// TestSubprotocols_own has a program's own names stand for each dialect, over a WebSocket,
// and across a lost link.
func TestSubprotocols_own(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		name := [...]string{"acme.v2", "acme.text", "acme.plain"}[d]
		l := lab.New()
		l.Server.Subprotocols = ownNames
		w := &lab.Town{Srv: l.Server}
		rec := typedrpctest.NewRecorder(nil)
		c := w.Dial(t, rec.Tap(&typedrpc.DialOptions{Dialect: d, Subprotocol: name, Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: time.Minute}}))
		is.Equal(c.State(), typedrpc.StateConnected)
		f := typedrpc.Go(t.Context(), c, lab.Echo, 7)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 7)
		w.Cable().Cut()
		time.Sleep(5 * time.Second)
		n, err = typedrpc.Call(t.Context(), c, lab.Echo, 8)
		is.NoErr(err)
		is.Equal(n, 8)
		is.NoErr(c.Close())
		synctest.Wait()
		is.True(strings.Contains(rec.String(), "CALL")) // it knows what it sees
	})
}

func TestSubprotocols_refused(t *testing.T) {
	url := serve(t, &typedrpc.Server{Subprotocols: ownNames})
	for _, tt := range []struct {
		name string
		o    typedrpc.DialOptions
		want string
	}{
		{"unknown", typedrpc.DialOptions{Subprotocol: "acme.v3"}, `"acme.v2"`}, // 400 lists what there is
		{"ours", typedrpc.DialOptions{Subprotocol: "typedrpc.v1.json"}, "is a subprotocol of this package"},
		{"jsonrpc", typedrpc.DialOptions{Subprotocol: "jsonrpc", Dialect: typedrpc.JSONRPC}, "is a subprotocol of this package"},
		{"no token", typedrpc.DialOptions{Subprotocol: "a b"}, "is no name of a subprotocol"},
		{"two codecs", typedrpc.DialOptions{Subprotocol: "acme.v2", Codecs: []typedrpc.Codec{typedrpc.JSON, renamed{typedrpc.JSON, "json2"}}}, "stands for one codec"},
		{"offered twice", typedrpc.DialOptions{Subprotocol: "acme.v2", Header: http.Header{"Sec-WebSocket-Protocol": {"acme.v2"}}}, "twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			_, err := typedrpc.Dial(t.Context(), url, &tt.o)
			is.True(err != nil && strings.Contains(err.Error(), tt.want))
		})
	}
	for want, names := range map[string]map[string]string{
		`"typedrpc.v9" is a subprotocol`:     {"typedrpc.v9": "jsonrpc"},
		`"jsonrpc2" is a subprotocol`:        {"jsonrpc2": "jsonrpc"},
		`"a,b" is no name`:                   {"a,b": "jsonrpc"},
		`"" is no name`:                      {"": "jsonrpc"},
		`"x" stands for "typedrpc.v1.other"`: {"x": "typedrpc.v1.other"},
		`"x" stands for "y"`:                 {"x": "y", "y": "jsonrpc"},
		`"x" stands for ""`:                  {"x": ""},
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			err := (&typedrpc.Server{Subprotocols: names}).Check()
			is.True(err != nil && strings.Contains(err.Error(), want))
		})
	}
}

// TestSubprotocols_serverSelectsAnother dials servers that select none, and one that was
// brought along for a token: neither is spoken to.
func TestSubprotocols_serverSelectsAnother(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		for _, selects := range []string{"", "token.abc"} {
			is := is.New(t)
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{selects}})
				if err != nil {
					return
				}
				_, _, err = c.Read(r.Context())
				if !errors.As(err, new(websocket.CloseError)) {
					t.Errorf("the client went on: %v", err)
				}
			}))
			_, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Dialect: d, Subprotocol: "acme.v2", Header: http.Header{"Sec-WebSocket-Protocol": {"token.abc"}}})
			is.True(errors.Is(err, typedrpc.Unimplemented))
			is.True(strings.Contains(err.Error(), `"acme.v2"`))
			hs.Close()
		}
	}
}

// TestSubprotocols_offers has a client of another make offer both: the first that is known is
// selected, and the 400 of one that offers none names all.
func TestSubprotocols_offers(t *testing.T) {
	is := is.New(t)
	url := serve(t, &typedrpc.Server{Subprotocols: ownNames})
	is.Equal(dialRaw(t, url, "soap", "acme.plain", "jsonrpc").c.Subprotocol(), "acme.plain")
	is.Equal(dialRaw(t, url, "jsonrpc", "acme.plain").c.Subprotocol(), "jsonrpc")
	_, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"soap"}})
	is.True(err != nil)
	body, _ := io.ReadAll(resp.Body)
	is.Equal(resp.StatusCode, http.StatusBadRequest)
	is.True(strings.Contains(string(body), `"acme.plain" "acme.text" "acme.v2"`))
}
