package e2e_test

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

// unread is where an answer goes that nobody reads: its first write takes until the test
// says otherwise.
type unread struct {
	*httptest.ResponseRecorder
	until chan struct{}
}

func (u unread) Write(p []byte) (int, error) {
	if len(p) > 1000 {
		<-u.until
	}
	return u.ResponseRecorder.Write(p)
}

func asPOST(body string) *http.Request {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

var large = typedrpc.NewMethod[int, string]("large")

func largeMux(ran *atomic.Int64) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, large, func(_ context.Context, n int) (string, error) {
		ran.Add(1)
		return strings.Repeat("x", n), nil
	})
	return mux
}

// POSTs whose answers nobody reads fill the server. Those that wait for room were answered
// nevertheless when they had waited for two seconds, all of them.
func TestBought_POSTsThatFindNoRoom(t *testing.T) {
	for name, body := range map[string]string{
		"a call":  `{"jsonrpc":"2.0","id":1,"method":"large","params":[1000000]}`,
		"a batch": `[{"jsonrpc":"2.0","id":1,"method":"large","params":[1000000]}]`,
	} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			const budget, posts = 16 << 20, 60
			var ran atomic.Int64
			srv := &typedrpc.Server{Mux: largeMux(&ran), MaxMemory: budget}
			until := make(chan struct{})
			read := sync.OnceFunc(func() { close(until) })
			defer read()
			var all sync.WaitGroup
			var over atomic.Int64
			answers := make([]*httptest.ResponseRecorder, posts)
			for i := range answers {
				answers[i] = httptest.NewRecorder()
				all.Go(func() {
					srv.ServeHTTP(unread{answers[i], until}, asPOST(body))
					over.Add(1)
				})
			}
			time.Sleep(1900 * time.Millisecond)
			is.True(hook.Server(srv).Budget < budget)
			some := ran.Load()
			is.True(some > 2 && some < posts/2)
			time.Sleep(5 * time.Second)
			is.True(ran.Load() < posts/2)  // of the rest none began …
			is.True(over.Load() > posts/2) // … nor waits
			is.True(hook.Server(srv).Budget < budget)
			read()
			all.Wait()
			refused, ended := 0, 0
			for _, a := range answers {
				switch text := a.Body.String(); {
				case a.Code == http.StatusServiceUnavailable: // one that held the most, for those that began
					ended++
				case len(text) < 1000:
					is.Equal(a.Code, http.StatusOK)
					is.True(strings.Contains(text, fmt.Sprintf(`"code":%d`, typedrpc.ResourceExhausted)))
					is.True(strings.Contains(text, "try again later"))
					refused++
				}
			}
			is.Equal(refused+int(ran.Load()), posts)
			is.True(ended <= 2)
			time.Sleep(time.Second)
			w := httptest.NewRecorder() // there is room again
			srv.ServeHTTP(w, asPOST(body))
			is.True(w.Body.Len() > 1_000_000)
		})
	}
}

// So is a client stream's, whose items are POSTed: it is let go while it is refused.
func TestBought_itemsThatFindNoRoom(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		var ran atomic.Int64
		mux := largeMux(&ran)
		sum := typedrpc.NewClientStream[int, int, int]("sum")
		var began atomic.Int64
		typedrpc.Handle(mux, sum, func(_ context.Context, n int, items iter.Seq2[int, error]) (int, error) {
			began.Add(1)
			for i, err := range items {
				if err != nil {
					return 0, err
				}
				n += i
			}
			return n, nil
		})
		srv := &typedrpc.Server{Mux: mux, MaxMemory: 16 << 20}
		until := make(chan struct{})
		read := sync.OnceFunc(func() { close(until) })
		defer read()
		var all sync.WaitGroup
		for range 60 {
			all.Go(func() {
				srv.ServeHTTP(unread{httptest.NewRecorder(), until}, asPOST(`{"jsonrpc":"2.0","id":1,"method":"large","params":[1000000]}`))
			})
		}
		time.Sleep(time.Second)
		answers := make([]*httptest.ResponseRecorder, 100)
		for i := range answers {
			answers[i] = httptest.NewRecorder()
			all.Go(func() {
				r := httptest.NewRequest("POST", "/?method=sum&params=0", strings.NewReader(strings.Repeat("1\n", 2000))) // more than a window has room for
				r.Header.Set("Content-Type", "application/x-ndjson")
				srv.ServeHTTP(answers[i], r)
			})
		}
		time.Sleep(5 * time.Second)
		read()
		all.Wait()
		time.Sleep(time.Second)
		is.Equal(hook.Server(srv).Budget, int64(0))
		refused := 0
		for _, a := range answers {
			is.True(a.Body.Len() > 0)
			if strings.Contains(a.Body.String(), "had no room for the answer") {
				refused++
			}
		}
		is.True(refused > len(answers)/2)
		is.True(refused+int(began.Load()) <= len(answers))
	})
}

// A POST whose answer may be larger than a small server's room begins at once, where there
// is nothing else.
func TestBought_aPOSTAtASmallServer(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		var ran atomic.Int64
		srv := &typedrpc.Server{Mux: largeMux(&ran), MaxMemory: 6 << 20}
		began := time.Now()
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, asPOST(`{"jsonrpc":"2.0","id":1,"method":"large","params":[1000000]}`))
		is.True(w.Body.Len() > 1_000_000)
		is.Equal(time.Since(began), time.Duration(0))
	})
}

// weighed is an answer that notes what is promised while it is encoded.
type weighed struct{ srv *typedrpc.Server }

var promised atomic.Int64

func (w weighed) MarshalJSON() ([]byte, error) {
	if w.srv != nil { // else it is asked whether it can be encoded at all
		promised.Store(hook.Server(w.srv).Promised)
	}
	return []byte("{}"), nil
}

// What was bought for the answer to a POST is promised until that is encoded, however long its
// handler took, and then no more.
func TestBought_POSTsAreEncoded(t *testing.T) {
	testkit.Bubble(t, "", func(t *testing.T, is *is.I) {
		mux, srv := typedrpc.NewMux(), new(typedrpc.Server)
		late := typedrpc.NewMethod[int, weighed]("late", typedrpc.MaxSize(1<<20))
		typedrpc.Handle(mux, late, func(context.Context, int) (weighed, error) {
			time.Sleep(10 * time.Second) // what was bought is forgotten
			return weighed{srv}, nil
		})
		srv.Mux = mux
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, asPOST(`{"jsonrpc":"2.0","id":1,"method":"late","params":[1]}`))
		is.Equal(w.Code, 200)
		is.Equal(promised.Load(), int64(3<<20))
		is.Equal(hook.Server(srv).Promised, int64(0))
	})
}
