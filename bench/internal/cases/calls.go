package cases

import (
	"context"
	"fmt"
	"time"

	"github.com/typedrpc/typedrpc/bench/internal/host"
	"github.com/typedrpc/typedrpc/bench/internal/measure"
	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

// The columns of calls. Processors' time is that of client and server together.
var (
	calls = []Column{{Name: "calls/s"}, {Name: "µs of CPU per call", Low: true}, {Name: "allocations per call", Low: true}}
	apart = calls[:2] // allocations of another process are not counted
)

func callCases() []Case {
	var all []Case
	for _, n := range []int{1, 16, 256, 1024} {
		all = append(all, Case{Name: fmt.Sprintf("calls/%d", n), Title: callers(n), Group: "Small calls, callers on one connection", Columns: calls, Floors: true,
			run: inProcess(1, n, add)})
	}
	all = append(all, Case{Name: "calls/64x16", Title: "64 connections × 16", Group: "Small calls, callers on one connection", Columns: calls, Floors: true,
		run: inProcess(64, 16, add)})
	for _, n := range []int{1, 256} {
		all = append(all, Case{Name: fmt.Sprintf("processes/%d", n), Title: callers(n), Group: "Small calls, client and server in two processes", Columns: apart, Floors: true,
			run: twoProcesses(n)})
	}
	for _, size := range []int{1 << 10, 64 << 10} {
		all = append(all, Case{Name: fmt.Sprintf("echo/%d", size), Title: fmt.Sprintf("%d KiB", size>>10), Group: "Echo of bytes, one caller", Columns: calls, Can: peer.Echo, Floors: true,
			run: inProcess(1, 1, echoOf(size))})
	}
	for _, c := range []struct {
		name, title string
		call        func(peer.Client) caller
	}{{"cancel", "a context that can be cancelled", cancellable}, {"deadline", "a context with a deadline", deadline}} {
		all = append(all, Case{Name: "context/" + c.name, Title: c.title, Group: "Small calls, 16 callers, a context made for each call", Columns: calls, Can: peer.Contexts,
			run: inProcess(1, 16, c.call)})
	}
	return all
}

func callers(n int) string {
	if n == 1 {
		return "1 caller"
	}
	return fmt.Sprintf("%d callers", n)
}

// caller makes one call.
type caller func(context.Context) error

func add(c peer.Client) caller {
	r := msg.Request{A: 3, B: 1000, Tag: msg.Tag}
	return func(ctx context.Context) error {
		reply, err := c.Add(ctx, r)
		if err != nil {
			return err
		}
		return msg.Verify(r, reply)
	}
}

func cancellable(c peer.Client) caller {
	call := add(c)
	return func(ctx context.Context) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		return call(ctx)
	}
}

func deadline(c peer.Client) caller {
	call := add(c)
	return func(ctx context.Context) error {
		ctx, stop := context.WithTimeout(ctx, time.Minute)
		defer stop()
		return call(ctx)
	}
}

func echoOf(size int) func(peer.Client) caller {
	return func(c peer.Client) caller {
		p := make([]byte, size)
		return func(ctx context.Context) error {
			n, err := c.(peer.Echoer).Echo(ctx, p)
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes came back of %d", n, size)
			}
			return err
		}
	}
}

// dial opens so many connections, each for so many callers.
func dial(ctx context.Context, p peer.Peer, addr string, conns, callers int) (all []peer.Client, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range all {
			c.Close()
		}
	}
	for range conns {
		c, err := p.Dial(ctx, addr, callers)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		all = append(all, c)
	}
	return all, closeAll, nil
}

// burst makes calls for a while, after a fifth of it that is not counted.
func burst(ctx context.Context, s Settings, clients []peer.Client, callers int, of func(peer.Client) caller, before func() error) (measure.Run, error) {
	call := make([]caller, len(clients))
	for i, c := range clients {
		call[i] = of(c)
	}
	one := func(_ context.Context, i int) error { return call[i%len(call)](ctx) }
	if _, err := measure.Callers(ctx, len(clients)*callers, s.Time/5, one); err != nil {
		return measure.Run{}, err
	}
	if err := before(); err != nil {
		return measure.Run{}, err
	}
	return measure.Callers(ctx, len(clients)*callers, s.Time, one)
}

// inProcess measures calls with client and server in this process.
func inProcess(conns, callers int, of func(peer.Client) caller) func(context.Context, Settings, peer.Peer) (Sample, error) {
	return func(ctx context.Context, s Settings, p peer.Peer) (Sample, error) {
		srv, err := p.Serve()
		if err != nil {
			return nil, err
		}
		defer srv.Close()
		conns, callers := s.few(conns), s.few(callers)
		clients, closeAll, err := dial(ctx, p, srv.Addr(), conns, callers)
		if err != nil {
			return nil, err
		}
		defer closeAll()
		var before measure.Usage
		run, err := burst(ctx, s, clients, callers, of, func() error {
			before = measure.Now(true)
			return nil
		})
		if err != nil {
			return nil, err
		}
		after, n := measure.Now(false), float64(run.Calls)
		return Sample{run.Rate(), micros(after.CPU-before.CPU) / n, float64(after.Allocs-before.Allocs) / n}, nil
	}
}

// twoProcesses measures calls to a server in a process of its own.
func twoProcesses(callers int) func(context.Context, Settings, peer.Peer) (Sample, error) {
	return func(ctx context.Context, s Settings, p peer.Peer) (Sample, error) {
		srv, err := host.Start(p)
		if err != nil {
			return nil, err
		}
		defer srv.Close()
		return callsTo(ctx, s, p, srv, callers)
	}
}

// callsTo measures the calls of one connection to a server in a process of its own.
func callsTo(ctx context.Context, s Settings, p peer.Peer, srv *host.Process, callers int) (Sample, error) {
	callers = s.few(callers)
	clients, closeAll, err := dial(ctx, p, srv.Addr(), 1, callers)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	var here, there measure.Usage
	run, err := burst(ctx, s, clients, callers, add, func() (err error) {
		here = measure.Now(true)
		there, err = srv.Usage(false)
		return err
	})
	if err != nil {
		return nil, err
	}
	now := measure.Now(false)
	then, err := srv.Usage(false)
	return Sample{run.Rate(), micros(now.CPU-here.CPU+then.CPU-there.CPU) / float64(run.Calls)}, err
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
