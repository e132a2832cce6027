package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
)

// atlas has a town behind each address.
type atlas struct {
	mu    sync.Mutex
	towns map[string]*town
	order []string        // the addresses that were dialled
	at    []time.Time     // and when
	hangs map[string]bool // whose dials do not return
}

// newAtlas has towns behind ws://a/, ws://b/ and so on.
func newAtlas(towns ...*town) *atlas {
	a := &atlas{towns: map[string]*town{}, hangs: map[string]bool{}}
	for i, w := range towns {
		a.towns[fmt.Sprintf("ws://%c/", 'a'+i)] = w
	}
	return a
}

func (a *atlas) connect(ctx context.Context, url string, offers []string) (link.Transport, string, *http.Response, error) {
	a.mu.Lock()
	a.order = append(a.order, url[len("ws://"):len("ws://")+1])
	a.at = append(a.at, time.Now())
	w, hangs := a.towns[url], a.hangs[url]
	a.mu.Unlock()
	switch {
	case hangs:
		<-ctx.Done()
		return nil, "", nil, ctx.Err()
	case w == nil:
		return nil, "", nil, errors.New("no such host")
	}
	return w.connect(ctx, url, offers)
}

func (a *atlas) tryDial(ctx context.Context, url string, o *DialOptions) (*Conn, error) {
	opts := *o
	opts.connect = a.connect
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return Dial(ctx, url, &opts)
}

func (a *atlas) dial(t *testing.T, o *DialOptions) *Conn {
	t.Helper()
	opts := *o
	if opts.URLs == nil {
		for i := range a.towns {
			if i != "ws://a/" {
				opts.URLs = append(opts.URLs, i)
			}
		}
	}
	c, err := a.tryDial(t.Context(), "ws://a/", &opts)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dialled returns the addresses that were dialled since the last time.
func (a *atlas) dialled() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := strings.Join(a.order, "")
	a.order = nil
	return s
}

func labTowns(n int) (labs []*lab, towns []*town) {
	for range n {
		l := newLab()
		labs, towns = append(labs, l), append(towns, &town{srv: l.Server})
	}
	return labs, towns
}

// Every address gets its share, and every order comes up.
func TestURLs_randomOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a := newAtlas(new(town), new(town), new(town)) // nobody answers
		orders := map[string]int{}
		const n = 6000
		for range n {
			_, err := a.tryDial(t.Context(), "ws://a/", &DialOptions{URLs: []string{"ws://b/", "ws://c/"}})
			is.Equal(CodeOf(err), Unavailable)
			orders[a.dialled()]++
		}
		is.Equal(len(orders), 6)
		for order, times := range orders {
			if times < n/6-200 || times > n/6+200 { // seven standard deviations
				t.Errorf("%s came up %d times of %d", order, times, n)
			}
		}
	})
}

func TestURLs_failover(t *testing.T) {
	refusing := func(status int) *town {
		return &town{refuse: func(int) error { return &UpgradeError{Status: status, Header: http.Header{"Retry-After": {"60"}}} }}
	}
	for name, bad := range map[string]*town{
		"nobody":  {},
		"503":     refusing(503),
		"429":     refusing(429),
		"404":     refusing(404),
		"silent":  {script: func(_ int, p *wirePeer) { p.closeCode() }},
		"1012":    {script: func(_ int, p *wirePeer) { p.refuse(Unavailable, session.CloseRestart) }},
		"1013":    {script: func(_ int, p *wirePeer) { p.refuse(ResourceExhausted, session.CloseOverload) }},
		"dropped": {script: func(_ int, p *wirePeer) { p.t.Kill() }},
		"hangs":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				if bad != nil && d == JSONRPC {
					bad.names = func() string { return helloProtocol }
					if script := bad.script; script != nil {
						defer func() { bad.script = script }()
						bad.script = func(n int, p *wirePeer) { p.dialect = session.JSON; script(n, p) }
					}
				}
				is := is.New(t)
				_, towns := labTowns(1)
				a := newAtlas(bad, towns[0])
				a.hangs["ws://a/"] = bad == nil
				seen := map[string]bool{}
				for range 40 { // until both orders have come up
					var states watch
					began := time.Now()
					c, err := a.tryDial(t.Context(), "ws://a/", &DialOptions{Dialect: d, URLs: []string{"ws://b/"}, OnState: states.on})
					is.NoErr(err) // the first Dial tries all of them
					took := time.Since(began)
					if name == "silent" || name == "hangs" {
						is.True(took <= 10*time.Second)
					} else {
						is.Equal(took, time.Duration(0)) // no backoff within a round
					}
					_, err = Call(t.Context(), c, labEcho, 1)
					is.NoErr(err)
					synctest.Wait()
					all := states.seen()
					last := all[len(all)-1]
					is.Equal(last.State, Connected)
					is.Equal(last.URL, "ws://b/")
					for _, s := range all[:len(all)-1] {
						is.Equal(s.State, Connecting)
						is.Equal(s.Attempt, 1)
					}
					is.NoErr(c.Close())
					seen[a.dialled()] = true
				}
				is.Equal(seen, map[string]bool{"b": true, "ab": true})
			})
		})
	}
}

