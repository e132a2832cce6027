package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

var (
	headFile = transfer.NewDownload[int]("head.file")
	headNews = topic.New[string]("head.news")
)

// headMux has streams whose handlers say early what is known then, and late the
// rest: when go is closed, each sends a second item and returns.
func headMux(goOn <-chan struct{}) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	early := func(ctx context.Context) { typedrpc.RequestFrom(ctx).ReplyMetadata.Set("early", "1") }
	late := func(ctx context.Context) {
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		typedrpc.RequestFrom(ctx).ReplyMetadata.Set("late", "2")
	}
	typedrpc.Handle(mux, lab.FlowDown, func(ctx context.Context, n int, send func(string) error) error {
		early(ctx)
		if err := send(strings.Repeat("x", n)); err != nil {
			return err
		}
		late(ctx)
		return send("second")
	})
	typedrpc.Handle(mux, lab.FlowBoth, func(ctx context.Context, _ string, s *typedrpc.Stream[string, string]) error {
		item, err := s.Recv()
		if err != nil {
			return err
		}
		early(ctx)
		if err := s.Send(item); err != nil {
			return err
		}
		late(ctx)
		return s.Send("second")
	})
	typedrpc.Handle(mux, lab.FlowUp, func(ctx context.Context, _ int, items iter.Seq2[string, error]) (int, error) {
		early(ctx)
		n := 0
		for _, err := range items {
			if err != nil {
				return 0, err
			}
			n++
		}
		late(ctx)
		return n, nil
	})
	typedrpc.Handle(mux, headFile, func(ctx context.Context, n int, w *transfer.Writer) error {
		early(ctx)
		if _, err := w.Write(make([]byte, n)); err != nil {
			return err
		}
		late(ctx)
		return nil
	})
	return mux
}

var headEarly, headAll = typedrpc.Metadata{"early": "1"}, typedrpc.Metadata{"early": "1", "late": "2"}

// headCallers call each kind of a stream with items for its caller. seen is called
// when the first item is there.
var headCallers = map[string]func(ctx context.Context, c typedrpc.Caller, seen func()) error{
	"Receive": func(ctx context.Context, c typedrpc.Caller, seen func()) error {
		n := 0
		for _, err := range typedrpc.Receive(ctx, c, lab.FlowDown, 3) {
			if err != nil {
				return err
			}
			if n++; n == 1 {
				seen()
			}
		}
		return nil
	},
	"Receive, a large item": func(ctx context.Context, c typedrpc.Caller, seen func()) error {
		n := 0
		for _, err := range typedrpc.Receive(ctx, c, lab.FlowDown, 300_000) {
			if err != nil {
				return err
			}
			if n++; n == 1 {
				seen()
			}
		}
		return nil
	},
	"Open": func(ctx context.Context, c typedrpc.Caller, seen func()) error {
		s, err := typedrpc.Open(ctx, c, lab.FlowBoth, "")
		if err != nil {
			return err
		}
		if err := s.Send("first"); err != nil {
			return err
		}
		if _, err := s.Recv(); err != nil {
			return err
		}
		seen()
		for err == nil {
			_, err = s.Recv()
		}
		if err == io.EOF {
			return nil
		}
		return err
	},
	"transfer": func(ctx context.Context, c typedrpc.Caller, seen func()) error {
		r, err := transfer.Receive(ctx, c, headFile, 3, nil)
		if err != nil {
			return err
		}
		seen()
		_, err = io.Copy(io.Discard, r)
		return err
	},
}

func TestReplyMetadata_aheadOfItems(t *testing.T) {
	pass := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		return next(ctx, r)
	}
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		for name, call := range headCallers {
			for kind, more := range map[string][]typedrpc.Interceptor{"plain": nil, "intercepted": {pass}} {
				goOn := make(chan struct{})
				c, s := lab.Joined(t, d, headMux(goOn), typedrpc.Limits{})
				var reply typedrpc.Metadata
				saw := false
				err := call(t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply, Interceptors: more}), func() {
					if !maps.Equal(reply, headEarly) {
						t.Errorf("%s, %s: %v at the first item", name, kind, reply)
					}
					reply.Set("mine", "3") // the caller's own
					saw = true
					close(goOn)
				})
				is.NoErr(err)
				is.True(saw)
				if !maps.Equal(reply, headAll) {
					t.Errorf("%s, %s: %v in the end", name, kind, reply)
				}
				lab.Settled(t, c, s)
			}
		}
	})
}

