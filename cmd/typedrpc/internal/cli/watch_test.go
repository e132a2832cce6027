package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// watched is a watch that runs.
type watched struct {
	url    string
	lines  chan string
	all    text
	ended  chan int
	cancel context.CancelFunc
}

// watch begins to watch a server.
func watch(t *testing.T, url string, args ...string) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{lines: make(chan string, 1024), ended: make(chan int, 1), cancel: cancel}
	r, out := io.Pipe()
	addr := make(chan string, 1)
	problems := &text{on: func(line string) {
		if _, rest, ok := strings.Cut(line, "listening on "); ok {
			url, _, _ := strings.Cut(rest, ",")
			addr <- url
		}
	}}
	go func() {
		w.ended <- Main(ctx, &Env{Args: append([]string{"watch", url}, args...), In: strings.NewReader(""), Out: io.MultiWriter(out, &w.all), Err: problems, Getenv: os.Getenv})
		out.Close()
	}()
	go func() {
		defer close(w.lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			w.lines <- s.Text()
		}
	}()
	w.url = <-addr
	t.Cleanup(func() {
		cancel()
		for range w.lines {
		}
	})
	return w
}

// until returns the lines up to the one that has text.
func (w *watched) until(t *testing.T, text string) (all []string) {
	t.Helper()
	for line := range w.lines {
		if all = append(all, line); strings.Contains(line, text) {
			return all
		}
	}
	t.Fatalf("no %q in\n%s", text, strings.Join(all, "\n"))
	return nil
}

// What a call looks like, in each dialect.
func TestWatch_dialects(t *testing.T) {
	for dialect, want := range map[string][]string{
		"binary":  {"> OPEN", "> HELLO", "< WELCOME", "> ACK", `> CALL 1 shop.buy "MORE`, `< FAIL 1 code=9 fault=shop.out-of-stock "only 3 are left" {"left":3}`},
		"text":    {"> OPEN", "> HELLO", "< WELCOME", "> ACK", "> CALL 1 shop.buy", `< FAIL 1 code=9 fault=shop.out-of-stock "only 3 are left" {"left":3}`},
		"jsonrpc": {"> OPEN", "> CALL 1 shop.buy", `< FAIL 1 code=9 number=9 fault=shop.out-of-stock "only 3 are left" {"left":3}`},
	} {
		t.Run(dialect, func(t *testing.T) {
			is := is.New(t)
			s := open(t)
			w := watch(t, s.url)
			r := session{in: `{"item":"plum","count":4}`}
			args := []string{"call", w.url, "shop.buy", "-", "-dialect", dialect, "-token", "token-s3cret"}
			if dialect != "jsonrpc" {
				args = append(args, "-credentials", `"ann-s3cret"`, "-meta", "k=meta-s3cret")
			}
			is.Equal(r.run(t.Context(), args...), 64+9)
			all := w.until(t, "CLOSE")
			i := 0
			for _, line := range all {
				if i < len(want) && strings.Contains(line, strings.TrimSuffix(want[i], ` "MORE`)) {
					i++
				}
			}
			if i < len(want) {
				t.Errorf("no %q in\n%s", want[i], strings.Join(all, "\n"))
			}
			is.True(strings.Contains(strings.Join(all, "\n"), `{"item":"plum","count":4}`))
			is.True(!strings.Contains(w.all.String(), "s3cret")) // credentials, and values of metadata
			w.cancel()
			is.Equal(<-w.ended, statusInterrupted)
		})
	}
}

// With -json each frame is an object, and whatever is payload is there as it is.
func TestWatch_json(t *testing.T) {
	is := is.New(t)
	s := open(t)
	w := watch(t, s.url, "-json", "-meta")
	var r session
	is.Equal(r.run(t.Context(), "receive", w.url, "shop.ticks", "2", "-meta", "k=v"), 0)
	var types []string
	for _, line := range w.until(t, `"CLOSE"`) {
		var f frame
		is.NoErr(json.Unmarshal([]byte(line), &f))
		is.Equal(f.Conn, int64(1))
		types = append(types, f.From+" "+f.Type)
		switch f.Type {
		case "CALL":
			is.Equal(f.Kind, "server stream")
			is.Equal(string(f.Payload), "2")
			is.Equal(f.Meta, any(map[string]any{"k": "v"}))
			is.True(slices.Contains(f.Flags, "NO_ITEMS"))
		case "HELLO":
			is.True(strings.Contains(string(f.Payload), `"features"`))
		}
	}
	for _, want := range []string{"client HELLO", "server WELCOME", "client CALL", "server ITEM", "server RESULT"} {
		is.True(slices.Contains(types, want)) // is among them
	}
}

// Payloads are cut, and those that are no JSON are shown in base64.
func TestWatch_cut(t *testing.T) {
	is := is.New(t)
	f := frame{Type: "CALL", Payload: json.RawMessage(`"é234567890"`), Bytes: 13}
	f.cut(2)
	is.True(strings.HasSuffix(f.line(), ` CALL "… (13 bytes)`)) // not in the middle of a sign
	f = frame{Type: "CALL", Payload: json.RawMessage(`1`)}
	f.cut(1)
	is.True(strings.HasSuffix(f.line(), " CALL 1"))
	all := newDecoder("typedrpc.v1.msgp", false).frames([]byte("\x05\x01\x00\x00\x02\x8f\x06\x00\x00\x01t\x00\xff\xfe\xfd"))
	is.Equal(len(all), 2)
	is.Equal(*all[0].Position, uint64(2))
	is.Equal(all[1].Base64, "//79")
	all = newDecoder("typedrpc.v1.json", false).frames([]byte("\x01\xff\x00\x00secret"))
	is.Equal(all[0].Type, "MALFORMED")
	is.True(!strings.Contains(all[0].line(), "secret"))
}

