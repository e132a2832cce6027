package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

var (
	sums = typedrpc.NewClientStream[int, int, int]("sums")
	echo = typedrpc.NewBidiStream[struct{}, int, int]("echo")
	bulk = typedrpc.NewClientStream[struct{}, string, int]("bulk")
)

// fed is a server whose client streams tell what they see.
type fed struct {
	*typedrpc.Server
	items chan int   // that sums was given
	ends  chan error // with which bulk and sums ended, nil: well
	hold  chan struct{}
}

func feedServer() *fed {
	f := &fed{items: make(chan int, 100), ends: make(chan error, 100), hold: make(chan struct{})}
	mux := typedrpc.NewMux()
	// sums adds to what it begins with, and answers early where an item is negative.
	typedrpc.Handle(mux, sums, func(_ context.Context, n int, items iter.Seq2[int, error]) (int, error) {
		for i, err := range items {
			if err != nil {
				f.ends <- err
				return 0, err
			}
			if i < 0 {
				return i, nil
			}
			f.items <- i
			n += i
		}
		f.ends <- nil
		return n, nil
	})
	typedrpc.Handle(mux, bulk, func(_ context.Context, _ struct{}, items iter.Seq2[string, error]) (n int, _ error) {
		<-f.hold
		for s, err := range items {
			if err != nil {
				f.ends <- err
				return 0, err
			}
			n += len(s)
		}
		f.ends <- nil
		return n, nil
	})
	typedrpc.Handle(mux, echo, func(context.Context, struct{}, *typedrpc.Stream[int, int]) error { return nil })
	typedrpc.Handle(mux, square, func(_ context.Context, n int) (int, error) { return n * n, nil })
	f.Server = &typedrpc.Server{Mux: mux}
	return f
}

const (
	seqType   = "application/json-seq"
	linesType = "application/x-ndjson"
)

// feedPost posts a body to a method, with a type and other headers by pairs.
func feedPost(t *testing.T, at, query, ct string, body io.Reader, headers ...string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", at+"?"+query, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", ct)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// posted is what a POST under way is answered.
type posted struct {
	status int
	text   string
}

// posting begins a POST whose body the caller writes.
func posting(t *testing.T, at, query string, headers ...string) (*io.PipeWriter, <-chan posted) {
	r, w := io.Pipe()
	answer := make(chan posted, 1)
	go func() {
		status, text := feedPost(t, at, query, linesType, r, headers...)
		r.CloseWithError(io.ErrClosedPipe)
		answer <- posted{status, text}
	}()
	t.Cleanup(func() { w.CloseWithError(io.ErrUnexpectedEOF) })
	return w, answer
}

// vacant waits until nothing is kept: a handler may be about to return.
func (f *fed) vacant() {
	for hook.Server(f.Server).Budget != 0 || hook.Server(f.Server).Plain != 0 {
		runtime.Gosched()
	}
}

// TestFeed_answers is the table of what bodies are answered.
func TestFeed_answers(t *testing.T) {
	f := feedServer()
	f.Limits.MaxMessage = 100 << 10
	close(f.hold)
	at := serve(t, f.Server)
	const ok, failed = `{"jsonrpc":"2.0","id":1,"result":`, `{"jsonrpc":"2.0","id":1,"error":{"code":`
	long := `"` + strings.Repeat("x", 90<<10) + `"` + "\n"
	for _, tt := range []struct{ name, query, ct, body, answer, says string }{
		{"a sequence", "method=sums&params=10", seqType, "\x1e1\n\x1e2\n\x1e3\n", ok + "16}", ""},
		{"lines", "method=sums&params=10", linesType, "1\n\n2\r\n3", ok + "16}", ""},
		{"lines by their other name", "method=sums&params=10", "application/jsonl; charset=utf-8", "1\n", ok + "11}", ""},
		{"no items", "method=sums&params=10", linesType, "", ok + "10}", ""},
		{"many large ones", "method=bulk", linesType, strings.Repeat(long, 20), ok + "1843200}", ""},
		{"the request is missing", "method=sums", linesType, "1\n", failed + "-32602", ""},
		{"the request is wrong", "method=sums&params=[true]", linesType, "1\n", failed + "-32602", ""},
		{"truncated", "method=sums&params=10", seqType, "\x1e1\n\x1e2", failed + "-32602", "text 2 ends before it is whole"},
		{"no JSON", "method=sums&params=10", linesType, "1\n{\n", failed + "-32602", "text 2"},
		{"no separator", "method=sums&params=10", seqType, "1\n", failed + "-32602", "no record separator"},
		{"of another type", "method=sums&params=10", linesType, "1\ntrue\n", failed + "-32602", ""},
		{"too large", "method=bulk", linesType, `"` + strings.Repeat("x", 101<<10) + `"`, failed + "8", "more than 102400 bytes"},
		{"early", "method=sums&params=10", linesType, "-1\n2\n", ok + "-1}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			status, text := feedPost(t, at, tt.query, tt.ct, strings.NewReader(tt.body))
			is.Equal(status, 200)
			is.True(strings.HasPrefix(text, tt.answer)) // text
			is.True(strings.Contains(text, tt.says))    // text
		})
	}
	f.vacant()
}

