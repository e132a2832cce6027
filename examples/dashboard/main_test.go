package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/examples/dashboard/api"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

var quiet = slog.New(slog.DiscardHandler)

// start runs the dashboard, and returns its address. stop ends it as an interrupt does.
func start(t *testing.T) (url string, stop func()) {
	is := is.New(t)
	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", slog.New(slog.NewTextHandler(w, nil))) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	is.NoErr(err)
	go io.Copy(io.Discard, r)
	_, url, found := strings.Cut(strings.TrimSpace(line), "url=")
	is.True(found)
	stop = sync.OnceFunc(func() {
		interrupt()
		is.NoErr(<-ended)
		w.Close()
	})
	t.Cleanup(stop)
	return strings.TrimSuffix(url, "/"), stop
}

// page is a connection as the page's, and what it knows of its links.
type page struct {
	*typedrpc.Conn
	states chan typedrpc.StateChange
}

func dial(t *testing.T, url, name string) page {
	is := is.New(t)
	p := page{states: make(chan typedrpc.StateChange, 1000)}
	var err error
	p.Conn, err = typedrpc.Dial(t.Context(), url+"/rpc", &typedrpc.DialOptions{
		SignIn:  api.SignIn.Present(func(context.Context) (api.Visitor, error) { return api.Visitor{Name: name}, nil }),
		Backoff: typedrpc.Backoff{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond},
		OnState: func(s typedrpc.StateChange) { p.states <- s },
		Logger:  quiet,
	})
	is.NoErr(err)
	t.Cleanup(func() { p.Close() })
	p.connected()
	return p
}

// connected waits for the next link, and tells whether the session went on.
func (p page) connected() (resumed bool) {
	for s := range p.states {
		if s.State == typedrpc.StateConnected {
			return s.Resumed
		}
	}
	return false
}

// A page whose link is cut in the middle of everything has all of it once, in order.
func TestCut_losesNothing(t *testing.T) {
	is := is.New(t)
	url, _ := start(t)
	p := dial(t, url, "ada")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const cuts = 10

	welcome, err := api.SignIn.Reply(p.Conn)
	is.NoErr(err)
	is.Equal(welcome.Goods[0], "Plums")

	var all sync.WaitGroup
	ended := make(chan error, 4)
	all.Go(func() {
		ended <- inOrder(ctx, func(yield func(int, error) bool) {
			for tick, err := range typedrpc.Receive(ctx, p, api.Ticks, api.From{Market: api.Fruit, Seconds: 1}) {
				if !yield(tick.N, err) {
					return
				}
			}
		})
	})
	all.Go(func() {
		ended <- inOrder(ctx, func(yield func(int, error) bool) {
			for e, err := range topic.Subscribe(ctx, p, api.Trades, string(api.Fruit)) {
				if !yield(e.Value.N, err) {
					return
				}
			}
		})
	})
	noise := bytes.Repeat([]byte("noise"), 500_000)
	all.Go(func() {
		receipt, err := transfer.Send(ctx, p, api.Put, "noise", bytes.NewReader(noise), nil)
		sum := sha256.Sum256(noise)
		if err == nil && (receipt.Bytes != len(noise) || receipt.SHA256 != hex.EncodeToString(sum[:])) {
			err = errors.New("the upload is not what was sent")
		}
		ended <- err
	})
	sent := 0
	cutting := make(chan struct{})
	all.Go(func() {
		for {
			select {
			case <-cutting:
				ended <- nil
				return
			default:
			}
			sent++
			if err := typedrpc.Notify(ctx, p, api.Pulse, sent); err != nil {
				ended <- err
				return
			}
			if _, err := typedrpc.Call(ctx, p, api.Count, sent); err != nil {
				ended <- err
				return
			}
		}
	})
	for range cuts {
		_, err := typedrpc.Call(ctx, p, api.Cut, api.Cutting{})
		is.NoErr(err)
		is.True(p.connected()) // the session went on
	}
	close(cutting)
	is.NoErr(<-ended) // those who count, …
	is.NoErr(<-ended) // … and the upload
	cancel()
	is.NoErr(<-ended)
	is.NoErr(<-ended)
	all.Wait()

	// Notifications keep their order among themselves: a call may pass the last of them.
	var book api.Book
	last := sent
	for late := time.Now().Add(time.Minute); last == sent || book.Pulses.Received < sent && time.Now().Before(late); {
		last++
		book, err = typedrpc.Call(t.Context(), p, api.Count, last)
		is.NoErr(err)
	}
	is.Equal(book.Cuts, cuts)
	is.True(book.Torn.Written < book.Torn.Of)
	is.Equal(book.Pulses, api.Checked{Received: sent})
	is.Equal(book.Calls, api.Checked{Received: last})
	is.True(book.Tick > 0)
	is.True(book.Trade > 0)
}

