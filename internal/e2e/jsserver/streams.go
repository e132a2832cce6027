package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

type (
	count struct{ From, To, Millis int }
	ask   struct {
		N    int
		Text string
	}
	fetch struct {
		Name   string
		Offset int64
	}
	receipt struct {
		Name string `json:"name"`
		Size int    `json:"size"`
		Sum  string `json:"sum"`
	}
	post struct{ Key, Text string }
)

var (
	note  = typedrpc.NewNotification[int]("note")
	notes = typedrpc.NewMethod[string, report]("notes")
	news  = typedrpc.NewNotification[json.RawMessage]("news")
	push  = typedrpc.NewMethod[ask, int]("push")
	greet = typedrpc.NewMethod[string, string]("page.greet")
	nest  = typedrpc.NewMethod[int, int]("page.nest")
	back  = typedrpc.NewMethod[string, string]("back")
	deep  = typedrpc.NewMethod[int, int]("deep")

	numbers  = typedrpc.NewServerStream[count, int]("numbers")
	bytes    = typedrpc.NewServerStream[int, typedrpc.Bytes]("bytes")
	sum      = typedrpc.NewClientStream[string, int, int]("sum")
	doubles  = typedrpc.NewBidiStream[string, int, int]("doubles")
	left     = typedrpc.NewMethod[string, int]("left")
	endless  = typedrpc.NewServerStream[string, int]("endless")
	pageFeed = typedrpc.NewServerStream[int, int]("page.feed")
	pageSum  = typedrpc.NewClientStream[string, int, int]("page.sum")
	pageChat = typedrpc.NewBidiStream[string, int, int]("page.chat")
	drive    = typedrpc.NewMethod[ask, string]("drive")

	room    = topic.New[string]("room", topic.History(5, time.Hour), topic.WithPresence, topic.Restartable)
	publish = typedrpc.NewMethod[post, int]("publish")

	putFile = transfer.NewUpload[string, receipt]("files.put")
	getFile = transfer.NewDownload[fetch]("files.get")
)

// file is what files.get sends.
var file = []byte(strings.Repeat("All work and no play makes Jack a dull boy. ", 20_000))

func (s *service) notifications(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, note, func(ctx context.Context, n int) error {
		key := fmt.Sprintf("%p", typedrpc.ConnFrom(ctx))
		s.mu.Lock()
		defer s.mu.Unlock()
		s.notes[key] = append(s.notes[key], n)
		return nil
	})
	typedrpc.Handle(mux, notes, func(ctx context.Context, _ string) (report, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		all := s.notes[fmt.Sprintf("%p", typedrpc.ConnFrom(ctx))]
		return inOrder(all), nil
	})
	typedrpc.Handle(mux, push, func(ctx context.Context, a ask) (int, error) {
		for i := range a.N {
			text, _ := json.Marshal(fmt.Sprint(i, a.Text))
			if err := typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), news, text); err != nil {
				return i, err
			}
		}
		return a.N, nil
	})
	typedrpc.Handle(mux, back, func(ctx context.Context, name string) (string, error) {
		return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), greet, name)
	})
	typedrpc.Handle(mux, deep, func(ctx context.Context, n int) (int, error) {
		if n == 0 {
			return 0, nil
		}
		below, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), nest, n-1)
		return below + 1, err
	})
}

// inOrder reports which of what came is not in its place.
func inOrder(all []int) report {
	r := report{Count: len(all), Wrong: []int{}}
	for i, n := range all {
		if n != i {
			r.Wrong = append(r.Wrong, n)
		}
	}
	return r
}

