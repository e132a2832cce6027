package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// What broken and hostile peers send, against a live server: each gets a typed
// error or the documented close code, and nobody else notices.

// frame encodes a valid binary frame.
func frame(f wire.Frame) []byte {
	b, err := wire.AppendBinary(nil, &f)
	if err != nil {
		panic(err)
	}
	return b
}

// rawFrame is a binary frame of any content.
func rawFrame(header byte, body ...byte) []byte {
	return append([]byte{header, byte(len(body)), byte(len(body) >> 8), byte(len(body) >> 16)}, body...)
}

func helloFrame() []byte {
	h := wire.HelloBody{Attempt: 1, Limits: wire.Limits{Message: 1 << 20, Calls: 16, Window: 1 << 16}}
	return frame(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)})
}

const helloText = `{"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello","params":{"attempt":1,"limits":{"message":1048576,"calls":16,"window":65536}}}`

// badServer serves sum and tell, with small limits.
func badServer(t *testing.T) (url string) {
	t.Helper()
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
	typedrpc.Handle(mux, lab.Tell, func(context.Context, int) error { return nil })
	return serve(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxMessage: 64 << 10, Window: 4 << 10}})
}

// stillServes shows that another client is served.
func stillServes(t *testing.T, url string) {
	t.Helper()
	is := is.New(t)
	client, err := typedrpc.Dial(t.Context(), url, nil)
	is.NoErr(err)
	defer client.Close()
	r, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{A: 1, B: 2})
	is.NoErr(err)
	is.Equal(r.Sum, 3)
}

const (
	callHeader   = byte(wire.Call) | 0x40 | 0x80 // FROM_CALLER, COUNTED
	notifyHeader = byte(wire.Notify) | 0x80
	resultHeader = byte(wire.Result) | 0x80
)