// inOrder reads numbers until ctx ends, and says which was not one more than the one before.
func inOrder(ctx context.Context, numbers func(func(int, error) bool)) error {
	last := 0
	for n, err := range numbers {
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case last > 0 && n != last+1:
			return errors.New("a number is missing, or came twice")
		}
		last = n
	}
	return errors.New("the numbers have ended")
}

func TestCut_isNotLetInWhileAway(t *testing.T) {
	is := is.New(t)
	url, _ := start(t)
	p := dial(t, url, "ada")
	refused := false
	for away := 200; !refused && away < 10_000; away *= 2 { // a slow page may come after it was over
		_, err := typedrpc.Call(t.Context(), p, api.Cut, api.Cutting{Away: away})
		is.NoErr(err)
		for s := range p.states {
			refused = refused || s.Err != nil && strings.Contains(s.Err.Error(), "the line is down, on purpose")
			if s.State == typedrpc.StateConnected {
				is.True(s.Resumed)
				break
			}
		}
	}
	is.True(refused)
	_, err := typedrpc.Call(t.Context(), p, api.Count, 1)
	is.NoErr(err)
}

func TestMarkets(t *testing.T) {
	is := is.New(t)
	url, _ := start(t)
	p := dial(t, url, "ada")
	for market, check := range map[api.Market]func(error) bool{
		api.Fish: func(err error) bool { hours, ok := api.Closed.From(err); return ok && hours.Opens != "" },
		"cars":   func(err error) bool { return errors.Is(err, typedrpc.NotFound) },
		api.Nuts: func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, // nobody trades
	} {
		t.Run(string(market), func(t *testing.T) {
			is := is.New(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if market == api.Nuts {
				ctx, cancel = context.WithTimeout(t.Context(), 3*api.TradeEvery)
			}
			defer cancel()
			for _, err := range typedrpc.Receive(ctx, p, api.Ticks, api.From{Market: market, Seconds: 60}) {
				is.True(check(err))
			}
			for _, err := range topic.Subscribe(ctx, p, api.Trades, string(market)) {
				is.True(check(err))
			}
		})
	}
	is.Equal(p.Err(), nil)
}

// Ticks and trades are numbered without a gap, by the clock, however late the ticker is.
func TestMarket_numbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hub := new(topic.Hub)
		m := newMarket(hub)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.run(ctx) }()
		for range 3 {
			time.Sleep(time.Minute)
			synctest.Wait()
			newest, trade := m.newest()
			is.Equal(newest, int(time.Now().UnixMilli()/api.TickEvery.Milliseconds()))
			is.Equal(trade, newest/ticksPerTrade)
			all, _ := m.since(0)
			is.True(len(all) > kept/2 && len(all) <= kept)
			for i, tick := range all[1:] {
				is.Equal(tick.N, all[i].N+1)
				is.Equal(tick.At-all[i].At, int(api.TickEvery.Milliseconds()))
			}
			behind, _ := m.since(newest - 3)
			is.Equal(len(behind), 3)
			none, _ := m.since(newest)
			is.Equal(len(none), 0)
		}
		cancel()
		is.NoErr(<-ended)
		is.NoErr(hub.Close())
	})
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		numbers []int
		want    api.Checked
	}{
		{[]int{1, 2, 3}, api.Checked{Received: 3}},
		{[]int{1, 3, 4, 7}, api.Checked{Received: 4, Gaps: 3}},
		{[]int{1, 2, 2, 3}, api.Checked{Received: 4, Duplicates: 1}},
		{[]int{1, 3, 2}, api.Checked{Received: 3, Gaps: 1, Duplicates: 1}},
		{[]int{3}, api.Checked{Received: 1, Gaps: 2}},
		{[]int{1, 2, 5, 1, 2}, api.Checked{Received: 2}}, // a new session
		{[]int{1, 1}, api.Checked{Received: 2, Duplicates: 1}},
	} {
		is := is.New(t)
		var got api.Checked
		last := 0
		for _, n := range c.numbers {
			check(&got, &last, n)
		}
		is.Equal(got, c.want)
	}
}

