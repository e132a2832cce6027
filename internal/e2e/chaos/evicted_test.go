package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	lossHang  = typedrpc.NewMethod[struct{}, struct{}]("loss.hang")
	lossEcho  = typedrpc.NewBidiStream[struct{}, int, int]("loss.echo")
	lossTopic = topic.New[int]("loss.topic")
	lossCount = typedrpc.NewNotification[[2]int]("loss.count") // the connection's number, and its own
)

// event is how something in flight ended.
type event struct {
	what string
	err  error
	at   time.Time
}

// inFlightBothWays is what an actor has under way: all of it has to end when
// its session does.
var inFlightBothWays = []string{
	"client call", "client stream", "client handler", "client stream handler", "subscription",
	"server call", "server stream", "server handler", "server stream handler",
}

// scenery is a server with clients whose sessions are lost.
type scenery struct {
	*stage
	srv *typedrpc.Server
	hub *topic.Hub

	mu     sync.Mutex
	actors map[string]*actor
	conns  int
}

// actor is a client with something of every kind in flight, both ways.
type actor struct {
	*path
	conn     *typedrpc.Conn
	name     string
	events   chan event
	seen     map[string]event // the first of each kind
	sessions atomic.Int64
	sending  atomic.Int64 // the notification that is being sent …
	lostAt   atomic.Int64 // … when the latest session began

	mu     sync.Mutex
	notes  []int            // that the server received
	counts [][2]int         // that the client received
	peers  []*typedrpc.Conn // on the server
}

type actorKey struct{}

func actorOf(ctx context.Context) *actor { return ctx.Value(actorKey{}).(*actor) }

// newScenery serves srv.
func newScenery(t *testing.T, srv *typedrpc.Server) *scenery {
	t.Helper()
	sc := &scenery{
		stage: newStage(t, typedrpctest.Conditions{Latency: time.Millisecond}), srv: srv,
		hub: new(topic.Hub), actors: map[string]*actor{},
	}
	mux := typedrpc.NewMux()
	topic.Handle(mux, sc.hub, lossTopic, topic.Everybody)
	typedrpc.Handle(mux, lossNote, func(ctx context.Context, m chaosMessage) error {
		a := actorOf(ctx)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.notes = append(a.notes, m.N)
		return nil
	})
	handleHanging(mux, "server", actorOf)
	srv.Mux, srv.Logger, srv.OnConnect = mux, slog.New(slog.DiscardHandler), sc.connected
	sc.host.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sc.mu.Lock()
		a := sc.actors[r.Header.Get("Actor")]
		sc.mu.Unlock()
		srv.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, a)))
	}))
	return sc
}

// handleHanging has handlers that end with their contexts, and tell.
func handleHanging(mux *typedrpc.Mux, who string, of func(context.Context) *actor) {
	typedrpc.Handle(mux, lossHang, func(ctx context.Context, _ struct{}) (struct{}, error) {
		<-ctx.Done()
		of(ctx).tell(who+" handler", ctx.Err())
		return struct{}{}, ctx.Err()
	})
	typedrpc.Handle(mux, lossEcho, func(ctx context.Context, _ struct{}, s *typedrpc.Stream[int, int]) error {
		for {
			n, err := s.Recv()
			if err == nil {
				err = s.Send(n)
			}
			if err != nil {
				of(ctx).tell(who+" stream handler", err)
				return err
			}
		}
	})
}

func (a *actor) tell(what string, err error) { a.events <- event{what, err, time.Now()} }

// every calls f ten times a second until it fails or done is closed.
func every(done <-chan struct{}, f func(i int) error) {
	for i := 0; f(i) == nil; i++ {
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-timer.C:
		case <-done:
			timer.Stop()
			return
		}
	}
}

