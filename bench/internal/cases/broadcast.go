package cases

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/typedrpc/typedrpc/bench/internal/host"
	"github.com/typedrpc/typedrpc/bench/internal/measure"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

func broadcastCases() []Case {
	columns := []Column{{Name: "deliveries/s"}, {Name: "µs of the server's CPU per delivery", Low: true}, {Name: "ms until all have all", Low: true}}
	one := Case{
		Name: "broadcast/one", Title: "one message at a time", Group: "Messages of 64 bytes to 1,000 subscribers", Columns: columns, Can: peer.Broadcast, Floors: true,
		Note: "A topic of typedrpc's, a channel of centrifuge's without history, and a loop over bare connections. Each subscriber\n" +
			"has a connection; they and the server are two processes. The subscribers' libraries differ, and share\n" +
			"the machine: the server's own time per delivery says more than deliveries per second.",
		run: func(ctx context.Context, s Settings, p peer.Peer) (Sample, error) { return broadcast(ctx, s, p, 1) },
	}
	many := one
	many.Name, many.Title = "broadcast/many", "200 messages at once"
	many.run = func(ctx context.Context, s Settings, p peer.Peer) (Sample, error) {
		return broadcast(ctx, s, p, s.Burst)
	}
	return []Case{many, one}
}

// audience counts what its subscribers are sent.
type audience struct {
	total, target atomic.Int64
	each          []atomic.Int64
	reached       chan struct{}
}

func (a *audience) got(i int) func() {
	return func() {
		a.each[i].Add(1)
		if a.total.Add(1) == a.target.Load() {
			a.reached <- struct{}{}
		}
	}
}

// publish publishes, and returns when everybody has everything.
func (a *audience) publish(ctx context.Context, srv *host.Process, messages int) error {
	target := a.total.Load() + int64(messages*len(a.each))
	a.target.Store(target)
	if err := srv.Publish(messages); err != nil {
		return err
	}
	limit, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	select {
	case <-a.reached:
		return nil
	case <-limit.Done():
		return fmt.Errorf("%d deliveries are missing of %d", target-a.total.Load(), messages*len(a.each))
	}
}

// gather publishes until every subscriber has had a message, and all that is under way is there.
func (a *audience) gather(ctx context.Context, srv *host.Process) error {
	ready := func() int {
		n := 0
		for i := range a.each {
			if a.each[i].Load() > 0 {
				n++
			}
		}
		return n
	}
	for began := time.Now(); ready() < len(a.each); {
		if time.Since(began) > time.Minute || ctx.Err() != nil {
			return fmt.Errorf("%d of %d subscribers are there after a minute", ready(), len(a.each))
		}
		if err := srv.Publish(1); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	for last := int64(-1); last != a.total.Load(); {
		last = a.total.Load()
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// broadcast publishes so many messages at a time, again when all have arrived.
func broadcast(ctx context.Context, s Settings, p peer.Peer, messages int) (Sample, error) {
	srv, err := host.Start(p)
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	clients, closeAll, err := dialMany(ctx, p, srv.Addr(), s.Subscribers)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a := &audience{each: make([]atomic.Int64, len(clients)), reached: make(chan struct{}, 1)}
	var g errgroup.Group
	g.SetLimit(dials)
	for i, c := range clients {
		g.Go(func() error { return c.(peer.Subscriber).Subscribe(ctx, a.got(i)) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := a.gather(ctx, srv); err != nil {
		return nil, err
	}
	before, err := srv.Usage(false)
	if err != nil {
		return nil, err
	}
	began, rounds := time.Now(), 0
	for rounds == 0 || time.Since(began) < 2*s.Time {
		if err := a.publish(ctx, srv, messages); err != nil {
			return nil, err
		}
		rounds++
	}
	took, n := time.Since(began), float64(rounds*messages*len(clients))
	after, err := srv.Usage(false)
	return Sample{n / took.Seconds(), micros(after.CPU-before.CPU) / n, millis(took) / float64(rounds)}, err
}

// dials is how many connections are opened at once.
const dials = 32

// dialMany opens many connections, and has each make a call.
func dialMany(ctx context.Context, p peer.Peer, addr string, n int) (all []peer.Client, closeAll func(), err error) {
	all = make([]peer.Client, n)
	closeAll = func() {
		var g errgroup.Group
		g.SetLimit(8 * dials)
		for _, c := range all {
			if c != nil {
				g.Go(func() error { c.Close(); return nil })
			}
		}
		g.Wait()
	}
	var g errgroup.Group
	g.SetLimit(dials)
	for i := range n {
		g.Go(func() (err error) {
			if all[i], err = p.Dial(ctx, addr, 1); err != nil {
				return err
			}
			return add(all[i])(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		closeAll()
		return nil, nil, err
	}
	return all, closeAll, nil
}

// held is what a process holds in memory.
func held(u measure.Usage) float64 { return float64(u.Heap + u.Stacks) }
