package typedrpctest_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	double = typedrpc.NewMethod[int, int]("double")
	sign   = typedrpc.NewSignIn[string, string]()
)

func doubles() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, double, func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	return mux
}

func TestPair_bothWaysInEveryDialect(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		is := is.New(t)
		client, server := typedrpctest.Pair(t, &typedrpc.Server{Mux: doubles()}, &typedrpc.DialOptions{Dialect: d, Mux: doubles()})
		for _, c := range []*typedrpc.Conn{client, server} {
			n, err := typedrpc.Call(t.Context(), c, double, 21)
			is.NoErr(err)
			is.Equal(n, 42)
		}
	}
}

func TestPair_withoutOptions(t *testing.T) {
	is := is.New(t)
	client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: doubles()}, nil)
	n, err := typedrpc.Call(t.Context(), client, double, 1)
	is.NoErr(err)
	is.Equal(n, 2)
}

func TestPair_closesBothWhenTheTestEnds(t *testing.T) {
	is := is.New(t)
	var client, server *typedrpc.Conn
	t.Run("the test", func(t *testing.T) {
		client, server = typedrpctest.Pair(t, &typedrpc.Server{}, nil)
	})
	<-client.Context().Done()
	<-server.Context().Done()
	is.Equal(client.State(), typedrpc.StateClosed)
	is.Equal(server.State(), typedrpc.StateClosed)
}

// Two bubbles must not share anything that belongs to one of them.
func TestPair_worksInManyBubbles(t *testing.T) {
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			client, server := typedrpctest.Pair(t, &typedrpc.Server{Mux: doubles()}, &typedrpc.DialOptions{Mux: doubles()})
			defer client.Close()
			for range 20 {
				for _, c := range []*typedrpc.Conn{client, server} {
					_, err := typedrpc.Call(t.Context(), c, double, 1)
					is.NoErr(err)
				}
			}
			time.Sleep(time.Hour)
			_, err := typedrpc.Call(t.Context(), client, double, 1)
			is.NoErr(err)
		})
	}
}

func TestPair_authenticationSeesTheHeader(t *testing.T) {
	is := is.New(t)
	srv := &typedrpc.Server{
		SignIn: sign.Verify(func(_ context.Context, r *http.Request, name *string) (typedrpc.Identity, string, error) {
			if name == nil {
				return typedrpc.Identity{}, "", typedrpc.Unauthenticated
			}
			return typedrpc.Identity{Subject: *name}, "hello from " + r.Header.Get("X-Where"), nil
		}),
	}
	auth := sign.Present(func(context.Context) (string, error) { return "Ann", nil })
	client, server := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{SignIn: auth, Header: http.Header{"X-Where": {"here"}}})
	is.Equal(server.Identity().Subject, "Ann")
	reply, err := sign.Reply(client)
	is.NoErr(err)
	is.Equal(reply, "hello from here")
}

func TestDial_returnsTheHandshakesError(t *testing.T) {
	is := is.New(t)
	srv := &typedrpc.Server{
		SignIn: sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, string, error) {
			return typedrpc.Identity{}, "", typedrpc.PermissionDenied
		}),
	}
	client, server, err := typedrpctest.Dial(srv, nil)
	is.True(errors.Is(err, typedrpc.PermissionDenied))
	is.True(client == nil && server == nil)
}