// connected begins what the server has in flight with a client.
func (sc *scenery) connected(c *typedrpc.Conn) {
	a := actorOf(c.Context())
	sc.mu.Lock()
	sc.conns++
	number := sc.conns
	sc.mu.Unlock()
	a.mu.Lock()
	a.peers = append(a.peers, c)
	a.mu.Unlock()
	a.begin(c, "server")
	go every(c.Context().Done(), func(i int) error {
		return typedrpc.Notify(context.Background(), c, lossCount, [2]int{number, i})
	})
}

// begin makes a call and a stream that do not end by themselves.
func (a *actor) begin(c *typedrpc.Conn, who string) {
	go func() {
		_, err := typedrpc.Call(context.Background(), c, lossHang, struct{}{})
		a.tell(who+" call", err)
	}()
	go func() {
		s, err := typedrpc.Open(context.Background(), c, lossEcho, struct{}{})
		if err == nil {
			err = s.Send(1)
		}
		for err == nil {
			_, err = s.Recv()
		}
		a.tell(who+" stream", err)
	}()
}

// actor dials, and begins.
func (sc *scenery) actor(name string, o typedrpc.DialOptions) *actor {
	sc.t.Helper()
	a := &actor{path: sc.path(), name: name, events: make(chan event, 1000), seen: map[string]event{}}
	sc.mu.Lock()
	sc.actors[name] = a
	sc.mu.Unlock()
	o.Mux = typedrpc.NewMux()
	handleHanging(o.Mux, "client", func(context.Context) *actor { return a })
	typedrpc.Handle(o.Mux, lossCount, func(_ context.Context, n [2]int) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.counts = append(a.counts, n)
		return nil
	})
	o.OnState = func(s typedrpc.StateChange) {
		if s.State == typedrpc.StateConnected && !s.Resumed {
			a.sessions.Add(1)
			a.lostAt.Store(a.sending.Load())
		}
	}
	o.Header = http.Header{"Actor": {name}}
	a.conn = a.client(o)
	a.begin(a.conn, "client")
	go func() {
		var err error
		for _, err = range topic.Subscribe(context.Background(), a.conn, lossTopic, "key") {
			if err != nil {
				break
			}
		}
		a.tell("subscription", err)
	}()
	go every(a.conn.Context().Done(), func(i int) error {
		a.sending.Store(int64(i))
		return typedrpc.Notify(context.Background(), a.conn, lossNote, chaosMessage{N: i})
	})
	return a
}

// look takes note of what has ended so far.
func (a *actor) look() {
	synctest.Wait()
	for len(a.events) > 0 {
		e := <-a.events
		if _, ok := a.seen[e.what]; !ok {
			a.seen[e.what] = e
		}
	}
}

// ended fails the test unless everything of a side ("" both) has ended with an
// error that says so, between two times.
func (a *actor) ended(t *testing.T, side string, from, to time.Time) {
	t.Helper()
	a.look()
	for _, what := range inFlightBothWays {
		if side != "" && side != strings.Fields(what)[0] && !(side == "client" && what == "subscription") {
			continue
		}
		e, ok := a.seen[what]
		switch {
		case !ok:
			t.Errorf("%s: the %s goes on", a.name, what)
			continue
		case e.at.Before(from) || e.at.After(to):
			t.Errorf("%s: the %s ended %v after the first moment, the last is after %v", a.name, what, e.at.Sub(from), to.Sub(from))
		}
		switch {
		case strings.HasSuffix(what, " handler") && errors.Is(e.err, context.Canceled):
		case strings.HasSuffix(what, " stream handler") && errors.Is(e.err, typedrpc.Unavailable):
		case errors.Is(e.err, typedrpc.Unavailable) && outcomeOf(e.err) == typedrpc.MayHaveRun:
		default:
			t.Errorf("%s: the %s ended with %v (%v)", a.name, what, e.err, outcomeOf(e.err))
		}
	}
}

