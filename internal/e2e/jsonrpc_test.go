package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// The examples of section 7 of the JSON-RPC 2.0 specification. No answer is "".
var specExamples = []struct{ name, request, answer, notified string }{
	{name: "positional", request: `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}`, answer: `{"jsonrpc": "2.0", "result": 19, "id": 1}`},
	{name: "positional, the other way", request: `{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}`, answer: `{"jsonrpc": "2.0", "result": -19, "id": 2}`},
	{name: "named", request: `{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}`, answer: `{"jsonrpc": "2.0", "result": 19, "id": 3}`},
	{name: "named, the other way", request: `{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}`, answer: `{"jsonrpc": "2.0", "result": 19, "id": 4}`},
	{name: "notification", request: `{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}`, notified: `update[1 2 3 4 5]`},
	{name: "notification of an unknown method", request: `{"jsonrpc": "2.0", "method": "foobar"}`},
	{name: "non-existent method", request: `{"jsonrpc": "2.0", "method": "foobar", "id": "1"}`, answer: `{"jsonrpc": "2.0", "error": {"code": -32601, "message": "…"}, "id": "1"}`},
	{name: "invalid JSON", request: `{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`, answer: `{"jsonrpc": "2.0", "error": {"code": -32700, "message": "…"}, "id": null}`},
	{name: "invalid request object", request: `{"jsonrpc": "2.0", "method": 1, "params": "bar"}`, answer: `{"jsonrpc": "2.0", "error": {"code": -32600, "message": "…"}, "id": null}`},
	{name: "batch, invalid JSON", request: `[
		{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
		{"jsonrpc": "2.0", "method"
	]`, answer: `{"jsonrpc": "2.0", "error": {"code": -32700, "message": "…"}, "id": null}`},
	{name: "empty array", request: `[]`, answer: `{"jsonrpc": "2.0", "error": {"code": -32600, "message": "…"}, "id": null}`},
	{name: "invalid batch, not empty", request: `[1]`, answer: `[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "…"}, "id": null}]`},
	{name: "invalid batch", request: `[1,2,3]`, answer: `[
		{"jsonrpc": "2.0", "error": {"code": -32600, "message": "…"}, "id": null},
		{"jsonrpc": "2.0", "error": {"code": -32600, "message": "…"}, "id": null},
		{"jsonrpc": "2.0", "error": {"code": -32600, "message": "…"}, "id": null}
	]`},
	{name: "batch", request: `[
		{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
		{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
		{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
		{"foo": "boo"},
		{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
		{"jsonrpc": "2.0", "method": "get_data", "id": "9"}
	]`, answer: `[
		{"jsonrpc": "2.0", "result": 7, "id": "1"},
		{"jsonrpc": "2.0", "result": 19, "id": "2"},
		{"jsonrpc": "2.0", "error": {"code": -32600, "message": "…"}, "id": null},
		{"jsonrpc": "2.0", "error": {"code": -32601, "message": "…"}, "id": "5"},
		{"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
	]`, notified: `notify_hello[7]`},
	{name: "batch of notifications", request: `[
		{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
		{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
	]`, notified: `notify_sum[1 2 4]`},
}

func TestJSONRPC_specificationOverWebSocket(t *testing.T) {
	url, notified := specServer(t)
	for _, offers := range [][]string{nil, {"jsonrpc"}, {"unheard-of", "jsonrpc-2.0"}} {
		p := dialRaw(t, url, offers...)
		for _, tt := range specExamples {
			t.Run(fmt.Sprint(tt.name, offers), func(t *testing.T) {
				is := is.New(t)
				p := rawPeer{t, p.c}
				p.send(tt.request)
				// A marker behind it: what comes before is the answer, if any.
				const marker, marked = `{"jsonrpc":"2.0","method":"sum","params":[7],"id":"marker"}`, `{"jsonrpc":"2.0","id":"marker","result":7}`
				if tt.answer != "" {
					is.Equal(anyMessage(t, p.receive()), canonical(t, tt.answer))
				}
				p.send(marker)
				is.Equal(p.receive(), marked)
				for tt.notified != "" {
					if <-notified == tt.notified {
						break
					}
				}
			})
		}
	}
}

