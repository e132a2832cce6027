package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/topic"
)

// What the server offers.
var (
	methodEcho   = typedrpc.NewMethod[string, string]("echo")
	methodBig    = typedrpc.NewMethod[int, string]("big", typedrpc.Safe) // a reply of so many bytes
	methodKeep   = typedrpc.NewMethod[string, struct{}]("keep")          // until the caller gives up
	methodSleep  = typedrpc.NewMethod[int, struct{}]("sleep")            // so many milliseconds
	methodRefuse = typedrpc.NewMethod[string, struct{}]("refuse")
	methodFail   = typedrpc.NewMethod[string, struct{}]("fail") // with an error that is logged
	methodPanic  = typedrpc.NewMethod[string, struct{}]("panic")
	methodKeyed  = typedrpc.NewMethod[keyedRequest, string]("keyed", typedrpc.Keyed)
	methodSerial = typedrpc.NewMethod[string, struct{}]("serial", typedrpc.Serial)
	methodCrowd  = typedrpc.NewMethod[crowdRequest, struct{}]("crowd")   // members of room 0 come or go
	methodSpread = typedrpc.NewMethod[spreadRequest, struct{}]("spread") // publishes
	methodBack   = typedrpc.NewMethod[int, struct{}]("back")             // calls the caller so many times
	noteSlow     = typedrpc.NewNotification[string]("slow")              // its handler never returns
	noteFast     = typedrpc.NewNotification[string]("fast")
	methodTheirs = typedrpc.NewMethod[string, string]("theirs")                 // of the attackers
	streamTalk   = typedrpc.NewBidiStream[string, string, string]("talk")       // an echo
	streamDeaf   = typedrpc.NewClientStream[string, string, string]("deaf")     // receives nothing
	streamLate   = typedrpc.NewClientStream[string, string, string]("late")     // receives nothing, and gives up
	streamSink   = typedrpc.NewClientStream[string, string, string]("sink")     // receives everything
	streamPour   = typedrpc.NewServerStream[int, string]("pour", typedrpc.Safe) // items of so many bytes, for ever
	topicNews    = topic.New[string]("news", topic.WithPresence, typedrpc.Safe)
	topicPast    = topic.New[string]("past", topic.History(1000, 0), topic.WithPresence, typedrpc.Safe)
	signIn       = typedrpc.NewSignIn[signInRequest, struct{}]() // what authenticates
	errForeign   = errors.New("the reason, which is the log's alone")
	errNoAccess  = typedrpc.Errorf(typedrpc.Unauthenticated, "nobody knows you")
)

// slowTopics are those of policies, in their order.
var slowTopics = []topic.Topic[string]{
	topic.New[string]("policy.disconnect", typedrpc.Safe),
	topic.New[string]("policy.oldest", topic.DropOldest, typedrpc.Safe),
	topic.New[string]("policy.newest", topic.DropNewest, typedrpc.Safe),
	topic.New[string]("policy.latest", topic.LatestOnly, typedrpc.Safe),
	topic.New[string]("policy.wait", topic.WaitAtMost(100*time.Millisecond), typedrpc.Safe),
}

type keyedRequest struct {
	Bytes int    // of the reply
	Wait  bool   // until the call is cancelled
	Pad   string // to make the request large
}

type crowdRequest struct{ From, Count, By int }

type spreadRequest struct {
	Topic, Key   string
	Count, Bytes int
}

// signInRequest authenticates a user by a name alone. Slow keeps the server
// waiting for its check.
type signInRequest struct {
	Name string
	Slow bool
	Fail string
}

// service is the handlers.
type service struct {
	hub   *topic.Hub
	noted atomic.Int64
}

// text is n bytes, from one string for all.
func text(n int) string { return longText[:min(max(n, 0), len(longText))] }

var longText = strings.Repeat("x", 4<<20-64)

