package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// What happens to authentication while a connection lives.

var porchSign = NewMethod[string, int]("porch.sign")

// pass is one authentication that a porch has seen.
type pass struct {
	at  time.Time
	who string
	via string // the remote address
}

// porch is an authentication that can be watched and steered. Its reply is the
// number of the authentication, from 1.
type porch struct {
	life time.Duration // of what it grants; 0: no end

	mu     sync.Mutex
	passes []pass
	decide func(ctx context.Context, n int, id *Identity) error
	busy   int
	most   int // at once
}

func (g *porch) guard(l *lab) {
	l.Authenticate = Authenticate(porchSign, func(ctx context.Context, r *http.Request, who string) (Identity, int, error) {
		g.mu.Lock()
		g.passes = append(g.passes, pass{time.Now(), who, r.RemoteAddr})
		n, decide := len(g.passes), g.decide
		g.busy++
		g.most = max(g.most, g.busy)
		g.mu.Unlock()
		defer func() {
			g.mu.Lock()
			g.busy--
			g.mu.Unlock()
		}()
		id := Identity{Subject: who}
		if g.life > 0 {
			id.Expires = time.Now().Add(g.life)
		}
		if decide != nil {
			if err := decide(ctx, n, &id); err != nil {
				return Identity{}, 0, err
			}
		}
		return id, n, nil
	})
}

func (g *porch) seen() []pass {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]pass(nil), g.passes...)
}

func (g *porch) on(decide func(ctx context.Context, n int, id *Identity) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.decide = decide
}

// everyFeature is what this implementation announces.
var everyFeature = []string{"streams", "fragments", "resume", "auth"}

// ann are credentials that never change.
var ann = Credentials(porchSign, func(context.Context) (string, error) { return "ann", nil })

// gated is a client of a lab with a porch, and the server's end of it.
type gated struct {
	*porch
	w      *town
	l      *lab
	client *Conn
	server *Conn
	states *watch
}

func newGated(t *testing.T, d Dialect, life time.Duration, o *DialOptions) *gated {
	t.Helper()
	g := &gated{porch: &porch{life: life}, l: newLab(), states: new(watch)}
	g.guard(g.l)
	conns := make(chan *Conn, 99)
	g.l.OnConnect = func(c *Conn) { conns <- c }
	g.w = &town{srv: g.l.Server}
	opts := DialOptions{}
	if o != nil {
		opts = *o
	}
	if opts.Limits.Grace == 0 {
		opts.Limits.Grace = 30 * time.Second
	}
	if opts.Auth.get == nil {
		opts.Auth = ann
	}
	opts.Dialect, opts.OnState = d, g.states.on
	g.client = g.w.dial(t, &opts)
	g.server = <-conns
	t.Cleanup(func() {
		g.client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		g.l.Shutdown(ctx) // waits for authentications that are under way
	})
	return g
}

func (g *gated) reply(is *is.I) int {
	is.Helper()
	n, err := AuthReply(g.client, porchSign)
	is.NoErr(err)
	return n
}

func TestAuthTime_refreshedOnALiveLink(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, time.Minute, nil)
		f := Go(t.Context(), g.client, labHang, Empty{})
		for range 100 {
			time.Sleep(time.Minute)
			_, err := Call(t.Context(), g.client, labEcho, 1)
			is.NoErr(err)
		}
		synctest.Wait()
		is.Equal(g.w.dialled(), 1)             // no link was lost
		is.Equal(g.l.running.Load(), int64(1)) // nor the handler
		passes := g.seen()
		is.Equal(g.reply(is), len(passes))                                                    // the reply is the latest one's
		is.True(g.server.Identity().Expires.Equal(passes[len(passes)-1].at.Add(time.Minute))) // and so is the end
		low, high := time.Hour, time.Duration(0)
		for i, p := range passes[1:] {
			gap := p.at.Sub(passes[i].at)
			low, high = min(low, gap), max(high, gap)
		}
		is.True(low >= 42*time.Second)             // at 70 % …
		is.True(high <= 54*time.Second)            // … to 90 % of the time
		is.True(high-low > 6*time.Second)          // and not always at the same: 100 of them use most of the 12 s
		is.Equal(g.states.last().State, Connected) // nothing was told
		is.Equal(len(g.states.seen()), 2)
		close(g.l.release)
		_, err := f.Await(t.Context())
		is.NoErr(err)
	})
}

