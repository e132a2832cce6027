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

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// What plain peers' requests to a client's mux with a batch in binary, cancels in
// arrays, and events between.
func TestPlain_mixedArrays(t *testing.T) {
	for _, bin := range []bool{false, true} {
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return n, nil
		})
		lab.Strangers(t, mux, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
			is := is.New(t)
			send := s.Send
			if bin {
				send = s.SendBinary
			}
			var fs []*typedrpc.Future[int]
			ids := []string{}
			for range 3 {
				fs = append(fs, typedrpc.Go(t.Context(), c, lab.Ask, 1))
				ids = append(ids, callID(t, s.Only(t)))
			}
			send(`[{"jsonrpc":"2.0","id":` + ids[0] + `,"result":1},{"jsonrpc":"2.0","id":` + ids[0] + `,"method":"ask","params":[0]},{"jsonrpc":"2.0","method":"no.event","params":[1]},` +
				`{"id":"` + ids[1] + `","error":"x"},{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":` + ids[0] + `}},{"id":` + ids[2] + `},7,{"foo":1}]`)
			got := s.Messages()
			is.Equal(len(got), 1)
			is.Equal(got[0].Binary, bin)
			t.Log(got[0].Text)
			n, err := fs[0].Await(t.Context())
			is.NoErr(err)
			is.Equal(n, 1)
			_, err = fs[1].Await(t.Context())
			is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
			_, err = fs[2].Await(t.Context())
			is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
			is.True(!errors.Is(err, context.Canceled))
		})
	}
}

// Given-up calls: late answers of all kinds hurt nobody, places come free, both for
// futures and calls.
func TestPlain_lateAnswersOfAllKinds(t *testing.T) {
	lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
		is := is.New(t)
		forms := []string{`{"id":ID}`, `{"jsonrpc":"2.0","id":ID,"result":7}`, `{"id":"ID","error":"x"}`, `{"id":ID,"result":NaN}`, `[{"id":ID,"error":{"code":-32800,"message":"c"}}]`, `{"id":IDe0,"result":1,"error":2}`}
		for i := range 5000 {
			ctx, cancel := context.WithCancel(t.Context())
			f := typedrpc.Go(ctx, c, lab.Ask, 1)
			got := s.Got()
			id := callID(t, got[len(got)-1])
			cancel()
			_, err := f.Await(t.Context())
			is.True(errors.Is(err, context.Canceled))
			s.Send(strings.ReplaceAll(forms[i%len(forms)], "ID", id))
			if c.Err() != nil {
				t.Fatal(i, c.Err())
			}
		}
	})
}

// A redirect of every kind, and hops with other statuses.
func TestRedirect_statuses(t *testing.T) {
	for _, code := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		for _, location := range []bool{true, false} {
			is := is.New(t)
			srv := &typedrpc.Server{}
			lab.Quiet(srv, &typedrpc.DialOptions{})
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					if location {
						w.Header().Set("Location", "/rpc")
					}
					w.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
					w.WriteHeader(code)
					return
				}
				srv.ServeHTTP(w, r)
			}))
			c, err := typedrpc.Dial(t.Context(), hs.URL+"/", &typedrpc.DialOptions{})
			t.Log(code, location, err)
			if err == nil {
				c.Close()
			} else {
				var u *typedrpc.UpgradeError
				if !errors.As(err, &u) {
					t.Errorf("%d %v: %v", code, location, err)
				} else {
					is.Equal(u.Status, code)
				}
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
			}
			hs.Close()
		}
	}
}

// Over POST a handler's panics, and AfterReply's, lose no answer.
func TestAfterReply_postPanics(t *testing.T) {
	mux := typedrpc.NewMux()
	told := make(chan error, 99)
	typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) {
		typedrpc.RequestFrom(ctx).AfterReply = func(_ context.Context, err error) {
			told <- err
			panic("after")
		}
		switch n {
		case 1:
			panic("handler")
		case 2:
			return 0, errors.New("")
		}
		return n, nil
	})
	url := serve(t, &typedrpc.Server{Mux: mux})
	for n := range 4 {
		one := fmt.Sprintf(`{"jsonrpc":"2.0","id":null,"method":"ask","params":[%d]}`, n)
		for _, body := range []string{one, "[" + one + "]", "[" + one + "," + one + "]"} {
			status, text := post(t, url, body)
			t.Log(status, text)
			if status != 200 || strings.Count(text, `"id":null`) != strings.Count(body, `"id":null`) {
				t.Errorf("%s: %d %s", body, status, text)
			}
			for range strings.Count(body, `"id":null`) {
				select {
				case err := <-told:
					if (err != nil) != (n == 1 || n == 2) {
						t.Errorf("%s: %v", body, err)
					}
				case <-time.After(time.Minute):
					t.Errorf("%s: not told", body)
				}
			}
		}
	}
}
