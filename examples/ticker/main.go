// Command ticker shows flow control: two streams on one connection, of which
// one has a slow consumer. Only that one's sender waits.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc"
)

// Tick is about a thousand bytes on the wire.
type Tick struct {
	N    int64  `json:"n"`
	Text string `json:"text"`
}

// Ticks sends ticks without end, as fast as its caller takes them. The request
// is the caller's name.
var Ticks = typedrpc.NewServerStream[string, Tick]("ticks")

// counter counts a stream's ticks on both sides, which are one process here.
type counter struct{ sent, received atomic.Int64 }

// ahead is how many ticks the sender is ahead of the consumer.
func (c *counter) ahead() int64 {
	sent := c.sent.Load() // first: what moves meanwhile makes it less, not more
	return max(0, sent-c.received.Load())
}

func main() {
	duration := flag.Duration("duration", 3*time.Second, "how long to run")
	rest := flag.Duration("rest", 50*time.Millisecond, "how long the slow consumer rests after each tick")
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on; port 0 is any free one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if _, err := run(ctx, *addr, *duration, *rest, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "ticker:", err)
		stop()
		os.Exit(1)
	}
}

// result is what a run has shown.
type result struct {
	fast, slow    *counter
	alone, beside float64 // ticks per second of the fast consumer, without the slow one and beside it
	most          int64   // ticks that the slow consumer's sender was ahead
}

func run(ctx context.Context, addr string, duration, rest time.Duration, w io.Writer) (*result, error) {
	if duration < time.Millisecond {
		return nil, fmt.Errorf("-duration is %v, too short to see anything", duration)
	}
	r := &result{fast: new(counter), slow: new(counter)}
	counters := map[string]*counter{"fast": r.fast, "slow": r.slow}
	stop, url, err := serve(addr, counters)
	if err != nil {
		return nil, err
	}
	defer stop()
	conn, err := typedrpc.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 2)
	var consumers sync.WaitGroup
	start := func(name string, rest time.Duration) {
		consumers.Go(func() { ended <- consume(ctx, conn, name, counters[name], rest) })
	}
	defer consumers.Wait()
	defer cancel()

	fmt.Fprintf(w, "Two consumers of ticks on one connection. One takes every tick at once; the\n"+
		"other comes later and rests %v after each.\n\n", rest)
	fmt.Fprintln(w, "              fast consumer             |          slow consumer")
	fmt.Fprintln(w, "   time      sent  received  per second |   sent  received  sender ahead by")
	start("fast", 0)
	const lines = 6
	ticker := time.NewTicker(duration / (lines * 10))
	defer ticker.Stop()
	began := time.Now()
	line, joined := began, began
	var before, atJoin int64
	for i := 1; i <= lines*10; i++ {
		select {
		case <-ticker.C:
		case err := <-ended:
			return nil, fmt.Errorf("a stream ended early: %w", err)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		r.most = max(r.most, r.slow.ahead())
		if i%10 != 0 {
			continue
		}
		now, got := time.Now(), r.fast.received.Load()
		fmt.Fprintf(w, "%5.1f s %9d %9d %11.0f |%7d %9d %16d\n", now.Sub(began).Seconds(),
			r.fast.sent.Load(), got, float64(got-before)/now.Sub(line).Seconds(),
			r.slow.sent.Load(), r.slow.received.Load(), r.slow.ahead())
		line, before = now, got
		switch i / 10 {
		case lines / 3:
			r.alone = float64(got) / now.Sub(began).Seconds()
			joined, atJoin = now, got
			fmt.Fprintln(w, "                                        |  … begins here")
			start("slow", rest)
		case lines:
			r.beside = float64(got-atJoin) / now.Sub(joined).Seconds()
		}
	}
	fmt.Fprintf(w, "\nThe sender of the slow stream waited for its consumer: it was never more than\n"+
		"%d ticks ahead, which is what the stream's window of 64 KiB holds. The fast\n"+
		"stream had %.0f ticks per second alone, and %.0f beside the slow one.\n", r.most, r.alone, r.beside)
	return r, nil
}

// consume takes ticks until ctx ends.
func consume(ctx context.Context, c typedrpc.Caller, name string, n *counter, rest time.Duration) error {
	for tick, err := range typedrpc.Receive(ctx, c, Ticks, name) {
		if err != nil {
			return err
		}
		n.received.Store(tick.N)
		if rest > 0 {
			select {
			case <-time.After(rest):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// serve starts a server of ticks.
func serve(addr string, counters map[string]*counter) (stop func(), url string, err error) {
	text := strings.Repeat("tick ", 200)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, Ticks, func(_ context.Context, name string, send func(Tick) error) error {
		n, ok := counters[name]
		if !ok {
			return typedrpc.Errorf(typedrpc.NotFound, "nobody is called %q", name)
		}
		for i := int64(1); ; i++ {
			if err := send(Tick{i, text}); err != nil { // waits while the consumer is behind
				return err
			}
			n.sent.Store(i)
		}
	})
	rpc := &typedrpc.Server{Mux: mux}
	if err := rpc.Check(); err != nil {
		return nil, "", err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, "", fmt.Errorf("%w (choose another address with -addr)", err)
	}
	routes := http.NewServeMux()
	routes.Handle("/rpc", rpc)
	web := &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	stop = func() {
		patience, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		// typedrpc first: http.Server knows nothing of upgraded connections.
		if errors.Join(rpc.Shutdown(patience), web.Shutdown(patience)) != nil {
			web.Close()
		}
		<-served
	}
	return stop, "ws://" + ln.Addr().String() + "/rpc", nil
}
