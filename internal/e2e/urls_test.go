package e2e_test

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
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// Every address gets its share, and every order comes up.
func TestURLs_randomOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a := lab.NewAtlas(new(lab.Town), new(lab.Town), new(lab.Town)) // nobody answers
		orders := map[string]int{}
		const n = 6000
		for range n {
			_, err := a.TryDial(t.Context(), "ws://a/", &typedrpc.DialOptions{URLs: []string{"ws://b/", "ws://c/"}})
			is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
			orders[a.Dialled()]++
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
	refusing := func(status int) *lab.Town {
		return &lab.Town{Refuse: func(int) error {
			return &typedrpc.UpgradeError{Status: status, Header: http.Header{"Retry-After": {"60"}}}
		}}
	}
	for name, bad := range map[string]*lab.Town{
		"nobody":  {},
		"503":     refusing(503),
		"429":     refusing(429),
		"404":     refusing(404),
		"silent":  {Script: func(_ int, p *testkit.Peer) { p.CloseCode() }},
		"1012":    {Script: func(_ int, p *testkit.Peer) { p.Refuse(int64(typedrpc.Unavailable), session.CloseRestart) }},
		"1013":    {Script: func(_ int, p *testkit.Peer) { p.Refuse(int64(typedrpc.ResourceExhausted), session.CloseOverload) }},
		"dropped": {Script: func(_ int, p *testkit.Peer) { p.T.Kill() }},
		"hangs":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				if bad != nil && d == typedrpc.Text {
					bad.Names = func() string { return testkit.HelloProtocol }
					if script := bad.Script; script != nil {
						defer func() { bad.Script = script }()
						bad.Script = func(n int, p *testkit.Peer) { p.Dialect = session.JSON; script(n, p) }
					}
				}
				is := is.New(t)
				_, towns := lab.NewTowns(1)
				a := lab.NewAtlas(bad, towns[0])
				a.Hangs["ws://a/"] = bad == nil
				seen := map[string]bool{}
				for range 40 { // until both orders have come up
					var states lab.Watch
					began := time.Now()
					c, err := a.TryDial(t.Context(), "ws://a/", &typedrpc.DialOptions{Dialect: d, URLs: []string{"ws://b/"}, OnState: states.On})
					is.NoErr(err) // the first Dial tries all of them
					took := time.Since(began)
					if name == "silent" || name == "hangs" {
						is.True(took <= 10*time.Second)
					} else {
						is.Equal(took, time.Duration(0)) // no backoff within a round
					}
					_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
					is.NoErr(err)
					synctest.Wait()
					all := states.Seen()
					last := all[len(all)-1]
					is.Equal(last.State, typedrpc.StateConnected)
					is.Equal(last.URL, "ws://b/")
					for _, s := range all[:len(all)-1] {
						is.Equal(s.State, typedrpc.StateConnecting)
						is.Equal(s.Attempt, 1)
					}
					is.NoErr(c.Close())
					seen[a.Dialled()] = true
				}
				is.Equal(seen, map[string]bool{"b": true, "ab": true})
			})
		})
	}
}

// The wait comes after a whole round, and only then.
func TestURLs_backoffAfterAWholeRound(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		labs, towns := lab.NewTowns(3)
		a := lab.NewAtlas(towns...)
		var states lab.Watch
		c := a.Dial(t, &typedrpc.DialOptions{
			Dialect: d, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour, Factor: 1}, OnState: states.On, Limits: typedrpc.Limits{Grace: -1},
		})
		for _, w := range towns {
			w.Serve(nil)
		}
		a.Dialled()
		synctest.Wait()
		for _, w := range towns {
			if len(w.Lines) > 0 {
				w.Cable().Cut()
			}
		}
		is.Equal(a.Dialled(), "")
		for round := range 10 {
			c.Reconnect()
			synctest.Wait()
			order := a.Dialled()
			is.Equal(len(order), 3)
			for _, which := range "abc" {
				is.Equal(strings.Count(order, string(which)), 1)
			}
			last := states.Last()
			is.Equal(last.State, typedrpc.StateWaiting)
			is.Equal(last.Attempt, round+2) // rounds are counted
		}
		towns[2].Serve(labs[2].Server)
		c.Reconnect()
		synctest.Wait()
		is.Equal(states.Last().State, typedrpc.StateConnected)
		is.Equal(states.Last().URL, "ws://c/")
	})
}

// While there is a session to go on with, where it was is asked first; when it is
// lost all are equal.
func TestURLs_sameAddressFirst(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		_, towns := lab.NewTowns(5)
		a := lab.NewAtlas(towns...)
		var states lab.Watch
		c := a.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, OnState: states.On})
		at := a.Dialled()
		for range 30 {
			w := a.Towns["ws://"+at+"/"]
			w.Cable().Cut()
			time.Sleep(2 * time.Second)
			is.Equal(a.Dialled(), at)
			is.True(states.Last().Resumed)
		}
		other := map[string]bool{}
		for range 60 { // another server takes its place: the session is lost, and a new one begins there
			w := a.Towns["ws://"+at+"/"]
			w.Mu.Lock()
			srv := w.Srv
			w.Srv = nil
			w.Mu.Unlock()
			w.Cable().Cut()
			time.Sleep(2 * time.Second)
			order := a.Dialled()
			is.True(len(order) == 2 && order[:1] == at) // first where the session was
			at = order[1:]
			other[at] = true
			is.True(!states.Last().Resumed)
			w.Serve(srv)
		}
		is.Equal(len(other), 5)
		is.NoErr(c.Close())
	})
}

