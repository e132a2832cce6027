package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var discover = typedrpc.NewMethod[struct{}, typedrpc.Raw]("rpc.discover")

// asks are the ways in which rpc.discover can be asked for, by a user.
func asks(srv *typedrpc.Server) map[string]func(t *testing.T, user string) (string, error) {
	over := func(d typedrpc.Dialect) func(*testing.T, string) (string, error) {
		return func(t *testing.T, user string) (string, error) {
			conn, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, Header: http.Header{"X-User": {user}}})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			doc, err := typedrpc.Call(t.Context(), conn, discover, struct{}{})
			return string(doc), err
		}
	}
	return map[string]func(*testing.T, string) (string, error){
		"binary": over(typedrpc.Binary), "text": over(typedrpc.Text), "json-rpc": over(typedrpc.JSONRPC),
		"post": func(t *testing.T, user string) (string, error) {
			r := httptest.NewRequest("POST", "/", strings.NewReader(`{"jsonrpc":"2.0","method":"rpc.discover","id":1}`))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-User", user)
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, r)
			var answer struct {
				Result json.RawMessage
				Error  *struct {
					Code    int
					Message string
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatalf("%v: %s", err, w.Body)
			}
			if e := answer.Error; e != nil {
				code := map[int]typedrpc.Code{-32601: typedrpc.Unimplemented, -32603: typedrpc.Internal}[e.Code]
				if code == 0 {
					code = typedrpc.Code(e.Code)
				}
				return "", typedrpc.Errorf(code, "%s", e.Message)
			}
			return string(answer.Result), nil
		},
	}
}

var bySubject = typedrpc.NewSignIn[struct{}, struct{}]().Verify(func(_ context.Context, r *http.Request, _ *struct{}) (typedrpc.Identity, struct{}, error) {
	return typedrpc.Identity{Subject: r.Header.Get("X-User")}, struct{}{}, nil
})

// TestDescribe_whoMayAsk is the table of who is told, and what the others are told.
func TestDescribe_whoMayAsk(t *testing.T) {
	onlyAda := func(refusal error) func(context.Context) error {
		return func(ctx context.Context) error {
			if typedrpc.ConnFrom(ctx).Identity().Subject == "ada" && typedrpc.RequestFrom(ctx).Method == "rpc.discover" {
				return nil
			}
			return refusal
		}
	}
	for _, tt := range []struct {
		name     string
		describe func(context.Context) error
		user     string
		want     error // nil: the document
		text     string
	}{
		{"off", nil, "ada", typedrpc.Unimplemented, `no method "rpc.discover"`},
		{"allowed", onlyAda(typedrpc.NotFound), "ada", nil, ""},
		{"everybody", func(context.Context) error { return nil }, "", nil, ""},
		{"refused", onlyAda(typedrpc.PermissionDenied), "bob", typedrpc.PermissionDenied, ""},
		{"nobody", onlyAda(typedrpc.Errorf(typedrpc.Unauthenticated, "sign in first")), "", typedrpc.Unauthenticated, "sign in first"},
		{"hidden", onlyAda(typedrpc.Errorf(typedrpc.Unimplemented, "no method %q", "rpc.discover")), "bob", typedrpc.Unimplemented, `no method "rpc.discover"`},
		{"an error that is nobody's", onlyAda(errors.New("the database is at 10.0.0.7")), "bob", typedrpc.Internal, "internal error"},
		{"a panic", func(context.Context) error { panic("a secret") }, "bob", typedrpc.Internal, "internal error"},
	} {
		srv := lab.New().Server
		srv.SignIn, srv.Describe, srv.Logger = bySubject, tt.describe, new(lab.Logs).Logger()
		for way, ask := range asks(srv) {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				is := is.New(t)
				doc, err := ask(t, tt.user)
				if tt.want == nil {
					is.NoErr(err)
					is.True(strings.Contains(doc, `"methods":[{`)) // what is registered
					return
				}
				is.Equal(doc, "")
				is.True(errors.Is(err, tt.want))
				if tt.text != "" {
					is.True(strings.Contains(err.Error(), tt.text)) // and nothing else
				}
				is.True(!strings.Contains(err.Error(), "10.0.0.7") && !strings.Contains(err.Error(), "secret"))
			})
		}
	}
}

