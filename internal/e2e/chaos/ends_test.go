package chaos_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
)

// What the server of TestEnds_nothingIsKept offers.
var (
	endsEcho  = typedrpc.NewMethod[string, string]("ends.echo")
	endsBig   = typedrpc.NewMethod[int, string]("ends.big")
	endsPay   = typedrpc.NewMethod[string, string]("ends.pay", typedrpc.Keyed)
	endsTurn  = typedrpc.NewMethod[string, string]("ends.turn", typedrpc.Serial)
	endsBreak = typedrpc.NewMethod[int, int]("ends.break")
	endsNote  = typedrpc.NewNotification[string]("ends.note")
	endsDown  = typedrpc.NewServerStream[int, string]("ends.down")
	endsBoth  = typedrpc.NewBidiStream[int, string, string]("ends.both")
	endsNews  = topic.New[string]("ends.news", topic.History(5, 0))
)

// ending is one server whose connections are ended in the middle of everything.
type ending struct {
	srv *typedrpc.Server
	hub *topic.Hub
}

// pause is what a handler takes. Some do not look at their context.
func (d *ending) pause(ctx context.Context) error {
	if rand.IntN(8) == 0 {
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		return nil
	}
	select {
	case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newEnding() *ending {
	d := &ending{hub: new(topic.Hub)}
	mux := typedrpc.NewMux()
	slow := func(ctx context.Context, s string) (string, error) { return s, d.pause(ctx) }
	typedrpc.Handle(mux, endsEcho, slow)
	typedrpc.Handle(mux, endsPay, slow)
	typedrpc.Handle(mux, endsTurn, slow)
	typedrpc.Handle(mux, endsBig, func(ctx context.Context, n int) (string, error) { return strings.Repeat("x", n), d.pause(ctx) })
	typedrpc.Handle(mux, endsBreak, func(ctx context.Context, _ int) (int, error) { d.pause(ctx); panic("broken") })
	typedrpc.Handle(mux, endsNote, func(ctx context.Context, _ string) error { d.pause(ctx); return nil })
	typedrpc.Handle(mux, endsDown, func(ctx context.Context, n int, send func(string) error) error {
		for range n {
			if err := send(strings.Repeat("y", rand.IntN(9000))); err != nil {
				return err
			}
		}
		return d.pause(ctx)
	})
	typedrpc.Handle(mux, endsBoth, func(ctx context.Context, _ int, s *typedrpc.Stream[string, string]) error {
		for v, err := range s.All() {
			if err != nil {
				return err
			}
			if err := s.Send(v); err != nil {
				return err
			}
		}
		return nil
	})
	topic.Handle(mux, d.hub, endsNews, topic.Everybody)
	d.srv = &typedrpc.Server{
		Mux: mux, Logger: slog.New(slog.DiscardHandler), MaxMemory: 2 << 20,
		Limits: typedrpc.Limits{MaxBuffered: 256 << 10, MaxUnacked: 128 << 10, Grace: 5 * time.Second},
	}
	d.srv.SignIn = lab.TopicLogin.Verify(func(_ context.Context, _ *http.Request, who *string) (typedrpc.Identity, typedrpc.Empty, error) {
		return typedrpc.Identity{Subject: *who}, typedrpc.Empty{}, nil
	})
	return d
}

// act does one thing with a connection, until ctx ends or it is done.
func (d *ending) act(ctx context.Context, c *typedrpc.Conn) {
	text := strings.Repeat("z", []int{1, 100, 5000, 100_000}[rand.IntN(4)])
	switch rand.IntN(10) {
	case 0:
		typedrpc.Call(ctx, c, endsEcho, text)
	case 1:
		typedrpc.Call(ctx, c, endsBig, rand.IntN(200_000))
	case 2:
		typedrpc.Call(ctx, c, endsPay, text)
	case 3:
		typedrpc.Call(ctx, c, endsTurn, text)
	case 4:
		typedrpc.Call(ctx, c, endsBreak, 1)
	case 5:
		typedrpc.Notify(ctx, c, endsNote, text)
	case 6:
		for range typedrpc.Receive(ctx, c, endsDown, rand.IntN(50)) {
			if rand.IntN(30) == 0 {
				break
			}
		}
	case 7:
		s, err := typedrpc.Open(ctx, c, endsBoth, 0)
		if err != nil {
			return
		}
		defer s.Cancel()
		for range rand.IntN(20) {
			if s.Send(text[:min(len(text), 5000)]) != nil {
				return
			}
		}
		for err == nil && rand.IntN(10) > 0 {
			_, err = s.Recv()
		}
	case 8:
		for range topic.Subscribe(ctx, c, endsNews, "k") {
			if rand.IntN(10) == 0 {
				break
			}
		}
	case 9:
		topic.Publish(ctx, d.hub, endsNews, "k", text[:min(len(text), 5000)])
	}
}

// by ends connections in one of the ways that there are.
func (d *ending) by(ctx context.Context, way int, w *lab.Town, c *typedrpc.Conn) {
	switch way {
	case 0:
		c.Close()
	case 1:
		d.srv.Revoke("ann")
	case 2:
		short, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(30))*time.Millisecond)
		defer cancel()
		d.srv.Shutdown(short)
	case 3:
		w.Cable().Cut() // and comes back
	case 4:
		w.Serve(nil)
		w.Cable().Cut() // and does not
	case 5:
		for sc := range d.srv.Conns() {
			sc.Close()
		}
	case 6:
		w.Cable().Swallow() // half open
	case 7:
		for sc := range d.srv.Conns() {
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			sc.Shutdown(short)
			cancel()
		}
	case 8:
		for range 10 { // handed over again and again
			w.Cable().Cut()
			time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		}
	}
}

// However connections end, in the middle of whatever, the server holds nothing
// for them afterwards, by its own account: not a byte of what was taken was
// forgotten, and the ledger is at zero.
func TestEnds_nothingIsKept(t *testing.T) {
	for round := range testkit.Crowd(10_000, 300, 1500) {
		if !t.Run(fmt.Sprint(round), func(t *testing.T) { synctest.Test(t, endsRound) }) {
			return
		}
	}
}

func endsRound(t *testing.T) {
	is := is.New(t)
	d := newEnding()
	ctx, cancel := context.WithCancel(t.Context())
	w := &lab.Town{Srv: d.srv}
	var conns []*typedrpc.Conn
	for range 1 + rand.IntN(3) {
		o := &typedrpc.DialOptions{
			Backoff: lab.Steady, Limits: typedrpc.Limits{Grace: 4 * time.Second, Window: 16 << 10},
			Dialect: []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text}[rand.IntN(2)],
			SignIn:  lab.TopicLogin.Present(func(context.Context) (string, error) { return "ann", nil }),
		}
		conns = append(conns, w.Dial(t, o))
	}
	for range 5 + rand.IntN(30) {
		c := conns[rand.IntN(len(conns))]
		go d.act(ctx, c)
		if rand.IntN(5) == 0 {
			time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
		}
	}
	d.by(ctx, rand.IntN(9), w, conns[0])
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
	for _, c := range conns {
		c.Close()
	}
	cancel()
	time.Sleep(time.Minute) // grace, handlers that do not look
	s := hook.Server(d.srv)
	is.Equal(s.Accepted, 0)
	is.Equal(s.Links, 0)
	is.Equal(s.Left, int64(0))
	is.Equal(s.Promised, int64(0))
	is.Equal(s.Budget, int64(0))
	is.NoErr(d.hub.Close())
}
