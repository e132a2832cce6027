package e2e_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// A plain peer's JSON may come in binary messages. It is answered in the kind that it
// used last, and so is it called and notified.
func TestPlain_binaryMessages(t *testing.T) {
	noted := make(chan int, 9)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { return n, nil })
	typedrpc.Handle(mux, leaveNote, func(_ context.Context, n int) error { noted <- n; return nil })
	const one, answer = `{"jsonrpc":"2.0","id":1,"method":"ask","params":[7]}`, `{"jsonrpc":"2.0","id":1,"result":7}`
	lab.Strangers(t, mux, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
		is := is.New(t)
		only := func(binary bool) string {
			t.Helper()
			got := s.Messages()
			is.Equal(len(got), 1)
			is.Equal(got[0].Binary, binary)
			return got[0].Text
		}
		tell := func(binary bool) {
			t.Helper()
			is.NoErr(typedrpc.Notify(t.Context(), c, leaveNote, 1))
			is.Equal(only(binary), `{"jsonrpc":"2.0","method":"leave.note","params":[1]}`)
			ctx, cancel := context.WithCancel(t.Context())
			f := typedrpc.Go(ctx, c, lab.Ask, 1)
			is.True(strings.Contains(only(binary), `"method":"ask"`))
			cancel()
			f.Await(t.Context())
			is.True(strings.Contains(only(binary), `"$/cancelRequest"`))
		}
		tell(false)
		for range 2 {
			s.SendBinary(one)
			is.Equal(only(true), answer)
			s.SendBinary("[" + one + "," + one + "]")
			is.Equal(only(true), "["+answer+","+answer+"]")
			s.SendBinary(`{"jsonrpc":"2.0","id":1,"method":"nobody"}`)
			is.True(strings.Contains(only(true), "-32601"))
			s.SendBinary("\xff\x00") // which is no JSON
			is.True(strings.Contains(only(true), "-32700"))
			s.SendBinary(leaveText("note", 5, ""))
			is.Equal(<-noted, 5)
			tell(true)
			s.Send(one)
			is.Equal(only(false), answer)
			tell(false)
		}
		is.Equal(s.Ended(), nil)
		is.Equal(c.Err(), nil)
	})
}

// An answer in a binary message is one.
func TestPlain_binaryAnswers(t *testing.T) {
	lab.Strangers(t, typedrpc.NewMux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		f := typedrpc.Go(t.Context(), c, lab.Ask, 1)
		s.Only(t)
		s.SendBinary(`{"jsonrpc":"2.0","id":1,"result":9}`)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 9)
	})
}

// Over sockets, with either side as the server.
func TestPlain_binaryOverSockets(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { return n, nil })
	p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux}))
	p.sendBinary([]byte(`{"jsonrpc":"2.0","id":1,"method":"ask","params":[7]}`))
	typ, b, err := p.c.Read(t.Context())
	is.NoErr(err)
	is.Equal(typ, websocket.MessageBinary)
	is.Equal(string(b), `{"jsonrpc":"2.0","id":1,"result":7}`)

	kinds := make(chan websocket.MessageType, 9)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for id := '1'; ; id++ {
			typ, _, err := c.Read(r.Context())
			if err != nil {
				return
			}
			kinds <- typ
			c.Write(r.Context(), websocket.MessageBinary, []byte(`{"jsonrpc":"2.0","id":`+string(id)+`,"result":8}`))
		}
	}))
	defer hs.Close()
	c, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC})
	is.NoErr(err)
	defer c.Close()
	for _, want := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		n, err := typedrpc.Call(t.Context(), c, lab.Ask, 1)
		is.NoErr(err)
		is.Equal(n, 8)
		is.Equal(<-kinds, want)
	}
}
