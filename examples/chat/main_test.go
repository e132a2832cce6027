package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

var quiet = slog.New(slog.DiscardHandler)

func serve(t *testing.T) (url string) {
	is := is.New(t)
	chat, err := newChat(quiet)
	is.NoErr(err)
	hs := httptest.NewServer(chat.routes)
	t.Cleanup(hs.Close)
	t.Cleanup(func() { chat.shutdown(context.Background()) })
	return hs.URL
}

// dial connects as the page does.
func dial(t *testing.T, url, name string) (*typedrpc.Conn, error) {
	c, err := typedrpc.Dial(t.Context(), url+"/rpc", &typedrpc.DialOptions{
		Dialect: typedrpc.Text,
		SignIn:  SignIn.Present(func(context.Context) (Visitor, error) { return Visitor{name}, nil }),
		Logger:  quiet,
	})
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func enter(t *testing.T, url, name string) *typedrpc.Conn {
	is := is.New(t)
	is.Helper()
	c, err := dial(t, url, name)
	is.NoErr(err)
	return c
}

// say says something that must be taken.
func say(t *testing.T, c *typedrpc.Conn, room, text string) (id string) {
	is := is.New(t)
	is.Helper()
	id, err := typedrpc.Call(t.Context(), c, Say, Draft{room, text})
	is.NoErr(err)
	return id
}

// follow reads what a subscription brings, one at a time.
func follow[E any](t *testing.T, events iter.Seq2[E, error]) (next func() E) {
	is := is.New(t)
	pull, stop := iter.Pull2(events)
	t.Cleanup(stop)
	return func() E {
		is.Helper()
		e, err, ok := pull()
		is.True(ok)
		is.NoErr(err)
		return e
	}
}

// timeout is a context for what must come soon.
func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestChat(t *testing.T) {
	is := is.New(t)
	url, ctx := serve(t), timeout(t)
	ada, bob := enter(t, url, "ada"), enter(t, url, "bob")
	welcome, err := SignIn.Reply(ada)
	is.NoErr(err)
	is.Equal(welcome.Rooms[0], "lobby")

	present := follow(t, topic.Watch(ctx, ada, Room, "lobby"))
	atAda := follow(t, topic.Subscribe(ctx, ada, Room, "lobby"))
	first := say(t, ada, "lobby", "is anybody there?")
	is.Equal(atAda().Value.ID, first)
	is.Equal(present().Subject, "ada")

	t.Run("who comes late has the history", func(t *testing.T) {
		is := is.New(t)
		bobs, leave := context.WithCancel(ctx)
		atBob := follow(t, topic.Subscribe(bobs, bob, Room, "lobby"))
		e := atBob()
		is.True(e.History)
		is.Equal(e.Value.ID, first)
		is.Equal(e.Value.From, "ada")
		is.Equal(e.Value.Text, "is anybody there?")
		is.True(time.Since(e.Value.At) < time.Minute)
		is.Equal(present(), topic.Member{Subject: "bob"})

		for i := range 4 { // both see both, in one order
			text := fmt.Sprint("message ", i)
			say(t, []*typedrpc.Conn{bob, ada}[i%2], "lobby", text)
			for _, next := range []func() topic.Event[Message]{atAda, atBob} {
				e := next()
				is.Equal(e.Value.Text, text)
				is.Equal(e.Value.From, []string{"bob", "ada"}[i%2])
				is.True(!e.History)
			}
		}
		leave()
		is.Equal(present(), topic.Member{Subject: "bob", Left: true})
	})
	t.Run("two calls at once keep their order", func(t *testing.T) {
		is := is.New(t)
		var calls []*typedrpc.Future[string]
		for i := range 5 {
			calls = append(calls, typedrpc.Go(ctx, bob, Say, Draft{"lobby", fmt.Sprint("at once ", i)}))
		}
		_, err := typedrpc.All(ctx, calls...)
		is.NoErr(err)
		for i := range 5 {
			is.Equal(atAda().Value.Text, fmt.Sprint("at once ", i))
		}
	})
	t.Run("rooms are apart", func(t *testing.T) {
		is := is.New(t)
		say(t, bob, "go", "elsewhere")
		last := say(t, bob, "lobby", "here")
		is.Equal(atAda().Value.ID, last)
	})
	t.Run("a name leaves with its last page", func(t *testing.T) {
		is := is.New(t)
		one, two := enter(t, url, "eve"), enter(t, url, "eve")
		follow(t, topic.Subscribe(ctx, one, Room, "lobby"))()
		is.Equal(present(), topic.Member{Subject: "eve"})
		follow(t, topic.Subscribe(ctx, two, Room, "lobby"))()
		is.NoErr(one.Close())
		say(t, two, "lobby", "still here")
		is.NoErr(two.Close())
		is.Equal(present(), topic.Member{Subject: "eve", Left: true}) // and not before
	})
}

func TestTyping(t *testing.T) {
	is := is.New(t)
	url, ctx := serve(t), timeout(t)
	ada, bob := enter(t, url, "ada"), enter(t, url, "bob")
	notices := make(chan topic.Event[string])
	go func() {
		for e, err := range topic.Subscribe(ctx, ada, Typing, "lobby") {
			if err != nil {
				return
			}
			notices <- e
		}
	}()
	for { // there is no history: it may not have subscribed yet
		is.NoErr(typedrpc.Notify(ctx, bob, Type, "lobby"))
		select {
		case e := <-notices:
			is.Equal(e.Value, "bob")
			is.True(!e.History)
			return
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("no notice")
		}
	}
}

func TestNames(t *testing.T) {
	url := serve(t)
	for name, want := range map[string]string{
		"ada": "", "Ada Lovelace": "", "艾达": "", "<b>": "", strings.Repeat("ü", maxName): "",
		"":                             "a name is needed",
		strings.Repeat("a", maxName+1): "25 characters",
		" ada":                         "space",
		"a\nda":                        "cannot be shown",
		"a\u202eda":                    "cannot be shown",
		strings.Repeat("\u0301", 3000): "characters",
		"\ufeffada":                    "cannot be shown",
		"ada\u00a0":                    "cannot be shown",
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			c, err := dial(t, url, name)
			if want == "" {
				is.NoErr(err)
				is.Equal(say(t, c, "lobby", "hello") != "", true)
				return
			}
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.True(strings.Contains(err.Error(), want))
		})
	}
}

