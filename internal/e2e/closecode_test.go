package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func closeOf(err error) typedrpc.CloseError {
	var ce *typedrpc.CloseError
	if errors.As(err, &ce) {
		return *ce
	}
	return typedrpc.CloseError{}
}

// whyLost is an OnState that says why there was no link any more.
func whyLost() (func(typedrpc.StateChange), chan error) {
	why := make(chan error, 100)
	return func(s typedrpc.StateChange) {
		if s.State == typedrpc.StateWaiting || s.State == typedrpc.StateClosed {
			why <- s.Err
		}
	}, why
}

func TestCloseError_ofAServer(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		on, why := whyLost()
		_, server := o.Connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{OnState: on, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		is.NoErr(server.Close())
		is.Equal(closeOf(<-why), typedrpc.CloseError{Code: 1000, Reason: "closed"})
		is.Equal(closeOf(server.Err()), typedrpc.CloseError{}) // this side closed it
	})
}

func TestCloseError_ofAClient(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		ends := make(chan error, 1)
		client, server := o.Connect(t, &typedrpc.Server{OnDisconnect: func(_ *typedrpc.Conn, err error) { ends <- err }}, nil)
		is.NoErr(client.Close())
		want := typedrpc.CloseError{Code: 1000, Reason: "closed"}
		is.Equal(closeOf(<-ends), want)
		is.Equal(closeOf(server.Err()), want)
		is.Equal(closeOf(context.Cause(server.Context())), want)
		is.Equal(closeOf(client.Err()), typedrpc.CloseError{})
	})
}

// What refuses a HELLO has a close code behind it, and an error of its own.
func TestCloseError_ofARefusal(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		on, why := whyLost()
		srv := &typedrpc.Server{SignIn: lab.Sign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
			return typedrpc.Identity{}, 0, typedrpc.Errorf(typedrpc.PermissionDenied, "not you")
		})}
		_, err := o.Dial(t, srv, &typedrpc.DialOptions{OnState: on})
		is.Equal(typedrpc.CodeOf(err), typedrpc.PermissionDenied)
		want := typedrpc.CloseError{Code: 4403, Reason: "not you"}
		is.Equal(closeOf(err), want)
		is.Equal(closeOf(<-why), want)
	})
}

// A server that is none of ours, with codes of its own, or none.
func TestCloseError_ofForeigners(t *testing.T) {
	for name, tt := range map[string]struct {
		code   websocket.StatusCode
		reason string
		want   typedrpc.CloseError
		text   string
	}{
		"its own":      {4999, "because", typedrpc.CloseError{Code: 4999, Reason: "because"}, "link closed by the peer with code 4999: because"},
		"no reason":    {1011, "", typedrpc.CloseError{Code: 1011}, "link closed by the peer with code 1011"},
		"no code":      {websocket.StatusNoStatusRcvd, "", typedrpc.CloseError{Code: 1005}, "link closed by the peer with code 1005"},
		"no UTF-8":     {1001, "a\xffb", typedrpc.CloseError{Code: 1001, Reason: "a\uFFFDb"}, "link closed by the peer with code 1001: a\uFFFDb"},
		"and for good": {4403, "never again", typedrpc.CloseError{Code: 4403, Reason: "never again"}, "link closed by the peer with code 4403: never again"},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := websocket.Accept(w, r, nil)
				if err != nil {
					return
				}
				if _, _, err := c.Read(r.Context()); err == nil { // a call, which has no answer
					c.Close(tt.code, tt.reason)
				}
			}))
			defer hs.Close()
			on, why := whyLost()
			c, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC, OnState: on, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
			is.NoErr(err)
			defer c.Close()
			_, err = typedrpc.Call(t.Context(), c, lab.Shout, "x")
			is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
			is.Equal(closeOf(err), tt.want) // of the call
			ended := <-why
			is.Equal(closeOf(ended), tt.want)
			var ce *typedrpc.CloseError
			is.True(errors.As(ended, &ce))
			is.Equal(ce.Error(), tt.text)
			if tt.code == 4403 {
				<-c.Context().Done()
				is.Equal(closeOf(c.Err()), tt.want)
				is.Equal(closeOf(context.Cause(c.Context())), tt.want)
			}
		})
	}
}

// A link that broke was closed by nobody.
func TestCloseError_ofALostLink(t *testing.T) {
	is := is.New(t)
	var conns []*websocket.Conn
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			conns = append(conns, c)
			c.CloseNow()
		}
	}))
	defer hs.Close()
	on, why := whyLost()
	c, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC, OnState: on, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
	is.NoErr(err)
	defer c.Close()
	ended := <-why
	is.True(ended != nil)
	is.Equal(closeOf(ended), typedrpc.CloseError{})
}