// Without credentials to refresh the server ends the connection in time.
func TestAuthTime_expiryWithoutRefresh(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l, g := newLab(), &porch{life: time.Minute}
		g.guard(l)
		p, c := rawClient(t, d, l.Server)
		is.NoErr(p.send(wire.Frame{Type: wire.Call, ID: 1, Method: "lab.hang", Payload: []byte("{}")}))
		time.Sleep(time.Minute - 1)
		is.True(p.alive())
		is.Equal(l.running.Load(), int64(1))
		time.Sleep(time.Second)
		is.True(!p.alive())
		is.Equal(p.closed(), session.CloseUnauthed)
		is.Equal(l.running.Load(), int64(0)) // the handler's context has ended
		<-c.Done()
	})
}

// A peer that acknowledges nothing must not live on behind a full log.
func TestAuthTime_expiryOfAPeerThatDoesNotRead(t *testing.T) {
	for _, d := range []Dialect{Binary, JSONRPC} {
		for _, reads := range []bool{true, false} {
			bubble(t, fmt.Sprint(d, reads), func(t *testing.T, is *is.I) {
				l, g := newLab(), &porch{life: time.Minute}
				g.guard(l)
				l.Limits = Limits{MaxUnacked: 1000, WriteTimeout: time.Hour, KeepAlive: time.Hour, Grace: time.Hour}
				ended := make(chan error, 1)
				l.OnDisconnect = func(_ *Conn, err error) { ended <- err }
				HandleServerStream(l.Mux, flowDown, func(_ context.Context, _ int, send func(string) error) error {
					for {
						if err := send(letters(500)); err != nil {
							return err
						}
					}
				})
				p, err := join(l.Server, []string{codecProtocol(JSON), helloProtocol}[d])
				is.NoErr(err)
				h := wire.HelloBody{Attempt: 1, Limits: roomy, Features: everyFeature}
				is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
				_, err = p.until(wire.Welcome)
				is.NoErr(err)
				is.NoErr(p.send(wire.Frame{Type: wire.Ack}))
				is.NoErr(p.send(wire.Frame{
					Type: wire.Call, ID: 1, Kind: wire.ServerStream, Flags: wire.NoItems, Method: flowDown.Name(), Payload: []byte("1"),
				}))
				if reads {
					go func() {
						for {
							if _, err := p.next(); err != nil {
								return
							}
						}
					}()
				}
				began := time.Now()
				why := <-ended
				is.Equal(CodeOf(why), Unavailable)
				is.True(time.Since(began) <= 62*time.Second)
				p.t.Kill()
			})
		}
	}
}

func TestAuthTime_expiryWhileAway(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, 20*time.Second, &DialOptions{Backoff: Backoff{Min: time.Hour, Max: time.Hour}, Limits: Limits{Grace: time.Hour}})
		g.l.Limits.Grace = time.Hour // too late, and so the default: longer than the expiry
		gone := make(chan error, 1)
		g.l.OnDisconnect = func(_ *Conn, err error) { gone <- err }
		f := Go(t.Context(), g.client, labHang, Empty{})
		time.Sleep(5 * time.Second)
		g.w.serve(nil)
		g.w.cable().cut()
		is.Equal(g.server.State(), Waiting)
		time.Sleep(15*time.Second - 1)
		synctest.Wait()
		is.Equal(g.server.State(), Waiting)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		is.Equal(g.server.State(), Closed)
		is.Equal(g.l.running.Load(), int64(0))
		is.True(errors.Is(<-gone, Unavailable))
		g.w.serve(g.l.Server)
		g.client.Reconnect()
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
		_, err = Call(t.Context(), g.client, labEcho, 1)
		is.NoErr(err) // on a new session
		is.True(!g.states.last().Resumed)
	})
}