func (s *service) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	nothing := struct{}{}
	typedrpc.Handle(mux, methodEcho, func(_ context.Context, v string) (string, error) { return v, nil })
	typedrpc.Handle(mux, methodBig, func(_ context.Context, n int) (string, error) { return text(n), nil })
	typedrpc.Handle(mux, methodKeep, func(ctx context.Context, _ string) (struct{}, error) {
		<-ctx.Done()
		return nothing, ctx.Err()
	})
	typedrpc.Handle(mux, methodSerial, func(ctx context.Context, _ string) (struct{}, error) {
		<-ctx.Done()
		return nothing, ctx.Err()
	})
	typedrpc.Handle(mux, methodSleep, func(ctx context.Context, ms int) (struct{}, error) {
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			return nothing, nil
		case <-ctx.Done():
			return nothing, ctx.Err()
		}
	})
	typedrpc.Handle(mux, methodRefuse, func(_ context.Context, v string) (struct{}, error) {
		return nothing, typedrpc.Errorf(typedrpc.NotFound, "there is no %s", v)
	})
	typedrpc.Handle(mux, methodFail, func(_ context.Context, v string) (struct{}, error) {
		return nothing, fmt.Errorf("%w: %s", errForeign, v)
	})
	typedrpc.Handle(mux, methodPanic, func(_ context.Context, v string) (struct{}, error) { panic(v) })
	typedrpc.Handle(mux, methodKeyed, func(ctx context.Context, r keyedRequest) (string, error) {
		if r.Wait {
			<-ctx.Done()
		}
		return text(r.Bytes), ctx.Err()
	})
	typedrpc.Handle(mux, methodBack, func(ctx context.Context, n int) (struct{}, error) {
		var all []*typedrpc.Future[string] // which hold what they were answered
		for range n {
			all = append(all, typedrpc.Go(ctx, typedrpc.ConnFrom(ctx), methodTheirs, text(1000)))
		}
		<-ctx.Done()
		runtime.KeepAlive(all)
		return nothing, ctx.Err()
	})
	typedrpc.Handle(mux, noteSlow, func(ctx context.Context, _ string) error { <-ctx.Done(); return nil })
	typedrpc.Handle(mux, noteFast, func(context.Context, string) error { s.noted.Add(1); return nil })
	s.streams(mux)
	s.topics(mux)
	return mux
}

func (s *service) streams(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, streamTalk, func(_ context.Context, _ string, x *typedrpc.Stream[string, string]) error {
		for v, err := range x.All() {
			if err != nil {
				return err
			}
			if err := x.Send(v); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, streamDeaf, func(ctx context.Context, _ string, _ iter.Seq2[string, error]) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
	// Nobody tells it over HTTP/1.1 that its client has gone, because nothing is read.
	typedrpc.Handle(mux, streamLate, func(ctx context.Context, _ string, _ iter.Seq2[string, error]) (string, error) {
		select {
		case <-time.After(3 * time.Second):
			return "", typedrpc.Errorf(typedrpc.DeadlineExceeded, "there was no time for the items")
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	typedrpc.Handle(mux, streamSink, func(_ context.Context, _ string, items iter.Seq2[string, error]) (string, error) {
		for _, err := range items {
			if err != nil {
				return "", err
			}
		}
		return "", nil
	})
	typedrpc.Handle(mux, streamPour, func(_ context.Context, n int, send func(string) error) error {
		for {
			if err := send(text(n)); err != nil {
				return err
			}
		}
	})
}

func (s *service) topics(mux *typedrpc.Mux) {
	topic.Handle(mux, s.hub, topicNews, topic.Everybody)
	topic.Handle(mux, s.hub, topicPast, topic.Everybody)
	for _, tp := range slowTopics {
		topic.Handle(mux, s.hub, tp, topic.Everybody)
	}
	typedrpc.Handle(mux, methodCrowd, func(_ context.Context, r crowdRequest) (struct{}, error) {
		names := make([]string, r.Count)
		for i := range names {
			names[i] = fmt.Sprintf("member-%06d-%s", r.From+i, text(100))
		}
		hook.Present(s.hub, topicNews.Name(), "0", r.By, names...)
		return struct{}{}, nil
	})
	typedrpc.Handle(mux, methodSpread, func(ctx context.Context, r spreadRequest) (struct{}, error) {
		tp := topicNews
		for _, other := range append(slowTopics, topicPast) {
			if r.Topic == other.Name() {
				tp = other
			}
		}
		for range r.Count {
			if err := topic.Publish(ctx, s.hub, tp, r.Key, text(r.Bytes)); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
}

// authenticate knows everybody who has a name.
func authenticate(ctx context.Context, r *http.Request, c *signInRequest) (typedrpc.Identity, struct{}, error) {
	switch {
	case c == nil:
		return typedrpc.Identity{}, struct{}{}, errNoAccess
	case c.Slow:
		<-ctx.Done()
		return typedrpc.Identity{}, struct{}{}, ctx.Err()
	case c.Fail != "":
		return typedrpc.Identity{}, struct{}{}, fmt.Errorf("%w: %s", errForeign, c.Fail)
	case c.Name == "":
		return typedrpc.Identity{}, struct{}{}, errNoAccess
	}
	return typedrpc.Identity{Subject: c.Name}, struct{}{}, nil
}
