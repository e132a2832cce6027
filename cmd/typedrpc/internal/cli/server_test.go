package cli

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

type order struct {
	Item  string `json:"item"`
	Count int    `json:"count"`
}

type photo struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset,omitempty"`
}

type shortage struct {
	Left int `json:"left"`
}

// What the shop of the tests declares; testdata/shop.json says the same.
var (
	price   = typedrpc.NewMethod[string, int]("shop.price", typedrpc.Idempotent, typedrpc.Safe)
	buy     = typedrpc.NewMethod[order, int]("shop.buy")
	slow    = typedrpc.NewMethod[struct{}, struct{}]("shop.slow")
	whoami  = typedrpc.NewMethod[struct{}, map[string]string]("shop.whoami")
	viewed  = typedrpc.NewNotification[string]("shop.viewed")
	ticks   = typedrpc.NewServerStream[int, int]("shop.ticks")
	sum     = typedrpc.NewClientStream[int, int, int]("shop.sum")
	talk    = typedrpc.NewBidiStream[string, string, string]("shop.talk")
	news    = topic.New[string]("shop.news", topic.History(10, 0), topic.WithPresence)
	put     = transfer.NewUpload[photo, int64]("shop.put")
	get     = transfer.NewDownload[photo]("shop.get")
	noStock = typedrpc.NewFault[shortage]("shop.out-of-stock", typedrpc.FailedPrecondition)
)

// shop is a server for tests.
type shop struct {
	*typedrpc.Server
	url     string
	hub     topic.Hub
	seen    chan string  // what was notified
	running chan string  // that a handler which waits for its caller's end has begun
	ended   chan string  // and has ended
	asked   atomic.Bool  // for a price since it was
	photos  sync.Map     // by name, []byte
	cut     atomic.Int64 // so many bytes are sent of the next photo, if more than 0
	closed  atomic.Bool  // after the next price no other is known
}

// open starts a shop.
func open(t *testing.T) *shop {
	t.Helper()
	s := &shop{seen: make(chan string, 16), running: make(chan string, 16), ended: make(chan string, 16)}
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, price, func(_ context.Context, item string) (int, error) {
		if item == "" || s.closed.Load() && s.asked.Swap(true) {
			return 0, typedrpc.NotFound
		}
		return 100 * len(item), nil
	})
	typedrpc.Handle(mux, buy, func(_ context.Context, o order) (int, error) {
		if o.Count > 3 {
			return 0, noStock.Errorf(shortage{3}, "only 3 are left")
		}
		return o.Count * 100 * len(o.Item), nil
	})
	typedrpc.Handle(mux, slow, func(ctx context.Context, _ struct{}) (struct{}, error) {
		return struct{}{}, s.wait(ctx, "slow")
	})
	typedrpc.Handle(mux, whoami, func(ctx context.Context, _ struct{}) (map[string]string, error) {
		return map[string]string{"subject": typedrpc.ConnFrom(ctx).Identity().Subject, "meta": typedrpc.RequestFrom(ctx).Metadata["k"]}, nil
	})
	typedrpc.Handle(mux, viewed, func(_ context.Context, item string) error { s.seen <- item; return nil })
	s.streams(mux)
	s.transfers(mux)
	topic.Handle(mux, &s.hub, news, topic.Everybody)
	document, err := os.ReadFile("testdata/shop.json")
	if err != nil {
		t.Fatal(err)
	}
	signIn := typedrpc.NewSignIn[string, string]()
	s.Server = &typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler), Schema: document, Describe: func(context.Context) error { return nil }, SignIn: signIn.Verify(func(_ context.Context, r *http.Request, name *string) (typedrpc.Identity, string, error) {
		switch {
		case name != nil:
			return typedrpc.Identity{Subject: *name}, "welcome", nil
		case r.Header.Get("Authorization") == "Bearer wrong-s3cret":
			return typedrpc.Identity{}, "", typedrpc.Unauthenticated
		}
		return typedrpc.Identity{Subject: r.Header.Get("Authorization") + r.Header.Get("X-Who")}, "", nil
	})}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(s)
	t.Cleanup(func() {
		s.Shutdown(context.Background())
		hs.Close()
		s.hub.Close()
	})
	s.url = strings.Replace(hs.URL, "http", "ws", 1) + "/rpc"
	return s
}

func (s *shop) wait(ctx context.Context, what string) error {
	s.running <- what
	<-ctx.Done()
	s.ended <- what
	return ctx.Err()
}

func (s *shop) streams(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, ticks, func(ctx context.Context, n int, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
		}
		if n < 0 {
			return s.wait(ctx, "ticks")
		}
		return nil
	})
	typedrpc.Handle(mux, sum, func(ctx context.Context, from int, items iter.Seq2[int, error]) (int, error) {
		s.running <- "sum"
		for i, err := range items {
			if err != nil {
				s.ended <- "sum"
				return 0, err
			}
			from += i
		}
		return from, nil
	})
	typedrpc.Handle(mux, talk, func(ctx context.Context, name string, stream *typedrpc.Stream[string, string]) error {
		if err := stream.Send("hello " + name); err != nil {
			return err
		}
		s.running <- "talk"
		for line, err := range stream.All() {
			if err != nil {
				s.ended <- "talk"
				return err
			}
			if err := stream.Send(strings.ToUpper(line)); err != nil {
				return err
			}
		}
		return nil
	})
}

// text is what several goroutines write, for one that reads it.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
	on func(string) // is told of each write
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	n, err := t.b.Write(p)
	t.mu.Unlock()
	if t.on != nil {
		t.on(string(p))
	}
	return n, err
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// session is a run of the command.
type session struct {
	in       string
	env      map[string]string
	out, err text
}

// run runs the command, and returns its status.
func (s *session) run(ctx context.Context, args ...string) int {
	return Main(ctx, &Env{Args: args, In: strings.NewReader(s.in), Out: &s.out, Err: &s.err, Getenv: func(name string) string { return s.env[name] }})
}