// When a refresh fails the application is told, and it is tried again.
func TestAuthTime_failedRefreshIsToldAndRepeated(t *testing.T) {
	for _, how := range []string{"credentials", "server"} {
		t.Run(how, func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				var broken atomic.Bool
				creds := Credentials(porchSign, func(context.Context) (string, error) {
					if how == "credentials" && broken.Load() {
						return "", errors.New("no vault")
					}
					return "ann", nil
				})
				g := newGated(t, d, time.Minute, &DialOptions{Auth: creds})
				g.on(func(_ context.Context, n int, _ *Identity) error {
					if how == "server" && broken.Load() {
						return Errorf(ResourceExhausted, "too many")
					}
					return nil
				})
				broken.Store(true)
				time.Sleep(59 * time.Second)
				synctest.Wait()
				told := g.states.seen()[2:]
				is.True(len(told) >= 2) // at once, and again
				for _, s := range told {
					is.Equal(s.State, Connected)
					is.Equal(CodeOf(s.Err), map[string]Code{"credentials": Unauthenticated, "server": ResourceExhausted}[how])
				}
				is.Equal(g.w.dialled(), 1)
				is.Equal(g.client.State(), Connected)
				broken.Store(false)
				time.Sleep(500 * time.Millisecond)
				_, err := Call(t.Context(), g.client, labEcho, 1)
				is.NoErr(err)
				time.Sleep(30 * time.Second)
				is.Equal(g.w.dialled(), 1) // the last moment was enough
				is.True(len(told) <= 12)   // and it was no storm

				broken.Store(true) // for good
				time.Sleep(time.Minute)
				synctest.Wait()
				if how == "credentials" {
					is.Equal(g.client.State(), Waiting) // and tries to come back: it is no refusal of the server's
				} else {
					is.True(g.w.dialled() > 1)
				}
				is.Equal(g.server.State(), Closed)
				broken.Store(false)
				_, err = Call(t.Context(), g.client, labEcho, 1)
				is.NoErr(err)
			})
		})
	}
}

func TestReauthenticate_succeeds(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, time.Hour, nil)
		first := g.server.Identity().Expires
		time.Sleep(time.Minute)
		is.NoErr(g.client.Reauthenticate(t.Context()))
		is.Equal(g.reply(is), 2)
		is.Equal(g.server.Identity().Expires.Sub(first), time.Minute)
		is.Equal(g.w.dialled(), 1)
		time.Sleep(42*time.Minute - time.Second) // 70 % of the hour from now on, less a second
		is.Equal(len(g.seen()), 2)               // the refresh was put off
	})
}

func TestReauthenticate_refused(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, time.Hour, nil)
		was := g.server.Identity()
		for _, want := range []error{
			&Error{Code: PermissionDenied, Message: "no", Data: Raw(`{"a":1}`), RetryAfter: time.Second},
			errors.New("foreign"), Unavailable,
		} {
			g.on(func(context.Context, int, *Identity) error { return want })
			err := g.client.Reauthenticate(t.Context())
			code := Unauthenticated
			if c := CodeOf(want); c != Unknown {
				code = c
			}
			is.Equal(CodeOf(err), code)
			is.Equal(OutcomeOf(err), Answered)
			if e := new(Error); code == PermissionDenied && errors.As(err, &e) {
				is.Equal(e.RetryAfter, time.Second)
				is.Equal(e.Message, "no")
			}
			is.True(!strings.Contains(err.Error(), "foreign"))
		}
		g.on(func(context.Context, int, *Identity) error { panic("of Authenticate") })
		is.Equal(CodeOf(g.client.Reauthenticate(t.Context())), Unauthenticated)
		is.Equal(g.server.Identity(), was)
		is.Equal(g.reply(is), 1)
		is.Equal(g.client.State(), Connected)
		is.Equal(g.w.dialled(), 1)
		g.on(nil)
		is.NoErr(g.client.Reauthenticate(t.Context()))
	})
}

