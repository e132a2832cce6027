package strangers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// What the foreign programs in testdata call, and are called.
type difference struct{ Minuend, Subtrahend int }

var (
	subtract = typedrpc.NewMethod[difference, int]("subtract", typedrpc.Params("minuend", "subtrahend"))
	fail     = typedrpc.NewMethod[int64, struct{}]("fail")
	note     = typedrpc.NewNotification[int]("note")
	noted    = typedrpc.NewMethod[struct{}, string]("noted", typedrpc.Serial) // behind the notes
	ask      = typedrpc.NewMethod[question, string]("ask", typedrpc.Params("name", "text"))
	slow     = typedrpc.NewMethod[struct{}, struct{}]("slow")
	giveUp   = typedrpc.NewMethod[struct{}, string]("giveUp")
	leave    = typedrpc.NewMethod[int, struct{}]("leave")
	restart  = typedrpc.NewNotification[struct{}]("restart")
	settled  = typedrpc.NewMethod[struct{}, bool]("settled")
	gone     = typedrpc.NewMethod[struct{}, string]("gone")
	pinged   = typedrpc.NewMethod[struct{}, bool]("pinged")
	work     = typedrpc.NewMethod[string, struct{}]("work")

	begun    = typedrpc.NewNotification[struct{}]("begun")
	pushed   = typedrpc.NewNotification[int]("pushed")
	progress = typedrpc.NewNotification[workDone]("$/progress")

	chainID     = typedrpc.NewMethod[struct{}, string]("eth_chainId")
	blockNumber = typedrpc.NewMethod[struct{}, string]("eth_blockNumber")
	netVersion  = typedrpc.NewMethod[struct{}, string]("net_version")
	ethCall     = typedrpc.NewMethod[typedrpc.Raw, string]("eth_call")
	subscribe   = typedrpc.NewMethod[[]string, string]("eth_subscribe")
	unsubscribe = typedrpc.NewMethod[[]string, bool]("eth_unsubscribe")
	head        = typedrpc.NewNotification[event]("eth_subscription")

	listen   = typedrpc.NewMethod[[]string, map[string]string]("rpc.on")
	unlisten = typedrpc.NewMethod[[]string, map[string]string]("rpc.off")
	ticks    = typedrpc.NewNotification[int]("ticks")
	login    = typedrpc.NewMethod[map[string]string, bool]("rpc.login")
)

type question struct{ Name, Text string }

type workDone struct {
	Token string            `json:"token"`
	Value map[string]string `json:"value"`
}

type event struct {
	Subscription string         `json:"subscription"`
	Result       map[string]any `json:"result"`
}

// patient are limits that nothing reaches because this machine is slow.
var patient = typedrpc.Limits{HandshakeTimeout: patience, KeepAlive: patience, WriteTimeout: patience}

// foreign is a server for foreign programs.
type foreign struct {
	url     string
	log     *output
	srv     atomic.Pointer[typedrpc.Server]
	clients sync.Map // *typedrpc.Conn, *visitor

	mu    sync.Mutex
	notes []int
	pings chan struct{}
	ends  chan error
}

// visitor is what is known of one connection.
type visitor struct {
	begun   chan struct{}
	settled chan struct{}
}

func (f *foreign) of(ctx context.Context) *visitor {
	c, _ := f.clients.LoadOrStore(typedrpc.ConnFrom(ctx), &visitor{begun: make(chan struct{}, 1), settled: make(chan struct{}, 1)})
	return c.(*visitor)
}

func serveForeign(t *testing.T) *foreign {
	t.Helper()
	f := &foreign{log: new(output), pings: make(chan struct{}, 1), ends: make(chan error, 100)}
	mux := typedrpc.NewMux()
	f.handlePlain(mux)
	f.handleBoth(mux)
	f.handleEthereum(mux)
	begin := func() {
		srv := newServer(f.log)
		srv.Mux, srv.Compress, srv.Limits = mux, true, patient
		srv.Limits.MaxMessage = 1 << 20
		srv.OnDisconnect = func(_ *typedrpc.Conn, err error) { f.ends <- err }
		f.srv.Store(srv)
	}
	begin()
	var over sync.WaitGroup
	typedrpc.Handle(mux, restart, func(ctx context.Context, _ struct{}) error {
		old := f.srv.Load()
		begin()
		over.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			old.Shutdown(ctx)
		})
		return nil
	})
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.srv.Load().ServeHTTP(w, r) }))
	f.url = strings.Replace(hs.URL, "http", "ws", 1)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		f.srv.Load().Shutdown(ctx)
		over.Wait()
		hs.Close()
		if t.Failed() {
			t.Logf("the server's log:\n%s", f.log)
		}
	})
	return f
}

