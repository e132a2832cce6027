package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// What happens to authentication while a connection lives.

func TestAuthTime_refreshedOnALiveLink(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Minute, nil)
		f := typedrpc.Go(t.Context(), g.Client, lab.Hang, struct{}{})
		for range 100 {
			time.Sleep(time.Minute)
			_, err := typedrpc.Call(t.Context(), g.Client, lab.Echo, 1)
			is.NoErr(err)
		}
		synctest.Wait()
		is.Equal(g.W.Dialled(), 1)             // no link was lost
		is.Equal(g.L.Running.Load(), int64(1)) // nor the handler
		passes := g.Seen()
		is.Equal(g.Reply(is), len(passes))                                                    // the reply is the latest one's
		is.True(g.Server.Identity().Expires.Equal(passes[len(passes)-1].At.Add(time.Minute))) // and so is the end
		low, high := time.Hour, time.Duration(0)
		for i, p := range passes[1:] {
			gap := p.At.Sub(passes[i].At)
			low, high = min(low, gap), max(high, gap)
		}
		is.True(low >= 42*time.Second)                           // at 70 % …
		is.True(high <= 54*time.Second)                          // … to 90 % of the time
		is.True(high-low > 6*time.Second)                        // and not always at the same: 100 of them use most of the 12 s
		is.Equal(g.States.Last().State, typedrpc.StateConnected) // nothing was told
		is.Equal(len(g.States.Seen()), 2)
		close(g.L.Release)
		_, err := f.Await(t.Context())
		is.NoErr(err)
	})
}

// Without credentials to refresh the server ends the connection in time.
func TestAuthTime_expiryWithoutRefresh(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l, g := lab.New(), &lab.Porch{Life: time.Minute}
		g.Guard(l)
		p, c := lab.RawClient(t, d, l.Server)
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: "lab.hang", Payload: []byte("{}")}))
		time.Sleep(time.Minute - 1)
		is.True(p.Alive())
		is.Equal(l.Running.Load(), int64(1))
		time.Sleep(time.Second)
		is.True(!p.Alive())
		is.Equal(p.Closed(), session.CloseUnauthed)
		is.Equal(l.Running.Load(), int64(0)) // the handler's context has ended
		<-c.Context().Done()
	})
}

// A peer that acknowledges nothing must not live on behind a full log.
func TestAuthTime_expiryOfAPeerThatDoesNotRead(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		for _, reads := range []bool{true, false} {
			testkit.Bubble(t, fmt.Sprint(d, reads), func(t *testing.T, is *is.I) {
				l, g := lab.New(), &lab.Porch{Life: time.Minute}
				g.Guard(l)
				l.Limits = typedrpc.Limits{MaxUnacked: 1000, WriteTimeout: time.Hour, KeepAlive: time.Hour, Grace: time.Hour}
				ended := make(chan error, 1)
				l.OnDisconnect = func(_ *typedrpc.Conn, err error) { ended <- err }
				typedrpc.Handle(l.Mux, lab.FlowDown, func(_ context.Context, _ int, send func(string) error) error {
					for {
						if err := send(testkit.Letters(500)); err != nil {
							return err
						}
					}
				})
				p, err := testkit.Join(l.Server, []string{testkit.BinaryProtocol, testkit.HelloProtocol}[d])
				is.NoErr(err)
				h := wire.HelloBody{Attempt: 1, Limits: testkit.Roomy, Features: testkit.EveryFeature}
				is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
				_, err = p.Until(wire.Welcome)
				is.NoErr(err)
				is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
				is.NoErr(p.Send(wire.Frame{
					Type: wire.Call, ID: 1, Kind: wire.ServerStream, Flags: wire.NoItems, Method: lab.FlowDown.Name(), Payload: []byte("1"),
				}))
				if reads {
					go func() {
						for {
							if _, err := p.Next(); err != nil {
								return
							}
						}
					}()
				}
				began := time.Now()
				why := <-ended
				is.Equal(typedrpc.CodeOf(why), typedrpc.Unavailable)
				is.True(time.Since(began) <= 62*time.Second)
				p.T.Kill()
			})
		}
	}
}

