package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// rawPeer is a WebSocket client that knows nothing of typedrpc.
type rawPeer struct {
	t *testing.T
	c *websocket.Conn
}

func dialRaw(t *testing.T, url string, subprotocols ...string) rawPeer {
	t.Helper()
	is := is.New(t)
	c, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: subprotocols})
	is.NoErr(err)
	c.SetReadLimit(32 << 20)
	t.Cleanup(func() { c.CloseNow() })
	return rawPeer{t, c}
}

// send writes a message. An error is no news: the server may have closed.
func (p rawPeer) send(text string) {
	p.c.Write(p.t.Context(), websocket.MessageText, []byte(text))
}

func (p rawPeer) sendBinary(b []byte) {
	p.c.Write(p.t.Context(), websocket.MessageBinary, b)
}

// receive returns the next message.
func (p rawPeer) receive() string {
	p.t.Helper()
	is := is.New(p.t)
	_, b, err := p.c.Read(p.t.Context())
	is.NoErr(err)
	return string(b)
}

// closeCode reads until the server closes, and returns its code and reason.
func (p rawPeer) closeCode() (int, string) {
	for {
		if _, _, err := p.c.Read(p.t.Context()); err != nil {
			var ce websocket.CloseError
			if errors.As(err, &ce) {
				return int(ce.Code), ce.Reason
			}
			return -1, err.Error()
		}
	}
}

// post sends body as a POST and returns status and text of the answer.
func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	is := is.New(t)
	resp, err := http.Post(url, "application/json; charset=utf-8", strings.NewReader(body))
	is.NoErr(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	is.NoErr(err)
	if resp.StatusCode == http.StatusOK {
		is.Equal(resp.Header.Get("Content-Type"), "application/json")
	}
	return resp.StatusCode, string(text)
}

// canonical is text as a JSON value: members in order, no white space.
func canonical(t *testing.T, text string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("no JSON: %v in %q", err, text)
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// anyMessage replaces the texts of errors, which the specification leaves to
// the implementation, and drops what explains them.
func anyMessage(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("no JSON: %v in %q", err, text)
	}
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			if fault, ok := m["error"].(map[string]any); ok {
				if s, ok := fault["message"].(string); !ok || s == "" {
					t.Fatalf("an error without message: %s", text)
				}
				fault["message"] = "…"
			}
		}
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// specServer serves the methods of the specification's examples.
func specServer(t *testing.T) (url string, notified chan string) {
	t.Helper()
	type difference struct {
		Minuend    int `json:"minuend"`
		Subtrahend int `json:"subtrahend"`
	}
	notified = make(chan string, 100)
	mux := typedrpc.NewMux()
	subtract := typedrpc.NewMethod[difference, int]("subtract", typedrpc.Params("minuend", "subtrahend"))
	typedrpc.Handle(mux, subtract, func(_ context.Context, d difference) (int, error) { return d.Minuend - d.Subtrahend, nil })
	typedrpc.Handle(mux, typedrpc.NewMethod[[]int, int]("sum"), func(_ context.Context, ns []int) (int, error) {
		total := 0
		for _, n := range ns {
			total += n
		}
		return total, nil
	})
	typedrpc.Handle(mux, typedrpc.NewMethod[struct{}, []any]("get_data"), func(context.Context, struct{}) ([]any, error) {
		return []any{"hello", 5}, nil
	})
	for _, name := range []string{"update", "notify_hello", "notify_sum"} {
		typedrpc.Handle(mux, typedrpc.NewNotification[[]int](name), func(_ context.Context, ns []int) error {
			notified <- fmt.Sprint(name, ns)
			return nil
		})
	}
	return serve(t, &typedrpc.Server{Mux: mux}), notified
}

// serve serves srv on a loopback port.
func serve(t *testing.T, srv *typedrpc.Server) (url string) {
	t.Helper()
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.DiscardHandler)
	}
	hs := httptest.NewServer(srv)
	t.Cleanup(func() {
		srv.Shutdown(ended(t)) // at once
		hs.Close()
	})
	return hs.URL
}

// ended returns a context that has ended.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