// The wait comes after a whole round, and only then.
func TestURLs_backoffAfterAWholeRound(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		labs, towns := labTowns(3)
		a := newAtlas(towns...)
		var states watch
		c := a.dial(t, &DialOptions{
			Dialect: d, Backoff: Backoff{Min: time.Hour, Max: time.Hour, Factor: 1}, OnState: states.on, Limits: Limits{Grace: -1},
		})
		for _, w := range towns {
			w.serve(nil)
		}
		a.dialled()
		synctest.Wait()
		for _, w := range towns {
			if len(w.lines) > 0 {
				w.cable().cut()
			}
		}
		is.Equal(a.dialled(), "")
		for round := range 10 {
			c.Reconnect()
			synctest.Wait()
			order := a.dialled()
			is.Equal(len(order), 3)
			for _, which := range "abc" {
				is.Equal(strings.Count(order, string(which)), 1)
			}
			last := states.last()
			is.Equal(last.State, Waiting)
			is.Equal(last.Attempt, round+2) // rounds are counted
		}
		towns[2].serve(labs[2].Server)
		c.Reconnect()
		synctest.Wait()
		is.Equal(states.last().State, Connected)
		is.Equal(states.last().URL, "ws://c/")
	})
}

// While there is a session to go on with, where it was is asked first; when it is
// lost all are equal.
func TestURLs_sameAddressFirst(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		_, towns := labTowns(5)
		a := newAtlas(towns...)
		var states watch
		c := a.dial(t, &DialOptions{Dialect: d, Backoff: steady, OnState: states.on})
		at := a.dialled()
		for range 30 {
			w := a.towns["ws://"+at+"/"]
			w.cable().cut()
			time.Sleep(2 * time.Second)
			is.Equal(a.dialled(), at)
			is.True(states.last().Resumed)
		}
		other := map[string]bool{}
		for range 60 { // another server takes its place: the session is lost, and a new one begins there
			w := a.towns["ws://"+at+"/"]
			w.mu.Lock()
			srv := w.srv
			w.srv = nil
			w.mu.Unlock()
			w.cable().cut()
			time.Sleep(2 * time.Second)
			order := a.dialled()
			is.True(len(order) == 2 && order[:1] == at) // first where the session was
			at = order[1:]
			other[at] = true
			is.True(!states.last().Resumed)
			w.serve(srv)
		}
		is.Equal(len(other), 5)
		is.NoErr(c.Close())
	})
}

func TestURLs_drainingServerComesLast(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		for range 20 {
			labs, towns := labTowns(3)
			a := newAtlas(towns...)
			var states watch
			c := a.dial(t, &DialOptions{Dialect: d, OnState: states.on})
			at := a.dialled()
			at = at[len(at)-1:]
			is.NoErr(labs[at[0]-'a'].Shutdown(t.Context()))
			for i := range towns { // and the others do not want it either
				if i != int(at[0]-'a') {
					towns[i].serve(nil)
				}
			}
			time.Sleep(2001 * time.Millisecond)
			order := a.dialled()
			is.True(len(order) >= 3)
			is.Equal(order[2:3], at)
			is.NoErr(c.Close())
		}
	})
}

