package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func TestPOST_connFrom(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, s string) (string, error) {
		if err := typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), lab.Tell, 1); !errors.Is(err, typedrpc.FailedPrecondition) {
			return "", err
		}
		return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.Shout, s)
	})
	_, text := post(t, serve(t, &typedrpc.Server{Mux: mux}), `{"jsonrpc":"2.0","method":"text.shout","params":["x"],"id":1}`)
	is.Equal(text, `{"jsonrpc":"2.0","id":1,"error":{"code":9,"message":"this request came over HTTP POST: there is no connection to call back on"}}`)
}

func TestPOST_tooLarge(t *testing.T) {
	is := is.New(t)
	url := serve(t, &typedrpc.Server{Limits: typedrpc.Limits{MaxMessage: 1000}})
	status, text := post(t, url, `{"jsonrpc":"2.0","method":"`+strings.Repeat("x", 2000)+`","id":1}`)
	is.Equal(status, http.StatusRequestEntityTooLarge)
	is.True(strings.Contains(text, "1000 bytes"))
}

func TestPOST_contentType(t *testing.T) {
	url := serve(t, &typedrpc.Server{})
	for _, ct := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "multipart/form-data"} {
		is := is.New(t)
		resp, err := http.Post(url, ct, strings.NewReader(`{"jsonrpc":"2.0","method":"x","id":1}`))
		is.NoErr(err)
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		is.Equal(resp.StatusCode, http.StatusUnsupportedMediaType)
		is.True(bytes.Contains(body, []byte("application/json")))
	}
}

func TestPOST_emptyBody(t *testing.T) {
	is := is.New(t)
	status, text := post(t, serve(t, &typedrpc.Server{}), "")
	is.Equal(status, http.StatusOK)
	is.Equal(anyMessage(t, text), `{"error":{"code":-32700,"message":"…"},"id":null,"jsonrpc":"2.0"}`)
}

// The handler of a POST is told when its client leaves.
func TestPOST_clientLeaves(t *testing.T) {
	is := is.New(t)
	h := lab.NewHanging()
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Stay, h.Handle)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", serve(t, &typedrpc.Server{Mux: mux}), strings.NewReader(`{"jsonrpc":"2.0","method":"hang","id":1}`))
	is.NoErr(err)
	r.Header.Set("Content-Type", "application/json")
	failed := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-h.Begun
	cancel()
	is.True(<-failed != nil)
	is.True(<-h.Ended != nil)
}
