package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

type (
	pair     struct{ A, B int }
	failure  struct{ Code, RetryAfter int }
	shortage struct {
		Left int `json:"left"`
	}
	token struct {
		User string `json:"user"`
		Life int    `json:"life"` // milliseconds
	}
	welcome struct {
		Greeting string `json:"greeting"`
	}
	report struct {
		Count int   `json:"count"`
		Wrong []int `json:"wrong"`
	}
)

var (
	multiply = typedrpc.NewMethod[pair, int]("math.multiply", typedrpc.Idempotent)
	echo     = typedrpc.NewMethod[json.RawMessage, json.RawMessage]("echo")
	wait     = typedrpc.NewMethod[int, string]("wait")
	canceled = typedrpc.NewMethod[string, int]("canceled")
	fail     = typedrpc.NewMethod[failure, string]("fail")
	sell     = typedrpc.NewMethod[int, int]("sell")
	broken   = typedrpc.NewMethod[string, int]("broken")
	large    = typedrpc.NewMethod[int, string]("large")
	run      = typedrpc.NewMethod[string, int]("run")
	repeat   = typedrpc.NewMethod[string, int]("repeat", typedrpc.Idempotent)
	once     = typedrpc.NewMethod[string, int]("once", typedrpc.Keyed)
	headers  = typedrpc.NewMethod[string, map[string]string]("headers")

	noStock = typedrpc.NewFault[shortage]("shop.no-stock", typedrpc.FailedPrecondition)
	signIn  = typedrpc.NewSignIn[token, welcome]()
)

// service is what the tests count.
type service struct {
	hub topic.Hub

	mu       sync.Mutex
	runs     map[string]int
	canceled map[string]int
	notes    map[string][]int
}

func newService() *service {
	return &service{runs: map[string]int{}, canceled: map[string]int{}, notes: map[string][]int{}}
}

func (s *service) server() *typedrpc.Server {
	mux := typedrpc.NewMux()
	s.calls(mux)
	s.notifications(mux)
	s.streams(mux)
	s.driven(mux)
	s.files(mux)
	return &typedrpc.Server{Mux: mux, BeginRate: -1, DangerouslyAllowAnyOrigin: true}
}

func (s *service) calls(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, multiply, func(ctx context.Context, p pair) (int, error) { return p.A * p.B, nil })
	typedrpc.Handle(mux, echo, func(ctx context.Context, v json.RawMessage) (json.RawMessage, error) { return v, nil })
	typedrpc.Handle(mux, wait, func(ctx context.Context, ms int) (string, error) {
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			return "waited", nil
		case <-ctx.Done():
			s.count(s.canceled, ctx.Err().Error())
			return "", ctx.Err()
		}
	})
	typedrpc.Handle(mux, canceled, func(ctx context.Context, why string) (int, error) { return s.seen(s.canceled, why), nil })
	typedrpc.Handle(mux, fail, func(ctx context.Context, f failure) (string, error) {
		e := typedrpc.Errorf(typedrpc.Code(f.Code), "as you wish")
		e.RetryAfter = time.Duration(f.RetryAfter) * time.Millisecond
		return "", e
	})
	typedrpc.Handle(mux, sell, func(ctx context.Context, n int) (int, error) {
		return 0, noStock.Errorf(shortage{Left: n}, "only %d left", n)
	})
	typedrpc.Handle(mux, broken, func(ctx context.Context, key string) (int, error) { panic(key) })
	typedrpc.Handle(mux, large, func(ctx context.Context, n int) (string, error) { return strings.Repeat("x", n), nil })
	counted := func(ctx context.Context, key string) (int, error) { return s.count(s.runs, key), nil }
	typedrpc.Handle(mux, run, counted)
	typedrpc.Handle(mux, repeat, s.unlucky(time.Minute)) // until its session is lost
	typedrpc.Handle(mux, once, s.unlucky(300*time.Millisecond))
	typedrpc.Handle(mux, headers, func(ctx context.Context, _ string) (map[string]string, error) {
		r := typedrpc.RequestFrom(ctx)
		r.ReplyMetadata = typedrpc.Metadata{"answer": "42"}
		return r.Metadata, nil
	})
}

// unlucky counts a run, and waits when it is the first.
func (s *service) unlucky(wait time.Duration) func(context.Context, string) (int, error) {
	return func(ctx context.Context, key string) (int, error) {
		n := s.count(s.runs, key)
		if n == 1 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		return n, nil
	}
}

func (s *service) count(m map[string]int, key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m[key]++
	return m[key]
}

func (s *service) seen(m map[string]int, key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m[key]
}

// verify takes everybody who says who they are.
func verify(ctx context.Context, r *http.Request, t *token) (typedrpc.Identity, welcome, error) {
	switch {
	case t == nil || t.User == "":
		return typedrpc.Identity{}, welcome{}, noStock.Errorf(shortage{Left: 1}, "who are you?")
	case t.User == "eve":
		return typedrpc.Identity{}, welcome{}, typedrpc.PermissionDenied
	}
	id := typedrpc.Identity{Subject: t.User}
	if t.Life > 0 {
		id.Expires = time.Now().Add(time.Duration(t.Life) * time.Millisecond)
	}
	return id, welcome{Greeting: "hello " + t.User}, nil
}
