package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

type mute14 struct{}

func (mute14) Error() string { return "" }

// A batch right before an orderly close is run, its notifications and its calls.
func TestLeave_batchThenClose(t *testing.T) {
	for _, code := range goodbyes {
		for _, bin := range []bool{false, true} {
			l := &stayed{takes: 20 * time.Millisecond}
			lab.Strangers(t, l.mux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
				is := is.New(t)
				*l = stayed{takes: l.takes}
				var parts []string
				for n := 0; n < 100; n += 2 {
					parts = append(parts, leaveText("note", n, ""), leaveText("serial", n+1, `,"id":1`))
				}
				text := "[" + strings.Join(parts, ",") + "]"
				if bin {
					s.SendBinary(text)
				} else {
					s.Send(text)
				}
				s.T.Close(code, "bye")
				time.Sleep(20 * time.Second)
				ran, ended := l.took()
				is.Equal(ran, upTo(100))
				is.Equal(ended, 0)
				is.Equal(lab.Unpaid(c), "")
			})
		}
	}
}

// The answer that comes right before an orderly close ends its call, for all calls.
func TestLeave_answersThenClose(t *testing.T) {
	for _, code := range goodbyes {
		for _, array := range []bool{false, true} {
			lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
				is := is.New(t)
				var fs []*typedrpc.Future[int]
				for range 50 {
					fs = append(fs, typedrpc.Go(t.Context(), c, lab.Ask, 1))
				}
				var answers []string
				for _, g := range s.Got() {
					answers = append(answers, `{"jsonrpc":"2.0","id":`+callID(t, g)+`,"result":7}`)
				}
				if array {
					s.Send("[" + strings.Join(answers, ",") + "]")
				} else {
					for _, a := range answers {
						s.Send(a)
					}
				}
				s.T.Close(code, "")
				for _, f := range fs {
					n, err := f.Await(t.Context())
					is.NoErr(err)
					is.Equal(n, 7)
				}
			})
		}
	}
}

// Ids of requests of all kinds come back as they were written.
func TestPlain_requestIDs(t *testing.T) {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) {
		if n == 0 {
			return 0, mute14{}
		}
		return n, nil
	})
	ids := []string{`1`, `1.0`, `1e0`, `-0`, `-1`, `0`, `"1"`, `""`, `"\u0031"`, `null`, `1.5`, `-1e-9`, `123456789012345678901234567890`, `"` + strings.Repeat("é", 100) + `"`, `1E+2`, `0.1e1`}
	lab.Strangers(t, mux, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		for _, id := range ids {
			s.Send(`{"jsonrpc":"2.0","id":` + id + `,"method":"ask","params":[3]}`)
			is.Equal(s.Only(t), `{"jsonrpc":"2.0","id":`+id+`,"result":3}`)
			s.Send(`[{"jsonrpc":"2.0","id":` + id + `,"method":"ask","params":[3]}]`)
			is.Equal(s.Only(t), `[{"jsonrpc":"2.0","id":`+id+`,"result":3}]`)
			s.Send(`{"jsonrpc":"2.0","id":` + id + `,"method":"nobody"}`)
			is.True(strings.Contains(s.Only(t), `"id":`+id+`,"error":{"code":-32601`))
			s.Send(`{"jsonrpc":"2.0","id":` + id + `,"method":"ask","params":["x"]}`)
			is.True(strings.Contains(s.Only(t), `"id":`+id+`,"error":{"code":-32602`))
			s.Send(`{"jsonrpc":"2.0","id":` + id + `,"method":"ask","params":[0]}`)
			got := s.Only(t)
			is.True(strings.Contains(got, `"id":`+id+`,"error":{"code":`))
			is.True(!strings.Contains(got, `"message":""`))
		}
	})
	url := serve(t, &typedrpc.Server{Mux: mux})
	for _, id := range ids {
		is := is.New(t)
		_, text := post(t, url, `{"jsonrpc":"2.0","id":`+id+`,"method":"ask","params":[3]}`)
		is.Equal(text, `{"jsonrpc":"2.0","id":`+id+`,"result":3}`)
		_, text = post(t, url, `[{"jsonrpc":"2.0","id":`+id+`,"method":"ask","params":[3]}]`)
		is.Equal(text, `[{"jsonrpc":"2.0","id":`+id+`,"result":3}]`)
	}
}

