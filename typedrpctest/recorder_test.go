package typedrpctest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Over the pipe and over the real WebSocket, in each dialect, a line for each
// frame.
func TestRecorder_traceOfAConversation(t *testing.T) {
	calls := map[typedrpc.Dialect]string{
		typedrpc.Binary: `
  0.000000s #1 opened "typedrpc.v1.json"
  0.000000s #1 ->  HELLO attempt=1 received=0 features=
  0.000000s #1 <-  WELCOME resumed=false token received=0 keepalive=20s features=
  0.000000s #1 ->  ACK position=0
  0.500000s #1 ->  CALL id=1 "double" timeleft=1m0s 2 B: 21
  0.500000s #1 <-  RESULT id=1 2 B: 42
  0.500000s #1 ->  CALL id=2 "greet" timeleft=1m0s 2 B: ""
  0.500000s #1 <-  FAIL id=2 code=3 "nobody" 0 B
  1.000000s #1 ->  NOTIFY "note" meta=secret 1 B: 7
`,
		typedrpc.Text: `
  0.000000s #1 opened "typedrpc.jsonrpc"
  0.000000s #1 ->  HELLO attempt=1 received=0 features=
  0.000000s #1 <-  WELCOME resumed=false token received=0 keepalive=20s features=
  0.000000s #1 ->  ACK position=0
  0.500000s #1 ->  CALL id=1 "double" timeleft=1m0s 4 B: [21]
  0.500000s #1 <-  RESULT id=1 2 B: 42
  0.500000s #1 ->  CALL id=2 "greet" timeleft=1m0s 4 B: [""]
  0.500000s #1 <-  FAIL id=2 code=3 "nobody" 0 B
  1.000000s #1 ->  NOTIFY "note" meta=secret 3 B: [7]
`,
		typedrpc.JSONRPC: `
  0.000000s #1 opened ""
  0.500000s #1 ->  CALL id=1 "double" 4 B: [21]
  0.500000s #1 <-  RESULT id=1 2 B: 42
  0.500000s #1 ->  CALL id=2 "greet" 4 B: [""]
  0.500000s #1 <-  FAIL id=2 code=3 "nobody" 0 B
  1.000000s #1 ->  NOTIFY "note" 3 B: [7]
`,
	}
	for d, want := range calls {
		for _, pipe := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				rec := typedrpctest.NewRecorder(nil)
				o := rec.Tap(&typedrpc.DialOptions{Dialect: d})
				srv := &typedrpc.Server{Mux: greeter()}
				typedrpc.Handle(srv.Mux, note, func(context.Context, int) error { return nil })
				var client *typedrpc.Conn
				if pipe {
					client, _ = typedrpctest.Pair(t, srv, o)
				} else {
					n := typedrpctest.NewNetwork(nil)
					t.Cleanup(func() { n.Close() })
					n.Host("a").Serve(srv)
					o.HTTPClient = n.HTTPClient()
					var err error
					client, err = typedrpc.Dial(t.Context(), n.Host("a").URL(), o)
					is.NoErr(err)
				}
				time.Sleep(500 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := typedrpc.Call(ctx, client, double, 21)
				is.NoErr(err)
				_, err = typedrpc.Call(ctx, client, greet, "")
				is.True(errors.Is(err, typedrpc.InvalidArgument))
				time.Sleep(500 * time.Millisecond)
				is.NoErr(typedrpc.Notify(t.Context(), client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"secret": "hush"}}), note, 7))
				time.Sleep(time.Millisecond)
				got := rec.String()
				// What features there are is not this test's business.
				var lines []string
				for line := range strings.Lines(got) {
					line, _, _ = strings.Cut(line, "features=")
					lines = append(lines, strings.TrimSpace(line))
				}
				for line := range strings.Lines(strings.TrimPrefix(want, "\n")) {
					line, _, _ = strings.Cut(line, "features=")
					if len(lines) == 0 || lines[0] != strings.TrimSpace(line) {
						t.Fatalf("no line %q in\n%s", line, got)
					}
					lines = lines[1:]
					for len(lines) > 0 && strings.Contains(lines[0], "1.000000s") && strings.Contains(lines[0], " ACK ") {
						lines = lines[1:]
					}
				}
				is.NoErr(client.Close())
				is.True(strings.Contains(rec.String(), `#1 closed: 1000 "closed"`))
			})
		}
	}
}