// guarded is a feedServer that knows ann, and bob for a moment, and has one place.
func guarded() *fed {
	f := feedServer()
	f.Origins = []string{"https://app.example"}
	f.MaxPlainConns = 1
	signIn := typedrpc.NewSignIn[string, struct{}]()
	f.SignIn = signIn.Verify(func(_ context.Context, r *http.Request, _ *string) (typedrpc.Identity, struct{}, error) {
		switch r.Header.Get("Authorization") {
		case "ann":
			return typedrpc.Identity{Subject: "ann"}, struct{}{}, nil
		case "eve":
			return typedrpc.Identity{}, struct{}{}, typedrpc.PermissionDenied
		case "bob":
			return typedrpc.Identity{Subject: "bob", Expires: time.Now().Add(300 * time.Millisecond)}, struct{}{}, nil
		}
		return typedrpc.Identity{}, struct{}{}, typedrpc.Unauthenticated
	})
	return f
}

var ann = []string{"Authorization", "ann"}

// TestFeed_refused is the table of who is refused what.
func TestFeed_refused(t *testing.T) {
	is := is.New(t)
	f := guarded()
	at := serve(t, f.Server)
	for _, tt := range []struct {
		name, query, ct string
		headers         []string
		status          int
		says            string
	}{
		{"who may", "method=sums&params=1", linesType, ann, 200, `"result":1`},
		{"no credentials", "method=sums&params=1", linesType, nil, 401, ""},
		{"not allowed", "method=sums&params=1", linesType, []string{"Authorization", "eve"}, 403, ""},
		{"nothing of that name", "method=nobody", linesType, ann, 404, "no method"},
		{"its own verb", "method=" + url.QueryEscape("POST items"), linesType, ann, 404, "no method"},
		{"a method", "method=square&params=1", linesType, ann, 400, "no client stream"},
		{"both ways", "method=echo", linesType, ann, 400, "no client stream"},
		{"no method", "", linesType, ann, 400, "no method"},
		{"the params are no JSON", "method=sums&params={", linesType, ann, 400, "no JSON"},
		{"a query too long", "method=sums&params=" + strings.Repeat("1", 70_000), linesType, ann, 414, ""},
		{"another type", "method=sums&params=1", "text/plain", ann, 415, "application/json-seq"},
		{"the page of another origin", "method=sums&params=1", linesType, append(slices.Clone(ann), "Origin", "https://evil.example"), 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			status, text := feedPost(t, at, tt.query, tt.ct, strings.NewReader(""), tt.headers...)
			is.Equal(status, tt.status)
			is.True(strings.Contains(text, tt.says)) // text
		})
	}
	for _, verb := range []string{"POST items", "GET a stream"} { // nobody says them
		_, text := feedPost(t, at, "", "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"`+verb+`","params":{"method":"sums","params":1}}`), ann...)
		is.True(strings.Contains(text, `"code":-32601`)) // text
	}
	f.vacant()
}