func TestVisitors_bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		vs := &visitors{most: 2, all: map[string]*visitor{}}
		ada := vs.named("ada")
		for _, name := range []string{"bob", "ada", "eve"} {
			time.Sleep(time.Second)
			is.NoErr(vs.named(name).plug(nil))
		}
		is.Equal(len(vs.all), 2)
		is.Equal(vs.named("ada"), ada) // bob was away for longer
	})
}

func TestCable(t *testing.T) {
	for range 100 {
		is := is.New(t)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		is.NoErr(err)
		client, err := net.Dial("tcp", ln.Addr().String())
		is.NoErr(err)
		server, err := cables{ln}.Accept()
		is.NoErr(err)
		message := []byte("as good as new")
		_, err = server.Write(message)
		is.NoErr(err)
		torn := make(chan api.Torn, 1)
		server.(*cable).cut(func(t api.Torn) { torn <- t })
		n, err := server.Write(message)
		is.True(errors.Is(err, errCut))
		is.Equal(<-torn, api.Torn{Written: n, Of: len(message)})
		got, err := io.ReadAll(client)
		is.NoErr(err)
		is.Equal(string(got), string(message)+string(message[:n])) // and no more
		is.True(n > 0 && n < len(message))
		client.Close()
		ln.Close()
	}
}

// Nobody is somebody else, and nobody is nobody.
func TestSignIn(t *testing.T) {
	url, _ := start(t)
	for name, ok := range map[string]bool{"ada": true, "": false, strings.Repeat("a", 65): false} {
		is := is.New(t)
		c, err := typedrpc.Dial(t.Context(), url+"/rpc", &typedrpc.DialOptions{
			SignIn: api.SignIn.Present(func(context.Context) (api.Visitor, error) { return api.Visitor{Name: name}, nil }), Logger: quiet,
		})
		if ok {
			is.NoErr(err)
			is.NoErr(c.Close())
			continue
		}
		is.True(errors.Is(err, typedrpc.Unauthenticated))
	}
	is := is.New(t)
	resp, err := http.Post(url+"/rpc", "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"book.count","params":1}`))
	is.NoErr(err)
	resp.Body.Close()
	is.Equal(resp.StatusCode, http.StatusUnauthorized)
}

func TestPage(t *testing.T) {
	url, _ := start(t)
	for path, want := range map[string]struct{ contentType, text string }{
		"/":                         {"text/html; charset=utf-8", "dashboard.js"},
		"/style.css":                {"text/css; charset=utf-8", "color-scheme"},
		"/dashboard.css":            {"text/css; charset=utf-8", "#proof"},
		"/dashboard.js":             {"text/javascript; charset=utf-8", "book.pulse"},
		"/typedrpc.js":              {"text/javascript; charset=utf-8", "WebSocket"},
		"/vendor/uPlot.iife.min.js": {"text/javascript; charset=utf-8", "uPlot (v1.6.32)"},
		"/vendor/uPlot.LICENSE":     {"text/plain; charset=utf-8", "MIT"},
	} {
		t.Run(path, func(t *testing.T) {
			is := is.New(t)
			resp, err := http.Get(url + path)
			is.NoErr(err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			is.NoErr(err)
			is.Equal(resp.StatusCode, http.StatusOK)
			if !strings.HasSuffix(path, "LICENSE") {
				is.Equal(resp.Header.Get("Content-Type"), want.contentType)
			}
			is.True(strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';"))
			is.True(strings.Contains(string(body), want.text))
		})
	}
}

// The page's own code knows nothing of the wire.
func TestPage_ownCode(t *testing.T) {
	is := is.New(t)
	for _, name := range []string{"dashboard.js", "market.js", "proof.js", "upload.js", "chart.js"} {
		data, err := files.ReadFile("web/" + name)
		is.NoErr(err)
		for _, word := range []string{"WebSocket", "innerHTML", "JSON.", "token", "frame ", ".id"} {
			if strings.Contains(string(data), word) {
				t.Errorf("%s has %q", name, word)
			}
		}
	}
}

func TestRun_stopsWithPagesOpen(t *testing.T) {
	is := is.New(t)
	url, stop := start(t)
	p := dial(t, url, "ada")
	for _, err := range typedrpc.Receive(t.Context(), p, api.Ticks, api.From{Market: api.Fruit, Seconds: 1}) {
		if err != nil {
			is.True(errors.Is(err, typedrpc.Gap)) // it may go on in the next session
			break
		}
		go stop()
	}
	stop()
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