func TestJSONRPC_specificationOverPOST(t *testing.T) {
	url, notified := specServer(t)
	for _, tt := range specExamples {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			status, text := post(t, url, tt.request)
			if tt.answer == "" {
				is.Equal(status, http.StatusNoContent)
				is.Equal(text, "")
			} else {
				is.Equal(status, http.StatusOK)
				is.Equal(anyMessage(t, text), canonical(t, tt.answer))
			}
			// A POST is answered when its notifications have been handled.
			if tt.notified != "" {
				is.Equal(<-notified, tt.notified)
			}
			for len(notified) > 0 {
				<-notified
			}
		})
	}
}

func TestJSONRPC_idsEchoed(t *testing.T) {
	url, _ := specServer(t)
	p := dialRaw(t, url)
	for _, id := range []string{
		`1`, `-1`, `0`, `1.5`, `1.0`, `1e2`, `-0.0`, `123456789012345678901234567890`, `"x"`, `""`, `"a\u0041\/\n"`, `"ü🎈"`,
		`"` + strings.Repeat("i", 200) + `"`, `null`, // discouraged, and legal
	} {
		is := is.New(t)
		p.send(`{"jsonrpc":"2.0","method":"sum","params":[1],"id":` + id + `}`)
		is.Equal(p.receive(), `{"jsonrpc":"2.0","id":`+id+`,"result":1}`) // byte for byte
		_, text := post(t, url, `{"jsonrpc":"2.0","method":"sum","params":[1],"id":`+id+`}`)
		is.Equal(text, `{"jsonrpc":"2.0","id":`+id+`,"result":1}`)
		batch := `[{"jsonrpc":"2.0","method":"sum","params":[1],"id":` + id + `},{"jsonrpc":"2.0","method":"nobody","id":` + id + `}]`
		want := canonical(t, `[{"jsonrpc":"2.0","id":`+id+`,"result":1},{"error":{"code":-32601,"message":"…"},"id":`+id+`,"jsonrpc":"2.0"}]`)
		p.send(batch)
		is.Equal(anyMessage(t, p.receive()), anyMessage(t, want))
		_, text = post(t, url, batch)
		is.Equal(anyMessage(t, text), anyMessage(t, want))
	}
}

func TestJSONRPC_idsRepeat(t *testing.T) {
	is := is.New(t)
	url, _ := specServer(t)
	p := dialRaw(t, url)
	p.send(`[{"jsonrpc":"2.0","method":"sum","params":[1],"id":7},{"jsonrpc":"2.0","method":"sum","params":[2],"id":7}]`)
	is.Equal(p.receive(), `[{"jsonrpc":"2.0","id":7,"result":1},{"jsonrpc":"2.0","id":7,"result":2}]`)
	p.send(`{"jsonrpc":"2.0","method":"sum","params":[3],"id":7}`)
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":7,"result":3}`)
}

func TestJSONRPC_cancelRequest(t *testing.T) {
	for cancel, code := range map[string]string{
		`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":"job"}}`: `-32800`, // what editors look for
		`{"jsonrpc":"2.0","method":"rpc.cancel","params":{"id":"job"}}`:      `1`,
	} {
		is := is.New(t)
		h := lab.NewHanging()
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Stay, h.Handle)
		p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux}))
		p.send(`{"jsonrpc":"2.0","method":"hang","id":"other"}`)
		<-h.Begun
		p.send(`{"jsonrpc":"2.0","method":"hang","id":"job"}`)
		<-h.Begun
		p.send(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":"nobody"}}`) // is nothing
		p.send(cancel)
		is.Equal(<-h.Ended, context.Canceled)
		is.Equal(anyMessage(t, p.receive()), `{"error":{"code":`+code+`,"message":"…"},"id":"job","jsonrpc":"2.0"}`)
		is.Equal(len(h.Ended), 0) // the other one runs on
	}
}