// handlePlain handles what has an answer, or none.
func (f *foreign) handlePlain(m *typedrpc.Mux) {
	typedrpc.Handle(m, shout, func(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil })
	typedrpc.Handle(m, subtract, func(_ context.Context, d difference) (int, error) { return d.Minuend - d.Subtrahend, nil })
	typedrpc.Handle(m, fail, func(_ context.Context, n int64) (struct{}, error) {
		return struct{}{}, &typedrpc.Error{Code: typedrpc.Aborted, Number: n, Message: "refused", Data: typedrpc.Raw(`{"why":"because"}`)}
	})
	typedrpc.Handle(m, note, func(_ context.Context, n int) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.notes = append(f.notes, n)
		return nil
	})
	typedrpc.Handle(m, noted, func(context.Context, struct{}) (string, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		text := fmt.Sprintf("%d, sorted %v", len(f.notes), slices.IsSorted(f.notes))
		f.notes = nil
		return text, nil
	})
	typedrpc.Handle(m, gone, func(context.Context, struct{}) (string, error) {
		for {
			var ce *typedrpc.CloseError
			if errors.As(<-f.ends, &ce) { // else this side has closed it
				return ce.Error(), nil
			}
		}
	})
	typedrpc.Handle(m, login, func(_ context.Context, who map[string]string) (bool, error) { return who["user"] == "ada", nil })
	typedrpc.Handle(m, listen, func(ctx context.Context, names []string) (map[string]string, error) {
		answer := map[string]string{}
		for _, name := range names {
			if answer[name] = "provided event invalid"; name == "ticks" {
				answer[name] = "ok"
			}
		}
		typedrpc.RequestFrom(ctx).AfterReply = func(ctx context.Context, _ error) {
			for i := range 3 {
				typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), ticks, i)
			}
		}
		return answer, nil
	})
	typedrpc.Handle(m, unlisten, func(_ context.Context, names []string) (map[string]string, error) {
		return map[string]string{names[0]: "ok"}, nil
	})
}

// handleBoth handles what calls or notifies the client.
func (f *foreign) handleBoth(m *typedrpc.Mux) {
	typedrpc.Handle(m, ask, func(ctx context.Context, q question) (string, error) {
		answer, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), typedrpc.NewMethod[string, string](q.Name), q.Text)
		return answer + told(err), nil
	})
	typedrpc.Handle(m, begun, func(ctx context.Context, _ struct{}) error {
		f.of(ctx).begun <- struct{}{}
		return nil
	})
	typedrpc.Handle(m, slow, func(ctx context.Context, _ struct{}) (struct{}, error) {
		if err := typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), begun, struct{}{}); err != nil {
			return struct{}{}, err
		}
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	})
	typedrpc.Handle(m, giveUp, func(ctx context.Context, _ struct{}) (string, error) {
		call, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			<-f.of(ctx).begun
			cancel()
		}()
		_, err := typedrpc.Call(call, typedrpc.ConnFrom(ctx), slow, struct{}{})
		return told(err), nil
	})
	typedrpc.Handle(m, leave, func(ctx context.Context, n int) (struct{}, error) {
		conn := typedrpc.ConnFrom(ctx)
		typedrpc.RequestFrom(ctx).AfterReply = func(ctx context.Context, _ error) {
			for i := range n {
				typedrpc.Notify(ctx, conn, pushed, i)
			}
			conn.Close()
		}
		return struct{}{}, nil
	})
	typedrpc.Handle(m, work, func(ctx context.Context, token string) (struct{}, error) {
		for _, kind := range []string{"begin", "end"} {
			if err := typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), progress, workDone{token, map[string]string{"kind": kind}}); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
}