func TestRecorder_showsNoSecrets(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		for _, name := range []string{"s3cret", "s3cret-wrong"} {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				rec := typedrpctest.NewRecorder(nil)
				srv := &typedrpc.Server{
					Mux: doubles(),
					SignIn: sign.Verify(func(_ context.Context, _ *http.Request, name *string) (typedrpc.Identity, string, error) {
						if *name != "s3cret" {
							return typedrpc.Identity{}, "", typedrpc.NewFault[int]("sign.who", typedrpc.Unauthenticated).Errorf(7, "who is it")
						}
						return typedrpc.Identity{Subject: "Ann"}, "s3cret-reply", nil
					}),
				}
				n := typedrpctest.NewNetwork(nil)
				t.Cleanup(func() { n.Close() })
				n.Host("a").Serve(srv)
				o := rec.Tap(&typedrpc.DialOptions{
					Dialect: d, HTTPClient: n.HTTPClient(), Backoff: typedrpc.Backoff{Min: time.Millisecond, Max: time.Millisecond},
					SignIn: sign.Present(func(context.Context) (string, error) { return name, nil }),
				})
				client, err := typedrpc.Dial(t.Context(), "ws://a/?key=s3cret", o)
				text := rec.String()
				if name == "s3cret" {
					is.NoErr(err)
					time.Sleep(time.Second)
					n.CutAll(typedrpctest.CutReset)
					time.Sleep(time.Second)
					n.Host("a").Stop()
					time.Sleep(20 * time.Millisecond)
					client.Close()
					text = rec.String()
					is.True(strings.Contains(text, "HELLO attempt=1 received=0 credentials"))
					is.True(strings.Contains(text, "HELLO attempt=2 token received=0 credentials"))
					is.True(strings.Contains(text, "reply"))
					is.True(strings.Contains(text, "not connected: dial tcp 10.0.0.1:80: connection refused"))
				} else {
					is.True(errors.Is(err, typedrpc.Unauthenticated))
					is.True(strings.Contains(text, `AUTH_OK code=16 fault="sign.who" "who is it"`))
				}
				is.True(!strings.Contains(text, "s3cret"))
				for _, line := range strings.Fields(text) {
					is.True(len(line) < 32 || strings.Contains(line, ",")) // no token
				}
			})
		}
	}
}

func TestRecorder_omitPayloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		rec := typedrpctest.NewRecorder(&typedrpctest.RecorderOptions{OmitPayloads: true})
		client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: greeter()}, rec.Tap(nil))
		typedrpc.Call(t.Context(), client, greet, "Ann")
		typedrpc.Call(t.Context(), client, greet, "")
		client.Close()
		text := rec.String()
		is.True(strings.Contains(text, `CALL id=1 "greet" 5 B`))
		is.True(strings.Contains(text, "RESULT id=1 11 B\n"))
		is.True(strings.Contains(text, "FAIL id=2 code=3 0 B\n"))
		is.True(!strings.Contains(text, "Ann"))
		is.True(!strings.Contains(text, "nobody"))
	})
}

func TestRecorder_streamsAndFragments(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			rec := typedrpctest.NewRecorder(nil)
			client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: greeter()}, rec.Tap(&typedrpc.DialOptions{Dialect: d}))
			for n, err := range typedrpc.Receive(t.Context(), client, count, 1_000_000) {
				is.NoErr(err)
				if n == 100 {
					break
				}
			}
			_, err := typedrpc.Call(t.Context(), client, greet, strings.Repeat("é", 50_000))
			is.NoErr(err)
			client.Close()
			text := rec.String()
			wants := []string{`CALL id=1 server-stream "count" NO_ITEMS `, "ITEM id=1 1 B: 0", "ITEM id=1 1 B: 1", "CANCEL id=1\n", "éé…\n"}
			if d == typedrpc.Binary {
				wants = append(wants, `CALL id=2 "greet" MORE `, "CHUNK id=2 FROM_CALLER ", "CHUNK id=2 ")
			}
			for _, want := range wants {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			for line := range strings.Lines(text) {
				is.True(len(line) < 250)
			}
		})
	}
}

func TestRecorder_keepsTheLastMessages(t *testing.T) {
	for _, o := range []*typedrpctest.RecorderOptions{{Messages: 10}, {Bytes: 600}} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			rec := typedrpctest.NewRecorder(o)
			client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: greeter()}, rec.Tap(nil))
			for i := range 1000 {
				_, err := typedrpc.Call(t.Context(), client, greet, fmt.Sprint(i))
				is.NoErr(err)
			}
			var b strings.Builder
			n, err := rec.WriteTo(&b)
			is.NoErr(err)
			is.Equal(int(n), b.Len())
			text := b.String()
			is.True(strings.HasPrefix(text, "… "))
			is.True(strings.Contains(text, " earlier messages\n"))
			is.True(strings.Contains(text, `"hello 999"`))
			is.True(len(text) < 1000)
			is.True(strings.Count(text, "\n") > 3)
			// One message of many frames is bounded too.
			for range typedrpc.Receive(t.Context(), client, count, 10_000) {
			}
			if o.Bytes > 0 {
				is.True(len(rec.String()) < 2*o.Bytes)
			}
		})
	}
}

// failing is a test of which the recorder thinks that it failed, or not.
type failing struct {
	testing.TB
	failed   bool
	cleanups []func()
	log      string
}

func (f *failing) Failed() bool                    { return f.failed }
func (f *failing) Helper()                         {}
func (f *failing) Cleanup(fn func())               { f.cleanups = append(f.cleanups, fn) }
func (f *failing) Logf(format string, args ...any) { f.log += fmt.Sprintf(format, args...) }

func TestRecorder_logOnFailure(t *testing.T) {
	for _, failed := range []bool{true, false} {
		is := is.New(t)
		f := &failing{TB: t}
		rec := typedrpctest.NewRecorder(nil)
		rec.LogOnFailure(f)
		client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: greeter()}, rec.Tap(nil))
		_, err := typedrpc.Call(t.Context(), client, greet, "Ann")
		is.NoErr(err)
		f.failed = failed
		for _, fn := range f.cleanups {
			fn()
		}
		is.Equal(strings.Contains(f.log, `"hello Ann"`), failed)
	}
}
