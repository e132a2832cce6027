package e2e_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Why a connection or a link ended says nothing of how far a call got: a program that
// asks it is told what is safe, by everything that it is told by, on both sides.
func TestEnded_isNoCall(t *testing.T) {
	for how, end := range map[string]func(client, server *typedrpc.Conn){
		"closed here":  func(client, _ *typedrpc.Conn) { client.Close() },
		"closed there": func(_, server *typedrpc.Conn) { server.CloseWith(&typedrpc.CloseOptions{StayAway: true}) },
		"closed with words": func(_, server *typedrpc.Conn) {
			server.CloseWith(&typedrpc.CloseOptions{Err: typedrpc.Aborted, StayAway: true})
		},
		"shut down": func(client, _ *typedrpc.Conn) { client.Shutdown(context.Background()) },
	} {
		for dialect, d := range map[string]typedrpc.Dialect{"binary": typedrpc.Binary, "text": typedrpc.Text, "jsonrpc": typedrpc.JSONRPC} {
			t.Run(how+"/"+dialect, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					var mu sync.Mutex
					told := map[string]error{}
					tell := func(by string, err error) {
						mu.Lock()
						defer mu.Unlock()
						told[by] = err
					}
					srv := &typedrpc.Server{OnDisconnect: func(_ *typedrpc.Conn, err error) { tell("OnDisconnect", err) }}
					client, server := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{Dialect: d, OnState: func(s typedrpc.StateChange) {
						if s.State == typedrpc.StateClosed {
							tell("OnState", s.Err)
						}
					}})
					end(client, server)
					<-client.Context().Done()
					<-server.Context().Done()
					synctest.Wait()
					for side, c := range map[string]*typedrpc.Conn{"client": client, "server": server} {
						told[side+".Err"], told[side+"'s cause"] = c.Err(), context.Cause(c.Context())
						_, err := c.Ping(t.Context()) // which is an operation
						is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
					}
					is.Equal(len(told), 6)
					for by, err := range told {
						is.True(err != nil)
						is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun) // by …
						if strings.Contains(err.Error(), "may have run") {
							t.Errorf("%s: nothing was run: %v", by, err)
						}
					}
				})
			})
		}
	}
}

// The same while the client goes on: of each attempt.
func TestEnded_attempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var seen lab.Watch
		_, _, c := leaves(t, typedrpc.DialOptions{OnState: seen.On}, errDown)
		failed := 0
		for _, s := range seen.Seen() {
			if s.Err != nil {
				failed++
				is.Equal(typedrpc.OutcomeOf(s.Err), typedrpc.MayHaveRun)
				is.True(!strings.Contains(s.Err.Error(), "may have run"))
			}
		}
		is.True(failed > 2)
		_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{FailFast: true}), lab.Echo, 1)
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
	})
}

// Dial has sent nothing when it fails, and says so, whatever ended the connection.
func TestEnded_dial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var seen lab.Watch
		w, _, _ := leaves(t, typedrpc.DialOptions{}, errDown)
		_, err := w.TryDial(t.Context(), &typedrpc.DialOptions{OnState: seen.On})
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.True(errors.Is(err, errDown))
		synctest.Wait()
		all := seen.Seen()
		is.True(errors.Is(err, all[len(all)-1].Err)) // the very one
	})
}