// TestFeed_places takes one of the places of plain peers, and ends with its caller's
// credentials.
func TestFeed_places(t *testing.T) {
	is := is.New(t)
	f := guarded()
	at := serve(t, f.Server)
	w, answer := posting(t, at, "method=sums&params=1", ann...)
	io.WriteString(w, "1\n")
	is.Equal(<-f.items, 1)
	status, _ := feedPost(t, at, "method=sums&params=1", linesType, strings.NewReader(""), ann...)
	is.Equal(status, 503) // one place
	w.Close()
	is.Equal((<-answer).status, 200)
	is.NoErr(<-f.ends)
	f.vacant()

	w, answer = posting(t, at, "method=sums&params=1", "Authorization", "bob")
	go io.WriteString(w, "1\n")      // what is read of it depends on when
	is.Equal((<-answer).status, 401) // the credentials have expired
	f.vacant()
}

// TestFeed_asTheyArrive has an item with the handler before the next has come, past the
// http.Server's own timeouts.
func TestFeed_asTheyArrive(t *testing.T) {
	is := is.New(t)
	f := feedServer()
	h := httptest.NewUnstartedServer(f.Server)
	h.Config.ReadTimeout, h.Config.WriteTimeout = time.Second, time.Second // a busy machine needs time for the request
	h.Start()
	defer h.Close()
	w, answer := posting(t, h.URL, "method=sums&params=0")
	began := time.Now()
	for i := 1; i < 10 || time.Since(began) < 1500*time.Millisecond; i++ {
		io.WriteString(w, "1")
		io.WriteString(w, "\n")
		is.Equal(<-f.items, 1)
	}
	w.Close()
	is.Equal((<-answer).status, 200)
	is.NoErr(<-f.ends)
	f.vacant()
}

// TestFeed_early is answered while its body goes on.
func TestFeed_early(t *testing.T) {
	is := is.New(t)
	f := feedServer()
	w, answer := posting(t, serve(t, f.Server), "method=sums&params=0")
	io.WriteString(w, "1\n-7\n")
	is.Equal(<-answer, posted{200, `{"jsonrpc":"2.0","id":1,"result":-7}`})
	_, err := io.WriteString(w, "1\n")
	is.True(err != nil)
	f.vacant()
}

// TestFeed_clientLeaves breaks the stream off.
func TestFeed_clientLeaves(t *testing.T) {
	is := is.New(t)
	f := feedServer()
	w, answer := posting(t, serve(t, f.Server), "method=sums&params=0")
	io.WriteString(w, "1\n2")
	is.Equal(<-f.items, 1)
	w.CloseWithError(errors.New("gone"))
	<-answer
	end := <-f.ends
	is.Equal(typedrpc.CodeOf(end), typedrpc.Canceled)
	is.True(strings.Contains(end.Error(), "before it had sent all items")) // not as one whose answer nobody waits for
	f.vacant()
}

// TestFeed_ended ends streams under way, whose handlers learn it.
func TestFeed_ended(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    func(*fed) error
		status int
		says   string
	}{
		{"shutdown", func(f *fed) error { return f.Shutdown(context.Background()) }, 200, `"code":14`},
		{"revoke", func(f *fed) error { f.Revoke("", nil); return nil }, 401, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			f := feedServer()
			w, answer := posting(t, serve(t, f.Server), "method=sums&params=0")
			io.WriteString(w, "1\n")
			is.Equal(<-f.items, 1)
			is.NoErr(tt.end(f))
			got := <-answer
			is.Equal(got.status, tt.status)
			is.True(strings.Contains(got.text, tt.says)) // text
			is.True(<-f.ends != nil)
			f.vacant()
		})
	}
}

// lines1k is a body of n lines of a kilobyte, which counts those that were read.
type lines1k struct {
	n    int
	read atomic.Int64
	rest string
}

