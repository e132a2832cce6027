package e2e_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// TestPOST_endedClosesItsConnection revokes who waits for a POST's answer: what is asked next
// comes over another connection, on which no deadline was set.
func TestPOST_endedClosesItsConnection(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	began := make(chan struct{})
	typedrpc.Handle(mux, lab.Hang, func(ctx context.Context, _ struct{}) (struct{}, error) {
		close(began)
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	})
	srv, _ := house(mux)
	url := serve(t, srv)
	post := func(user string) (status int, closes bool) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"`+lab.Hang.Name()+`"}`))
		is.NoErr(err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("User", user)
		resp, err := http.DefaultClient.Do(r)
		is.NoErr(err)
		defer resp.Body.Close()
		return resp.StatusCode, resp.Close
	}
	go func() {
		<-began
		srv.Revoke("ann", nil)
	}()
	status, closes := post("ann")
	is.Equal(status, http.StatusUnauthorized)
	is.True(closes)
}
