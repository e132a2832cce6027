// Command resume shows what a lost link costs: a pause, and nothing else. A
// client and a server send numbers both ways and call, over a proxy that breaks
// their connection again and again, and every number is counted.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// options are what a run can be told.
type options struct {
	duration  time.Duration
	count     int64 // numbers of each kind; then the run ends, too
	cut       int64 // the mean number of bytes between two cuts
	seed      uint64
	lossy     bool
	dialect   typedrpc.Dialect
	keepAlive time.Duration
	every     time.Duration // a line
}

func main() {
	o := options{count: math.MaxInt64, keepAlive: 250 * time.Millisecond, every: time.Second}
	flag.DurationVar(&o.duration, "for", 10*time.Second, "how long to run")
	flag.Int64Var(&o.cut, "cut", 1e6, "mean number of `bytes` between two cuts of the link")
	flag.Uint64Var(&o.seed, "seed", rand.Uint64(), "of what is random about the cuts")
	flag.BoolVar(&o.lossy, "lossy", false, "sessions end with their links, to see what is told then")
	dialect := flag.String("dialect", "binary", "binary or jsonrpc")
	flag.Parse()
	o.dialect = map[string]typedrpc.Dialect{"jsonrpc": typedrpc.Text}[*dialect]
	if *dialect != "binary" && *dialect != "jsonrpc" || o.cut < 1000 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "resume: -dialect is binary or jsonrpc, -cut at least 1000")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait for anything
	if _, err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "resume:", err)
		os.Exit(1)
	}
}

// run works until ctx has ended, or the time is over, or all is counted. Then it
// waits until everything has arrived.
func run(ctx context.Context, o options, w io.Writer) (*report, error) {
	limits := typedrpc.Limits{KeepAlive: o.keepAlive}
	if o.lossy {
		limits.Grace = -1
	}
	b := &books{calls: newCalls()}
	addr, stopServer, err := serve((&server{books: b}).mux(), limits)
	if err != nil {
		return nil, err
	}
	defer stopServer()
	proxy, err := typedrpctest.NewProxy(addr, nil)
	if err != nil {
		return nil, err
	}
	defer proxy.Close()
	r := newReport(b, proxy, o.lossy, w)
	storm := newStorm(proxy, o.seed, o.cut)

	// Here the client's program begins.
	conn, err := typedrpc.Dial(ctx, proxy.URL(), &typedrpc.DialOptions{
		Dialect: o.dialect,
		Limits:  limits,
		Backoff: typedrpc.Backoff{Max: 200 * time.Millisecond}, // the server is never away for long
		OnState: func(s typedrpc.StateChange) {
			r.state(s)
			storm.next()
		},
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	giveUp, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(stop, func() { time.AfterFunc(patience, cancel) })
	worked := make(chan error, 1)
	go func() { worked <- (&client{books: b, conn: conn, count: o.count}).work(giveUp, stop) }()
	err = r.watch(worked, o.every)
	storm.pass() // a client that cannot say goodbye would be waited for
	conn.Close()
	stopServer() // now no handler runs any more
	if err != nil {
		return nil, err
	}
	return r, r.summary()
}

// patience is how long after the end what is under way may take to arrive.
const patience = 15 * time.Second
