package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/topic"
)

// stats are what a server says of itself. The rest is seen from outside.
type stats struct {
	Heap     uint64 // in use, after a collection
	Now      int    // goroutines …
	Most     int    // … and the most that there were
	LogBytes int64
	LogLines int64
	LogLine  int64 // the longest
	Ledger   int64
	Kept     int // sessions without a link
	Detached int // handlers of keyed calls whose sessions were lost
}

// settings of a server that differ from attack to attack.
type settings struct {
	auth     bool
	compress bool
	describe bool          // Server.Describe, with a large Schema
	grace    time.Duration // 0: two seconds, so that five are enough for all to end
	kept     int           // Server.MaxKept in small sizes
}

func (s settings) args(full bool) []string {
	kept := s.kept
	if full {
		kept = 0
	}
	return []string{fmt.Sprint("-kept=", kept), fmt.Sprint("-auth=", s.auth), fmt.Sprint("-compress=", s.compress), fmt.Sprint("-describe=", s.describe), fmt.Sprint("-grace=", max(s.grace, 2*time.Second))}
}

// serverMain is the process that is attacked. It prints its address, and answers
// the lines of its input, one each: "stats"; "shutdown" and a duration, with the
// milliseconds that it took; "revoke" and a subject; "stacks"; "profile" and a
// path, which begins a profile of the processor in path.cpu, and at the next ends
// it and has one of the heap in path.heap. It ends with its input.
func serverMain(args []string, in io.Reader, out io.Writer) error {
	logged := &counter{}
	srv, err := newServer(args, logged)
	if err != nil {
		return err
	}
	if err := srv.Check(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web := &http.Server{Handler: srv, ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go web.Serve(ln)
	var most atomic.Int64
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			most.Store(max(most.Load(), int64(runtime.NumGoroutine())))
		}
	}()
	fmt.Fprintln(out, ln.Addr())
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "stats":
			b, _ := json.Marshal(measured(srv, logged, &most))
			fmt.Fprintf(out, "%s\n", b)
		case "shutdown":
			fmt.Fprintln(out, shutdown(srv, rest).Milliseconds())
		case "stacks":
			fmt.Fprintln(out, stacks())
		case "profile":
			fmt.Fprintln(out, profile(rest))
		case "revoke":
			fmt.Fprintln(out, srv.Revoke(rest, nil))
		default:
			return fmt.Errorf("no command %q", word)
		}
	}
	return lines.Err()
}

// newServer makes the server that args describe.
func newServer(args []string, logged io.Writer) (*typedrpc.Server, error) {
	fs := flag.NewFlagSet("server", flag.ContinueOnError)
	budget := fs.Int64("budget", 256<<20, "Server.MaxMemory")
	auth := fs.Bool("auth", false, "ask for a name")
	compress := fs.Bool("compress", false, "Server.Compress")
	describe := fs.Bool("describe", false, "Server.Describe, with a Schema of a megabyte")
	grace := fs.Duration("grace", 2*time.Second, "Limits.Grace")
	kept := fs.Int("kept", 0, "Server.MaxKept")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	s := &service{hub: &topic.Hub{MaxIdleKeys: 16}}
	srv := &typedrpc.Server{
		Mux: s.mux(), MaxMemory: *budget, MaxKept: *kept, Compress: *compress,
		// So short that what it keeps is gone in five seconds.
		Replays: &idempotency.Cache{TTL: 2 * time.Second, MaxBytes: 32 << 20},
		Limits:  typedrpc.Limits{Grace: *grace},
		Logger:  slog.New(slog.NewTextHandler(logged, nil)),
	}
	if *auth {
		srv.SignIn = signIn.Verify(authenticate)
	}
	if *describe {
		srv.Schema, srv.Describe = described(), func(context.Context) error { return nil }
	}
	return srv, nil
}

// stacks says where the goroutines are, in one line.
func stacks() string {
	var b bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&b, 1)
	return strings.ReplaceAll(b.String(), "\n", "\v")
}

// profile returns what went wrong, nil for nothing.
func profile(path string) error {
	cpu, err := os.OpenFile(path+".cpu", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err == nil {
		runtime.MemProfileRate = 64 << 10
		return pprof.StartCPUProfile(cpu)
	}
	pprof.StopCPUProfile()
	heap, err := os.Create(path + ".heap")
	if err != nil {
		return err
	}
	defer heap.Close()
	runtime.GC()
	return pprof.WriteHeapProfile(heap)
}

func shutdown(srv *typedrpc.Server, within string) time.Duration {
	d, _ := time.ParseDuration(within)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	began := time.Now()
	srv.Shutdown(ctx)
	return time.Since(began)
}

func measured(srv *typedrpc.Server, logged *counter, most *atomic.Int64) stats {
	s := stats{Now: runtime.NumGoroutine(), Most: int(most.Load())}
	s.LogBytes, s.LogLines, s.LogLine = logged.bytes.Load(), logged.lines.Load(), logged.longest.Load()
	sums := hook.Server(srv)
	s.Ledger, s.Kept, s.Detached = sums.Budget, sums.Kept, sums.Detached
	runtime.GC() // twice: the first one moves what pools hold aside
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap = m.HeapAlloc
	return s
}

// counter counts what is logged.
type counter struct{ bytes, lines, longest atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	c.lines.Add(int64(bytes.Count(p, []byte{'\n'})))
	c.longest.Store(max(c.longest.Load(), int64(len(p))))
	return len(p), nil
}