func TestReauthenticate_anotherSubject(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		var who atomic.Value
		who.Store("ann")
		creds := Credentials(porchSign, func(context.Context) (string, error) { return who.Load().(string), nil })
		g := newGated(t, d, time.Hour, &DialOptions{Auth: creds})
		ctxs := make(chan context.Context, 9)
		g.on(func(ctx context.Context, _ int, id *Identity) error {
			id.Context = ctx
			ctxs <- ctx
			return nil
		})
		for _, other := range []string{"bob", "", "Ann", "ann "} {
			who.Store(other)
			is.Equal(CodeOf(g.client.Reauthenticate(t.Context())), PermissionDenied)
			is.Equal((<-ctxs).Err(), context.Canceled) // what it held is given back
		}
		is.Equal(g.server.Identity().Subject, "ann")
		is.Equal(g.client.State(), Connected)
		_, err := Call(t.Context(), g.client, labEcho, 1)
		is.NoErr(err)
		is.Equal(g.w.dialled(), 1)
	})
}

func TestReauthenticate_concurrently(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, time.Hour, nil)
		g.on(func(context.Context, int, *Identity) error { time.Sleep(100 * time.Millisecond); return nil })
		errs := make(chan error, 20)
		for range 20 {
			go func() { errs <- g.client.Reauthenticate(t.Context()) }()
		}
		for range 20 {
			is.NoErr(<-errs)
		}
		is.Equal(g.most, 1) // one at a time
		is.Equal(g.reply(is), len(g.seen()))
	})
}

func TestReauthenticate_contextEnds(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, time.Hour, nil)
		hold := make(chan struct{})
		g.on(func(_ context.Context, n int, _ *Identity) error {
			if n == 2 {
				<-hold
				return Errorf(NotFound, "the late answer")
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := g.client.Reauthenticate(ctx)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(OutcomeOf(err), MayHaveRun)
		err = g.client.Reauthenticate(ctx) // over before it began
		is.True(errors.Is(err, context.DeadlineExceeded))
		next := make(chan error, 1)
		go func() { next <- g.client.Reauthenticate(t.Context()) }()
		synctest.Wait()
		close(hold)
		is.NoErr(<-next) // its own answer, and not the late one
		is.Equal(g.reply(is), len(g.seen()))
		is.Equal(g.client.State(), Connected)
		is.Equal(g.w.dialled(), 1)
	})
}

// An answer that comes when its caller has gone still counts: the server goes by
// it.
func TestReauthenticate_lateAnswerCounts(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, time.Hour, nil)
		g.on(func(_ context.Context, n int, id *Identity) error {
			time.Sleep(2 * time.Second)
			id.Expires = time.Now().Add(time.Minute) // sooner than before
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		is.Equal(OutcomeOf(g.client.Reauthenticate(ctx)), MayHaveRun)
		time.Sleep(2 * time.Second)
		is.Equal(g.reply(is), 2)
		time.Sleep(10 * time.Minute)
		is.Equal(g.w.dialled(), 1) // it was refreshed before that minute was over
		is.Equal(g.client.State(), Connected)
	})
}

func TestReauthenticate_linkIsLostInTheMiddle(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, time.Hour, nil)
		hold := make(chan struct{})
		g.on(func(_ context.Context, n int, id *Identity) error {
			if n == 2 { // the AUTH, which pays no heed to its context
				<-hold
				id.Expires = time.Now().Add(time.Second)
			}
			return nil
		})
		result := make(chan error, 1)
		go func() { result <- g.client.Reauthenticate(t.Context()) }()
		synctest.Wait()
		is.Equal(len(g.seen()), 2)
		g.w.cable().cut()
		is.NoErr(<-result) // the next handshake's credentials are as good
		synctest.Wait()
		is.True(g.states.last().Resumed)
		is.Equal(g.reply(is), 3)
		expires := g.server.Identity().Expires
		close(hold) // now the one on the dead link returns
		synctest.Wait()
		is.Equal(g.server.Identity().Expires, expires) // it is nobody's any more
		time.Sleep(10 * time.Second)
		is.Equal(g.w.dialled(), 2)
		is.NoErr(g.client.Reauthenticate(t.Context()))
		is.Equal(g.reply(is), 4)
	})
}