// An answer that makes trying pointless ends the round, and the connection.
func TestURLs_finalRefusalsEndTheRound(t *testing.T) {
	for name, tt := range map[string]struct {
		bad  *town
		code Code
	}{
		"400":  {&town{refuse: func(int) error { return &UpgradeError{Status: 400} }}, InvalidArgument},
		"401":  {&town{refuse: func(int) error { return &UpgradeError{Status: 401} }}, Unauthenticated},
		"403":  {&town{refuse: func(int) error { return &UpgradeError{Status: 403} }}, PermissionDenied},
		"4401": {&town{script: func(_ int, p *wirePeer) { p.refuse(Unauthenticated, session.CloseUnauthed) }}, Unauthenticated},
		"4403": {&town{script: func(_ int, p *wirePeer) { p.refuse(PermissionDenied, session.CloseForbidden) }}, PermissionDenied},
		"4400": {&town{script: func(_ int, p *wirePeer) { p.until(0); p.t.Close(4400, "nonsense") }}, Internal},
	} {
		if name == "4400" {
			tt.bad.script = func(_ int, p *wirePeer) { p.next(); p.t.Close(session.CloseProtocol, "nonsense") }
		}
		bubble(t, name, func(t *testing.T, is *is.I) {
			seen := map[string]bool{}
			for range 40 {
				_, towns := labTowns(1)
				a := newAtlas(tt.bad, towns[0])
				c, err := a.tryDial(t.Context(), "ws://a/", &DialOptions{URLs: []string{"ws://b/"}})
				order := a.dialled()
				seen[order] = true
				if order == "a" {
					is.Equal(CodeOf(err), tt.code)
					is.True(c == nil)
				} else {
					is.NoErr(err)
					is.NoErr(c.Close())
				}
			}
			is.Equal(seen, map[string]bool{"a": true, "b": true})
		})
	}
}

func TestURLs_duplicatesAndNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a := newAtlas(new(town), new(town))
		_, err := a.tryDial(t.Context(), "ws://a/", &DialOptions{URLs: []string{"ws://b/", "ws://a/", "ws://b/"}})
		is.Equal(CodeOf(err), Unavailable)
		is.Equal(len(a.dialled()), 2)
		_, towns := labTowns(2)
		a = newAtlas(towns...)
		c, err := a.tryDial(t.Context(), "", &DialOptions{URLs: []string{"ws://b/"}}) // Dial's own may be empty
		is.NoErr(err)
		is.Equal(a.dialled(), "b")
		is.NoErr(c.Close())
		_, err = a.tryDial(t.Context(), "", &DialOptions{})
		is.Equal(CodeOf(err), InvalidArgument)
		_, err = a.tryDial(t.Context(), "ws://a/", &DialOptions{URLs: []string{""}})
		is.Equal(CodeOf(err), InvalidArgument)
		is.Equal(a.dialled(), "")
	})
}

func TestURLs_errorsAndStatesNameNoSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		secret := "s3cret"
		for _, bad := range []string{
			"ws://user:s3cret@a:port/", "user:s3cret@a", "ftp://user:s3cret@a/", "ws:///x?token=s3cret", "%zz?s3cret", "ws://a/%zz?s3cret",
		} {
			for _, o := range []*DialOptions{{URLs: []string{"ws://b/", bad}}, {}} {
				url := "ws://a/"
				if o.URLs == nil {
					url = bad
				}
				_, err := Dial(t.Context(), url, o)
				is.Equal(CodeOf(err), InvalidArgument)
				is.True(!strings.Contains(err.Error(), secret))
			}
		}
		var states watch
		a := newAtlas()
		_, err := a.tryDial(t.Context(), "ws://user:s3cret@a/p?token=s3cret#s3cret", &DialOptions{
			URLs: []string{"wss://user:s3cret@b/q?token=s3cret"}, OnState: states.on,
		})
		is.Equal(CodeOf(err), Unavailable)
		synctest.Wait()
		urls := map[string]bool{}
		for _, s := range states.seen() {
			is.True(!strings.Contains(fmt.Sprint(s, err), secret))
			if s.State == Connecting {
				urls[s.URL] = true
			}
		}
		is.Equal(urls, map[string]bool{"ws://a/p": true, "wss://b/q": true})
	})
}

// A context that ends ends the round: no more addresses are tried.
func TestURLs_contextEndsTheRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a := newAtlas(nil, nil, nil)
		for u := range a.towns {
			a.hangs[u] = true
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		began := time.Now()
		_, err := a.tryDial(ctx, "ws://a/", &DialOptions{URLs: []string{"ws://b/", "ws://c/"}})
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(time.Since(began), 15*time.Second) // ten for the first, and what was left
		is.Equal(len(a.dialled()), 2)
	})
}

// Reconnect gives up the link that there was, and not the one that it brings.
func TestConn_reconnectKeepsTheNewLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, &DialOptions{Backoff: Backoff{Min: time.Hour, Max: time.Hour}})
		defer c.Close()
		for range 1000 {
			w.serve(nil)
			w.cable().cut()
			w.serve(l.Server)
			n := w.dialled()
			c.Reconnect()
			synctest.Wait()
			is.Equal(c.State(), Connected)
			is.Equal(w.dialled(), n+1)
		}
	})
}
