package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/stats"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// tape writes down what it is told.
type tape struct {
	mu    sync.Mutex
	lines []string
	conns map[any]bool
}

func (t *tape) note(conn any, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf(format, args...))
	if t.conns == nil {
		t.conns = map[any]bool{}
	}
	t.conns[conn] = true
}

func (t *tape) Call(e stats.Call) {
	t.note(e.Conn, "call %q %s out=%t code=%d notrun=%t attempts=%d %v", e.Method, e.Kind, e.Outgoing, e.Code, e.NotRun, e.Attempts, e.Duration.Round(time.Millisecond))
}

func (t *tape) Item(e stats.Item) {
	t.note(e.Conn, "item %q out=%t sent=%t %d", e.Method, e.Outgoing, e.Sent, e.Bytes)
}

func (t *tape) Link(e stats.Link) {
	t.note(e.Conn, "link dialled=%t up=%t %s %v", e.Dialled, e.Up, e.End, e.Duration.Round(time.Second))
}

func (t *tape) Session(e stats.Session) {
	t.note(e.Conn, "session dialled=%t %s %s", e.Dialled, e.Event, e.End)
}

func (t *tape) Topic(e stats.Topic) { t.note(nil, "topic %s %s %d", e.Name, e.Event, e.N) }

// since returns what was told since the last time, when all is quiet.
func (t *tape) since() string {
	synctest.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	all := strings.Join(t.lines, "\n")
	t.lines = nil
	return all
}

func TestRecorder_calls(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var near, far tape
		l := lab.New()
		l.Server.Recorder = &far
		typedrpc.Handle(l.Mux, typedrpc.NewMethod[int, int]("rec.fail"), func(context.Context, int) (int, error) { return 0, typedrpc.NotFound })
		c, s, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d, Recorder: &near})
		is.NoErr(err)
		defer c.Close()
		is.Equal(near.since(), "link dialled=true up=true none 0s\nsession dialled=true begun none")
		is.Equal(far.since(), "link dialled=false up=true none 0s\nsession dialled=false begun none")
		is.True(near.conns[c])
		is.True(far.conns[s])

		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		is.Equal(near.since(), `call "lab.echo" method out=true code=0 notrun=false attempts=1 0s`)
		is.Equal(far.since(), `call "lab.echo" method out=false code=0 notrun=false attempts=0 0s`)

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err = typedrpc.Go(ctx, c, lab.Hang, struct{}{}).Await(t.Context())
		is.True(err != nil)
		is.Equal(near.since(), fmt.Sprintf(`call "lab.hang" method out=true code=%d notrun=false attempts=1 3s`, typedrpc.DeadlineExceeded))
		is.True(strings.HasPrefix(far.since(), `call "lab.hang" method out=false code=`))

		_, err = typedrpc.Call(t.Context(), c, typedrpc.NewMethod[int, int]("rec.fail"), 1)
		is.True(err != nil)
		is.Equal(far.since(), fmt.Sprintf(`call "rec.fail" method out=false code=%d notrun=false attempts=0 0s`, typedrpc.NotFound))
		near.since()

		// What a peer calls as it likes is not told by name.
		_, err = typedrpc.Call(t.Context(), c, typedrpc.NewMethod[int, int]("rec.nobody"), 1)
		is.True(err != nil)
		is.Equal(far.since(), fmt.Sprintf(`call "" method out=false code=%d notrun=true attempts=0 0s`, typedrpc.Unimplemented))
		is.True(strings.HasPrefix(near.since(), `call "rec.nobody" method out=true`)) // declared here

		is.NoErr(typedrpc.Notify(t.Context(), c, lab.Note, 1))
		is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[int]("rec.none"), 1))
		is.Equal(near.since(), "call \"lab.note\" notification out=true code=0 notrun=false attempts=1 0s\ncall \"rec.none\" notification out=true code=0 notrun=false attempts=1 0s")
		is.Equal(far.since(), fmt.Sprintf("call \"lab.note\" notification out=false code=0 notrun=false attempts=0 0s\ncall \"\" notification out=false code=%d notrun=true attempts=0 0s", typedrpc.Unimplemented))
		is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[string]("lab.note"), "no number"))
		is.Equal(far.since(), fmt.Sprintf(`call "lab.note" notification out=false code=%d notrun=false attempts=0 0s`, typedrpc.InvalidArgument))
		near.since()
		c.Close()
		is.Equal(near.since(), "link dialled=true up=false closed 3s\nsession dialled=true ended closed")
		is.Equal(far.since(), "link dialled=false up=false closed 3s\nsession dialled=false ended closed")
	})
}