// Of two requests with one id the newest is meant.
func TestJSONRPC_cancelHitsTheNewest(t *testing.T) {
	is := is.New(t)
	begun, ended := make(chan string, 2), make(chan string, 2)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, s string) (string, error) {
		begun <- s
		<-ctx.Done()
		ended <- s
		return "", ctx.Err()
	})
	p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux}))
	for _, s := range []string{"old", "new"} {
		p.send(`{"jsonrpc":"2.0","method":"text.shout","params":["` + s + `"],"id":1}`)
		is.Equal(<-begun, s)
	}
	p.send(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}`)
	is.Equal(<-ended, "new")
	p.send(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}`)
	is.Equal(<-ended, "old")
}

func TestJSONRPC_params(t *testing.T) {
	type person struct {
		Name string `json:"name"`
		Age  int    `json:"age"`
	}
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, typedrpc.NewMethod[person, person]("person", typedrpc.Params("name", "age")), func(_ context.Context, p person) (person, error) { return p, nil })
	typedrpc.Handle(mux, typedrpc.NewMethod[person, person]("bare"), func(_ context.Context, p person) (person, error) { return p, nil })
	typedrpc.Handle(mux, typedrpc.NewMethod[string, string]("text"), func(_ context.Context, s string) (string, error) { return s, nil })
	typedrpc.Handle(mux, typedrpc.NewMethod[[]string, int]("list"), func(_ context.Context, s []string) (int, error) { return len(s), nil })
	typedrpc.Handle(mux, typedrpc.NewMethod[*person, bool]("maybe"), func(_ context.Context, p *person) (bool, error) { return p != nil, nil })
	typedrpc.Handle(mux, typedrpc.NewMethod[typedrpc.Raw, typedrpc.Raw]("raw"), func(_ context.Context, r typedrpc.Raw) (typedrpc.Raw, error) { return r, nil })
	typedrpc.Handle(mux, typedrpc.NewMethod[any, any]("any"), func(_ context.Context, v any) (any, error) { return v, nil })
	typedrpc.Handle(mux, typedrpc.NewMethod[struct{}, int]("empty"), func(context.Context, struct{}) (int, error) { return 1, nil })
	p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux}))
	for _, tt := range []struct{ call, answer string }{
		{`"method":"person","params":{"name":"Ann","age":3}`, `"result":{"name":"Ann","age":3}`},
		{`"method":"person","params":["Ann",3]`, `"result":{"name":"Ann","age":3}`},
		{`"method":"person","params":["Ann"]`, `"result":{"name":"Ann","age":0}`}, // the last ones are left out
		{`"method":"person","params":[]`, `"result":{"name":"","age":0}`},
		{`"method":"person","params":["Ann",3,4]`, `"error":{"code":-32602,"message":"cannot decode the request: params has more than 2 elements"}`},
		{`"method":"person","params":[3,"Ann"]`, `"error":{"code":-32602,"message":"cannot decode the request: name: number does not fit"}`},
		{`"method":"person","params":null`, `"result":{"name":"","age":0}`},
		{`"method":"person"`, `"result":{"name":"","age":0}`},
		{`"method":"person","params":"Ann"`, `"error":{"code":-32600,"message":"invalid request: params are no object or array"}`},
		{`"method":"bare","params":[{"name":"Ann"}]`, `"result":{"name":"Ann","age":0}`}, // the only element
		{`"method":"bare","params":[{"name":"Ann"},1]`, `"error":{"code":-32602,"message":"cannot decode the request: array does not fit"}`},
		{`"method":"text","params":["x"]`, `"result":"x"`},
		{`"method":"text","params":["x","y"]`, `"error":{"code":-32602,"message":"cannot decode the request: want a string, have an array"}`},
		{`"method":"text","params":{"x":"y"}`, `"error":{"code":-32602,"message":"cannot decode the request: want a string, have an object"}`},
		{`"method":"list","params":["x","y"]`, `"result":2`},
		{`"method":"list","params":[["x","y","z"]]`, `"result":3`},
		{`"method":"list","params":[]`, `"result":0`},
		{`"method":"maybe","params":null`, `"result":false`},
		{`"method":"maybe","params":[null]`, `"result":false`},
		{`"method":"maybe","params":{}`, `"result":true`},
		{`"method":"raw","params":["x", 1 ]`, `"result":["x", 1 ]`}, // untouched
		{`"method":"raw","params":["x"]`, `"result":["x"]`},
		{`"method":"any","params":["x"]`, `"result":["x"]`},
		{`"method":"any"`, `"result":null`},
		{`"method":"empty","params":{"what":"ever"}`, `"result":1`},
		{`"method":"empty"`, `"result":1`},
	} {
		t.Run(tt.call, func(t *testing.T) {
			is := is.New(t)
			p := rawPeer{t, p.c}
			p.send(`{"jsonrpc":"2.0","id":1,` + tt.call + `}`)
			is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,`+tt.answer+`}`)
		})
	}
}

// A plain peer may send a deadline and metadata, and never gets what it would
// not understand.
func TestJSONRPC_timeoutAndMeta(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, s string) (string, error) {
		r := typedrpc.RequestFrom(ctx)
		r.ReplyMetadata.Set("not", "for you")
		_, timed := ctx.Deadline()
		return fmt.Sprint(timed, r.Metadata["k"]), nil
	})
	h := lab.NewHanging()
	typedrpc.Handle(mux, lab.Stay, h.Handle)
	p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux}))
	p.send(`{"jsonrpc":"2.0","id":1,"method":"text.shout","params":["x"],"timeout":60000,"meta":{"k":"v"}}`)
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"result":"truev"}`)
	p.send(`{"jsonrpc":"2.0","id":1,"method":"hang","timeout":1}`)
	is.Equal(anyMessage(t, p.receive()), `{"error":{"code":4,"message":"…"},"id":1,"jsonrpc":"2.0"}`)
	is.Equal(<-h.Ended, context.DeadlineExceeded)
	for _, bad := range []string{`"timeout":-1`, `"timeout":"soon"`, `"meta":{"k":1}`, `"meta":[]`, `"meta":{"a":"1","a":"2"}`} {
		p.send(`{"jsonrpc":"2.0","id":"b","method":"text.shout","params":["x"],` + bad + `}`)
		is.Equal(anyMessage(t, p.receive()), `{"error":{"code":-32600,"message":"…"},"id":"b","jsonrpc":"2.0"}`)
	}
}