func TestBadInput_binary(t *testing.T) {
	url := badServer(t)
	call := func(id uint64) []byte {
		return frame(wire.Frame{Type: wire.Call, ID: id, Method: "math.sum", Payload: []byte(`{}`)})
	}
	manyKeys := []byte{1, 0, 0, 1, 'm', 0xff, 0xff, 0xff, 0xff, 0x0f} // metadata of 2^32-1 entries
	bigMeta := append([]byte{1, 0, 0, 1, 'm', 1, 1, 'k', 0x80, 0x80, 0x02}, make([]byte, 32<<10)...)
	longName := append([]byte{1, 0, 0, 0x80, 0x02}, bytes.Repeat([]byte("m"), 256)...)
	for _, tt := range []struct {
		name   string
		raw    bool // without a handshake before it
		frames []byte
		code   int
	}{
		{name: "no HELLO", raw: true, frames: call(1), code: 4400},
		{name: "empty message first", raw: true, frames: []byte{}, code: 4400},
		{name: "garbage first", raw: true, frames: []byte("GET / HTTP/1.1"), code: 4400},
		{name: "HELLO and more in one message", raw: true, frames: append(helloFrame(), call(1)...), code: 4400},
		{name: "HELLO that is no object", raw: true, frames: rawFrame(byte(wire.Hello), []byte(`[1]`)...), code: 4400},
		{name: "HELLO with a member twice", raw: true, frames: rawFrame(byte(wire.Hello), []byte(`{"attempt":1,"attempt":2}`)...), code: 4400},
		{name: "WELCOME from a client", raw: true, frames: rawFrame(byte(wire.Welcome), []byte(`{}`)...), code: 4400},
		{name: "too much before WELCOME", raw: true, frames: rawFrame(byte(wire.Hello), bytes.Repeat([]byte(" "), 80<<10)...), code: 1009},
		{name: "second HELLO", frames: helloFrame(), code: 4400},
		{name: "WELCOME after the handshake", frames: rawFrame(byte(wire.Welcome), []byte(`{}`)...), code: 4400},
		{name: "empty message", frames: []byte{}, code: 4400},
		{name: "half a header", frames: []byte{callHeader, 1}, code: 4400},
		{name: "length beyond the message", frames: []byte{callHeader, 200, 0, 0, 1}, code: 4400},
		{name: "length of 16 MiB", frames: []byte{callHeader, 255, 255, 255, 1}, code: 4400},
		{name: "trailing bytes", frames: append(call(1), 7), code: 4400},
		{name: "type 0", frames: rawFrame(0), code: 4400},
		{name: "CALL without body", frames: rawFrame(callHeader), code: 4400},
		{name: "CALL with id 0", frames: rawFrame(callHeader, 0, 0, 0, 1, 'm', 0), code: 4400},
		{name: "CALL that is not counted", frames: rawFrame(byte(wire.Call)|0x40, 1, 0, 0, 1, 'm', 0), code: 4400},
		{name: "CALL not from the caller", frames: rawFrame(byte(wire.Call)|0x80, 1, 0, 0, 1, 'm', 0), code: 4400},
		{name: "CALL with unknown flags", frames: rawFrame(callHeader, 1, 0xf0, 0, 1, 'm', 0), code: 4400},
		{name: "CALL without a name", frames: rawFrame(callHeader, 1, 0, 0, 0, 0), code: 4400},
		{name: "CALL with a long name", frames: rawFrame(callHeader, longName...), code: 4400},
		{name: "CALL with a name that is not UTF-8", frames: rawFrame(callHeader, 1, 0, 0, 1, 0xff, 0), code: 4400},
		{name: "CALL with an endless varint", frames: rawFrame(callHeader, bytes.Repeat([]byte{0xff}, 20)...), code: 4400},
		{name: "CALL with metadata of 2^32 entries", frames: rawFrame(callHeader, manyKeys...), code: 4400},
		{name: "CALL with too much metadata", frames: rawFrame(callHeader, bigMeta...), code: 4400},
		{name: "CALL with a metadata key twice", frames: rawFrame(callHeader, 1, 0, 0, 1, 'm', 2, 1, 'k', 0, 1, 'k', 0), code: 4400},
		{name: "CALL in fragments", frames: rawFrame(callHeader|0x20, 1, 0, 0, 1, 'm', 0), code: 4400},
		{name: "CHUNK", frames: frame(wire.Frame{Type: wire.Chunk, ID: 1, Payload: []byte("x")}), code: 4400},
		{name: "ids going back", frames: append(call(2), call(1)...), code: 4400},
		{name: "id twice", frames: append(call(1), call(1)...), code: 4400},
		{name: "ACK beyond what was sent", frames: frame(wire.Frame{Type: wire.Ack, Position: 1 << 60}), code: 4400},
		{name: "PING beyond what was sent", frames: frame(wire.Frame{Type: wire.Ping, Position: 5}), code: 4400},
		{name: "CREDIT for what was not sent", frames: frame(wire.Frame{Type: wire.Credit, Items: 1}), code: 4400},
		{name: "CREDIT of nothing", frames: rawFrame(byte(wire.Credit)|0x80, 0, 0, 0), code: 4400},
		{name: "CREDIT with trailing bytes", frames: rawFrame(byte(wire.Credit)|0x80, 1, 1, 0, 0), code: 4400},
		{name: "NOTIFY without a name", frames: rawFrame(notifyHeader, 0, 0), code: 4400},
		{name: "GOAWAY that is no object", frames: rawFrame(byte(wire.GoAway), '1'), code: 4400},
		{name: "RESULT with id 0", frames: rawFrame(resultHeader, 0, 0), code: 4400},
		{name: "message over the limit", frames: frame(wire.Frame{Type: wire.Notify, Method: "tell", Payload: make([]byte, 1<<20)}), code: 1009},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			p := dialRaw(t, url, "typedrpc.v1.json")
			if !tt.raw {
				p.sendBinary(helloFrame())
				p.receive()
			}
			p.sendBinary(tt.frames)
			code, reason := p.closeCode()
			is.Equal(code, tt.code)
			is.True(reason != "")
			stillServes(t, url)
		})
	}
}