func (s *service) streams(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, numbers, func(ctx context.Context, c count, send func(int) error) error {
		for n := c.From; n < c.To; n++ {
			if err := send(n); err != nil {
				return err
			}
			time.Sleep(time.Duration(c.Millis) * time.Millisecond)
		}
		if c.From > c.To {
			return noStock.Errorf(shortage{Left: c.From}, "none of that")
		}
		return nil
	})
	typedrpc.Handle(mux, bytes, func(ctx context.Context, n int, send func(typedrpc.Bytes) error) error {
		for i := range n {
			if err := send(typedrpc.Bytes{byte(i), 0, 255}); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, sum, func(ctx context.Context, name string, items iter.Seq2[int, error]) (int, error) {
		total, next := 0, 0
		for n, err := range items {
			if err != nil {
				s.count(s.canceled, "sum")
				return 0, err
			}
			if name == "early" && n == 3 {
				return total, nil
			}
			if name == "ordered" && n != next {
				return 0, typedrpc.Errorf(typedrpc.DataLoss, "%d after %d", n, next-1)
			}
			next++
			total += n
		}
		return total, nil
	})
	typedrpc.Handle(mux, doubles, func(ctx context.Context, _ string, x *typedrpc.Stream[int, int]) error {
		for n, err := range x.All() {
			if err != nil {
				return err
			}
			if err := x.Send(2 * n); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, endless, func(ctx context.Context, key string, send func(int) error) error {
		for n := 0; ; n++ {
			if err := send(n); err != nil {
				s.count(s.runs, "left "+key)
				return err
			}
		}
	})
	typedrpc.Handle(mux, left, func(ctx context.Context, key string) (int, error) { return s.seen(s.runs, "left "+key), nil })
}

// driven has the server call the streams of a page.
func (s *service) driven(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, drive, func(ctx context.Context, a ask) (string, error) {
		conn := typedrpc.ConnFrom(ctx)
		up := func(yield func(int, error) bool) {
			for i := range a.N {
				if !yield(i, nil) {
					return
				}
			}
		}
		switch a.Text {
		case "feed":
			var all []int
			for n, err := range typedrpc.Receive(ctx, conn, pageFeed, a.N) {
				if err != nil {
					return "", err
				}
				all = append(all, n)
			}
			return fmt.Sprint(inOrder(all)), nil
		case "left":
			for n, err := range typedrpc.Receive(ctx, conn, pageFeed, 1<<30) {
				if err != nil || n == a.N {
					return "left", err
				}
			}
		case "sum":
			n, err := typedrpc.SendAll(ctx, conn, pageSum, "", up)
			return fmt.Sprint(n), err
		case "chat":
			x, err := typedrpc.Open(ctx, conn, pageChat, "")
			if err != nil {
				return "", err
			}
			go func() {
				for i := range a.N {
					x.Send(i)
				}
				x.CloseSend()
			}()
			var all []int
			for n, err := range x.All() {
				if err != nil {
					return "", err
				}
				all = append(all, n)
			}
			return fmt.Sprint(inOrder(all)), nil
		}
		return "", typedrpc.InvalidArgument
	})
}

func (s *service) files(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, putFile, func(ctx context.Context, name string, r *transfer.Reader) (receipt, error) {
		n, err := io.Copy(io.Discard, r)
		return receipt{name, int(n), fmt.Sprintf("%x", r.Sum())}, err
	})
	typedrpc.Handle(mux, getFile, func(ctx context.Context, f fetch, w *transfer.Writer) error {
		if f.Name != "jack" {
			return typedrpc.Errorf(typedrpc.NotFound, "no file %q", f.Name)
		}
		return w.Send(strings.NewReader(string(file)), &transfer.SendOptions{Offset: f.Offset})
	})
	topic.Handle(mux, &s.hub, room, func(ctx context.Context, a topic.Access) error {
		if a.Key != "introduced" {
			return nil
		}
		return topic.Introduce(ctx, "Änn Lee")
	})
	typedrpc.Handle(mux, publish, func(ctx context.Context, p post) (int, error) {
		if about, ok := strings.CutPrefix(p.Text, "about "); ok {
			return 0, topic.SetAbout(&s.hub, room, p.Key, "", about)
		}
		return 0, topic.Publish(ctx, &s.hub, room, p.Key, p.Text)
	})
}