func TestRecorder_streams(t *testing.T) {
	testkit.Bubble(t, "items, and names of peers", func(t *testing.T, is *is.I) {
		var near, far, proxy tape
		mux := lab.Bidi(func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
			v, err := s.Recv()
			if err != nil {
				return err
			}
			return s.Send(v + "!")
		})
		behind, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux, Recorder: &far}, &typedrpc.DialOptions{Recorder: &proxy})
		is.NoErr(err)
		defer behind.Close()
		front := typedrpc.NewMux()
		front.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			return typedrpc.Forward(ctx, behind, r)
		})
		c, _, err := typedrpctest.Dial(&typedrpc.Server{Mux: front, Recorder: &proxy}, &typedrpc.DialOptions{Recorder: &near})
		is.NoErr(err)
		defer c.Close()
		synctest.Wait()
		near.since()
		far.since()
		proxy.since()
		x, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		time.Sleep(time.Second)
		is.NoErr(x.Send("a"))
		v, err := x.Recv()
		is.NoErr(err)
		is.Equal(v, "a!")
		_, err = x.Recv()
		is.True(err != nil) // the end
		name := lab.FlowBoth.Name()
		sorted := func(all string) string { // the call may have ended before its item was received
			lines := strings.Split(all, "\n")
			slices.Sort(lines)
			return strings.Join(lines, "\n")
		}
		is.Equal(sorted(near.since()), fmt.Sprintf("call %q bidirectional stream out=true code=0 notrun=false attempts=1 1s\nitem %q out=true sent=false 4\nitem %q out=true sent=true 3", name, name, name))
		is.Equal(sorted(far.since()), fmt.Sprintf("call %q bidirectional stream out=false code=0 notrun=false attempts=0 1s\nitem %q out=false sent=false 3\nitem %q out=false sent=true 4", name, name, name))
		seen := proxy.since()
		is.True(!strings.Contains(seen, name)) // nobody declared it there
		is.Equal(strings.Count(seen, `item ""`), 4)
		is.Equal(strings.Count(seen, `call ""`), 2)
	})
}

func TestRecorder_links(t *testing.T) {
	testkit.Bubble(t, "resumed, and lost", func(t *testing.T, is *is.I) {
		net := typedrpctest.NewNetwork(nil)
		defer net.Close()
		var near, far tape
		l := lab.New()
		l.Server.Recorder = &far
		host := net.Host("server")
		host.Serve(l.Server)
		c, err := typedrpc.Dial(t.Context(), host.URL(), &typedrpc.DialOptions{HTTPClient: net.HTTPClient(), Backoff: lab.Steady, Recorder: &near})
		is.NoErr(err)
		defer c.Close()
		near.since()
		far.since()
		host.Stop()
		is.Equal(near.since(), "link dialled=true up=false broken 0s")
		is.Equal(far.since(), "link dialled=false up=false broken 0s")
		host.Start()
		time.Sleep(10 * time.Second)
		is.Equal(near.since(), "link dialled=true up=true none 0s\nsession dialled=true resumed none")
		is.Equal(far.since(), "link dialled=false up=true none 0s\nsession dialled=false resumed none")
		host.Stop()
		time.Sleep(time.Minute)
		is.True(strings.HasSuffix(near.since(), "\nsession dialled=true ended grace"))
		is.True(strings.HasSuffix(far.since(), "\nsession dialled=false ended grace"))
		host.Start()
		time.Sleep(10 * time.Second)
		is.Equal(near.since(), "link dialled=true up=true none 0s\nsession dialled=true begun none")
		is.Equal(far.since(), "link dialled=false up=true none 0s\nsession dialled=false begun none")
	})
}

func TestRecorder_topics(t *testing.T) {
	testkit.Bubble(t, "published and dropped", func(t *testing.T, is *is.I) {
		var tape tape
		hub := &topic.Hub{Recorder: &tape}
		news := topic.New[string]("rec.news", topic.LatestOnly)
		srv := lab.TopicServer(func(m *typedrpc.Mux) { topic.Handle(m, hub, news, topic.Everybody) })
		c := lab.TopicDial(t, srv, "ann", typedrpc.DialOptions{})
		gate := make(chan struct{})
		sub := lab.SubscribeTo(t.Context(), c, news, "a", gate)
		is.Equal(tape.since(), "topic rec.news subscribed 1")
		for range 6 { // one is looked at, one is at the subscriber, and one waits
			is.NoErr(topic.Publish(t.Context(), hub, news, "a", strings.Repeat("x", 60<<10)))
		}
		got := tape.since()
		is.Equal(strings.Count(got, "topic rec.news published 1"), 6)
		is.Equal(strings.Count(got, "topic rec.news delivered 1"), 6)
		is.True(strings.Contains(got, "topic rec.news dropped 1"))
		close(gate)
		synctest.Wait()
		sub.Leave()
		is.Equal(tape.since(), "topic rec.news unsubscribed 1")
		is.NoErr(hub.Close())
	})
}

// TestRecorder_panics: a recorder's panics are logged, and nothing else.
func TestRecorder_panics(t *testing.T) {
	testkit.Bubble(t, "both sides", func(t *testing.T, is *is.I) {
		var log lab.Logs
		l := lab.New()
		l.Server.Recorder, l.Server.Logger = panics{}, log.Logger()
		c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Recorder: panics{}, Logger: log.Logger()})
		is.NoErr(err)
		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.NoErr(err)
		is.NoErr(typedrpc.Notify(t.Context(), c, lab.Note, 1))
		is.NoErr(c.Close())
		is.True(log.Has("typedrpc: recorder panicked"))
	})
}

type panics struct{ stats.None }

func (panics) Call(stats.Call)       { panic("call") }
func (panics) Link(stats.Link)       { panic("link") }
func (panics) Session(stats.Session) { panic("session") }
