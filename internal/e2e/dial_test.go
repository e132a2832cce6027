package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func TestDial_badOptions(t *testing.T) {
	for want, o := range map[string]*typedrpc.DialOptions{
		"Limits.MaxCalls is -1":            {Limits: typedrpc.Limits{MaxCalls: -1}},
		"DialOptions.Backoff: Min":         {Backoff: typedrpc.Backoff{Min: -1}},
		"DialOptions.OutgoingRetry: Retry": {OutgoingRetry: &typedrpc.RetryPolicy{MaxAttempts: -1}},
		"DialOptions.Dialect 7 is n":       {Dialect: 7},
	} {
		is := is.New(t)
		_, err := typedrpc.Dial(t.Context(), "ws://127.0.0.1:1/", o)
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.True(strings.Contains(err.Error(), want))
	}
	for _, url := range []string{"", "127.0.0.1:80", "ftp://127.0.0.1", "ws://", "/rpc", "ws://%zz"} {
		is := is.New(t)
		_, err := typedrpc.Dial(t.Context(), url, nil)
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.True(strings.Contains(err.Error(), "URL"))
	}
}

func TestDial_refusedUpgrade(t *testing.T) {
	for status, code := range map[int]typedrpc.Code{
		http.StatusBadRequest:          typedrpc.InvalidArgument,
		http.StatusUnauthorized:        typedrpc.Unauthenticated,
		http.StatusForbidden:           typedrpc.PermissionDenied,
		http.StatusNotFound:            typedrpc.Unimplemented,
		http.StatusTooManyRequests:     typedrpc.ResourceExhausted,
		http.StatusInternalServerError: typedrpc.Unavailable,
		http.StatusBadGateway:          typedrpc.Unavailable,
		http.StatusOK:                  typedrpc.Unavailable,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			is := is.New(t)
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Proxy", "p")
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(status)
				fmt.Fprint(w, "because ", strings.Repeat("x", 5000))
			}))
			defer hs.Close()
			_, err := typedrpc.Dial(t.Context(), hs.URL, nil)
			e := lab.AsError(t, err)
			is.Equal(e.Code, code)
			is.Equal(e.Outcome, typedrpc.NotSent)
			is.Equal(e.RetryAfter, 7*time.Second)
			var u *typedrpc.UpgradeError
			is.True(errors.As(err, &u))
			is.Equal(u.Status, status)
			is.Equal(u.Header.Get("X-Proxy"), "p")
			is.True(strings.HasPrefix(u.Body, "because xxx"))
			is.True(len(u.Body) <= 1024)
			is.True(strings.Contains(err.Error(), fmt.Sprint(status)))
		})
	}
}

func TestDial_noServer(t *testing.T) {
	is := is.New(t)
	hs := httptest.NewServer(http.NotFoundHandler())
	hs.Close() // now nobody listens there
	_, err := typedrpc.Dial(t.Context(), hs.URL, nil)
	is.True(errors.Is(err, typedrpc.Unavailable))
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
	is.True(strings.Contains(err.Error(), "connection refused"))
}

func TestDial_contextEnds(t *testing.T) {
	is := is.New(t)
	stuck := make(chan struct{})
	hs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	defer hs.Close()
	defer close(stuck)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := typedrpc.Dial(ctx, hs.URL, nil)
	is.True(errors.Is(err, context.DeadlineExceeded))
	_, err = typedrpc.Dial(ended(t), hs.URL, nil)
	is.True(errors.Is(err, context.Canceled))
	_, err = typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Limits: typedrpc.Limits{HandshakeTimeout: 50 * time.Millisecond}})
	is.True(err != nil) // bounded also without a deadline of its own
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
}

// A WebSocket server that is none of ours.
func TestDial_foreignServer(t *testing.T) {
	is := is.New(t)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			c.Read(r.Context())
			c.CloseNow()
		}
	}))
	defer hs.Close()
	_, err := typedrpc.Dial(t.Context(), hs.URL, nil)
	is.True(errors.Is(err, typedrpc.Unimplemented))
	is.True(strings.Contains(err.Error(), "set DialOptions.Dialect to JSONRPC")) // what would work
}

// Secrets in a URL stay out of every error.
func TestDial_secretsStayOut(t *testing.T) {
	const user, query = "s3cr3t-user", "s3cr3t-query"
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	defer refusing.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	redirecting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, gone.URL+"/?token="+query, http.StatusFound)
	}))
	defer redirecting.Close()
	stuck := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	defer hanging.Close()
	defer close(stuck)
	with := func(base string) string {
		return strings.Replace(base, "://", "://"+user+":"+user+"@", 1) + "/rpc?token=" + query
	}
	for _, url := range []string{
		with(refusing.URL), with(gone.URL), with(redirecting.URL), with(hanging.URL),
		"http://" + user + ":" + user + "@127.0.0.1:99999/?token=" + query, // bad port
		"ws://127.0.0.1/%zz" + user + "?" + query,                          // does not parse
		"ftp://" + user + "@127.0.0.1/?" + query,                           // bad scheme
		user + ":" + user + "@127.0.0.1/rpc?" + query,                      // no scheme
	} {
		is := is.New(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := typedrpc.Dial(ctx, url, nil)
		cancel()
		is.True(err != nil)
		for ; err != nil; err = errors.Unwrap(err) {
			if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "s3cr3t") {
				t.Errorf("Dial of %s tells: %s", url, text)
			}
		}
	}
}
