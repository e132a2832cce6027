// Command soak works a server hard for as long as it is told, over links that
// break in every way, and looks at whether memory or goroutines grow. It is for
// developers of typedrpc; docs/reliability.md says how to read it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// options are what a soak can be told.
type options struct {
	duration time.Duration
	clients  int // at a time
	life     time.Duration
	every    time.Duration // a line
	grace    time.Duration
	profile  string
}

func main() {
	o := options{grace: 2 * time.Second}
	flag.DurationVar(&o.duration, "for", time.Minute, "how long to run")
	flag.IntVar(&o.clients, "clients", 50, "how many clients there are at a time")
	flag.DurationVar(&o.life, "life", 20*time.Second, "how long a client stays, at most")
	flag.DurationVar(&o.every, "every", 10*time.Second, "time between two lines")
	flag.StringVar(&o.profile, "profile", "", "a `prefix` for files with profiles of heap and goroutines, at the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait for anything
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// soak is one run.
type soak struct {
	server  *typedrpc.Server
	clients *typedrpc.Mux
	proxies []*typedrpctest.Proxy
	limits  typedrpc.Limits
	life    time.Duration
	logger  *slog.Logger
	names   []string // of the work

	came, resumed, begun atomic.Int64

	mu     sync.Mutex
	done   int
	failed map[typedrpc.Outcome]int
	notes  map[string]map[string]int // what became of each kind of work
	wrongs []error
}

// state is every client's OnState.
func (s *soak) state(c typedrpc.StateChange) {
	switch {
	case c.State != typedrpc.StateConnected || c.Err != nil:
	case c.Resumed:
		s.resumed.Add(1)
	default:
		s.begun.Add(1)
	}
}

// note counts an operation by its end.
func (s *soak) note(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
	end := "ok"
	if err != nil {
		outcome := typedrpc.OutcomeOf(err)
		s.failed[outcome]++
		end = fmt.Sprintf("%v, %v", typedrpc.CodeOf(err), outcome)
	}
	if errors.As(err, new(wrongError)) {
		s.wrongs = append(s.wrongs, fmt.Errorf("%s: %w", name, err))
	}
	if s.notes[name] == nil {
		s.notes[name] = map[string]int{}
	}
	s.notes[name][end]++
}

// kept is how many sessions the server keeps without a link.
func (s *soak) kept() (kept, all int) {
	for c := range s.server.Conns() {
		all++
		if c.State() == typedrpc.StateWaiting {
			kept++
		}
	}
	return kept, all
}

func run(ctx context.Context, o options, w io.Writer) error {
	before := measure(0)
	ctx, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	s := &soak{
		clients: clientMux(), life: o.life, names: slices.Sorted(maps.Keys(work)),
		limits: typedrpc.Limits{Grace: o.grace, KeepAlive: 500 * time.Millisecond},
		logger: slog.New(slog.DiscardHandler),
		failed: map[typedrpc.Outcome]int{}, notes: map[string]map[string]int{},
	}
	end, err := s.serve(o)
	if err != nil {
		return err
	}
	samples := s.soak(ctx, o, w)
	if err := end(); err != nil {
		return err
	}
	after := settle(before)
	s.summary(w)
	return s.verdict(w, o, before, after, samples)
}

// serve starts the server and the proxies. end ends them.
func (s *soak) serve(o options) (end func() error, err error) {
	hub := new(topic.Hub)
	s.server = &typedrpc.Server{
		Mux: serviceMux(hub), Limits: s.limits, Compress: true, Logger: s.logger,
		SignIn:  SignIn.Verify(signIn),
		MaxKept: max(2, o.clients/5), // some are evicted
		// What is remembered of keyed calls grows until it is forgotten: well
		// before the warm-up is over.
		Replays: &idempotency.Cache{TTL: max(time.Second, o.duration/10)},
	}
	if err := s.server.Check(); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	web := &http.Server{Handler: s.server, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	for range 3 {
		p, err := typedrpctest.NewProxy(ln.Addr().String(), nil)
		if err != nil {
			return nil, err
		}
		s.proxies = append(s.proxies, p)
	}
	return func() error {
		patience, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err := errors.Join(s.server.Shutdown(patience), web.Shutdown(patience), hub.Close())
		for _, p := range s.proxies {
			p.Close()
		}
		web.Close()
		<-served
		http.DefaultClient.CloseIdleConnections()
		return err
	}, nil
}

// soak keeps clients coming and going until ctx has ended and all have left.
func (s *soak) soak(ctx context.Context, o options, w io.Writer) []sample {
	var g sync.WaitGroup
	defer g.Wait()
	g.Go(func() { s.weather(ctx) })
	for range o.clients {
		g.Go(func() {
			for ctx.Err() == nil {
				s.live(ctx, int(s.came.Add(1)))
			}
		})
	}
	fmt.Fprintln(w, "    time    heap  goroutines  clients  kept  operations  not sent  may have run  answered  resumed  sessions   cuts")
	began := time.Now()
	var samples []sample
	ticker := time.NewTicker(o.every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return samples
		}
		m := measure(time.Since(began))
		samples = append(samples, m)
		kept, all := s.kept()
		cuts := 0
		for _, p := range s.proxies {
			cuts += p.Stats().Cuts
		}
		s.mu.Lock()
		fmt.Fprintf(w, "%6.0f s %4.1f MB %11.0f %8d %5d %11d %9d %13d %9d %8d %9d %6d\n", m.at.Seconds(), m.heap/1e6, m.goroutines,
			all, kept, s.done, s.failed[typedrpc.NotSent], s.failed[typedrpc.MayHaveRun], s.failed[typedrpc.Answered],
			s.resumed.Load(), s.begun.Load(), cuts)
		s.mu.Unlock()
	}
}

// summary shows what became of each kind of work.
func (s *soak) summary(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(w, "\n%d clients came and went. What became of their work:\n", s.came.Load())
	for _, name := range slices.Sorted(maps.Keys(s.notes)) {
		fmt.Fprintf(w, "%18s", name)
		ends := s.notes[name]
		for _, end := range slices.SortedFunc(maps.Keys(ends), func(a, b string) int { return ends[b] - ends[a] }) {
			fmt.Fprintf(w, "  %d %s;", ends[end], end)
		}
		fmt.Fprintln(w)
	}
}

// sample is what the process takes at a time.
type sample struct {
	at               time.Duration
	heap, goroutines float64
}

func measure(at time.Duration) sample {
	runtime.GC()
	runtime.GC() // what was in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return sample{at, float64(m.HeapAlloc), float64(runtime.NumGoroutine())}
}

// settle measures again and again until there are no more goroutines than there
// were, or half a minute has passed.
func settle(before sample) sample {
	deadline := time.Now().Add(30 * time.Second)
	for {
		m := measure(0)
		if m.goroutines <= before.goroutines || time.Now().After(deadline) {
			return m
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// writeProfiles keeps what there is for whoever looks for a leak.
func writeProfiles(prefix string) error {
	for _, name := range []string{"heap", "goroutine"} {
		f, err := os.Create(prefix + name + ".pprof")
		if err != nil {
			return err
		}
		err = pprof.Lookup(name).WriteTo(f, 0)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