func TestAuthTime_expiryWhileAway(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, 20*time.Second, &typedrpc.DialOptions{SignIn: lab.Ann, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}, Limits: typedrpc.Limits{Grace: time.Hour}})
		g.L.Limits.Grace = time.Hour // too late, and so the default: longer than the expiry
		gone := make(chan error, 1)
		g.L.OnDisconnect = func(_ *typedrpc.Conn, err error) { gone <- err }
		f := typedrpc.Go(t.Context(), g.Client, lab.Hang, struct{}{})
		time.Sleep(5 * time.Second)
		g.W.Serve(nil)
		g.W.Cable().Cut()
		is.Equal(g.Server.State(), typedrpc.StateWaiting)
		time.Sleep(15*time.Second - 1)
		synctest.Wait()
		is.Equal(g.Server.State(), typedrpc.StateWaiting)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		is.Equal(g.Server.State(), typedrpc.StateClosed)
		is.Equal(g.L.Running.Load(), int64(0))
		is.True(errors.Is(<-gone, typedrpc.Unavailable))
		g.W.Serve(g.L.Server)
		g.Client.Reconnect()
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		_, err = typedrpc.Call(t.Context(), g.Client, lab.Echo, 1)
		is.NoErr(err) // on a new session
		is.True(!g.States.Last().Resumed)
	})
}

// When a refresh fails the application is told, and it is tried again.
func TestAuthTime_failedRefreshIsToldAndRepeated(t *testing.T) {
	for _, how := range []string{"credentials", "server"} {
		t.Run(how, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				var broken atomic.Bool
				creds := lab.Sign.Present(func(context.Context) (string, error) {
					if how == "credentials" && broken.Load() {
						return "", errors.New("no vault")
					}
					return "ann", nil
				})
				g := lab.NewGated(t, d, time.Minute, &typedrpc.DialOptions{SignIn: creds})
				g.On(func(_ context.Context, n int, _ *typedrpc.Identity) error {
					if how == "server" && broken.Load() {
						return typedrpc.Errorf(typedrpc.ResourceExhausted, "too many")
					}
					return nil
				})
				broken.Store(true)
				time.Sleep(59 * time.Second)
				synctest.Wait()
				told := g.States.Seen()[2:]
				is.True(len(told) >= 2) // at once, and again
				for _, s := range told {
					is.Equal(s.State, typedrpc.StateConnected)
					is.Equal(typedrpc.CodeOf(s.Err), map[string]typedrpc.Code{"credentials": typedrpc.Unauthenticated, "server": typedrpc.ResourceExhausted}[how])
				}
				is.Equal(g.W.Dialled(), 1)
				is.Equal(g.Client.State(), typedrpc.StateConnected)
				broken.Store(false)
				time.Sleep(500 * time.Millisecond)
				_, err := typedrpc.Call(t.Context(), g.Client, lab.Echo, 1)
				is.NoErr(err)
				time.Sleep(30 * time.Second)
				is.Equal(g.W.Dialled(), 1) // the last moment was enough
				is.True(len(told) <= 12)   // and it was no storm

				broken.Store(true) // for good
				time.Sleep(time.Minute)
				synctest.Wait()
				if how == "credentials" {
					is.Equal(g.Client.State(), typedrpc.StateWaiting) // and tries to come back: it is no refusal of the server's
				} else {
					is.True(g.W.Dialled() > 1)
				}
				is.Equal(g.Server.State(), typedrpc.StateClosed)
				broken.Store(false)
				_, err = typedrpc.Call(t.Context(), g.Client, lab.Echo, 1)
				is.NoErr(err)
			})
		})
	}
}