// A peer of a later version may send what this one does not know.
func TestBadInput_unknownKinds(t *testing.T) {
	is := is.New(t)
	p := dialRaw(t, badServer(t), "typedrpc.v1.json")
	p.sendBinary(helloFrame())
	p.receive()
	p.sendBinary(rawFrame(31, []byte("whatever")...))     // not counted
	p.sendBinary(rawFrame(30|0x80, []byte("counted")...)) // counted
	p.sendBinary(frame(wire.Frame{Type: wire.Ping}))
	var f wire.Frame
	_, err := wire.DecodeBinary([]byte(p.receive()), &f, nil)
	is.NoErr(err)
	is.Equal(f.Type, wire.Ack)
	is.Equal(f.Position, uint64(1))
}

// An ACK that goes back after one that was right.
func TestBadInput_ackGoesBack(t *testing.T) {
	is := is.New(t)
	p := dialRaw(t, badServer(t), "typedrpc.v1.json")
	p.sendBinary(helloFrame())
	p.receive()
	p.sendBinary(frame(wire.Frame{Type: wire.Call, ID: 1, Method: "math.sum", Payload: []byte(`{}`)}))
	p.receive() // one counted frame
	p.sendBinary(frame(wire.Frame{Type: wire.Ack, Position: 1}))
	p.sendBinary(frame(wire.Frame{Type: wire.Ack, Position: 0}))
	code, _ := p.closeCode()
	is.Equal(code, 4400)
}