func (l *lines1k) Read(b []byte) (int, error) {
	if l.rest == "" {
		if int(l.read.Load()) == l.n {
			return 0, io.EOF
		}
		l.read.Add(1)
		l.rest = `"` + strings.Repeat("x", 1000) + "\"\n"
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// TestFeed_slowHandler has the body wait: what is held is bounded by the window.
func TestFeed_slowHandler(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		f := feedServer()
		body := &lines1k{n: 20_000}
		r := httptest.NewRequest("POST", "/?method=bulk", body)
		r.Header.Set("Content-Type", linesType)
		w := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.ServeHTTP(w, r)
		}()
		synctest.Wait()
		is.True(body.read.Load() > 50)
		is.True(body.read.Load() < 80) // the window is 64 KiB
		is.True(hook.Server(f.Server).Budget < 150<<10)
		close(f.hold)
		<-done
		is.Equal(w.Body.String(), `{"jsonrpc":"2.0","id":1,"result":20000000}`)
		is.NoErr(<-f.ends)
		f.vacant()
	})
}

// TestFeed_interceptor sees an ordinary client stream, and each of its items.
func TestFeed_interceptor(t *testing.T) {
	is := is.New(t)
	saw := make(chan string, 100)
	mux := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		is.Equal(r.Kind, typedrpc.KindClientStream)
		r.OnItem(func(item typedrpc.Raw, sent bool) error {
			saw <- string(item)
			if string(item) == "13" {
				return typedrpc.Errorf(typedrpc.OutOfRange, "not 13")
			}
			return nil
		})
		return next(ctx, r)
	})
	typedrpc.Handle(mux, sums, func(_ context.Context, n int, items iter.Seq2[int, error]) (int, error) {
		for i, err := range items {
			if err != nil {
				return 0, err
			}
			n += i
		}
		return n, nil
	})
	at := serve(t, &typedrpc.Server{Mux: mux})
	_, text := feedPost(t, at, "method=sums&params=0", linesType, strings.NewReader("1\n2\n"))
	is.Equal(text, `{"jsonrpc":"2.0","id":1,"result":3}`)
	_, text = feedPost(t, at, "method=sums&params=0", linesType, strings.NewReader("1\n13\n2\n"))
	is.Equal(text, `{"jsonrpc":"2.0","id":1,"error":{"code":11,"message":"not 13"}}`)
	for _, want := range []string{"1", "2", "1", "13"} {
		is.Equal(<-saw, want)
	}
}

// TestFeed_slowItem gives up an item that does not come, and waits for ever between two.
func TestFeed_slowItem(t *testing.T) {
	for _, tt := range []struct {
		name   string
		parts  []string
		every  time.Duration
		status int
	}{
		{"half of an item", []string{"1\n", "2"}, time.Second, http.StatusRequestTimeout},
		{"an item byte by byte", strings.Split(strings.Repeat("1", 40), ""), time.Second, http.StatusRequestTimeout},
		{"items seldom", []string{"1\n", "2\n", "3\n"}, time.Hour, http.StatusOK},
		{"half of an item, and the rest soon", []string{"1\n1", "1\n1", "1\n1", "1\n1", "1\n"}, 9 * time.Second, http.StatusOK},
	} {
		testkit.Bubble(t, tt.name, func(t *testing.T, is *is.I) {
			f := feedServer()
			_, dial := streets(t, f.Server)
			c := dial()
			io.WriteString(c, "POST /?method=sums&params=0 HTTP/1.1\r\nHost: town\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
			done := make(chan struct{})
			go func() {
				defer close(done)
				for _, part := range tt.parts {
					fmt.Fprintf(c, "%x\r\n%s\r\n", len(part), part)
					time.Sleep(tt.every)
				}
				if tt.status == http.StatusOK {
					io.WriteString(c, "0\r\n\r\n")
				}
			}()
			began := time.Now()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			is.NoErr(err)
			is.Equal(resp.StatusCode, tt.status)
			if tt.status != http.StatusOK {
				is.True(time.Since(began) < 21*time.Second)
				is.True(<-f.ends != nil)
			} else {
				is.NoErr(<-f.ends)
			}
			c.Close()
			<-done
			synctest.Wait()
			is.Equal(hook.Server(f.Server).Budget, int64(0))
			is.Equal(hook.Server(f.Server).Plain, 0)
		})
	}
}