// What a subscription's function says is there with the first event.
func TestReplyMetadata_aheadOfEvents(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux, hub := typedrpc.NewMux(), new(topic.Hub)
		topic.Handle(mux, hub, headNews, func(ctx context.Context, a topic.Access) error {
			typedrpc.RequestFrom(ctx).ReplyMetadata.Set("early", "1")
			return nil
		})
		c, _ := lab.Joined(t, d, mux, typedrpc.Limits{})
		go func() {
			synctest.Wait()
			is.NoErr(topic.Publish(t.Context(), hub, headNews, "x", "first"))
		}()
		var reply typedrpc.Metadata
		for e, err := range topic.Subscribe(t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply}), headNews, "x") {
			is.NoErr(err)
			is.Equal(e.Value, "first")
			is.Equal(reply, headEarly)
			break
		}
		is.Equal(reply, headEarly) // it was left: no more is known
	})
}

// A stream that nobody receives from has no early metadata: it comes with the response.
func TestReplyMetadata_clientStream(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		goOn := make(chan struct{})
		close(goOn)
		c, _ := lab.Joined(t, d, headMux(goOn), typedrpc.Limits{})
		var reply typedrpc.Metadata
		n, err := typedrpc.SendAll(t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply}), lab.FlowUp, 0, typedrpc.Items(slices.Values([]string{"a", "b"})))
		is.NoErr(err)
		is.Equal(n, 2)
		is.Equal(reply, headAll)
	})
}

// Interceptors see it with the first item, and have the last word.
func TestReplyMetadata_interceptors(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		for _, name := range []string{"Receive", "Open"} {
			goOn := make(chan struct{})
			c, _ := lab.Joined(t, d, headMux(goOn), typedrpc.Limits{})
			var first, last, reply typedrpc.Metadata
			watch := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				r.OnItem(func(_ typedrpc.Raw, sent bool) error {
					if !sent && first == nil {
						first = maps.Clone(r.ReplyMetadata)
					}
					return nil
				})
				raw, err := next(ctx, r)
				last = maps.Clone(r.ReplyMetadata)
				r.ReplyMetadata = typedrpc.Metadata{"instead": "3"}
				return raw, err
			}
			o := typedrpc.CallOptions{ReplyMetadata: &reply, Interceptors: []typedrpc.Interceptor{watch}}
			is.NoErr(headCallers[name](t.Context(), c.With(o), func() {
				is.Equal(reply, headEarly)
				close(goOn)
			}))
			is.Equal(first, headEarly)
			is.Equal(last, headAll)
			is.Equal(reply, typedrpc.Metadata{"instead": "3"})
		}
	})
}

// It is read when the end is on its way, by nobody's goroutine but the caller's: the
// race detector looks on.
func TestReplyMetadata_readWhileTheEndComes(t *testing.T) {
	pass := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		r.OnItem(func(typedrpc.Raw, bool) error { _ = r.ReplyMetadata["early"]; return nil })
		return next(ctx, r)
	}
	goOn := make(chan struct{})
	close(goOn)
	for _, more := range [][]typedrpc.Interceptor{nil, {pass}} {
		lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
			is := is.New(t)
			c, _ := lab.Joined(t, d, headMux(goOn), typedrpc.Limits{})
			for name, call := range headCallers {
				for range 3 {
					var reply typedrpc.Metadata
					is.NoErr(call(t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply, Interceptors: more}), func() {
						for range 100 {
							is.Equal(reply["early"], "1")
						}
					}))
					is.Equal(reply, headAll) // name
					_ = name
				}
			}
		})
	}
}

// A link that breaks anywhere costs nothing, and repeats nothing.
func TestReplyMetadata_resumed(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		for messages := range int64(12) {
			goOn := make(chan struct{})
			srv := &typedrpc.Server{Mux: headMux(goOn)}
			fuse := messages + 4 // HELLO, WELCOME and ACKs
			w := &lab.Town{Srv: srv, Fuse: func() int64 { f := fuse; fuse = math.MaxInt64; return f }}
			c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Limits: typedrpc.Limits{Grace: time.Minute}})
			var reply typedrpc.Metadata
			err := headCallers["Receive, a large item"](t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply}), func() {
				is.Equal(reply, headEarly)
				close(goOn)
			})
			if err != nil {
				t.Errorf("after %d messages: %v", messages, err)
			}
			is.Equal(reply, headAll)
			c.Close()
			is.NoErr(srv.Shutdown(t.Context()))
		}
	})
}

// Each opening of a restartable stream has its own; a gap leaves what was known.
func TestReplyMetadata_restarted(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		down := lab.FlowDown.Restartable(func(_ int, last *string) int { return len(*last) + 1 })
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.FlowDown, func(ctx context.Context, n int, send func(string) error) error {
			if n != 2 {
				typedrpc.RequestFrom(ctx).ReplyMetadata.Set("n", fmt.Sprint(n))
			}
			if err := send(strings.Repeat("x", n)); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		sess := make(chan *typedrpc.Conn, 10)
		w := &lab.Town{Srv: &typedrpc.Server{Mux: mux, OnConnect: func(c *typedrpc.Conn) { sess <- c }}}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d})
		var reply typedrpc.Metadata
		var got []string
		for _, err := range typedrpc.Receive(t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply}), down, 1) {
			if errors.Is(err, typedrpc.Gap) {
				got = append(got, "gap "+reply["n"])
				continue
			}
			is.NoErr(err)
			if got = append(got, "item "+reply["n"]); len(got) == 5 {
				break
			}
			(<-sess).Close()
		}
		is.Equal(got, []string{"item 1", "gap 1", "item ", "gap ", "item 3"})
		c.Close()
	})
}

