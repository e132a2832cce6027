package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/stats"
)

// census counts the ends of what came, by name and code. What no handler saw has a "!".
type census struct {
	stats.None
	mu   sync.Mutex
	ends map[string]int
}

func (t *census) Call(e stats.Call) {
	if e.Outgoing {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ends == nil {
		t.ends = map[string]int{}
	}
	name := fmt.Sprintf("%s %d", e.Method, e.Code)
	if e.NotRun {
		name += "!"
	}
	t.ends[name]++
}

func (t *census) all() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.ends)
}

func endOf(name string, code typedrpc.Code) string { return fmt.Sprintf("%s %d", name, int64(code)) }

// Calls that waited for room and are refused are heard of, as those that run.
func TestRecorder_parkedAndRefused(t *testing.T) {
	for name, body := range map[string]string{
		"a call":  `{"jsonrpc":"2.0","id":1,"method":"large","params":[1000000]}`,
		"a batch": `[{"jsonrpc":"2.0","id":1,"method":"large","params":[1000000]}]`,
	} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			const posts = 60
			var ran atomic.Int64
			var census census
			srv := &typedrpc.Server{Mux: largeMux(&ran), MaxMemory: 16 << 20, Recorder: &census}
			until := make(chan struct{})
			var all sync.WaitGroup
			for range posts {
				all.Go(func() { srv.ServeHTTP(unread{httptest.NewRecorder(), until}, asPOST(body)) })
			}
			time.Sleep(10 * time.Second)
			close(until)
			all.Wait()
			is.True(ran.Load() < posts/2)
			got := census.all()
			is.Equal(got[endOf("large", typedrpc.ResourceExhausted)+"!"], posts-int(ran.Load()))
			is.Equal(got["large 0"], int(ran.Load()))
		})
	}
}

// Answers to an array that are too large together are told as their caller sees them.
func TestRecorder_arrayTooLarge(t *testing.T) {
	testkit.Bubble(t, "one of three", func(t *testing.T, is *is.I) {
		var ran atomic.Int64
		var census census
		srv := &typedrpc.Server{Mux: largeMux(&ran), Recorder: &census, Limits: typedrpc.Limits{MaxBuffered: 1 << 20, MaxMessage: 1 << 20}}
		one := `{"jsonrpc":"2.0","id":1,"method":"large","params":[500000]}`
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, asPOST("["+strings.Join([]string{one, one, one}, ",")+"]"))
		refused := strings.Count(w.Body.String(), fmt.Sprintf(`"code":%d`, typedrpc.ResourceExhausted))
		is.True(refused > 0 && refused < 3)
		synctest.Wait()
		got := census.all()
		is.Equal(got["large 0"], 3-refused)
		is.Equal(got[endOf("large", typedrpc.ResourceExhausted)]+got[endOf("large", typedrpc.ResourceExhausted)+"!"], refused)
	})
}

// What waits for its turn, or is not all there, when its session or connection ends is
// heard of once.
func TestRecorder_endsBeforeItsTurn(t *testing.T) {
	ends := map[string]func(p *testkit.RawPeer, c *typedrpc.Conn, srv *typedrpc.Server){
		"closed":    func(_ *testkit.RawPeer, c *typedrpc.Conn, _ *typedrpc.Server) { c.Close() },
		"lost":      func(p *testkit.RawPeer, _ *typedrpc.Conn, _ *typedrpc.Server) { p.T.Kill() },
		"peer left": func(p *testkit.RawPeer, _ *typedrpc.Conn, _ *typedrpc.Server) { p.T.Close(1000, "bye") },
		"shut down": func(_ *testkit.RawPeer, _ *typedrpc.Conn, srv *typedrpc.Server) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			srv.Shutdown(ctx)
		},
	}
	serial := typedrpc.NewMethod[int, int]("rec.serial", typedrpc.Serial)
	for name, end := range ends {
		for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
			testkit.Bubble(t, fmt.Sprint(name, " ", d), func(t *testing.T, is *is.I) {
				var census census
				l := lab.New()
				l.Server.Recorder, l.Server.Limits = &census, typedrpc.Limits{Grace: time.Second}
				typedrpc.Handle(l.Mux, serial, func(ctx context.Context, _ int) (int, error) {
					<-ctx.Done()
					return 0, typedrpc.Errorf(typedrpc.Aborted, "ended")
				})
				p, c := lab.RawClient(t, d, l.Server)
				for id := range uint64(3) {
					is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: id + 1, Method: serial.Name(), Payload: []byte("1")}))
				}
				for range 2 {
					is.NoErr(p.Send(wire.Frame{Type: wire.Notify, Method: lab.Note.Name(), Payload: []byte("1")}))
				}
				if d == typedrpc.Binary { // fragments are its alone
					is.NoErr(p.Send(wire.Frame{Type: wire.Call, Flags: wire.More, ID: 4, Method: lab.Echo.Name(), Payload: []byte("1")}))
				}
				synctest.Wait()
				end(p, c, l.Server)
				time.Sleep(time.Minute)
				synctest.Wait()
				want := map[string]int{
					endOf(serial.Name(), typedrpc.Aborted):             1,
					endOf(serial.Name(), typedrpc.Unavailable) + "!":   2,
					endOf(lab.Note.Name(), typedrpc.Unavailable) + "!": 2,
				}
				if d == typedrpc.Binary {
					want[endOf(lab.Echo.Name(), typedrpc.Unavailable)+"!"] = 1
				}
				is.Equal(census.all(), want)
			})
		}
	}
}

// A request that comes too slowly is heard of, too.
func TestRecorder_tooSlow(t *testing.T) {
	testkit.Bubble(t, "fragments", func(t *testing.T, is *is.I) {
		var census census
		l := lab.New()
		l.Server.Recorder = &census
		p, _ := lab.RawClient(t, typedrpc.Binary, l.Server)
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, Flags: wire.More, ID: 1, Method: lab.Echo.Name(), Payload: []byte("1")}))
		for range 120 {
			time.Sleep(time.Second)
			p.Send(wire.Frame{Type: wire.Ack})
		}
		is.Equal(census.all(), map[string]int{endOf(lab.Echo.Name(), typedrpc.ResourceExhausted) + "!": 1})
	})
}

// A plain peer that has left, whose notifications and calls nobody came to in time.
func TestRecorder_leftBehind(t *testing.T) {
	testkit.Bubble(t, "stuck", func(t *testing.T, is *is.I) {
		var census census
		l := lab.New()
		l.Server.Recorder = &census
		stuck := make(chan struct{})
		typedrpc.Handle(l.Mux, typedrpc.NewNotification[int]("rec.stuck"), func(context.Context, int) error { <-stuck; return nil })
		serial := typedrpc.NewMethod[int, int]("rec.serial", typedrpc.Serial)
		typedrpc.Handle(l.Mux, serial, func(context.Context, int) (int, error) { return 0, nil })
		s, _ := lab.Page(t, l.Server)
		s.Send(`{"jsonrpc":"2.0","method":"rec.stuck","params":[1]}`)
		s.Send(`{"jsonrpc":"2.0","method":"lab.note","params":[1]}`)
		s.Send(`{"jsonrpc":"2.0","id":1,"method":"rec.serial","params":[1]}`)
		synctest.Wait()
		s.T.Close(1000, "bye")
		time.Sleep(time.Minute)
		close(stuck)
		synctest.Wait()
		is.Equal(census.all(), map[string]int{
			"rec.stuck 0": 1,
			endOf(lab.Note.Name(), typedrpc.Unavailable) + "!": 1,
			endOf(serial.Name(), typedrpc.Unavailable) + "!":   1,
		})
	})
}
