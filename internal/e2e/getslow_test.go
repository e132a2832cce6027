package e2e_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// dripping is an http.ResponseWriter whose client takes a while for each part.
type dripping struct {
	*httptest.ResponseRecorder
	takes time.Duration
}

func (w *dripping) Write(p []byte) (int, error) {
	time.Sleep(w.takes)
	return w.ResponseRecorder.Write(p)
}

// TestGet_slowReader has one item take longer than WriteTimeout on its way, though the
// client takes some of it all the time.
func TestGet_slowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		large := typedrpc.NewServerStream[struct{}, string]("large", typedrpc.Safe)
		text := strings.Repeat("x", 300_000)
		typedrpc.Handle(mux, large, func(_ context.Context, _ struct{}, send func(string) error) error { return send(text) })
		srv := &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{WriteTimeout: 10 * time.Second, KeepAlive: time.Hour}}
		w := &dripping{httptest.NewRecorder(), 6 * time.Second}
		srv.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?method=large", nil))
		is.Equal(w.Code, http.StatusOK)
		is.True(strings.HasSuffix(w.Body.String(), "data: \""+text+"\"\n\nevent: done\nid: end\ndata: {}\n\n"))
	})
}