func TestURLs_drainingServerComesLast(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		for range 20 {
			labs, towns := lab.NewTowns(3)
			a := lab.NewAtlas(towns...)
			var states lab.Watch
			c := a.Dial(t, &typedrpc.DialOptions{Dialect: d, OnState: states.On})
			at := a.Dialled()
			at = at[len(at)-1:]
			is.NoErr(labs[at[0]-'a'].Shutdown(t.Context()))
			for i := range towns { // and the others do not want it either
				if i != int(at[0]-'a') {
					towns[i].Serve(nil)
				}
			}
			time.Sleep(2001 * time.Millisecond)
			order := a.Dialled()
			is.True(len(order) >= 3)
			is.Equal(order[2:3], at)
			is.NoErr(c.Close())
		}
	})
}

// An answer that makes trying pointless ends the round, and the connection.
func TestURLs_finalRefusalsEndTheRound(t *testing.T) {
	for name, tt := range map[string]struct {
		bad  *lab.Town
		code typedrpc.Code
	}{
		"400":  {&lab.Town{Refuse: func(int) error { return &typedrpc.UpgradeError{Status: 400} }}, typedrpc.InvalidArgument},
		"401":  {&lab.Town{Refuse: func(int) error { return &typedrpc.UpgradeError{Status: 401} }}, typedrpc.Unauthenticated},
		"403":  {&lab.Town{Refuse: func(int) error { return &typedrpc.UpgradeError{Status: 403} }}, typedrpc.PermissionDenied},
		"4401": {&lab.Town{Script: func(_ int, p *testkit.Peer) { p.Refuse(int64(typedrpc.Unauthenticated), session.CloseUnauthed) }}, typedrpc.Unauthenticated},
		"4403": {&lab.Town{Script: func(_ int, p *testkit.Peer) { p.Refuse(int64(typedrpc.PermissionDenied), session.CloseForbidden) }}, typedrpc.PermissionDenied},
		"4400": {&lab.Town{Script: func(_ int, p *testkit.Peer) { p.Until(0); p.T.Close(4400, "nonsense") }}, typedrpc.Internal},
	} {
		if name == "4400" {
			tt.bad.Script = func(_ int, p *testkit.Peer) { p.Next(); p.T.Close(session.CloseProtocol, "nonsense") }
		}
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			seen := map[string]bool{}
			for range 40 {
				_, towns := lab.NewTowns(1)
				a := lab.NewAtlas(tt.bad, towns[0])
				c, err := a.TryDial(t.Context(), "ws://a/", &typedrpc.DialOptions{URLs: []string{"ws://b/"}})
				order := a.Dialled()
				seen[order] = true
				if order == "a" {
					is.Equal(typedrpc.CodeOf(err), tt.code)
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
		a := lab.NewAtlas(new(lab.Town), new(lab.Town))
		_, err := a.TryDial(t.Context(), "ws://a/", &typedrpc.DialOptions{URLs: []string{"ws://b/", "ws://a/", "ws://b/"}})
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		is.Equal(len(a.Dialled()), 2)
		_, towns := lab.NewTowns(2)
		a = lab.NewAtlas(towns...)
		c, err := a.TryDial(t.Context(), "", &typedrpc.DialOptions{URLs: []string{"ws://b/"}}) // Dial's own may be empty
		is.NoErr(err)
		is.Equal(a.Dialled(), "b")
		is.NoErr(c.Close())
		_, err = a.TryDial(t.Context(), "", &typedrpc.DialOptions{})
		is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
		_, err = a.TryDial(t.Context(), "ws://a/", &typedrpc.DialOptions{URLs: []string{""}})
		is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
		is.Equal(a.Dialled(), "")
	})
}

func TestURLs_errorsAndStatesNameNoSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		secret := "s3cret"
		for _, bad := range []string{
			"ws://user:s3cret@a:port/", "user:s3cret@a", "ftp://user:s3cret@a/", "ws:///x?token=s3cret", "%zz?s3cret", "ws://a/%zz?s3cret",
		} {
			for _, o := range []*typedrpc.DialOptions{{URLs: []string{"ws://b/", bad}}, {}} {
				url := "ws://a/"
				if o.URLs == nil {
					url = bad
				}
				_, err := typedrpc.Dial(t.Context(), url, o)
				is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
				is.True(!strings.Contains(err.Error(), secret))
			}
		}
		var states lab.Watch
		a := lab.NewAtlas()
		_, err := a.TryDial(t.Context(), "ws://user:s3cret@a/p?token=s3cret#s3cret", &typedrpc.DialOptions{
			URLs: []string{"wss://user:s3cret@b/q?token=s3cret"}, OnState: states.On,
		})
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		synctest.Wait()
		urls := map[string]bool{}
		for _, s := range states.Seen() {
			is.True(!strings.Contains(fmt.Sprint(s, err), secret))
			if s.State == typedrpc.StateConnecting {
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
		a := lab.NewAtlas(nil, nil, nil)
		for u := range a.Towns {
			a.Hangs[u] = true
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		began := time.Now()
		_, err := a.TryDial(ctx, "ws://a/", &typedrpc.DialOptions{URLs: []string{"ws://b/", "ws://c/"}})
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(time.Since(began), 15*time.Second) // ten for the first, and what was left
		is.Equal(len(a.Dialled()), 2)
	})
}

// Reconnect gives up the link that there was, and not the one that it brings.
func TestConn_reconnectKeepsTheNewLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		defer c.Close()
		for range 1000 {
			w.Serve(nil)
			w.Cable().Cut()
			w.Serve(l.Server)
			n := w.Dialled()
			c.Reconnect()
			synctest.Wait()
			is.Equal(c.State(), typedrpc.StateConnected)
			is.Equal(w.Dialled(), n+1)
		}
	})
}