// The session is lost: what was said early is what is known, also of an error.
func TestReplyMetadata_lost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for name, call := range headCallers {
			c, s := lab.Joined(t, typedrpc.Binary, headMux(nil), typedrpc.Limits{})
			var reply typedrpc.Metadata
			err := call(t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply}), func() { s.Close() })
			is.True(err != nil) // name
			is.Equal(reply["early"], "1")
			_ = name
		}
	})
}

// A proxy passes on what came ahead, ahead.
func TestReplyMetadata_forwarded(t *testing.T) {
	secret := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		raw, err := next(ctx, r)
		delete(r.ReplyMetadata, "early")
		return raw, err
	}
	renamed := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		r.OnItem(func(_ typedrpc.Raw, sent bool) error {
			if v, ok := r.ReplyMetadata["early"]; ok {
				r.ReplyMetadata = typedrpc.Metadata{"renamed": v}
			}
			return nil
		})
		return next(ctx, r)
	}
	for name, tt := range map[string]struct {
		with       []typedrpc.Interceptor
		early, all typedrpc.Metadata
	}{
		"as it is":             {nil, headEarly, headAll},
		"taken away":           {[]typedrpc.Interceptor{secret}, nil, typedrpc.Metadata{"late": "2"}}, // never seen
		"changed at the items": {[]typedrpc.Interceptor{renamed}, typedrpc.Metadata{"renamed": "1"}, typedrpc.Metadata{"renamed": "1", "early": "1", "late": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				for _, kind := range []string{"Receive", "Open"} {
					goOn := make(chan struct{})
					behind, _ := lab.Joined(t, d, headMux(goOn), typedrpc.Limits{})
					proxy := typedrpc.NewMux()
					proxy.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
						return typedrpc.Forward(ctx, behind.With(typedrpc.CallOptions{Interceptors: tt.with}), r)
					})
					c, s := lab.Joined(t, d, proxy, typedrpc.Limits{})
					var reply typedrpc.Metadata
					is.NoErr(headCallers[kind](t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply}), func() {
						is.True(maps.Equal(reply, tt.early))
						close(goOn)
					}))
					is.True(maps.Equal(reply, tt.all))
					lab.Settled(t, c, s)
				}
			})
		})
	}
}

// On the wire: one HEAD, in front of the first item, and none where nothing was said.
func TestReplyMetadata_frames(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.FlowDown, func(ctx context.Context, n int, send func(string) error) error {
			r := typedrpc.RequestFrom(ctx)
			for i := range 3 {
				if n > 0 {
					r.ReplyMetadata.Set(fmt.Sprint("k", i), "v")
				}
				if err := send(fmt.Sprint(i)); err != nil {
					return err
				}
			}
			return nil
		})
		p, c := lab.RawClient(t, d, &typedrpc.Server{Mux: mux})
		for id := range uint64(2) {
			is.NoErr(p.Send(wire.Frame{
				Type: wire.Call, ID: id + 1, Kind: wire.ServerStream, Flags: wire.NoItems, Method: lab.FlowDown.Name(),
				Payload: fmt.Append(nil, `[`, id, `]`),
			}))
			var types []string
			for _, f := range p.Got(wire.Head, wire.Item, wire.Result) {
				is.Equal(f.ID, id+1)
				types = append(types, fmt.Sprintf("%v%d", f.Type, len(f.Meta)))
			}
			want := []string{"HEAD1", "ITEM0", "ITEM0", "ITEM0", "RESULT3"}
			if id == 0 {
				want = []string{"ITEM0", "ITEM0", "ITEM0", "RESULT0"}
			}
			is.Equal(types, want)
		}
		lab.Settled(t, c)
	})
}

// What cannot be sent fails the first item, and says so.
func TestReplyMetadata_aheadTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.FlowDown, func(ctx context.Context, _ int, send func(string) error) error {
			r := typedrpc.RequestFrom(ctx)
			r.ReplyMetadata.Set("k", strings.Repeat("x", 17<<10))
			for range 2 {
				err := send("never")
				is.True(errors.Is(err, typedrpc.InvalidArgument))
				is.True(strings.Contains(err.Error(), "metadata"))
			}
			r.ReplyMetadata = typedrpc.Metadata{"k": "v"}
			return send("first")
		})
		c, s := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{})
		var reply typedrpc.Metadata
		var got []string
		for item, err := range typedrpc.Receive(t.Context(), c.With(typedrpc.CallOptions{ReplyMetadata: &reply}), lab.FlowDown, 0) {
			is.NoErr(err)
			is.Equal(reply, typedrpc.Metadata{"k": "v"})
			got = append(got, item)
		}
		is.Equal(got, []string{"first"})
		lab.Settled(t, c, s)
	})
}