// However an error without words comes about, it crosses with some.
func TestErrors_wordlessEverywhere(t *testing.T) {
	ways := map[string]func(ctx context.Context) error{
		"silent":      func(context.Context) error { return mute14{} },
		"error":       func(context.Context) error { return &typedrpc.Error{Code: typedrpc.NotFound} },
		"code":        func(context.Context) error { return typedrpc.NotFound },
		"custom":      func(context.Context) error { return &typedrpc.Error{Code: 4242} },
		"number":      func(context.Context) error { return &typedrpc.Error{Number: 3} },
		"joined":      func(context.Context) error { return errors.Join(mute14{}, mute14{}) },
		"wrapped":     func(context.Context) error { return fmt.Errorf("%w", mute14{}) },
		"broken":      func(context.Context) error { return &typedrpc.Error{Code: 4242, Message: "\xff\xfe"} },
		"canceled":    func(context.Context) error { return context.Canceled },
		"deadline":    func(context.Context) error { return context.DeadlineExceeded },
		"wrapped err": func(context.Context) error { return fmt.Errorf("%w", &typedrpc.Error{Code: 4242}) },
		"panic":       func(context.Context) error { panic("") },
		"panic error": func(context.Context) error { panic(mute14{}) },
		"cause": func(ctx context.Context) error {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(mute14{})
			return context.Cause(ctx)
		},
	}
	mux := typedrpc.NewMux()
	var methods []typedrpc.Method[int, int]
	for name, way := range ways {
		m := typedrpc.NewMethod[int, int]("way." + strings.ReplaceAll(name, " ", "_"))
		methods = append(methods, m)
		typedrpc.Handle(mux, m, func(ctx context.Context, _ int) (int, error) { return 0, way(ctx) })
	}
	check := func(t *testing.T, name, text string) {
		t.Helper()
		var m struct {
			Error struct {
				Code    *int64
				Message string
			}
		}
		if err := json.Unmarshal([]byte(text), &m); err != nil || m.Error.Code == nil || *m.Error.Code == 0 || strings.TrimSpace(m.Error.Message) == "" {
			t.Errorf("%s: %s", name, text)
		}
	}
	lab.Strangers(t, mux, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		for _, m := range methods {
			s.Send(`{"jsonrpc":"2.0","id":1,"method":"` + m.Name() + `","params":[0]}`)
			check(t, m.Name(), s.Only(t))
			s.Send(`[{"jsonrpc":"2.0","id":1,"method":"` + m.Name() + `","params":[0]}]`)
			check(t, m.Name(), strings.Trim(s.Only(t), "[]"))
		}
	})
	url := serve(t, &typedrpc.Server{Mux: mux})
	for _, m := range methods {
		_, text := post(t, url, `{"jsonrpc":"2.0","id":1,"method":"`+m.Name()+`","params":[0]}`)
		check(t, m.Name(), text)
	}
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		for _, m := range methods {
			_, err := typedrpc.Call(t.Context(), client, m, 1)
			e := lab.AsError(t, err)
			if strings.TrimSpace(e.Message) == "" || strings.TrimSpace(err.Error()) == "" {
				t.Errorf("%s: %#v", m.Name(), e)
			}
		}
	})
}

// Numbers pass a proxy between plain peers unchanged, whatever they are.
func TestPlain_numbersThroughAProxy(t *testing.T) {
	for _, n := range []string{"3", "1", "4", "14", "-32700", "-32600", "-32800", "-32801", "-1", "3000000000", "9007199254740991", "-9223372036854775808", "-32000", "2", "13", "12"} {
		t.Run(n, func(t *testing.T) {
			proxy := typedrpc.NewMux()
			var conn *typedrpc.Conn
			proxy.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
				return typedrpc.Forward(ctx, conn, r)
			})
			lab.Strangers(t, proxy, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
				is := is.New(t)
				f, fc, _ := lab.ForeignServer(t, &typedrpc.DialOptions{})
				conn = fc
				defer fc.Close()
				s.Send(`{"jsonrpc":"2.0","id":"a","method":"ask","params":[3]}`)
				id := callID(t, f.Only(t))
				f.Send(`{"jsonrpc":"2.0","id":` + id + `,"error":{"code":` + n + `,"message":"m","data":{"x":1}}}`)
				is.Equal(s.Only(t), `{"jsonrpc":"2.0","id":"a","error":{"code":`+n+`,"message":"m","data":{"x":1}}}`)
			})
		})
	}
}
