package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// Headers are kept for as long as their connection, so they are bounded by what they
// take: short ones are many times their length.
func TestHeaders_bounded(t *testing.T) {
	srv := lab.New().Server
	for _, test := range []struct {
		name  string
		add   func(h http.Header)
		wants bool
	}{
		{"usual ones", func(h http.Header) { h.Set("Cookie", strings.Repeat("c", 16<<10)) }, true},
		{"a large one", func(h http.Header) { h.Set("X-Large", strings.Repeat("x", 64<<10)) }, false},
		{"many small ones", func(h http.Header) {
			for i := range 700 {
				h.Set(fmt.Sprint("X-", i), "")
			}
		}, false},
		{"many of one name", func(h http.Header) {
			for range 3000 {
				h.Add("X", "")
			}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			post := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"nobody"}`))
			post.Header.Set("Content-Type", "application/json")
			upgrade := httptest.NewRequest(http.MethodGet, "/", nil)
			for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
				upgrade.Header.Set(name, value)
			}
			for _, r := range []*http.Request{post, upgrade} {
				test.add(r.Header)
				w := httptest.NewRecorder()
				srv.ServeHTTP(w, r)
				is.Equal(w.Code != http.StatusRequestHeaderFieldsTooLarge, test.wants)
				is.True(test.wants || strings.Contains(w.Body.String(), "65536")) // it says how many are taken
			}
		})
	}
}