// headPeer has a server open streams at a client that is driven by hand.
func headPeer(t *testing.T, srv *typedrpc.Server) (p *testkit.RawPeer, s *typedrpc.Conn, open func(reply *typedrpc.Metadata) (*typedrpc.Stream[string, string], uint64)) {
	p, s = lab.RawClient(t, typedrpc.Binary, srv)
	return p, s, func(reply *typedrpc.Metadata) (*typedrpc.Stream[string, string], uint64) {
		stream, err := typedrpc.Open(t.Context(), s.With(typedrpc.CallOptions{ReplyMetadata: reply}), lab.FlowBoth, "")
		is.New(t).NoErr(err)
		return stream, p.Got(wire.Call)[0].ID
	}
}

// A second HEAD, one behind an item and one of a call that never was are offences; one
// that crossed the end of its stream is none.
func TestReplyMetadata_offences(t *testing.T) {
	head := func(id uint64) wire.Frame {
		return wire.Frame{Type: wire.Head, ID: id, Meta: map[string]string{"k": "v"}}
	}
	for name, tt := range map[string]struct {
		before func(id uint64) []wire.Frame
		many   func(id uint64) wire.Frame
		ended  bool
	}{
		"second":     {func(id uint64) []wire.Frame { return []wire.Frame{head(id)} }, head, true},
		"after item": {func(id uint64) []wire.Frame { return []wire.Frame{{Type: wire.Item, ID: id, Payload: []byte(`"x"`)}} }, head, true},
		"of nobody":  {nil, func(uint64) wire.Frame { return head(99) }, true},
		"of the end": {func(id uint64) []wire.Frame { return []wire.Frame{{Type: wire.Result, ID: id}} }, head, false},
	} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			p, s, open := headPeer(t, &typedrpc.Server{})
			stream, id := open(nil)
			if tt.before != nil {
				is.NoErr(p.Send(tt.before(id)...))
			}
			for range 3000 / 30 { // more than a burst
				if p.Send(slices.Repeat([]wire.Frame{tt.many(id)}, 30)...) != nil {
					break
				}
			}
			is.Equal(!p.Alive(), tt.ended)
			if tt.ended {
				is.Equal(p.Closed(), session.CloseFlood)
			}
			stream.Cancel()
			s.Close()
		})
	}
}

// What HEAD brings is in the server's ledger as long as the stream is, and one for
// which there is no room fails its stream alone.
func TestReplyMetadata_ledger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		srv := &typedrpc.Server{MaxMemory: 4 << 20}
		p, s, open := headPeer(t, srv)
		var reply typedrpc.Metadata
		stream, id := open(&reply)
		before := hook.Conn(s).Account
		big := map[string]string{"k": strings.Repeat("x", 16_000)}
		is.NoErr(p.Send(wire.Frame{Type: wire.Head, ID: id, Meta: big}))
		synctest.Wait()
		is.True(hook.Conn(s).Account-before >= 16_000)
		is.NoErr(p.Send(wire.Frame{Type: wire.Item, ID: id, Payload: []byte(`"x"`)}))
		_, err := stream.Recv()
		is.NoErr(err)
		is.Equal(len(reply["k"]), 16_000)
		is.NoErr(p.Send(wire.Frame{Type: wire.Fail, ID: id, Code: 9}))
		_, err = stream.Recv()
		is.True(errors.Is(err, typedrpc.FailedPrecondition))
		is.Equal(len(reply["k"]), 16_000) // the error brought none
		lab.Settled(t, s)

		failed, streams := 0, 0
		var all []*typedrpc.Stream[string, string]
		for range 400 {
			stream, err := typedrpc.Open(t.Context(), s, lab.FlowBoth, "")
			is.NoErr(err)
			all = append(all, stream)
		}
		for _, f := range p.Got(wire.Call) {
			is.NoErr(p.Send(wire.Frame{Type: wire.Head, ID: f.ID, Meta: big}))
			streams++
		}
		synctest.Wait()
		failed = len(p.Got(wire.Cancel))
		is.Equal(streams, 400)
		is.True(failed > 0 && failed < 400)
		is.True(hook.Conn(s).Account < 4<<20)
		is.True(p.Alive())
		for _, stream := range all {
			stream.Cancel()
		}
		s.Close()
		synctest.Wait()
		is.Equal(hook.Server(srv).Budget, int64(0))
	})
}