// unharmed fails the test if anything of a side ("" both) has ended.
func (a *actor) unharmed(t *testing.T, side string) {
	t.Helper()
	a.look()
	for what, e := range a.seen {
		if side == "" || side == strings.Fields(what)[0] || side == "client" && what == "subscription" {
			t.Errorf("%s: the %s ended with %v", a.name, what, e.err)
		}
	}
}

// numbered fails the test unless the notifications of both sides are in order,
// with a gap for each session that was lost and no other, and the latest are
// there.
func (a *actor) numbered(t *testing.T, losses int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	gaps, next := 0, 0
	for _, n := range a.notes {
		switch {
		case n < next:
			t.Errorf("%s: notification %d came after %d", a.name, n, next-1)
		case n > next:
			gaps++
			// What is missing was sent before the session was lost.
			if int64(n) > a.lostAt.Load()+1 {
				t.Errorf("%s: notifications %d to %d are missing, the session was lost at %d", a.name, next, n-1, a.lostAt.Load())
			}
		}
		next = n + 1
	}
	if gaps > losses {
		t.Errorf("%s: %d gaps in the notifications, %d sessions were lost", a.name, gaps, losses)
	}
	if last := int(a.sending.Load()); next < last {
		t.Errorf("%s: the server has the notifications up to %d, %d were sent", a.name, next, last)
	}
	sessions, was := 0, [2]int{}
	for _, n := range a.counts {
		switch {
		case n[0] == was[0] && n[1] == was[1]+1:
		case n[0] > was[0] && n[1] == 0:
			sessions++
		default:
			t.Errorf("%s: the server's notification %v came after %v", a.name, n, was)
		}
		was = n
	}
	if sessions != losses+1 || int(a.sessions.Load()) != losses+1 {
		t.Errorf("%s: %d, %d sessions, %d were lost", a.name, sessions, a.sessions.Load(), losses)
	}
}

// end closes everything.
func (sc *scenery) end() {
	for _, a := range sc.actors {
		a.open()
		a.conn.Close()
		a.hc.CloseIdleConnections()
	}
	if err := sc.srv.Shutdown(sc.t.Context()); err != nil {
		sc.t.Error(err)
	}
	sc.hub.Close()
	sc.net.Close()
}

// away cuts an actor's link and lets it not come back, and returns when.
func (a *actor) away(how typedrpctest.Cut) time.Time {
	a.path.close()
	a.last().Cut(how)
	return time.Now()
}

const moment = 200 * time.Millisecond // longer than the wait between attempts, and some round trips

func TestLoss_evictedByNumber(t *testing.T) {
	for name, d := range bothDialects {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sc := newScenery(t, &typedrpc.Server{MaxKept: 1, Limits: typedrpc.Limits{Grace: time.Hour}})
				defer sc.end()
				o := typedrpc.DialOptions{Dialect: d, Limits: typedrpc.Limits{Grace: time.Hour}}
				a, b, c := sc.actor("a", o), sc.actor("b", o), sc.actor("c", o)
				time.Sleep(3 * time.Second)
				a.away(typedrpctest.CutReset)
				time.Sleep(time.Minute)
				a.unharmed(t, "")
				evicted := b.away(typedrpctest.CutClose)
				time.Sleep(time.Minute)
				a.ended(t, "server", evicted, evicted.Add(moment))
				a.unharmed(t, "client") // nobody can have told it
				b.unharmed(t, "")
				evictedB := c.away(typedrpctest.CutDialer)
				time.Sleep(time.Minute) // until the server misses the link
				b.ended(t, "server", evictedB, evictedB.Add(41*time.Second))
				back := time.Now()
				a.open()
				b.open()
				c.open()
				time.Sleep(3 * time.Second)
				a.ended(t, "client", back, back.Add(moment))
				b.ended(t, "client", back, back.Add(moment))
				c.unharmed(t, "")
				a.numbered(t, 1)
				b.numbered(t, 1)
				c.numbered(t, 0)
			})
		})
	}
}