func TestReauthenticate_whileAway(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, time.Hour, &DialOptions{Backoff: steady})
		g.w.serve(nil)
		g.w.cable().cut()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := g.client.Reauthenticate(ctx)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(OutcomeOf(err), NotSent)
		result := make(chan error, 2)
		go func() { result <- g.client.Reauthenticate(t.Context()) }()
		synctest.Wait()
		g.w.serve(g.l.Server)
		is.NoErr(<-result)
		is.Equal(g.reply(is), 2) // the handshake's; no AUTH was needed
		g.w.serve(nil)
		g.w.cable().cut()
		for range 2 {
			go func() { result <- g.client.Reauthenticate(t.Context()) }()
		}
		synctest.Wait()
		is.NoErr(g.client.Close())
		for range 2 {
			is.True(errors.Is(<-result, Unavailable))
		}
		is.True(errors.Is(g.client.Reauthenticate(t.Context()), Unavailable))
	})
}

func TestReauthenticate_whereThereIsNothingToRefresh(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, 0, nil)
		is.Equal(CodeOf(g.server.Reauthenticate(t.Context())), FailedPrecondition)
		l := newLab()
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Dialect: d, Auth: ann})
		is.Equal(CodeOf(c.Reauthenticate(t.Context())), Unimplemented) // nobody there asks for credentials
		is.NoErr(c.Close())
		c = w.dial(t, &DialOptions{Dialect: d})
		is.Equal(CodeOf(c.Reauthenticate(t.Context())), FailedPrecondition)
		is.NoErr(c.Close())
		c = w.dial(t, &DialOptions{Dialect: PlainJSONRPC, Auth: ann})
		is.Equal(CodeOf(c.Reauthenticate(t.Context())), Unimplemented)
		is.NoErr(c.Close())
	})
}

func TestReauthenticate_afterClose(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, time.Hour, nil)
		hold := make(chan struct{})
		defer close(hold)
		g.on(func(context.Context, int, *Identity) error { <-hold; return nil })
		result := make(chan error, 1)
		go func() { result <- g.client.Reauthenticate(t.Context()) }()
		synctest.Wait()
		is.NoErr(g.client.Close())
		is.True(errors.Is(<-result, Unavailable))
		is.True(errors.Is(g.client.Reauthenticate(t.Context()), Unavailable))
	})
}

func TestAuthTime_identityContexts(t *testing.T) {
	for which, closes := range map[int]bool{1: true, 2: false, 3: true} {
		t.Run(fmt.Sprint(which), func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				l, g := newLab(), new(porch)
				g.guard(l)
				ends := map[int]context.CancelFunc{}
				given := map[int]context.Context{}
				g.on(func(ctx context.Context, n int, id *Identity) error {
					given[n] = ctx
					id.Context, ends[n] = context.WithCancel(ctx)
					return nil
				})
				gone := make(chan error, 1)
				l.OnDisconnect = func(_ *Conn, err error) { gone <- err }
				w := &town{srv: l.Server}
				c := w.dial(t, &DialOptions{Dialect: d, Auth: ann, Limits: Limits{Grace: time.Minute}})
				is.NoErr(c.Reauthenticate(t.Context()))
				is.NoErr(c.Reauthenticate(t.Context()))
				is.True(given[2].Err() != nil) // superseded: what derives from it is let go
				is.NoErr(given[1].Err())       // handlers' contexts derive from it
				is.NoErr(given[3].Err())
				g.on(nil)
				ends[which]()
				synctest.Wait()
				is.Equal(len(gone) == 1, closes)
				is.NoErr(c.Close())
				synctest.Wait()
				for n, ctx := range given {
					is.True(ctx.Err() != nil) // nothing is left
					ends[n]()
				}
			})
		})
	}
}

