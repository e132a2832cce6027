package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
)

// client is the client's side: what keeps a connection busy.
type client struct {
	*books
	conn  *typedrpc.Conn
	count int64 // of each kind; then it is done
}

const (
	patientCallers = 6
	hastyCallers   = 2
	haste          = 100 * time.Millisecond // of the hasty ones: their calls' deadline
)

// work sends and calls until it has counted to count, or stop has ended, and
// returns when all of it is done. ctx is for giving up.
func (c *client) work(ctx, stop context.Context) error {
	var mu sync.Mutex
	var errs []error
	var g sync.WaitGroup
	start := func(fn func(context.Context, context.Context) error) {
		g.Go(func() {
			err := fn(ctx, stop)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	start(c.stream)
	start(c.notify)
	for range patientCallers {
		start(func(ctx, stop context.Context) error { return c.call(ctx, stop, 0) })
	}
	for range hastyCallers {
		start(func(ctx, stop context.Context) error { return c.call(ctx, stop, haste) })
	}
	g.Wait()
	return errors.Join(errs...)
}

// more reports whether there is another one to do.
func (c *client) more(stop context.Context, n int64) bool { return stop.Err() == nil && n < c.count }

// stream sends and receives numbers. A stream goes on when its link is lost, and
// ends when its session is: with an error, and what it did not carry is lost. So
// it is opened again. That happens with -lossy alone.
func (c *client) stream(ctx, stop context.Context) error {
	for {
		s, err := typedrpc.Open(ctx, c.conn, Numbers, struct{}{})
		if err != nil {
			return err
		}
		if err := c.exchange(stop, s); err == nil {
			return nil // the server took all and has sent all
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (c *client) exchange(stop context.Context, s *typedrpc.Stream[int64, int64]) error {
	defer s.Cancel()
	var sender sync.WaitGroup
	defer sender.Wait()
	sender.Go(func() {
		for c.more(stop, c.up.sent.Load()) {
			if s.Send(c.up.sent.Add(1)) != nil {
				return // Recv says why
			}
		}
		s.CloseSend()
	})
	r := c.down.begin()
	for {
		n, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c.down.arrived(r, n)
	}
}

// notify sends notifications, which wait while there is no link.
func (c *client) notify(ctx, stop context.Context) error {
	for c.more(stop, c.notes.sent.Load()) {
		if err := typedrpc.Notify(ctx, c.conn, Noted, c.notes.sent.Add(1)); err != nil {
			return err
		}
	}
	_, err := typedrpc.Call(ctx, c.conn, Flush, struct{}{})
	return err
}

// call makes one call after another. What fails is written down with its
// outcome; nothing is called again.
func (c *client) call(ctx, stop context.Context, timeout time.Duration) error {
	for n := c.calls.made.Add(1); ; n = c.calls.made.Add(1) {
		if !c.more(stop, n-1) {
			c.calls.made.Add(-1)
			return ctx.Err()
		}
		began := time.Now()
		got, err := c.double(ctx, n, timeout)
		c.calls.end(n, err, time.Since(began))
		if err == nil && got != 2*n {
			return errors.New("a call got the answer of another one")
		}
	}
}

func (c *client) double(ctx context.Context, n int64, timeout time.Duration) (int64, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return typedrpc.Call(ctx, c.conn, Double, n)
}