func TestBadInput_mixedMessages(t *testing.T) {
	url := badServer(t)
	for _, tt := range []struct {
		name     string
		protocol string
		send     func(p rawPeer)
	}{
		{"text in binary", "typedrpc.v1.json", func(p rawPeer) { p.send(helloText) }},
		{"binary in text", "typedrpc.jsonrpc", func(p rawPeer) { p.sendBinary(helloFrame()) }},
		{"JSON as a binary message", "typedrpc.jsonrpc", func(p rawPeer) { p.sendBinary([]byte(helloText)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			var offers []string
			if tt.protocol != "" {
				offers = []string{tt.protocol}
			}
			p := dialRaw(t, url, offers...)
			tt.send(p)
			code, _ := p.closeCode()
			is.Equal(code, 4400)
			stillServes(t, url)
		})
	}
}

// What cannot be read from a peer with hello ends its link.
func TestBadInput_jsonWithHello(t *testing.T) {
	url := badServer(t)
	for _, tt := range []struct {
		name string
		raw  bool
		text string
	}{
		{"no hello", true, `{"jsonrpc":"2.0","id":1,"method":"math.sum"}`},
		{"hello in an array", true, `[` + helloText + `]`},
		{"hello with another id", true, strings.Replace(helloText, `"id":"rpc.hello"`, `"id":1`, 1)},
		{"no JSON before hello", true, `hello?`},
		{"second hello", false, helloText},
		{"no JSON", false, `{"jsonrpc":"2.0","id":1,"method":"math.sum"`},
		{"nothing", false, ``},
		{"scalar", false, `7`},
		{"empty array", false, `[]`},
		{"array of scalars", false, `[1]`},
		{"byte-order mark", false, "\ufeff" + `{"jsonrpc":"2.0","id":1,"method":"math.sum"}`},
		{"invalid UTF-8", false, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}"},
		{"case variant", false, `{"jsonrpc":"2.0","ID":1,"Method":"math.sum"}`},
		{"duplicate member", false, `{"jsonrpc":"2.0","id":1,"id":1,"method":"math.sum"}`},
		{"null id", false, `{"jsonrpc":"2.0","id":null,"method":"math.sum"}`},
		{"string id", false, `{"jsonrpc":"2.0","id":"1","method":"math.sum"}`},
		{"id 0", false, `{"jsonrpc":"2.0","id":0,"method":"math.sum"}`},
		{"infinite id", false, `{"jsonrpc":"2.0","id":1e400,"method":"math.sum"}`},
		{"unsafe id", false, `{"jsonrpc":"2.0","id":9007199254740993,"method":"math.sum"}`},
		{"ids going back", false, `[{"jsonrpc":"2.0","id":2,"method":"math.sum"},{"jsonrpc":"2.0","id":1,"method":"math.sum"}]`},
		{"ack beyond what was sent", false, `{"jsonrpc":"2.0","method":"rpc.ack","params":{"position":99}}`},
		{"ack without position", false, `{"jsonrpc":"2.0","method":"rpc.ack","params":{}}`},
		{"ack with an id", false, `{"jsonrpc":"2.0","id":1,"method":"rpc.ack","params":{"position":0}}`},
		{"credit for what was not sent", false, `{"jsonrpc":"2.0","method":"rpc.credit","params":{"items":1}}`},
		{"credit of nothing", false, `{"jsonrpc":"2.0","method":"rpc.credit","params":{"items":0}}`},
		{"method name too long", false, `{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("m", 256) + `"}`},
		{"too much metadata", false, `{"jsonrpc":"2.0","id":1,"method":"math.sum","meta":{"k":"` + strings.Repeat("v", 17<<10) + `"}}`},
		{"deep", false, `{"jsonrpc":"2.0","id":1,"method":"math.sum","params":` + nested(10_000) + `}`},
		{"batch of thousands", false, `[` + strings.Repeat(`1,`, 5000) + `1]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			p := dialRaw(t, url, "typedrpc.jsonrpc")
			if !tt.raw {
				p.send(helloText)
				p.receive()
			}
			p.send(tt.text)
			code, reason := p.closeCode()
			is.Equal(code, 4400)
			is.True(reason != "")
			stillServes(t, url)
		})
	}
}

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// A plain peer gets the specification's errors, and its link lives on.
func TestBadInput_plain(t *testing.T) {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
	url := serve(t, &typedrpc.Server{Mux: mux})
	for _, tt := range []struct {
		name, text string
		code, id   string
	}{
		{"nothing", ``, `-32700`, `null`},
		{"garbage", `hello?`, `-32700`, `null`},
		{"byte-order mark", "\ufeff" + `{"jsonrpc":"2.0","id":1,"method":"math.sum"}`, `-32700`, `null`},
		{"cut short, id known", `{"jsonrpc":"2.0","id":1,"method":"math.sum","params":[`, `-32700`, `1`},
		{"deep params", `{"jsonrpc":"2.0","id":1,"method":"math.sum","params":` + nested(100_000) + `}`, `-32700`, `1`},
		{"deep elsewhere", nested(100_000), `-32700`, `null`},
		{"deep objects", strings.Repeat(`{"a":`, 100_000), `-32700`, `null`},
		{"control character", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}", `-32700`, `null`},
		{"two values", `{"jsonrpc":"2.0","id":1,"method":"math.sum"}{}`, `-32700`, `1`},
		{"NaN", `{"jsonrpc":"2.0","id":NaN,"method":"math.sum"}`, `-32700`, `null`},
		{"batch of a million", `[` + strings.Repeat(`1,`, 1_000_000) + `1]`, `-32600`, `null`},
		{"thousands of members", `{"jsonrpc":"2.0","id":1,"method":"math.sum"` + strings.Repeat(`,"a":1`, 5000) + `}`, `-32600`, `1`},
		{"metadata over the limit", `{"jsonrpc":"2.0","id":1,"method":"math.sum","meta":{"k":"` + strings.Repeat("v", 17<<10) + `"}}`, `-32600`, `1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			p := dialRaw(t, url)
			p.send(tt.text)
			is.Equal(anyMessage(t, p.receive()), `{"error":{"code":`+tt.code+`,"message":"…"},"id":`+tt.id+`,"jsonrpc":"2.0"}`)
			p.send(`{"jsonrpc":"2.0","id":5,"method":"math.sum","params":{"A":1,"B":2}}`)
			is.Equal(p.receive(), `{"jsonrpc":"2.0","id":5,"result":{"Sum":3}}`)
		})
	}
}

func TestBadInput_plainInvalidUTF8(t *testing.T) {
	is := is.New(t)
	_, text := post(t, badServer(t), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}")
	is.Equal(anyMessage(t, text), `{"error":{"code":-32700,"message":"…"},"id":null,"jsonrpc":"2.0"}`)
}

func TestBadInput_plainOverLimit(t *testing.T) {
	is := is.New(t)
	url := badServer(t)
	p := dialRaw(t, url)
	p.send(`{"jsonrpc":"2.0","id":1,"method":"math.sum","params":["` + strings.Repeat("x", 100<<10) + `"]}`)
	is.Equal(anyMessage(t, p.receive()), `{"error":{"code":8,"message":"…"},"id":1,"jsonrpc":"2.0"}`) // fits the link, not the limit
	p.send(`{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("x", 1<<20) + `"}`)
	code, _ := p.closeCode()
	is.Equal(code, 1009)
	stillServes(t, url)
}

// Notifications beyond the window, which a typedrpc peer never sends.
func TestBadInput_notificationFlood(t *testing.T) {
	is := is.New(t)
	release := make(chan struct{})
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
	typedrpc.Handle(mux, lab.Tell, func(context.Context, int) error { <-release; return nil })
	url := serve(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxMessage: 1 << 10, Window: 1 << 10}})
	p := dialRaw(t, url, "typedrpc.v1.json")
	p.sendBinary(helloFrame())
	p.receive()
	for range 100 {
		p.sendBinary(frame(wire.Frame{Type: wire.Notify, Method: "tell", Payload: []byte(`1`)}))
	}
	code, _ := p.closeCode()
	is.Equal(code, 4429)
	close(release)
	stillServes(t, url)
}

// Calls above the announced limit are refused, and a flood of them ends the
// link. What is refused never reaches a handler.
func TestBadInput_callFlood(t *testing.T) {
	is := is.New(t)
	h := lab.NewHanging()
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Stay, h.Handle)
	typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
	url := serve(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxCalls: 4}})
	p := dialRaw(t, url, "typedrpc.v1.json")
	p.sendBinary(helloFrame())
	p.receive()
	var flood []byte
	for id := range uint64(20_000) {
		flood = append(flood, frame(wire.Frame{Type: wire.Call, ID: id + 1, Method: "hang"})...)
	}
	p.sendBinary(flood)
	code, _ := p.closeCode()
	is.Equal(code, 4429)
	for range 4 {
		<-h.Ended
	}
	is.Equal(len(h.Begun), 4)
	stillServes(t, url)
}