func TestRooms(t *testing.T) {
	url := serve(t)
	ada := enter(t, url, "ada")
	for room, ok := range map[string]bool{
		"lobby": true, "größe-7_x": true, "東京": true, "हिन्दी": true, "2": true, strings.Repeat("ü", 32): true,
		"": false, "Lobby": false, "a b": false, "-a": false, "a/b": false, "<b>": false, strings.Repeat("a", 33): false, "a\n": false,
	} {
		t.Run(room, func(t *testing.T) {
			is := is.New(t)
			ctx := timeout(t)
			_, err := typedrpc.Call(ctx, ada, Say, Draft{room, "hello"})
			if ok {
				is.NoErr(err)
				follow(t, topic.Subscribe(ctx, ada, Room, room))()
				return
			}
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			for _, err := range topic.Subscribe(ctx, ada, Room, room) {
				is.True(errors.Is(err, typedrpc.InvalidArgument))
			}
			for _, err := range topic.Watch(ctx, ada, Room, room) {
				is.True(errors.Is(err, typedrpc.InvalidArgument))
			}
			for _, err := range topic.Subscribe(ctx, ada, Typing, room) {
				is.True(errors.Is(err, typedrpc.InvalidArgument))
			}
		})
	}
}

func TestTexts(t *testing.T) {
	is := is.New(t)
	for text, ok := range map[string]bool{
		"hello": true, "two\n\tlines": true, "<script>": true, "👩‍🚀": true, strings.Repeat("ü", maxText): true,
		"": false, " \n\t": false, "a\x00b": false, "a\x1b[31m": false, strings.Repeat("a", maxText+1): false,
	} {
		is.Equal(checkText(text) == nil, ok) // text
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p := pace{burst: 3, every: time.Second}
		for range 3 {
			is.Equal(p.take(), time.Duration(0))
		}
		is.Equal(p.take(), time.Second)
		time.Sleep(400 * time.Millisecond)
		is.Equal(p.take(), 600*time.Millisecond)
		time.Sleep(600 * time.Millisecond)
		is.Equal(p.take(), time.Duration(0))
		time.Sleep(time.Hour)
		for range 3 { // and no more than that
			is.Equal(p.take(), time.Duration(0))
		}
		is.Equal(p.take(), time.Second)
	})
}

func TestFlood(t *testing.T) {
	is := is.New(t)
	ada := enter(t, serve(t), "ada")
	for range 100 {
		_, err := typedrpc.Call(timeout(t), ada, Say, Draft{"lobby", "spam"})
		if err == nil {
			continue
		}
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		var e *typedrpc.Error
		is.True(errors.As(err, &e))
		is.True(e.RetryAfter > 0)
		return
	}
	t.Fatal("a hundred messages at once")
}