func TestJSONRPC_errorsOfHandlers(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) {
		switch n {
		case 1:
			return 0, lab.NoStock.Errorf(lab.Shortage{Left: 3, Hint: "h"}, "only %d left", 3)
		case 2:
			return 0, errors.New("secret")
		case 3:
			return 0, typedrpc.Errorf(1234, "custom \"%s\"", "text")
		case 4:
			return 0, &typedrpc.Error{Code: typedrpc.Unavailable, Message: "later", RetryAfter: 1}
		}
		panic("secret")
	})
	p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux}))
	for n, want := range map[int]string{
		1: `{"code":9,"message":"only 3 left","data":{"Left":3,"Hint":"h"},"fault":"shop.no-stock"}`,
		2: `{"code":-32603,"message":"internal error"}`,
		3: `{"code":1234,"message":"custom \"text\""}`,
		4: `{"code":14,"message":"later"}`,
		5: `{"code":-32603,"message":"internal error"}`,
	} {
		p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"ask","params":[%d]}`, n))
		is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"error":`+want+`}`)
	}
}

// The server calls a client that knows nothing but JSON-RPC.
func TestJSONRPC_serverCallsClient(t *testing.T) {
	is := is.New(t)
	conns := make(chan *typedrpc.Conn, 1)
	p := dialRaw(t, serve(t, &typedrpc.Server{OnConnect: func(c *typedrpc.Conn) { conns <- c }}))
	conn := <-conns
	for _, tt := range []struct {
		answer string
		code   typedrpc.Code
	}{
		{`"result":"HI"`, 0},
		{`"error":{"code":-32601,"message":"Method not found"}`, typedrpc.Unimplemented},
		{`"error":{"code":-32602,"message":"no","data":[1]}`, typedrpc.InvalidArgument},
		{`"error":{"code":-32000,"message":"server"}`, -32000},
		{`"result":{"not":"a string"}`, typedrpc.Internal},
	} {
		f := typedrpc.Go(t.Context(), conn, lab.Shout, "hi")
		var request struct {
			ID     json.RawMessage
			Method string
			Params []string
		}
		is.NoErr(json.Unmarshal([]byte(p.receive()), &request))
		is.Equal(request.Method, "text.shout")
		is.Equal(request.Params, []string{"hi"})
		p.send(`{"jsonrpc":"2.0","id":` + string(request.ID) + `,` + tt.answer + `}`)
		_, err := f.Await(t.Context())
		is.Equal(typedrpc.CodeOf(err), tt.code)
	}
	asked := typedrpc.Go(t.Context(), conn, lab.Shout, "hi")
	p.receive()
	p.send(`{"jsonrpc":"2.0","id":6,"error":{"code":-32001,"message":"none","data":{"Left":0,"Hint":"h"},"fault":"shop.no-stock"}}`)
	_, err := asked.Await(t.Context())
	s, ok := lab.NoStock.From(err)
	is.True(ok) // a stranger can say faults
	is.Equal(s.Hint, "h")

	is.NoErr(typedrpc.Notify(t.Context(), conn, lab.Tell, 4))
	is.Equal(p.receive(), `{"jsonrpc":"2.0","method":"tell","params":[4]}`)

	f := typedrpc.Go(t.Context(), conn, lab.Shout, "hi")
	p.receive()
	f.Cancel()
	is.True(strings.Contains(p.receive(), `"method":"$/cancelRequest"`))
}