func TestLoss_evictedByBytes(t *testing.T) {
	for name, d := range bothDialects {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				sc := newScenery(t, &typedrpc.Server{MaxKeptBytes: 200_000, Limits: typedrpc.Limits{Grace: time.Hour}})
				defer sc.end()
				o := typedrpc.DialOptions{Dialect: d, Limits: typedrpc.Limits{Grace: time.Hour, Window: 1 << 20}}
				a, b := sc.actor("a", o), sc.actor("b", o)
				time.Sleep(3 * time.Second)
				a.away(typedrpctest.CutReset)
				time.Sleep(time.Second)
				b.away(typedrpctest.CutReset)
				large := chaosMessage{Pad: chaosText[:100_000]}
				is.NoErr(typedrpc.Notify(t.Context(), a.peers[0], lossNote, large))
				time.Sleep(10 * time.Second)
				a.unharmed(t, "")
				b.unharmed(t, "")
				full := time.Now() // nobody is lost by it, but it is found in the next sweep
				is.NoErr(typedrpc.Notify(t.Context(), b.peers[0], lossNote, large))
				time.Sleep(10 * time.Second)
				a.ended(t, "server", full, full.Add(time.Second))
				b.unharmed(t, "")
				back := time.Now()
				a.open()
				b.open()
				time.Sleep(3 * time.Second)
				a.ended(t, "client", back, back.Add(moment))
				b.unharmed(t, "")
				a.numbered(t, 1)
				b.numbered(t, 0)
			})
		})
	}
}

// Grace runs at both sides, each from when it missed the link.
func TestLoss_grace(t *testing.T) {
	const short, long, silence = time.Second, 20 * time.Second, 5 * time.Second // silence: a keepalive interval
	for name, d := range bothDialects {
		for side, grace := range map[string][2]time.Duration{"of the server": {long, short}, "of the client": {short, long}} {
			for _, how := range []typedrpctest.Cut{typedrpctest.CutClose, typedrpctest.CutReset, typedrpctest.CutDialer, typedrpctest.CutListener} {
				t.Run(fmt.Sprintf("%s/%s/%v", name, side, how), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						sc := newScenery(t, &typedrpc.Server{Limits: typedrpc.Limits{Grace: grace[1], KeepAlive: silence}})
						defer sc.end()
						a := sc.actor("a", typedrpc.DialOptions{Dialect: d, Limits: typedrpc.Limits{Grace: grace[0]}})
						time.Sleep(3 * time.Second)
						cut := a.away(how)
						// Whoever is not told misses the link between one and two
						// intervals after it last heard something, and then says
						// goodbye for a second at most.
						client, server := cut, cut
						late := [2]time.Duration{moment, moment}
						if how == typedrpctest.CutListener {
							late[0] += 2*silence + time.Second
						}
						if how == typedrpctest.CutDialer {
							late[1] += 2*silence + time.Second
						}
						time.Sleep(time.Minute)
						// The client knows the server's grace; the server does not
						// know the client's.
						a.ended(t, "client", client.Add(short), client.Add(short+late[0]))
						a.ended(t, "server", server.Add(grace[1]), server.Add(grace[1]+late[1]))
						a.open()
						time.Sleep(3 * time.Second)
						a.numbered(t, 1)
					})
				})
			}
		}
	}
}

// A client that comes back in time loses nothing, whatever the grace.
func TestLoss_inTime(t *testing.T) {
	for name, d := range bothDialects {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sc := newScenery(t, &typedrpc.Server{Limits: typedrpc.Limits{Grace: time.Second}})
				defer sc.end()
				a := sc.actor("a", typedrpc.DialOptions{Dialect: d})
				for range 20 {
					time.Sleep(time.Second)
					a.away(typedrpctest.CutReset)
					time.Sleep(700 * time.Millisecond)
					a.open()
					time.Sleep(moment)
				}
				a.unharmed(t, "")
				a.numbered(t, 0)
			})
		})
	}
}
