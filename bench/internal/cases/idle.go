package cases

import (
	"context"
	"syscall"
	"time"

	"github.com/typedrpc/typedrpc/bench/internal/host"
	"github.com/typedrpc/typedrpc/bench/internal/measure"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

func idleCases() []Case {
	return []Case{{
		Name: "idle", Title: "for each connection, at the server", Group: "Idle connections, each of which has made a call",
		Note: "Client and server are two processes; memory is heap and stacks of the server's, after a collection. Then 256 callers\n" +
			"call on another connection, beside the idle ones; \"kept\" is what that makes of their calls without them.\n" +
			"Where fewer connections are told, a process may not have more files open.",
		Columns: []Column{{Name: "KiB", Low: true}, {Name: "goroutines", Low: true}, {Name: "calls/s beside them"}, {Name: "% kept", Fact: true}, {Name: "connections", Fact: true}},
		Can:     peer.Idle, Floors: true, run: idle,
	}}
}

// files lets this process have as many files open as it may, and returns how many.
func files() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	l.Cur = l.Max
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	}
	return int(min(l.Cur, 1<<30))
}

func idle(ctx context.Context, s Settings, p peer.Peer) (Sample, error) {
	n := min(s.Idle, files()-200) // the server's process may have as many
	srv, err := host.Start(p)
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	alone, err := callsTo(ctx, s, p, srv, 256)
	if err != nil {
		return nil, err
	}
	before, err := settled(s, srv)
	if err != nil {
		return nil, err
	}
	_, closeAll, err := dialMany(ctx, p, srv.Addr(), n)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	after, err := settled(s, srv)
	if err != nil {
		return nil, err
	}
	beside, err := callsTo(ctx, s, p, srv, 256)
	if err != nil {
		return nil, err
	}
	conns := float64(n)
	return Sample{
		(held(after) - held(before)) / conns / 1024, float64(after.Goroutines-before.Goroutines) / conns,
		beside[0], 100 * beside[0] / alone[0], conns,
	}, nil
}

// settled waits until a process holds what it will hold: acknowledgements are out, and what
// was only for the beginning is gone.
func settled(s Settings, srv *host.Process) (measure.Usage, error) {
	last, err := srv.Usage(true)
	for range 10 {
		if err != nil {
			return last, err
		}
		time.Sleep(s.Settle)
		var now measure.Usage
		if now, err = srv.Usage(true); err != nil {
			return last, err
		}
		if now.Goroutines == last.Goroutines && held(now) > 0.99*held(last) {
			return now, nil
		}
		last = now
	}
	return last, err
}