func TestAuthTime_identityContexts(t *testing.T) {
	for which, closes := range map[int]bool{1: true, 2: false, 3: true} {
		t.Run(fmt.Sprint(which), func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				l, g := lab.New(), new(lab.Porch)
				g.Guard(l)
				ends := map[int]context.CancelFunc{}
				given := map[int]context.Context{}
				g.On(func(ctx context.Context, n int, id *typedrpc.Identity) error {
					given[n] = ctx
					id.Context, ends[n] = context.WithCancel(ctx)
					return nil
				})
				gone := make(chan error, 1)
				l.OnDisconnect = func(_ *typedrpc.Conn, err error) { gone <- err }
				w := &lab.Town{Srv: l.Server}
				c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, SignIn: lab.Ann, Limits: typedrpc.Limits{Grace: time.Minute}})
				is.NoErr(c.Reauthenticate(t.Context()))
				is.NoErr(c.Reauthenticate(t.Context()))
				is.True(given[2].Err() != nil) // superseded: what derives from it is let go
				is.NoErr(given[1].Err())       // handlers' contexts derive from it
				is.NoErr(given[3].Err())
				g.On(nil)
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
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				l, g := lab.New(), new(lab.Porch)
				g.Guard(l)
				g.On(func(ctx context.Context, n int, _ *typedrpc.Identity) error {
					if slow && n > 1 {
						<-ctx.Done()
					}
					return nil
				})
				l.Logger = slog.New(slog.DiscardHandler)
				p, err := testkit.Join(l.Server, []string{testkit.BinaryProtocol, testkit.HelloProtocol}[d])
				is.NoErr(err)
				h := wire.HelloBody{Attempt: 1, Limits: testkit.Roomy, Features: testkit.EveryFeature, Credentials: []byte(`"ann"`)}
				is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
				_, err = p.Until(wire.Welcome)
				is.NoErr(err)
				a := wire.AuthBody{Credentials: []byte(`"ann"`)}
				sent := 0
				for ; sent < 100_000; sent++ { // and reads nothing
					if p.Send(wire.Frame{Type: wire.Auth, Payload: a.Append(nil)}) != nil {
						break
					}
					synctest.Wait()
				}
				is.True(sent < 100_000)
				is.Equal(p.CloseCode(), session.CloseFlood)
				is.Equal(g.Most, 1)
			})
		})
	}
}

func TestAuthTime_framesFromTheWrongSide(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		ok := wire.AuthOKBody{Reply: []byte("1")}
		auth := wire.AuthBody{Credentials: []byte(`"ann"`)}
		for name, f := range map[string]wire.Frame{
			"AUTH_OK without AUTH": {Type: wire.AuthOK, Payload: ok.Append(nil)},
			"AUTH from a server":   {Type: wire.Auth, Payload: auth.Append(nil)},
			"malformed AUTH_OK":    {Type: wire.AuthOK, Payload: []byte(`{"expires":"soon"}`)},
		} {
			t.Log(name)
			p, c, _ := lab.RawServer(t, testkit.Roomy, &typedrpc.DialOptions{Dialect: d, SignIn: lab.Ann, Limits: typedrpc.Limits{Grace: time.Minute}})
			is.NoErr(p.Send(f))
			is.True(!p.Alive())
			is.Equal(p.Closed(), session.CloseProtocol)
			<-c.Context().Done()
		}
		for name, f := range map[string]wire.Frame{
			"AUTH_OK from a client": {Type: wire.AuthOK, Payload: ok.Append(nil)},
			"malformed AUTH":        {Type: wire.Auth, Payload: []byte(`{"credentials":1,"credentials":2}`)},
		} {
			t.Log(name)
			l, g := lab.New(), new(lab.Porch)
			g.Guard(l)
			p, c := lab.RawClient(t, d, l.Server)
			is.NoErr(p.Send(f))
			is.True(!p.Alive())
			is.Equal(p.Closed(), session.CloseProtocol)
			<-c.Context().Done()
		}
	})
}

// A server that was not asked for credentials says so, and goes on.
func TestAuthTime_authWhereNobodyIsAsked(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		p, _ := lab.RawClient(t, d, lab.New().Server)
		auth := wire.AuthBody{Credentials: []byte(`"ann"`)}
		is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: auth.Append(nil)}))
		fs := p.Got(wire.AuthOK)
		is.Equal(len(fs), 1)
		b, err := wire.ParseAuthOK(fs[0].Payload)
		is.NoErr(err)
		is.Equal(typedrpc.Code(b.Error.Code), typedrpc.Unimplemented)
		is.True(p.Alive())
	})
}