// More AUTHs than an honest client has are a flood, whether they are being
// handled or their answers are not read.
func TestAuthTime_flood(t *testing.T) {
	for _, slow := range []bool{true, false} {
		t.Run(fmt.Sprint(slow), func(t *testing.T) {
			bothDialects(t, func(t *testing.T, d Dialect) {
				is := is.New(t)
				l, g := newLab(), new(porch)
				g.guard(l)
				g.on(func(ctx context.Context, n int, _ *Identity) error {
					if slow && n > 1 {
						<-ctx.Done()
					}
					return nil
				})
				l.Logger = slog.New(slog.DiscardHandler)
				p, err := join(l.Server, []string{codecProtocol(JSON), helloProtocol}[d])
				is.NoErr(err)
				h := wire.HelloBody{Attempt: 1, Limits: roomy, Features: everyFeature, Credentials: []byte(`"ann"`)}
				is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
				_, err = p.until(wire.Welcome)
				is.NoErr(err)
				a := wire.AuthBody{Credentials: []byte(`"ann"`)}
				sent := 0
				for ; sent < 100_000; sent++ { // and reads nothing
					if p.send(wire.Frame{Type: wire.Auth, Payload: a.Append(nil)}) != nil {
						break
					}
					synctest.Wait()
				}
				is.True(sent < 100_000)
				is.Equal(p.closeCode(), session.CloseFlood)
				is.Equal(g.most, 1)
			})
		})
	}
}

func TestAuthTime_framesFromTheWrongSide(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		ok := wire.AuthOKBody{Reply: []byte("1")}
		auth := wire.AuthBody{Credentials: []byte(`"ann"`)}
		for name, f := range map[string]wire.Frame{
			"AUTH_OK without AUTH": {Type: wire.AuthOK, Payload: ok.Append(nil)},
			"AUTH from a server":   {Type: wire.Auth, Payload: auth.Append(nil)},
			"malformed AUTH_OK":    {Type: wire.AuthOK, Payload: []byte(`{"expires":"soon"}`)},
		} {
			t.Log(name)
			p, c, _ := rawServer(t, roomy, &DialOptions{Dialect: d, Auth: ann, Limits: Limits{Grace: time.Minute}})
			is.NoErr(p.send(f))
			is.True(!p.alive())
			is.Equal(p.closed(), session.CloseProtocol)
			<-c.Done()
		}
		for name, f := range map[string]wire.Frame{
			"AUTH_OK from a client": {Type: wire.AuthOK, Payload: ok.Append(nil)},
			"malformed AUTH":        {Type: wire.Auth, Payload: []byte(`{"credentials":1,"credentials":2}`)},
		} {
			t.Log(name)
			l, g := newLab(), new(porch)
			g.guard(l)
			p, c := rawClient(t, d, l.Server)
			is.NoErr(p.send(f))
			is.True(!p.alive())
			is.Equal(p.closed(), session.CloseProtocol)
			<-c.Done()
		}
	})
}

// A server that was not asked for credentials says so, and goes on.
func TestAuthTime_authWhereNobodyIsAsked(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		p, _ := rawClient(t, d, newLab().Server)
		auth := wire.AuthBody{Credentials: []byte(`"ann"`)}
		is.NoErr(p.send(wire.Frame{Type: wire.Auth, Payload: auth.Append(nil)}))
		fs := p.got(wire.AuthOK)
		is.Equal(len(fs), 1)
		b, err := wire.ParseAuthOK(fs[0].Payload)
		is.NoErr(err)
		is.Equal(Code(b.Error.Code), Unimplemented)
		is.True(p.alive())
	})
}

// rejoin makes a link for a session of before, and sends its HELLO with others
// right behind.
func rejoin(t *testing.T, d Dialect, srv *Server, h wire.HelloBody, behind ...wire.Frame) *wirePeer {
	t.Helper()
	p, err := join(srv, []string{codecProtocol(JSON), helloProtocol}[d])
	if err != nil {
		t.Fatal(err)
	}
	p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)})
	for _, f := range behind {
		p.send(f)
	}
	return p
}