// A page of another origin is not let in, and the function not asked.
func TestDescribe_crossOrigin(t *testing.T) {
	is := is.New(t)
	asked := 0
	srv := &typedrpc.Server{Describe: func(context.Context) error { asked++; return nil }}
	for _, method := range []string{"GET", "POST"} {
		for _, head := range []http.Header{{"Origin": {"https://evil.example"}}, {"Sec-Fetch-Site": {"cross-site"}}} {
			status, body := upgrade(srv, func(r *http.Request) {
				r.Method = method
				for name, value := range head {
					r.Header[name] = value
				}
				r.Header.Set("Content-Type", "application/json")
				r.Body = io.NopCloser(strings.NewReader(`{"jsonrpc":"2.0","method":"rpc.discover","id":1}`))
			})
			is.Equal(status, http.StatusForbidden)
			is.True(!strings.Contains(body, "openrpc"))
		}
	}
	is.Equal(asked, 0)
	// A page cannot send this type without asking first.
	status, _ := upgrade(srv, func(r *http.Request) {
		r.Method = "POST"
		r.Header.Set("Content-Type", "text/plain")
		r.Body = io.NopCloser(strings.NewReader(`{"jsonrpc":"2.0","method":"rpc.discover","id":1}`))
	})
	is.Equal(status, http.StatusUnsupportedMediaType)
	is.Equal(asked, 0)
}

// everyKind has a handler of each kind.
func everyKind() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, typedrpc.NewMethod[typedrpc.Raw, typedrpc.Raw]("a.method", typedrpc.Idempotent, typedrpc.Timeout(1500*time.Millisecond), typedrpc.Params("x", "y")), func(_ context.Context, r typedrpc.Raw) (typedrpc.Raw, error) { return r, nil })
	typedrpc.Handle(mux, typedrpc.NewMethod[int, int]("a.keyed", typedrpc.Keyed, typedrpc.MaxSize(100)), func(_ context.Context, n int) (int, error) { return n, nil })
	typedrpc.Handle(mux, typedrpc.NewNotification[int]("a.notification"), func(context.Context, int) error { return nil })
	typedrpc.Handle(mux, typedrpc.NewServerStream[int, int]("a.serverStream", typedrpc.Serial), func(context.Context, int, func(int) error) error { return nil })
	typedrpc.Handle(mux, typedrpc.NewBidiStream[int, int, int]("a.bidiStream"), func(context.Context, int, *typedrpc.Stream[int, int]) error { return nil })
	typedrpc.Handle(mux, transfer.NewUpload[int, int]("a.upload"), func(context.Context, int, *transfer.Reader) (int, error) { return 0, nil })
	typedrpc.Handle(mux, transfer.NewDownload[int]("a.download"), func(context.Context, int, *transfer.Writer) error { return nil })
	topic.Handle(mux, new(topic.Hub), topic.New[string]("a.topic", topic.History(50, time.Hour), topic.LatestOnly, topic.WithPresence, topic.Restartable), topic.Everybody)
	topic.Handle(mux, new(topic.Hub), topic.New[string]("b.topic", topic.MaxQueued(1000)), nil)
	return mux
}

const bare = `{"openrpc":"1.3.2","info":{"title":"typedrpc","version":"0.0.0"},"methods":[` +
	`{"name":"a.bidiStream","paramStructure":"by-position","params":[{"name":"request","schema":{}}],"result":{"name":"end","schema":{"type":"null"}},"x-typedrpc":{"kind":"bidiStream","handler":"server"}},` +
	`{"name":"a.download","paramStructure":"by-position","params":[{"name":"request","schema":{}}],"result":{"name":"end","schema":{"type":"null"}},"x-typedrpc":{"kind":"download","handler":"server"}},` +
	`{"name":"a.keyed","paramStructure":"by-position","params":[{"name":"request","schema":{}}],"result":{"name":"response","required":true,"schema":{}},"x-typedrpc":{"kind":"method","handler":"server","keyed":true,"maxSize":100}},` +
	`{"name":"a.method","paramStructure":"either","params":[{"name":"x","schema":{}},{"name":"y","schema":{}}],"result":{"name":"response","required":true,"schema":{}},"x-typedrpc":{"kind":"method","handler":"server","idempotent":true,"timeout":1500,"params":["x","y"]}},` +
	`{"name":"a.notification","paramStructure":"by-position","params":[{"name":"request","schema":{}}],"x-typedrpc":{"kind":"notification","handler":"server"}},` +
	`{"name":"a.serverStream","paramStructure":"by-position","params":[{"name":"request","schema":{}}],"result":{"name":"end","schema":{"type":"null"}},"x-typedrpc":{"kind":"serverStream","handler":"server","serial":true}},` +
	`{"name":"a.topic","paramStructure":"by-position","params":[{"name":"key","required":true,"schema":{"type":"string"}}],"result":{"name":"end","schema":{"type":"null"}},"x-typedrpc":{"kind":"topic","handler":"server","restartable":true,"presence":true,"policy":"LatestOnly","history":50,"historyAge":3600000}},` +
	`{"name":"a.upload","paramStructure":"by-position","params":[{"name":"request","schema":{}}],"result":{"name":"response","required":true,"schema":{}},"x-typedrpc":{"kind":"upload","handler":"server"}},` +
	`{"name":"b.topic","paramStructure":"by-position","params":[{"name":"key","required":true,"schema":{"type":"string"}}],"result":{"name":"end","schema":{"type":"null"}},"x-typedrpc":{"kind":"topic","handler":"server","maxQueued":1000}}` +
	`],"components":{"schemas":{}}}`

