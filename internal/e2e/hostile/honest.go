package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
)

// patience is how long an honest call waits.
const patience = 5 * time.Second

// report is what an honest client says of its calls since it last was to forget
// them.
type report struct {
	P50, P99 time.Duration
	Calls    int
	Fails    []string
	Lost     []string // why links were lost
}

// honestMain is the honest client, in a process of its own: what it measures is the
// server and not the attackers' collector. It prints a line when it is connected,
// and answers the lines of its input: "forget"; "report"; "rest", with which it
// makes no more calls. It ends with its input.
func honestMain(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet("honest", flag.ContinueOnError)
	addr := fs.String("addr", "", "of the server")
	auth := fs.Bool("auth", false, "say a name")
	if err := fs.Parse(args); err != nil {
		return err
	}
	h, err := newHonest(context.Background(), *addr, *auth)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "connected")
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		switch lines.Text() {
		case "forget":
			h.forget()
			fmt.Fprintln(out, "forgot")
		case "report":
			b, _ := json.Marshal(h.report())
			fmt.Fprintf(out, "%s\n", b)
		case "rest":
			h.rest()
			fmt.Fprintln(out, "rests")
		default:
			return fmt.Errorf("no command %q", lines.Text())
		}
	}
	h.close()
	return lines.Err()
}

// honest starts an honest client.
func (p program) honest(ctx context.Context, addr string, auth bool) (*process, error) {
	x, err := p.start(ctx, "honest", "-addr="+addr, fmt.Sprint("-auth=", auth))
	if err != nil {
		return nil, err
	}
	if _, err := x.line(patience); err != nil {
		x.kill()
		return nil, fmt.Errorf("the honest client: %w", err)
	}
	return x, nil
}

// report asks an honest client for its report.
func (x *process) report() (r report, err error) {
	line, err := x.ask("report")
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(line), &r)
}

// honest is a client that minds its own business: a small call every two
// milliseconds, whether the one before was answered or not.
type honest struct {
	conn *typedrpc.Conn
	stop context.CancelFunc
	all  sync.WaitGroup

	mu    sync.Mutex
	took  []time.Duration
	fails []error
	lost  []error // why links were lost
}

var asHonest = signIn.Present(func(context.Context) (signInRequest, error) {
	return signInRequest{Name: "honest"}, nil
})

func newHonest(ctx context.Context, addr string, auth bool) (*honest, error) {
	h := &honest{}
	o := &typedrpc.DialOptions{
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		OnState: func(c typedrpc.StateChange) {
			if c.State == typedrpc.StateWaiting {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.lost = append(h.lost, c.Err)
			}
		},
	}
	if auth {
		o.SignIn = asHonest
	}
	conn, err := typedrpc.Dial(ctx, "ws://"+addr+"/", o)
	if err != nil {
		return nil, err
	}
	h.conn = conn
	ctx, h.stop = context.WithCancel(ctx)
	h.all.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				h.all.Go(func() { h.call(ctx) })
			case <-ctx.Done():
				return
			}
		}
	})
	return h, nil
}

func (h *honest) call(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	_, err := typedrpc.Call(within, h.conn, methodEcho, "hello")
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case ctx.Err() != nil: // it was told to stop
	case err != nil:
		h.fails = append(h.fails, err)
		fallthrough
	default:
		h.took = append(h.took, time.Since(began))
	}
}

// forget begins to measure anew.
func (h *honest) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.took, h.fails, h.lost = nil, nil, nil
}

// report is the median, and what 99 in 100 calls take at most.
func (h *honest) report() (r report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.Sort(h.took)
	if r.Calls = len(h.took); r.Calls > 0 {
		r.P50, r.P99 = h.took[r.Calls/2], h.took[r.Calls*99/100]
	}
	r.Fails, r.Lost = texts(h.fails), texts(h.lost)
	return r
}

func texts(errs []error) (all []string) {
	for _, err := range errs {
		all = append(all, err.Error())
	}
	return all
}

// rest makes no more calls.
func (h *honest) rest() {
	h.stop()
	h.all.Wait()
}

func (h *honest) close() {
	h.rest()
	h.conn.Close()
}