// Answers to nothing, with odd ids, are nobody's: the connection goes on.
func TestJSONRPC_strayAnswers(t *testing.T) {
	is := is.New(t)
	url, _ := specServer(t)
	p := dialRaw(t, url)
	p.send(`{"jsonrpc":"2.0","id":77,"result":1}`)
	p.send(`{"jsonrpc":"2.0","id":"x","result":1}`)
	p.send(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}`)
	p.send(`{"jsonrpc":"2.0","method":"sum","params":[1],"id":1}`)
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"result":1}`)
}

// What rpc-websockets calls an event is a notification in another envelope.
func TestJSONRPC_events(t *testing.T) {
	is := is.New(t)
	url, notified := specServer(t)
	p := dialRaw(t, url)
	for range 2000 { // more than anybody may send of what is not understood
		p.send(`{"notification":"update","params":[1,2]}`)
		is.Equal(<-notified, "update[1 2]")
	}
	for _, text := range []string{
		`{"jsonrpc":"2.0","notification":"update","params":[1,2]}`,
		`[{"notification":"update","params":[1,2]}]`,
	} {
		p.send(text)
		is.Equal(<-notified, "update[1 2]")
		status, _ := post(t, url, text)
		is.Equal(status, http.StatusNoContent)
		is.Equal(<-notified, "update[1 2]")
	}
	p.send(`{"notification":"unknown","params":[]}`)
	p.send(`{"jsonrpc":"2.0","method":"sum","notification":"update","params":[1],"id":1}`) // as before
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"result":1}`)                           // and nothing was answered before
	for _, text := range []string{
		`{"notification":"update","params":[1,2],"id":1}`, `{"notification":7,"params":[1,2]}`, `{"notification":"update","params":"x"}`, `{"notification":""}`,
	} {
		p.send(text)
		is.Equal(anyMessage(t, p.receive()), `{"error":{"code":-32600,"message":"…"},"id":null,"jsonrpc":"2.0"}`)
	}
	is.Equal(len(notified), 0)
}

// So a client of ours, and a page's server, are told what they have subscribed to.
func TestJSONRPC_eventsBothWays(t *testing.T) {
	told := make(chan int, 1)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Tell, func(_ context.Context, n int) error { told <- n; return nil })
	on := typedrpc.NewMethod[[]string, map[string]string]("rpc.on")
	lab.Strangers(t, mux, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
		is := is.New(t)
		f := typedrpc.Go(t.Context(), c, on, []string{"tell"})
		is.Equal(s.Only(t), `{"jsonrpc":"2.0","id":1,"method":"rpc.on","params":["tell"]}`)
		s.Send(`{"jsonrpc":"2.0","result":{"tell":"ok"},"id":1}`)
		s.Send(`{"notification":"tell","params":[7]}`)
		got, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(got["tell"], "ok")
		is.Equal(<-told, 7)
		is.Equal(len(s.Got()), 0) // it is not answered
		is.Equal(log.Text(), "")
	})
}

func TestJSONRPC_invalidRequests(t *testing.T) {
	url, _ := specServer(t)
	p := dialRaw(t, url)
	for _, tt := range []struct{ name, request, id string }{
		{"no version", `{"method":"sum","id":1}`, `1`},
		{"version 1.0", `{"jsonrpc":"1.0","method":"sum","id":1}`, `1`},
		{"version as a number", `{"jsonrpc":2.0,"method":"sum","id":1}`, `1`},
		{"case variants", `{"JSONRPC":"2.0","Method":"sum","id":1}`, `null`}, // it may be an answer
		{"case variant of method", `{"jsonrpc":"2.0","Method":"sum","id":1}`, `null`},
		{"member twice", `{"jsonrpc":"2.0","method":"sum","method":"get_data","id":1}`, `1`},
		{"member twice, escaped", `{"jsonrpc":"2.0","method":"sum","meth\u006fd":"get_data","id":1}`, `1`},
		{"id twice", `{"jsonrpc":"2.0","method":"sum","id":1,"id":2}`, `null`},
		{"id an object", `{"jsonrpc":"2.0","method":"sum","id":{}}`, `null`},
		{"id a boolean", `{"jsonrpc":"2.0","method":"sum","id":true}`, `null`},
		{"id infinite", `{"jsonrpc":"2.0","method":"sum","params":[1],"id":1e400}`, `null`},
		{"id too long", `{"jsonrpc":"2.0","method":"sum","params":[1],"id":"` + strings.Repeat("x", 300) + `"}`, `null`},
		{"method empty", `{"jsonrpc":"2.0","method":"","id":1}`, `1`},
		{"method too long", `{"jsonrpc":"2.0","method":"` + strings.Repeat("m", 256) + `","id":1}`, `1`},
		{"method and result", `{"jsonrpc":"2.0","method":"sum","result":1,"id":1}`, `1`},
		{"nothing", `{}`, `null`},
		{"scalar", `1`, `null`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			want := `{"error":{"code":-32600,"message":"…"},"id":` + tt.id + `,"jsonrpc":"2.0"}`
			p := rawPeer{t, p.c}
			p.send(tt.request)
			is.Equal(anyMessage(t, p.receive()), want)
			status, text := post(t, url, tt.request)
			is.Equal(status, http.StatusOK)
			is.Equal(anyMessage(t, text), want)
		})
	}
}

// Of the names that others keep, only the cancels are kept from the fallback.
func TestJSONRPC_reservedNames(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	mux.HandleFallback(func(context.Context, *typedrpc.Request) (typedrpc.Raw, error) { return typedrpc.Raw(`"fallback"`), nil })
	p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux}))
	for _, name := range []string{"rpc.cancel", "$/cancelRequest"} {
		p.send(`{"jsonrpc":"2.0","method":"` + name + `","id":1}`)
		is.Equal(anyMessage(t, p.receive()), `{"error":{"code":-32601,"message":"…"},"id":1,"jsonrpc":"2.0"}`)
	}
	for _, name := range []string{"other", "rpc.hello", "rpc.ping", "rpc.item", "rpc.discover", "$/progress"} {
		p.send(`{"jsonrpc":"2.0","method":"` + name + `","id":1}`)
		is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"result":"fallback"}`)
	}
}

