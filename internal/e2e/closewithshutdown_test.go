package e2e_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// TestCloseWith_whileShuttingDown ends one of two clients for good while a Shutdown waits for
// the calls of both: it stays away from the server's successor, too, and the other comes back
// there with its answer.
func TestCloseWith_whileShuttingDown(t *testing.T) {
	for name, ends := range map[string]func(srv *typedrpc.Server, o *typedrpc.CloseOptions){
		"CloseWith": func(srv *typedrpc.Server, o *typedrpc.CloseOptions) {
			for c := range srv.ConnsOf("ann") {
				c.CloseWith(o)
			}
		},
		"Revoke": func(srv *typedrpc.Server, o *typedrpc.CloseOptions) { srv.Revoke("ann", o) },
	} {
		t.Run(name, func(t *testing.T) {
			everyway(t, func(t *testing.T, d typedrpc.Dialect) {
				if d == typedrpc.JSONRPC {
					return // whose subject comes by a header, and not over this town's lines
				}
				is := is.New(t)
				l := lab.New()
				srv, w := house(l.Mux)
				ann, bob := w.Dial(t, visitor(d, "ann")), w.Dial(t, visitor(d, "bob"))
				hers := typedrpc.Go(t.Context(), ann, lab.Hang, struct{}{})
				his := typedrpc.Go(t.Context(), bob, lab.Hang, struct{}{})
				synctest.Wait()
				down := make(chan error)
				go func() { down <- srv.Shutdown(t.Context()) }()
				time.Sleep(time.Second)
				next, _ := house(lab.New().Mux)
				w.Serve(next)
				before := w.Dialled()
				ends(srv, &typedrpc.CloseOptions{Err: shut.Errorf("until Sunday", "you are banned"), StayAway: true})
				<-ann.Context().Done()
				is.True(saysShut(ann.Err()))
				_, err := hers.Await(t.Context())
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
				close(l.Release)
				_, err = his.Await(t.Context())
				is.NoErr(err) // Shutdown waits for it
				is.NoErr(<-down)
				n, err := typedrpc.Call(t.Context(), bob, lab.Echo, 4)
				is.NoErr(err)
				is.Equal(n, 4)
				time.Sleep(time.Hour)
				is.Equal(w.Dialled(), before+1) // his, and none of hers
				is.NoErr(bob.Close())
				is.NoErr(next.Shutdown(t.Context()))
			})
		})
	}
}

// TestCloseWith_lostWhileShuttingDown has the client that is ended for good without a link when
// the server goes away: when it comes to the successor it is that one's to let it in.
func TestCloseWith_lostWhileShuttingDown(t *testing.T) {
	everyway(t, func(t *testing.T, d typedrpc.Dialect) {
		if d == typedrpc.JSONRPC {
			return // whose connections end with their links
		}
		is := is.New(t)
		l := lab.New()
		srv, w := house(l.Mux)
		ann := w.Dial(t, visitor(d, "ann"))
		f := typedrpc.Go(t.Context(), ann, lab.Hang, struct{}{})
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		down := make(chan error)
		go func() { down <- srv.Shutdown(ctx) }()
		synctest.Wait()
		is.Equal(srv.Revoke("ann", &typedrpc.CloseOptions{Err: shut.Errorf("until Sunday", "you are banned"), StayAway: true}), 1)
		is.NoErr(<-down) // nobody is left to wait for
		next, _ := house(lab.New().Mux)
		w.Serve(next)
		n, err := typedrpc.Call(t.Context(), ann, lab.Echo, 4)
		is.NoErr(err)
		is.Equal(n, 4)
		_, err = f.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		is.NoErr(ann.Close())
		is.NoErr(next.Shutdown(t.Context()))
	})
}