// Nothing of a peer is handled before it is authenticated, on a link that
// resumes no more than on a first one.
func TestAuthTime_nothingBeforeAuthenticationOfAResume(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l, g := lab.New(), new(lab.Porch)
		g.Guard(l)
		opened := make(chan *typedrpc.Conn, 9)
		l.OnConnect = func(c *typedrpc.Conn) { opened <- c }
		h := wire.HelloBody{Attempt: 1, Client: "c", Limits: testkit.Roomy, Features: testkit.EveryFeature, Credentials: []byte(`"ann"`)}
		p := lab.Rejoin(t, d, l.Server, h)
		f, err := p.Until(wire.Welcome)
		is.NoErr(err)
		w, err := wire.ParseWelcome(f.Payload)
		is.NoErr(err)
		is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
		c := <-opened
		synctest.Wait()
		p.T.Kill()
		synctest.Wait()
		is.Equal(c.State(), typedrpc.StateWaiting)

		hang := wire.Frame{Type: wire.Call, ID: 1, Method: "lab.hang", Payload: []byte("{}")}
		h.Token, h.Attempt = w.Token, 2
		g.On(func(context.Context, int, *typedrpc.Identity) error { time.Sleep(time.Second); return nil })
		p = lab.Rejoin(t, d, l.Server, h, hang) // too early
		is.Equal(p.CloseCode(), session.CloseProtocol)
		time.Sleep(5 * time.Second)
		is.Equal(l.Hung.Load(), int64(0))
		is.Equal(c.State(), typedrpc.StateWaiting) // and the session has come to no harm

		h.Attempt = 3
		g.On(func(context.Context, int, *typedrpc.Identity) error { return typedrpc.PermissionDenied })
		p = lab.Rejoin(t, d, l.Server, h) // not authenticated
		is.Equal(p.CloseCode(), session.CloseForbidden)
		is.Equal(c.State(), typedrpc.StateWaiting)

		h.Attempt, h.Credentials = 4, []byte(`"bob"`)
		g.On(nil)
		p = lab.Rejoin(t, d, l.Server, h) // somebody else, with a stolen token
		f, err = p.Until(wire.Welcome)
		is.NoErr(err)
		other, err := wire.ParseWelcome(f.Payload)
		is.NoErr(err)
		is.True(!other.Resumed)
		is.Equal(other.Reason, session.ReasonUnknown)
		p.T.Kill()
		is.Equal(c.State(), typedrpc.StateWaiting)

		h.Attempt, h.Credentials = 5, []byte(`"ann"`)
		p = lab.Rejoin(t, d, l.Server, h)
		f, err = p.Until(wire.Welcome)
		is.NoErr(err)
		w, err = wire.ParseWelcome(f.Payload)
		is.NoErr(err)
		is.True(w.Resumed)
		is.NoErr(p.Send(wire.Frame{Type: wire.Ack}))
		is.NoErr(p.Send(hang))
		synctest.Wait()
		is.Equal(l.Hung.Load(), int64(1))
		is.Equal(c.State(), typedrpc.StateConnected)
		p.T.Kill()
		is.NoErr(l.Shutdown(t.Context()))
	})
}

func TestAuthTime_requestOfTheLatestLink(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, 0, nil)
		for range 3 {
			is.NoErr(g.Client.Reauthenticate(t.Context()))
			g.W.Cable().Cut()
			is.NoErr(g.Client.Reauthenticate(t.Context()))
			time.Sleep(time.Second)
		}
		passes := g.Seen()
		link := 0
		for _, p := range passes {
			if p.Via == fmt.Sprint("town:", link+1) {
				link++
			}
			is.Equal(p.Via, fmt.Sprint("town:", link))
		}
		is.Equal(link, 4)
	})
}

// Every connection that OnDisconnect is told of was OnConnect told of, also when
// its identity had ended before it was open.
func TestAuthTime_identityThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l, g := lab.New(), new(lab.Porch)
		g.Guard(l)
		g.On(func(ctx context.Context, _ int, id *typedrpc.Identity) error {
			var cancel context.CancelFunc
			id.Context, cancel = context.WithCancel(ctx)
			cancel()
			return nil
		})
		var came, went atomic.Int64
		l.OnConnect = func(*typedrpc.Conn) { came.Add(1) }
		l.OnDisconnect = func(*typedrpc.Conn, error) { went.Add(1) }
		for range 1000 {
			p, err := testkit.Join(l.Server, testkit.BinaryProtocol)
			is.NoErr(err)
			h := wire.HelloBody{Attempt: 1, Limits: testkit.Roomy, Features: testkit.EveryFeature, Credentials: []byte(`"ann"`)}
			is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
			is.Equal(p.CloseCode(), session.CloseUnauthed)
		}
		synctest.Wait()
		t.Log(came.Load(), went.Load())
		is.Equal(came.Load(), went.Load())
		is.NoErr(l.Shutdown(t.Context()))
	})
}