func TestJSONRPC_batchRunsConcurrently(t *testing.T) {
	is := is.New(t)
	first := make(chan struct{})
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) {
		if n == 1 {
			<-first // the second one lets the first go
		} else {
			close(first)
		}
		return n, nil
	})
	url := serve(t, &typedrpc.Server{Mux: mux})
	p := dialRaw(t, url)
	p.send(`[{"jsonrpc":"2.0","method":"ask","params":[1],"id":1},{"jsonrpc":"2.0","method":"ask","params":[2],"id":2}]`)
	is.Equal(p.receive(), `[{"jsonrpc":"2.0","id":1,"result":1},{"jsonrpc":"2.0","id":2,"result":2}]`) // in the order asked
}

func TestJSONRPC_batchOverInFlightLimit(t *testing.T) {
	is := is.New(t)
	release := make(chan struct{})
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { <-release; return n, nil })
	p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxCalls: 1}}))
	p.send(`[{"jsonrpc":"2.0","method":"ask","params":[1],"id":1},{"jsonrpc":"2.0","method":"ask","params":[2],"id":2}]`)
	p.send(`{"jsonrpc":"2.0","method":"ask","params":[3],"id":3}`)
	is.Equal(anyMessage(t, p.receive()), `{"error":{"code":8,"message":"…"},"id":3,"jsonrpc":"2.0"}`) // the batch was read
	close(release)
	is.Equal(anyMessage(t, p.receive()), canonical(t, `[{"jsonrpc":"2.0","id":1,"result":1},{"jsonrpc":"2.0","id":2,"error":{"code":8,"message":"…"}}]`))
}

