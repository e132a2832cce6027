package e2e_test

import (
	"context"
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

// A server's reason that is cut inside of a character, and codes of all kinds, are
// read by programs.
func TestCloseError_rawReasons(t *testing.T) {
	for _, code := range []int{1000, 1001, 1011, 1012, 3000, 4000, 4999} {
		lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
			s.T.Close(code, "ab\xc3")
			time.Sleep(time.Second)
			if c.Err() != nil {
				ce := closeOf(c.Err())
				if ce.Code != code || !strings.HasPrefix(ce.Reason, "ab") {
					t.Errorf("%d: %#v %v", code, ce, c.Err())
				}
				t.Logf("%d %q %v", ce.Code, ce.Reason, c.Err())
			}
		})
	}
}

// A server that answers the upgrade with errors of all kinds, by date and number.
func TestDial_retryAfterForms(t *testing.T) {
	for _, tt := range []struct {
		value, date string
		least, most time.Duration
	}{
		{"7", "", 7 * time.Second, 7 * time.Second},
		{" 7 ", "", 7 * time.Second, 7 * time.Second},
		{"Tue, 01 Dec 2026 00:00:09 GMT", "Tue, 01 Dec 2026 00:00:00 GMT", 9 * time.Second, 9 * time.Second},
		{"Tuesday, 01-Dec-26 00:00:09 GMT", "Tue, 01 Dec 2026 00:00:00 GMT", 9 * time.Second, 9 * time.Second},
		{"Tue Dec  1 00:00:09 2026", "Tue, 01 Dec 2026 00:00:00 GMT", 9 * time.Second, 9 * time.Second},
		{"Tue, 01 Dec 2026 00:00:00 GMT", "Tue, 01 Dec 2026 00:00:09 GMT", 0, 0},
		{"-7", "", 0, 0}, {"x", "", 0, 0}, {"", "", 0, 0}, {"1.5", "", 0, 0},
	} {
		for _, code := range []int{429, 503, 500} {
			is := is.New(t)
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", tt.value)
				if tt.date != "" {
					w.Header().Set("Date", tt.date)
				}
				w.WriteHeader(code)
			}))
			_, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{MaxAttempts: 1, Backoff: typedrpc.Backoff{Min: 1, Max: 1}})
			e := lab.AsError(t, err)
			if e.RetryAfter < tt.least || e.RetryAfter > tt.most {
				t.Errorf("%q %d: %v", tt.value, code, e.RetryAfter)
			}
			is.True(e.Message != "")
			hs.Close()
		}
	}
}

// An own subprotocol beside ours, in each dialect, the server choosing either.
func TestDial_ownSubprotocolChoice(t *testing.T) {
	for _, choose := range []string{"mine.v1", "", "other"} {
		for _, name := range []string{"Sec-WebSocket-Protocol", "sec-websocket-protocol"} {
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var subs []string
				if choose != "" {
					subs = []string{choose}
				}
				c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: subs})
				if err != nil {
					return
				}
				defer c.CloseNow()
				c.Read(r.Context())
				c.Write(r.Context(), websocket.MessageText, []byte(`{"id":1,"result":8}`))
				c.Read(r.Context())
			}))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			c, err := typedrpc.Dial(ctx, hs.URL, &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC, Header: http.Header{name: {"mine.v1, two"}}})
			if err != nil {
				t.Errorf("%s %q: %v", name, choose, err)
			} else {
				n, err := typedrpc.Call(ctx, c, lab.Ask, 1)
				if n != 8 || err != nil {
					t.Errorf("%s %q: %v", name, choose, err)
				}
				c.Close()
			}
			cancel()
			hs.Close()
		}
	}
}
