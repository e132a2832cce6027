//go:build js

package link

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall/js"

	"github.com/typedrpc/typedrpc/internal/buf"
)

// browser carries messages over the WebSocket of a browser, which decides headers,
// TLS and compression itself and tells nothing about a refused upgrade. It stands
// on the browser's API and not on the WebSocket library's wrapper: that closes with
// codes which no browser lets anybody use, and then does not close at all.
type browser struct {
	socket js.Value
	limit  atomic.Int64
	opened chan struct{} // closed by the event
	over   chan struct{} // closed when it has ended
	come   chan struct{} // capacity 1: there is something to read

	mu     sync.Mutex
	queue  []js.Value // data of messages; a browser knows no bounds, the layers above do
	err    error      // what Read returns when the queue is empty
	killed bool       // and before it is
	funcs  []js.Func
}

// Dial opens a WebSocket.
func Dial(ctx context.Context, target string, o DialOptions) (Transport, string, *http.Response, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, "", nil, errors.New("the URL cannot be parsed") // its text may have secrets
	}
	switch u.Scheme {
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	}
	u.Fragment = ""
	t := &browser{opened: make(chan struct{}), over: make(chan struct{}), come: make(chan struct{}, 1)}
	t.limit.Store(-1)
	if err := t.open(u.String(), o.Subprotocols); err != nil {
		return nil, "", nil, err
	}
	select {
	case <-t.opened:
		return t, t.socket.Get("protocol").String(), nil, nil
	case <-t.over:
		return nil, "", nil, errors.New("no WebSocket could be opened; a browser does not tell why, its console may")
	case <-ctx.Done():
		t.Kill()
		return nil, "", nil, ctx.Err()
	}
}

// open makes the browser's socket.
func (t *browser) open(url string, subprotocols []string) (err error) {
	constructor := js.Global().Get("WebSocket")
	if constructor.IsUndefined() {
		return errors.New("this JavaScript has no WebSocket")
	}
	defer thrown(&err)
	names := make([]any, len(subprotocols))
	for i, name := range subprotocols {
		names[i] = name
	}
	t.socket = constructor.New(url, names)
	t.socket.Set("binaryType", "arraybuffer")
	t.on("open", func(js.Value) { close(t.opened) })
	t.on("message", func(e js.Value) { t.message(e.Get("data")) })
	t.on("close", func(e js.Value) { t.closed(e.Get("code").Int(), e.Get("reason").String()) })
	return nil
}

// on has f be called for events of a kind, until the socket has ended.
func (t *browser) on(event string, f func(e js.Value)) {
	fn := js.FuncOf(func(_ js.Value, args []js.Value) any {
		f(args[0])
		return nil
	})
	t.funcs = append(t.funcs, fn)
	t.socket.Set("on"+event, fn)
}

// thrown makes what JavaScript throws an error. Its text may have the URL in it.
func thrown(err *error) {
	switch p := recover().(type) {
	case nil:
	case js.Error:
		*err = errors.New("the browser's WebSocket threw a " + p.Get("name").String())
	default:
		panic(p)
	}
}

func (t *browser) message(data js.Value) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(t.queue, data)
	t.signal()
}

func (t *browser) signal() {
	select {
	case t.come <- struct{}{}:
	default:
	}
}

// noCloseFrame is the code that a browser reports for a connection that ended
// without a close frame.
const noCloseFrame = 1006

func (t *browser) closed(code int, reason string) {
	err := error(&CloseError{Code: code, Reason: validReason(reason), Remote: true})
	if code == noCloseFrame {
		err = errors.New("the connection was lost")
	}
	t.end(err, false)
}

// end ends it with err, unless it has ended. A hard end drops what has come and was
// not read.
func (t *browser) end(err error, hard bool) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.killed = t.killed || hard
	if first = t.err == nil; first {
		t.err = err
		for _, event := range []string{"onopen", "onmessage", "onclose"} {
			t.socket.Set(event, js.Null())
		}
		for _, f := range t.funcs {
			f.Release()
		}
		close(t.over)
	}
	t.signal()
	return first
}

func (t *browser) Read(progress func()) (b *buf.Buf, text bool, err error) {
	for {
		t.mu.Lock()
		var data js.Value
		switch {
		case t.killed, len(t.queue) == 0 && t.err != nil:
			defer t.mu.Unlock()
			return nil, false, t.err
		case len(t.queue) > 0:
			data = t.queue[0]
			t.queue = t.queue[1:]
		}
		t.mu.Unlock()
		if data.IsUndefined() {
			<-t.come
			continue
		}
		progress()
		return t.take(data)
	}
}

// take copies a message out of JavaScript.
func (t *browser) take(data js.Value) (b *buf.Buf, text bool, err error) {
	if data.Type() == js.TypeString {
		s := data.String()
		b = buf.Sized(len(s))
		b.B = append(b.B, s...)
		text = true
	} else {
		bytes := js.Global().Get("Uint8Array").New(data)
		b = buf.Sized(bytes.Length())
		b.B = b.B[:bytes.Length()]
		js.CopyBytesToGo(b.B, bytes)
	}
	if most := t.limit.Load(); most >= 0 && int64(b.Len()) > most {
		b.Release()
		return nil, false, &CloseError{Code: 1009, Reason: "message too big"}
	}
	return b, text, nil
}

func (t *browser) Write(msg []byte, text bool, _ func()) (err error) {
	select {
	case <-t.over: // sending is silently nothing then
		return errors.New("the connection has ended")
	default:
	}
	defer thrown(&err)
	if text {
		t.socket.Call("send", string(msg))
		return nil
	}
	bytes := js.Global().Get("Uint8Array").New(len(msg))
	js.CopyBytesToJS(bytes, msg)
	t.socket.Call("send", bytes)
	return nil
}

func (t *browser) Close(code int, reason string) {
	t.goodbye(code, reason)
	<-t.over
}

// Kill gives the socket up. A browser cannot do that without a close frame; one
// without a code ends the link and not the session.
func (t *browser) Kill() {
	if t.end(errors.New("given up"), true) {
		t.goodbye(0, "")
	}
}

// goodbye closes the socket with a code, if a browser lets one say it.
func (t *browser) goodbye(code int, reason string) {
	var err error
	defer thrown(&err) // it is closing already
	switch {
	case code == 1000, code >= 3000 && code <= 4999:
	case code == 1009, code == 1012: // they end the session, and so does …
		code = 1000
	default:
		t.socket.Call("close")
		return
	}
	t.socket.Call("close", code, clipReason(reason))
}

func (t *browser) SetReadLimit(n int64) { t.limit.Store(n) }

// Ping does nothing: the browser's API has no pings.
func (t *browser) Ping(func()) bool { return false }

// Accept fails: there is no server in a browser.
func Accept(w http.ResponseWriter, _ *http.Request, _ string, _ bool) (Transport, error) {
	const text = "typedrpc: a browser cannot accept WebSockets"
	http.Error(w, text, http.StatusNotImplemented)
	return nil, errors.New(text)
}

// Offers lists nothing: there is no server in a browser.
func Offers(http.Header) []string { return nil }