func TestJSONRPC_batchAnswersTooLarge(t *testing.T) {
	is := is.New(t)
	grow := typedrpc.NewMethod[int, string]("grow")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, grow, func(_ context.Context, n int) (string, error) { return strings.Repeat("x", n), nil })
	p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxBuffered: 10_000}}))
	p.send(`[` + strings.Join(slices.Repeat([]string{`{"jsonrpc":"2.0","method":"grow","params":[4000],"id":1}`}, 4), ",") + `]`)
	answer := p.receive()
	is.Equal(strings.Count(answer, `"result":"xxx`), 2)
	is.Equal(strings.Count(answer, `"code":8`), 2) // those that did not fit any more
}

func TestJSONRPC_batchLimit(t *testing.T) {
	is := is.New(t)
	url, _ := specServer(t)
	p := dialRaw(t, url)
	one := `{"jsonrpc":"2.0","method":"sum","params":[1],"id":1}`
	p.send("[" + strings.Repeat(one+",", 1023) + one + "]")
	is.Equal(strings.Count(p.receive(), `"result":1`), 1024)
	p.send("[" + strings.Repeat(one+",", 1024) + one + "]")
	is.Equal(anyMessage(t, p.receive()), `{"error":{"code":-32600,"message":"…"},"id":null,"jsonrpc":"2.0"}`)
}

// The dialect with hello is JSON-RPC 2.0 too, and a person can follow it.
func TestJSONRPC_helloInTheOpen(t *testing.T) {
	is := is.New(t)
	url, _ := specServer(t)
	p := dialRaw(t, url, "typedrpc.jsonrpc")
	p.send(`{"jsonrpc":"2.0","id":"rpc.hello","method":"rpc.hello","params":{"attempt":1,"limits":{"message":1000,"calls":10,"window":1000}}}`)
	var welcome struct {
		ID     string
		Result struct {
			Token     string
			Resumed   bool
			Limits    map[string]int
			Keepalive int
		}
	}
	is.NoErr(json.Unmarshal([]byte(p.receive()), &welcome))
	is.Equal(welcome.ID, "rpc.hello")
	is.Equal(len(welcome.Result.Token), 32) // 128 bits
	is.Equal(welcome.Result.Limits, map[string]int{
		"message": 4 << 20, "calls": 1024, "window": 64 << 10, "budget": 8 << 20, "depth": 64,
	})
	is.Equal(welcome.Result.Keepalive, 20_000)
	p.send(`{"jsonrpc":"2.0","method":"rpc.ack","params":{"position":0}}`)
	p.send(`[{"jsonrpc":"2.0","id":1,"method":"sum","params":[1,2]},{"jsonrpc":"2.0","method":"rpc.ping","params":{"position":0}}]`)
	answers := p.receive()
	for !strings.Contains(answers, `"result":3`) || !strings.Contains(answers, `rpc.ack`) {
		answers += p.receive()
	}
	is.True(strings.Contains(answers, `"method":"rpc.ack","params":{"position":1}`)) // one frame was counted
	p.send(`{"jsonrpc":"2.0","id":2,"method":"nobody"}`)
	is.True(strings.Contains(p.receive(), `"notRun":true`))
}