// handleEthereum handles what its libraries ask for.
func (f *foreign) handleEthereum(m *typedrpc.Mux) {
	typedrpc.Handle(m, chainID, func(context.Context, struct{}) (string, error) { return "0x1", nil })
	typedrpc.Handle(m, blockNumber, func(context.Context, struct{}) (string, error) { return "0x10", nil })
	typedrpc.Handle(m, netVersion, func(context.Context, struct{}) (string, error) {
		select {
		case f.pings <- struct{}{}:
		default:
		}
		return "1", nil
	})
	typedrpc.Handle(m, pinged, func(ctx context.Context, _ struct{}) (bool, error) {
		<-f.pings
		return true, nil
	})
	typedrpc.Handle(m, ethCall, func(context.Context, typedrpc.Raw) (string, error) {
		// Error(string), of "no", as contracts encode it.
		data := "0x08c379a0" + fmt.Sprintf("%064x%064x%-64s", 32, 2, "6e6f")
		return "", &typedrpc.Error{Code: typedrpc.FailedPrecondition, Number: 3, Message: "execution reverted: no", Data: typedrpc.Raw(`"` + strings.ReplaceAll(data, " ", "0") + `"`)}
	})
	typedrpc.Handle(m, subscribe, func(ctx context.Context, what []string) (string, error) {
		if len(what) != 1 || what[0] != "newHeads" {
			return "", typedrpc.Errorf(typedrpc.InvalidArgument, "no such subscription")
		}
		typedrpc.RequestFrom(ctx).AfterReply = func(ctx context.Context, _ error) {
			for i := range 3 {
				typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), head, event{"0xcd", map[string]any{"number": fmt.Sprintf("0x%x", 17+i)}})
			}
		}
		return "0xcd", nil
	})
	typedrpc.Handle(m, unsubscribe, func(ctx context.Context, id []string) (bool, error) {
		v := f.of(ctx)
		typedrpc.RequestFrom(ctx).AfterReply = func(context.Context, error) { v.settled <- struct{}{} }
		return len(id) == 1 && id[0] == "0xcd", nil
	})
	typedrpc.Handle(m, settled, func(ctx context.Context, _ struct{}) (bool, error) {
		<-f.of(ctx).settled
		return true, nil
	})
}

// told is what is known of an error, "" for none.
func told(err error) string {
	var e *typedrpc.Error
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &e):
		return "no *Error: " + err.Error()
	}
	return fmt.Sprintf("%v, number %d, data %s, %v", e, e.Number, e.Data, e.Outcome)
}

// patience is with a program that hangs.
const patience = 5 * time.Minute

// script is a program of testdata, run by Node or by Debian's Python.
func script(t *testing.T, needs, name string, args ...string) *exec.Cmd {
	t.Helper()
	missing := func(err error) {
		if os.Getenv("TYPEDRPC_STRANGERS") != "" {
			t.Fatalf("%s is not installed: %v", needs, err)
		}
		t.Skipf("%s is not installed", needs)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience) // one that hangs is to say what it saw
	t.Cleanup(cancel)
	if strings.HasSuffix(name, ".py") {
		if err := exec.Command(debianPython, "-c", "import "+needs).Run(); err != nil {
			missing(err)
		}
		return exec.CommandContext(ctx, debianPython, append([]string{"testdata/" + name}, args...)...)
	}
	if _, err := os.Stat("testdata/npm/node_modules/" + needs); err != nil {
		missing(err)
	}
	return exec.CommandContext(ctx, program(t, "node"), append([]string{"testdata/npm/" + name}, args...)...)
}

// TestForeignClients runs clients of other libraries against a server of ours, and
// compares what they saw.
func TestForeignClients(t *testing.T) {
	for _, tt := range foreignClients {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			f := serveForeign(t)
			out, err := script(t, tt.needs, tt.name, f.url).CombinedOutput()
			if err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}
			want := strings.TrimSpace(tt.saw)
			if got := strings.TrimSpace(string(out)); got != want {
				t.Errorf("it saw\n%s\nand not\n%s", got, want)
			}
			log := f.log.String()
			is.True(strings.Contains(log, tt.log))
			is.Equal(log == "", tt.log == "") // what is well is not logged
		})
	}
}