// Without a schema there are names, kinds and traits, the same for everybody.
func TestDescribe_withoutSchema(t *testing.T) {
	srv := &typedrpc.Server{Mux: everyKind(), Describe: func(context.Context) error { return nil }}
	for way, ask := range asks(srv) {
		t.Run(way, func(t *testing.T) {
			is := is.New(t)
			doc, err := ask(t, "")
			is.NoErr(err)
			is.Equal(doc, bare)
		})
	}
}

// A name that is registered while the server serves is in the document from then on.
func TestDescribe_later(t *testing.T) {
	is := is.New(t)
	logs := new(lab.Logs)
	schema := `{"methods":[{"name":"late","x-typedrpc":{"kind":"method"}},{"name":"later","x-typedrpc":{"kind":"serverStream"}}]}`
	srv := &typedrpc.Server{Mux: typedrpc.NewMux(), Describe: func(context.Context) error { return nil }, Schema: []byte(schema), Logger: logs.Logger()}
	ask := asks(srv)["text"]
	doc, err := ask(t, "")
	is.NoErr(err)
	is.True(!strings.Contains(doc, "late"))
	typedrpc.Handle(srv.Mux, typedrpc.NewMethod[int, int]("late"), func(context.Context, int) (int, error) { return 0, nil })
	doc, err = ask(t, "")
	is.NoErr(err)
	is.True(strings.Contains(doc, "late"))
	// One that contradicts the schema leaves nothing true to tell.
	typedrpc.Handle(srv.Mux, typedrpc.NewMethod[int, int]("later"), func(context.Context, int) (int, error) { return 0, nil })
	_, err = ask(t, "")
	is.True(errors.Is(err, typedrpc.Internal))
	is.True(logs.Has(`says that \"later\" is a serverStream, and the handler's is a method`))
}

// A handler of the name is an ordinary one where Describe is not set, and so is the
// fallback.
func TestDescribe_ownHandler(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	mux.HandleFallback(func(context.Context, *typedrpc.Request) (typedrpc.Raw, error) {
		return typedrpc.Raw(`"fallback"`), nil
	})
	doc, err := asks(&typedrpc.Server{Mux: mux})["binary"](t, "")
	is.NoErr(err)
	is.Equal(doc, `"fallback"`)
	doc, err = asks(&typedrpc.Server{Mux: mux, Describe: func(context.Context) error { return nil }})["binary"](t, "")
	is.NoErr(err)
	is.True(strings.HasPrefix(doc, `{"openrpc"`))

	typedrpc.Handle(mux, discover, func(context.Context, struct{}) (typedrpc.Raw, error) { return typedrpc.Raw(`"own"`), nil })
	doc, err = asks(&typedrpc.Server{Mux: mux})["binary"](t, "")
	is.NoErr(err)
	is.Equal(doc, `"own"`)
	err = (&typedrpc.Server{Mux: mux, Describe: func(context.Context) error { return nil }}).Check()
	is.True(err != nil)
	is.Equal(err.Error(), `typedrpc: Server.Describe answers "rpc.discover", and the Mux has a handler of that name: leave one of them out`)
}