// Frames for calls that never were.
func TestBadInput_strayFlood(t *testing.T) {
	for name, f := range map[string]wire.Frame{
		"RESULT": {Type: wire.Result, ID: 1 << 40},
		"CANCEL": {Type: wire.Cancel, ID: 1 << 40},
		"ITEM":   {Type: wire.Item, ID: 1 << 40},
		"END":    {Type: wire.End, ID: 1 << 40},
		"CREDIT": {Type: wire.Credit, ID: 1 << 40, Items: 1},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			url := badServer(t)
			p := dialRaw(t, url, "typedrpc.v1.json")
			p.sendBinary(helloFrame())
			p.receive()
			p.sendBinary(frame(f)) // one is nothing
			p.sendBinary(frame(wire.Frame{Type: wire.Call, ID: 1, Method: "math.sum", Payload: []byte(`{}`)}))
			p.receive()
			for range 10 {
				p.sendBinary(bytes.Repeat(frame(f), 1000))
			}
			code, _ := p.closeCode()
			is.Equal(code, 4429)
			stillServes(t, url)
		})
	}
}

// A typedrpc client that calls a stream's method is told that there is none.
func TestBadInput_streamCall(t *testing.T) {
	is := is.New(t)
	p := dialRaw(t, badServer(t), "typedrpc.v1.json")
	p.sendBinary(helloFrame())
	p.receive()
	p.sendBinary(frame(wire.Frame{Type: wire.Call, ID: 1, Method: "math.sum", Kind: wire.ServerStream, Payload: []byte(`{}`)}))
	var f wire.Frame
	_, err := wire.DecodeBinary([]byte(p.receive()), &f, nil)
	is.NoErr(err)
	is.Equal(f.Type, wire.Fail)
	is.Equal(typedrpc.Code(f.Code), typedrpc.Unimplemented)
	is.True(f.Flags&wire.NotRun != 0)
}