// Peers without HELLO have no name.
func TestPlainPeers(t *testing.T) {
	is := is.New(t)
	url := serve(t)
	_, resp, err := websocket.Dial(t.Context(), url+"/rpc", nil)
	is.True(err != nil)
	is.Equal(resp.StatusCode, http.StatusUnauthorized)
	resp, err = http.Post(url+"/rpc", "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"chat.say","params":{"room":"lobby","text":"x"}}`))
	is.NoErr(err)
	resp.Body.Close()
	is.Equal(resp.StatusCode, http.StatusUnauthorized)
}

// What the page's script sends and receives, as text.
func TestRawJSON(t *testing.T) {
	is := is.New(t)
	ctx := timeout(t)
	ws, _, err := websocket.Dial(ctx, serve(t)+"/rpc", &websocket.DialOptions{Subprotocols: []string{"typedrpc.jsonrpc"}})
	is.NoErr(err)
	defer ws.CloseNow()
	seen := "" // several frames may share a message
	for _, line := range []string{
		`> {"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello","params":{"attempt":1,"credentials":{"name":"ada"},"features":["streams"]}}`,
		`< "reply":{"rooms":["lobby",`,
		`> {"jsonrpc":"2.0","method":"rpc.ack","params":{"position":0}}`,
		`> {"jsonrpc":"2.0","id":1,"method":"chat.room.presence","params":["lobby"],"stream":"server","noItems":true}`,
		`> {"jsonrpc":"2.0","id":2,"method":"chat.room","params":["lobby"],"stream":"server","noItems":true}`,
		`< {"jsonrpc":"2.0","method":"rpc.item","params":{"id":1,`,
		`< "payload":"+ada"}}`,
		`> {"jsonrpc":"2.0","id":3,"method":"chat.say","params":{"room":"lobby","text":"hello"}}`,
		`< {"jsonrpc":"2.0","method":"rpc.item","params":{"id":2,"payload":{"id":"`,
		`< {"jsonrpc":"2.0","id":3,"result":"`,
		`> {"jsonrpc":"2.0","method":"rpc.credit","params":{"id":2,"items":1,"caller":true}}`,
		`> {"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":2}}`,
		`< {"jsonrpc":"2.0","id":2,"error":{"code":1,`,
		`< "payload":"-ada"}}`,
	} {
		if text, mine := strings.CutPrefix(line, "> "); mine {
			is.NoErr(ws.Write(ctx, websocket.MessageText, []byte(text)))
			continue
		}
		want := strings.TrimPrefix(line, "< ")
		for !strings.Contains(seen, want) {
			_, got, err := ws.Read(ctx)
			is.NoErr(err)
			seen += string(got)
		}
	}
}

func TestPage(t *testing.T) {
	url := serve(t)
	for path, want := range map[string]struct{ contentType, text string }{
		"/":            {"text/html; charset=utf-8", "chat.js"},
		"/style.css":   {"text/css; charset=utf-8", "color-scheme"},
		"/chat.css":    {"text/css; charset=utf-8", "#conversation"},
		"/chat.js":     {"text/javascript; charset=utf-8", "chat.room.presence"},
		"/api.js":      {"text/javascript; charset=utf-8", `typedrpc.method("chat.say"`},
		"/typedrpc.js": {"text/javascript; charset=utf-8", "WebSocket"},
	} {
		t.Run(path, func(t *testing.T) {
			is := is.New(t)
			resp, err := http.Get(url + path)
			is.NoErr(err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			is.Equal(resp.StatusCode, http.StatusOK)
			is.Equal(resp.Header.Get("Content-Type"), want.contentType)
			is.Equal(resp.Header.Get("X-Content-Type-Options"), "nosniff")
			policy := resp.Header.Get("Content-Security-Policy")
			is.True(strings.HasPrefix(policy, "default-src 'none'; script-src 'self';"))
			is.True(!strings.Contains(policy, "unsafe"))
			is.True(strings.Contains(string(body), want.text))
			is.True(!strings.Contains(string(body), "innerHTML"))
			is.True(!strings.Contains(string(body), "<script>")) // none inline
		})
	}
}

func TestRun(t *testing.T) {
	is := is.New(t)
	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", slog.New(slog.NewTextHandler(w, nil))) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	is.NoErr(err)
	rest := make(chan string, 1)
	go func() {
		log, _ := io.ReadAll(r)
		rest <- string(log)
	}()
	_, url, found := strings.Cut(strings.TrimSpace(line), "url=")
	is.True(found)

	ada := enter(t, strings.TrimSuffix(url, "/"), "ada")
	say(t, ada, "lobby", "hello")
	for e, err := range topic.Subscribe(timeout(t), ada, Room, "lobby") {
		is.NoErr(err)
		is.Equal(e.Value.Text, "hello")
		interrupt()
		is.NoErr(<-ended)
		break
	}
	w.Close()
	is.True(!strings.Contains(<-rest, "closing what was still open")) // the server did not wait for subscribers
}

func TestRun_portTaken(t *testing.T) {
	is := is.New(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer taken.Close()
	err = run(t.Context(), taken.Addr().String(), quiet)
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "-addr")) // says what to do
}