// A link that is cut is seen as that by both ends, and the session goes on over the next.
func TestWatch_cutLink(t *testing.T) {
	is := is.New(t)
	s := open(t)
	cable, err := typedrpctest.NewProxy(s.url, nil)
	is.NoErr(err)
	defer cable.Close()
	w := watch(t, cable.URL())
	states := make(chan typedrpc.StateChange, 64)
	conn, err := typedrpc.Dial(t.Context(), w.url, &typedrpc.DialOptions{OnState: func(c typedrpc.StateChange) { states <- c }})
	is.NoErr(err)
	defer conn.Close()
	_, err = typedrpc.Call(t.Context(), conn, price, "a")
	is.NoErr(err)
	cable.CutAll(typedrpctest.CutReset)
	w.until(t, "#1 < CUT")
	for c := range states {
		if c.State == typedrpc.StateConnected && c.Resumed {
			break
		}
	}
	_, err = typedrpc.Call(t.Context(), conn, price, "ab")
	is.NoErr(err)
	all := w.until(t, `shop.price "ab"`)
	text := strings.Join(all, "\n")
	is.True(strings.Contains(text, `"resumed":true`))
	is.True(regexp.MustCompile(`#\d+ > CALL 2 shop.price "ab"`).MatchString(text))
}

// POST is carried and shown as well, what else is asked is carried, and refusals are.
func TestWatch_http(t *testing.T) {
	is := is.New(t)
	s := open(t)
	w := watch(t, s.url)
	url := strings.Replace(w.url, "ws", "http", 1)
	resp, err := http.Post(url, "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":"x","method":"shop.price","params":["apples"]}`))
	is.NoErr(err)
	body, err := io.ReadAll(resp.Body)
	is.NoErr(err)
	resp.Body.Close()
	is.Equal(string(body), `{"jsonrpc":"2.0","id":"x","result":600}`)
	all := w.until(t, "RESULT")
	is.True(strings.Contains(all[0], `#1 > CALL "x" shop.price ["apples"]`))
	is.True(strings.Contains(all[1], `#1 < RESULT "x" 600`))

	resp, err = http.Get(url)
	is.NoErr(err)
	resp.Body.Close()
	is.Equal(resp.StatusCode, http.StatusUpgradeRequired)

	var r session
	is.Equal(r.run(t.Context(), "call", w.url, "shop.price", `"a"`, "-token", "wrong-s3cret", "-dialect", "jsonrpc"), 64+16)
	w.until(t, "REFUSED 401")
	is.True(!strings.Contains(w.all.String(), "s3cret"))

	for _, origin := range []string{"http://elsewhere.example", url[:strings.LastIndex(url, "/")]} {
		req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"shop.price","params":["a"]}`))
		is.NoErr(err)
		req.Header = http.Header{"Content-Type": {"application/json"}, "Origin": {origin}}
		resp, err := http.DefaultClient.Do(req)
		is.NoErr(err)
		resp.Body.Close()
		want := http.StatusOK
		if origin == "http://elsewhere.example" {
			want = http.StatusForbidden
		}
		is.Equal(resp.StatusCode, want) // of a page's request
	}
}

// A certificate that nobody knows is refused, but with -insecure, also by a watch.
func TestInsecure(t *testing.T) {
	is := is.New(t)
	s := open(t)
	hs := httptest.NewUnstartedServer(s)
	hs.Config.ErrorLog = log.New(io.Discard, "", 0)
	hs.EnableHTTP2 = true
	hs.StartTLS()
	defer hs.Close()
	url := strings.Replace(hs.URL, "https", "wss", 1)
	var strict, lax, through, refused session
	is.Equal(strict.run(t.Context(), "call", url, "shop.price", `"a"`), 64+14)
	is.True(strings.Contains(strict.err.String(), "certificate"))
	is.Equal(lax.run(t.Context(), "call", url, "shop.price", `"a"`, "-insecure"), 0)
	is.Equal(lax.out.String(), "100\n")
	is.Equal(through.run(t.Context(), "call", watch(t, url, "-insecure").url, "shop.price", `"a"`), 0)
	is.Equal(refused.run(t.Context(), "call", watch(t, url).url, "shop.price", `"a"`), 64+14)
}

// Nobody listens, or the target is none.
func TestWatch_fails(t *testing.T) {
	is := is.New(t)
	var r session
	is.Equal(r.run(t.Context(), "watch", "ws://127.0.0.1:1/", "-listen", "256.0.0.1:0"), 1)
	is.Equal(r.run(t.Context(), "watch", "ws://"), 2)
	w := watch(t, "ws://127.0.0.1:1/rpc")
	is.Equal(r.run(t.Context(), "call", w.url, "x"), 64+14)
	w.until(t, "REFUSED")
}