// Deep payloads of the binary dialect are their handlers' errors.
func TestBadInput_deepPayload(t *testing.T) {
	is := is.New(t)
	passing := typedrpc.NewMethod[typedrpc.Raw, struct{}]("nest")
	typed := typedrpc.NewMethod[any, struct{}]("nest")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, typed, func(context.Context, any) (struct{}, error) { return struct{}{}, nil })
	client, _ := lab.Over{Socket: true}.Connect(t, &typedrpc.Server{Mux: mux}, nil)
	_, err := typedrpc.Call(t.Context(), client, passing, typedrpc.Raw(nested(9_999)))
	is.NoErr(err)
	_, err = typedrpc.Call(t.Context(), client, passing, typedrpc.Raw(nested(100_000)))
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	is.Equal(client.State(), typedrpc.StateConnected)
}

// JSON that nests deeper than the peer reads is refused here.
func TestLimits_depth(t *testing.T) {
	is := is.New(t)
	nest := typedrpc.NewMethod[typedrpc.Raw, int]("nest")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, nest, func(_ context.Context, r typedrpc.Raw) (int, error) { return len(r), nil })
	client, _ := lab.Over{Dialect: typedrpc.Text}.Connect(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxDepth: 500}}, nil)
	n, err := typedrpc.Call(t.Context(), client, nest, typedrpc.Raw(nested(500)))
	is.NoErr(err) // the server said that it reads so much
	is.Equal(n, 1000)
	_, err = typedrpc.Call(t.Context(), client, nest, typedrpc.Raw(nested(501)))
	is.True(errors.Is(err, typedrpc.InvalidArgument))
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
}

// A message that nests too deep once ended the link for good.
func TestLimits_depthFailsTheCall(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Text, typedrpc.JSONRPC} {
		is := is.New(t)
		grow := typedrpc.NewMethod[int, typedrpc.Raw]("grow")
		note := typedrpc.NewNotification[typedrpc.Raw]("note")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, grow, func(_ context.Context, n int) (typedrpc.Raw, error) { return typedrpc.Raw(nested(n)), nil })
		var log lab.Logs
		client, _ := lab.Over{Dialect: d}.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, nil)
		_, err := typedrpc.Call(t.Context(), client, grow, 100)
		is.True(errors.Is(err, typedrpc.Internal))
		is.True(log.Has("too deep"))
		is.True(errors.Is(typedrpc.Notify(t.Context(), client, note, typedrpc.Raw(nested(100))), typedrpc.InvalidArgument))
		r, err := typedrpc.Call(t.Context(), client, grow, 60)
		is.NoErr(err)
		is.Equal(len(r), 120)
	}
}

// Whatever a peer sends, what it makes the server hold is bounded.
func TestBadInput_memory(t *testing.T) {
	is := is.New(t)
	url := badServer(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 50 {
		p := dialRaw(t, url)
		p.send(`[` + strings.Repeat(`1,`, 60_000) + `1]`)
		p.send(nested(50_000))
		p.send(`{"jsonrpc":"2.0","id":1,"method":"math.sum"` + strings.Repeat(`,"a":1`, 15_000) + `}`)
		p.receive()
		p.receive()
		p.receive()
		q := dialRaw(t, url, "typedrpc.v1.json")
		q.sendBinary([]byte{byte(wire.Hello), 255, 255, 255, '{'}) // promises 16 MiB
		q.closeCode()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapInuse) - int64(before.HeapInuse)
	is.True(held < 64<<20) // 100 connections
	spent := after.TotalAlloc - before.TotalAlloc
	is.True(spent < 512<<20) // some 17 MB were sent
	stillServes(t, url)
}

// A peer that announces no limits has the protocol's.
func TestHello_withoutLimits(t *testing.T) {
	is := is.New(t)
	p := dialRaw(t, badServer(t), "typedrpc.jsonrpc")
	p.send(`{"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello","params":{}}`)
	is.True(strings.Contains(p.receive(), `"token":"`))
	p.send(`{"jsonrpc":"2.0","id":1,"method":"math.sum","params":{"A":2}}`)
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"result":{"Sum":2}}`)
}