// TestDescribe_schemas are schemas that Check refuses, with what it says.
func TestDescribe_schemas(t *testing.T) {
	for _, tt := range []struct{ name, schema, want string }{
		{"no JSON", `{"methods":`, "is no JSON: unexpected end of JSON input"},
		{"no object", `[]`, `is no JSON object; it is the document that "typedrpc schema" writes`},
		{"null", `null`, `is no JSON object; it is the document that "typedrpc schema" writes`},
		{"methods", `{"methods":{}}`, "has methods that are no list"},
		{"no name", `{"methods":[{"name":"a"},{}]}`, "has a method without a name: number 2 of the list"},
		{"twice", `{"methods":[{"name":"a"},{"name":"a"}]}`, `has two methods of the name "a"`},
		{"components", `{"components":[]}`, "has components that are no object"},
		{"extension", `{"methods":[{"name":"a","x-typedrpc":1}]}`, `has an x-typedrpc of "a" that cannot be read: it is no object`},
		{"kind", `{"methods":[{"name":"a.method","x-typedrpc":{"kind":"topic"}}]}`, `says that "a.method" is a topic, and the handler's is a method`},
		{"kind above", `{"methods":[{"name":"a.upload","x-typedrpc":{"kind":"clientStream"}}]}`, `says that "a.upload" is a clientStream, and the handler's is a upload`},
		{"flag lost", `{"methods":[{"name":"a.keyed","x-typedrpc":{"kind":"method","idempotent":true,"keyed":true}}]}`, `says that idempotent of "a.keyed" is true, and the handler's is false`},
		{"flag won", `{"methods":[{"name":"a.keyed","x-typedrpc":{"kind":"method"}}]}`, `says that keyed of "a.keyed" is false, and the handler's is true`},
		{"number", `{"methods":[{"name":"a.keyed","x-typedrpc":{"kind":"method","keyed":true,"maxSize":200}}]}`, `says that maxSize of "a.keyed" is 200, and the handler's is 100`},
		{"params", `{"methods":[{"name":"a.method","x-typedrpc":{"kind":"method","idempotent":true,"params":["y","x"]}}]}`, `says that params of "a.method" is y, x, and the handler's is x, y`},
		{"policy", `{"methods":[{"name":"b.topic","x-typedrpc":{"kind":"topic","policy":"DropOldest"}}]}`, `says that policy of "b.topic" is DropOldest, and the handler's is Disconnect`},
		{"restartable", `{"methods":[{"name":"b.topic","x-typedrpc":{"kind":"topic","restartable":true}}]}`, `says that restartable of "b.topic" is true, and the handler's is false`},

		{"what a stream's callers know", `{"methods":[{"name":"a.serverStream","x-typedrpc":{"kind":"serverStream","serial":true,"restartable":true}}]}`, ""},
		{"a number that was no constant", `{"methods":[{"name":"a.method","x-typedrpc":{"kind":"method","idempotent":true}}]}`, ""},
		{"somebody else's", `{"openrpc":"1.2.0","methods":[{"name":"a.method","params":[]}]}`, ""},
		{"the default policy", `{"methods":[{"name":"b.topic","x-typedrpc":{"kind":"topic","policy":"Disconnect"}}]}`, ""},
		{"nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			err := (&typedrpc.Server{Mux: everyKind(), Schema: []byte(tt.schema)}).Check()
			if tt.want == "" {
				is.NoErr(err)
				return
			}
			is.True(err != nil)
			is.Equal(err.Error(), "typedrpc: Server.Schema "+tt.want)
		})
	}
}

// A codec that is not JSON has the document as a string.
func TestDescribe_codec(t *testing.T) {
	is := is.New(t)
	srv := &typedrpc.Server{Mux: everyKind(), Describe: func(context.Context) error { return nil }, Codecs: []typedrpc.Codec{hexed{}}}
	conn, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Codecs: []typedrpc.Codec{hexed{}}})
	is.NoErr(err)
	defer conn.Close()
	doc, err := typedrpc.Call(t.Context(), conn, typedrpc.NewMethod[struct{}, string]("rpc.discover"), struct{}{})
	is.NoErr(err)
	is.Equal(doc, bare)
}

// Interceptors, which wrap handlers, see none of it.
func TestDescribe_interceptors(t *testing.T) {
	is := is.New(t)
	var seen []string
	mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		seen = append(seen, r.Method)
		return next(ctx, r)
	})
	_, err := asks(&typedrpc.Server{Mux: mux, Describe: func(context.Context) error { return nil }})["post"](t, "")
	is.NoErr(err)
	is.Equal(len(seen), 0)
}

// An inspector has the document of a server that tells nobody.
func TestDescribe_seam(t *testing.T) {
	is := is.New(t)
	srv := &typedrpc.Server{Mux: everyKind()}
	doc, err := seam.Describe(srv)
	is.NoErr(err)
	is.Equal(string(doc), bare)
	again, err := seam.Describe(srv)
	is.NoErr(err)
	is.True(&doc[0] == &again[0]) // made once
	_, err = seam.Describe(&typedrpc.Server{Schema: []byte("1")})
	is.True(err != nil)
	is.True(!slices.Contains([]string{""}, err.Error()))
}

// A stream of the name is refused, and a notification has no answer.
func TestDescribe_otherKinds(t *testing.T) {
	is := is.New(t)
	asked := make(chan bool, 10)
	srv := &typedrpc.Server{Describe: func(context.Context) error { asked <- true; return nil }}
	conn, _, err := typedrpctest.Dial(srv, nil)
	is.NoErr(err)
	defer conn.Close()
	for _, err := range typedrpc.Receive(t.Context(), conn, typedrpc.NewServerStream[int, int]("rpc.discover"), 1) {
		is.True(errors.Is(err, typedrpc.Unimplemented))
		is.True(strings.Contains(err.Error(), `"rpc.discover" is a method, not a server stream`))
	}
	is.NoErr(typedrpc.Notify(t.Context(), conn, typedrpc.NewNotification[int]("rpc.discover"), 1))
	<-asked
}