// Nothing of a peer is handled before it is authenticated, on a link that
// resumes no more than on a first one.
func TestAuthTime_nothingBeforeAuthenticationOfAResume(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		l, g := newLab(), new(porch)
		g.guard(l)
		opened := make(chan *Conn, 9)
		l.OnConnect = func(c *Conn) { opened <- c }
		h := wire.HelloBody{Attempt: 1, Client: "c", Limits: roomy, Features: everyFeature, Credentials: []byte(`"ann"`)}
		p := rejoin(t, d, l.Server, h)
		f, err := p.until(wire.Welcome)
		is.NoErr(err)
		w, err := wire.ParseWelcome(f.Payload)
		is.NoErr(err)
		is.NoErr(p.send(wire.Frame{Type: wire.Ack}))
		c := <-opened
		synctest.Wait()
		p.t.Kill()
		synctest.Wait()
		is.Equal(c.State(), Waiting)

		hang := wire.Frame{Type: wire.Call, ID: 1, Method: "lab.hang", Payload: []byte("{}")}
		h.Token, h.Attempt = w.Token, 2
		g.on(func(context.Context, int, *Identity) error { time.Sleep(time.Second); return nil })
		p = rejoin(t, d, l.Server, h, hang) // too early
		is.Equal(p.closeCode(), session.CloseProtocol)
		time.Sleep(5 * time.Second)
		is.Equal(l.hung.Load(), int64(0))
		is.Equal(c.State(), Waiting) // and the session has come to no harm

		h.Attempt = 3
		g.on(func(context.Context, int, *Identity) error { return PermissionDenied })
		p = rejoin(t, d, l.Server, h) // not authenticated
		is.Equal(p.closeCode(), session.CloseForbidden)
		is.Equal(c.State(), Waiting)

		h.Attempt, h.Credentials = 4, []byte(`"bob"`)
		g.on(nil)
		p = rejoin(t, d, l.Server, h) // somebody else, with a stolen token
		f, err = p.until(wire.Welcome)
		is.NoErr(err)
		other, err := wire.ParseWelcome(f.Payload)
		is.NoErr(err)
		is.True(!other.Resumed)
		is.Equal(other.Reason, session.ReasonUnknown)
		p.t.Kill()
		is.Equal(c.State(), Waiting)

		h.Attempt, h.Credentials = 5, []byte(`"ann"`)
		p = rejoin(t, d, l.Server, h)
		f, err = p.until(wire.Welcome)
		is.NoErr(err)
		w, err = wire.ParseWelcome(f.Payload)
		is.NoErr(err)
		is.True(w.Resumed)
		is.NoErr(p.send(wire.Frame{Type: wire.Ack}))
		is.NoErr(p.send(hang))
		synctest.Wait()
		is.Equal(l.hung.Load(), int64(1))
		is.Equal(c.State(), Connected)
		p.t.Kill()
		is.NoErr(l.Shutdown(t.Context()))
	})
}

func TestAuthTime_requestOfTheLatestLink(t *testing.T) {
	bothDialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		g := newGated(t, d, 0, nil)
		for range 3 {
			is.NoErr(g.client.Reauthenticate(t.Context()))
			g.w.cable().cut()
			is.NoErr(g.client.Reauthenticate(t.Context()))
			time.Sleep(time.Second)
		}
		passes := g.seen()
		link := 0
		for _, p := range passes {
			if p.via == fmt.Sprint("town:", link+1) {
				link++
			}
			is.Equal(p.via, fmt.Sprint("town:", link))
		}
		is.Equal(link, 4)
	})
}

// Every connection that OnDisconnect is told of was OnConnect told of, also when
// its identity had ended before it was open.
func TestAuthTime_identityThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l, g := newLab(), new(porch)
		g.guard(l)
		g.on(func(ctx context.Context, _ int, id *Identity) error {
			var cancel context.CancelFunc
			id.Context, cancel = context.WithCancel(ctx)
			cancel()
			return nil
		})
		var came, went atomic.Int64
		l.OnConnect = func(*Conn) { came.Add(1) }
		l.OnDisconnect = func(*Conn, error) { went.Add(1) }
		for range 1000 {
			p, err := join(l.Server, codecProtocol(JSON))
			is.NoErr(err)
			h := wire.HelloBody{Attempt: 1, Limits: roomy, Features: everyFeature, Credentials: []byte(`"ann"`)}
			is.NoErr(p.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
			is.Equal(p.closeCode(), session.CloseUnauthed)
		}
		synctest.Wait()
		t.Log(came.Load(), went.Load())
		is.Equal(came.Load(), went.Load())
		is.NoErr(l.Shutdown(t.Context()))
	})
}
