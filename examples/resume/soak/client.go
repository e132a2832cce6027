package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/transfer"
)

// work are the things that clients do, one after another.
var work = map[string]func(context.Context, *typedrpc.Conn) error{
	"call":             func(ctx context.Context, c *typedrpc.Conn) error { return call(ctx, c, Do, job()) },
	"call, idempotent": func(ctx context.Context, c *typedrpc.Conn) error { return call(ctx, c, Repeat, job()) },
	"call, serial": func(ctx context.Context, c *typedrpc.Conn) error {
		j := job()
		j.Asks, j.Rest = false, 0
		return call(ctx, c, InOrder, j)
	},
	"call, large": func(ctx context.Context, c *typedrpc.Conn) error {
		return call(ctx, c, Do, Job{Text: strings.Repeat("large ", 50_000)})
	},
	"call, hasty": func(ctx context.Context, c *typedrpc.Conn) error {
		ctx, cancel := context.WithTimeout(ctx, rand.N(20*time.Millisecond))
		defer cancel()
		return call(ctx, c, Do, Job{Text: "now", Rest: 10 * time.Millisecond})
	},
	"call, keyed": payments.call,
	"calls, futures": func(ctx context.Context, c *typedrpc.Conn) error {
		a, b := typedrpc.Go(ctx, c, Do, job()), typedrpc.Go(ctx, c, Do, Job{Text: "b"})
		_, err := typedrpc.Any(ctx, a, b)
		a.Cancel()
		return err
	},
	"notify": func(ctx context.Context, c *typedrpc.Conn) error {
		for range rand.IntN(100) {
			if err := typedrpc.Notify(ctx, c, Note, "some text"); err != nil {
				return err
			}
		}
		return nil
	},
	"stream, server": func(ctx context.Context, c *typedrpc.Conn) error {
		n, leave, next := rand.IntN(2000), rand.IntN(4000), 0
		for i, err := range typedrpc.Receive(ctx, c, Count, n) {
			if err != nil {
				return err
			}
			if i != next {
				return wrong("item %d in place %d", i, next)
			}
			if next++; next == leave {
				return nil
			}
		}
		if next != n {
			return wrong("%d items of %d, and no error", next, n)
		}
		return nil
	},
	"stream, restarted": func(ctx context.Context, c *typedrpc.Conn) error {
		n, next := rand.IntN(2000), 0
		for i, err := range typedrpc.Receive(ctx, c, CountOn, Range{To: n}) {
			if errors.Is(err, typedrpc.Gap) {
				continue // the session was lost; it goes on in the next one
			}
			if err != nil {
				return err
			}
			if i != next {
				return wrong("item %d in place %d", i, next)
			}
			next++
		}
		return nil // or a gap was the end, if the connection is closed
	},
	"stream, client": func(ctx context.Context, c *typedrpc.Conn) error {
		n := rand.IntN(1000)
		sum, err := typedrpc.SendAll(ctx, c, Sum, struct{}{}, typedrpc.Items(slices.Values(make([]int, n))))
		if err == nil && sum != 0 {
			return wrong("the sum of nothing is %d", sum)
		}
		return err
	},
	"stream, both ways": func(ctx context.Context, c *typedrpc.Conn) error {
		s, err := typedrpc.Open(ctx, c, Echo, struct{}{})
		if err != nil {
			return err
		}
		defer s.Cancel()
		n, next := rand.IntN(1000), 0
		var g sync.WaitGroup
		defer g.Wait()
		defer s.Cancel() // before the wait
		g.Go(func() {
			for i := range n {
				if s.Send(i) != nil {
					return
				}
			}
			s.CloseSend()
		})
		for {
			i, err := s.Recv()
			switch {
			case errors.Is(err, io.EOF) && next != n:
				return wrong("%d items of %d came back, and no error", next, n)
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			case i != next:
				return wrong("item %d in place %d", i, next)
			}
			next++
		}
	},
	"upload": func(ctx context.Context, c *typedrpc.Conn) error {
		text := strings.Repeat("upload ", rand.IntN(40_000))
		got, err := transfer.Send(ctx, c, Put, struct{}{}, strings.NewReader(text), nil)
		if err == nil && got != fmt.Sprintf("%x", sha256.Sum256([]byte(text))) {
			return wrong("the upload's checksum is another one")
		}
		return err
	},
	"download": func(ctx context.Context, c *typedrpc.Conn) error {
		size := rand.IntN(300_000)
		r, err := transfer.Receive(ctx, c, Get, size, nil)
		if err != nil {
			return err
		}
		defer r.Close()
		n, err := io.Copy(io.Discard, r)
		if err == nil && n != int64(size) {
			return wrong("%d bytes of %d were downloaded", n, size)
		}
		return err
	},
	"publish": func(ctx context.Context, c *typedrpc.Conn) error {
		_, err := typedrpc.Call(ctx, c, Say, strings.Repeat("text ", rand.IntN(200)))
		return err
	},
	"subscribe": func(ctx context.Context, c *typedrpc.Conn) error {
		tp, left := Room, rand.IntN(50)
		if left%2 == 0 {
			tp = Bulletin
		}
		if left%3 == 0 {
			tp = BulletinOn
		}
		for _, err := range topic.Subscribe(ctx, c, tp, key()) {
			if left%3 == 0 && errors.Is(err, typedrpc.Gap) {
				continue
			}
			if err != nil {
				return err
			}
			if left--; left < 0 {
				return nil
			}
		}
		return nil
	},
	"presence": func(ctx context.Context, c *typedrpc.Conn) error {
		left := rand.IntN(20)
		for _, err := range topic.Watch(ctx, c, Room, key()) {
			if err != nil {
				return err
			}
			if left--; left < 0 {
				return nil
			}
		}
		return nil
	},
	"reauthenticate": func(ctx context.Context, c *typedrpc.Conn) error { return c.Reauthenticate(ctx) },
}

func job() Job {
	j := Job{Text: strings.Repeat("x", rand.IntN(300)), Asks: rand.IntN(20) == 0, Fails: rand.IntN(20) == 0}
	if rand.IntN(4) == 0 {
		j.Rest = rand.N(20 * time.Millisecond)
	}
	return j
}

func call(ctx context.Context, c *typedrpc.Conn, m typedrpc.Method[Job, string], j Job) error {
	got, err := typedrpc.Call(ctx, c, m, j)
	switch {
	case err == nil && (got != j.Text || j.Fails):
		return wrong("a call's answer is another one's")
	case j.Fails && errors.Is(err, typedrpc.FailedPrecondition) && typedrpc.OutcomeOf(err) == typedrpc.Answered:
		return nil
	}
	return err
}

// wrongError says that the library has broken a promise.
type wrongError struct{ error }

func wrong(format string, args ...any) error { return wrongError{fmt.Errorf(format, args...)} }

// live dials, works for a while, and leaves, in one of several ways.
func (s *soak) live(ctx context.Context, number int) {
	name := fmt.Sprint("client", number)
	p := s.proxies[rand.IntN(len(s.proxies))]
	o := &typedrpc.DialOptions{
		Mux: s.clients, Compress: rand.IntN(8) == 0,
		SignIn:  SignIn.Present(func(context.Context) (string, error) { return name, nil }),
		Limits:  s.limits,
		Backoff: typedrpc.Backoff{Max: 500 * time.Millisecond},
		OnState: s.state,
		Logger:  s.logger,
	}
	if rand.IntN(3) == 0 {
		o.Dialect = typedrpc.Text
	}
	if rand.IntN(5) == 0 {
		o.Limits.Grace = -1
	}
	dialling, cancel := context.WithTimeout(ctx, 5*time.Second)
	c, err := typedrpc.Dial(dialling, p.URL(), o)
	cancel()
	s.note("dial", err)
	if err != nil {
		return
	}
	life, cancel := context.WithTimeout(ctx, 500*time.Millisecond+rand.N(s.life))
	var workers sync.WaitGroup
	for range 1 + rand.IntN(4) {
		workers.Go(func() { s.toil(life, c) })
	}
	<-life.Done()
	switch rand.IntN(4) {
	case 0: // with calls under way
		c.Close()
		workers.Wait()
	case 1: // in order
		workers.Wait()
		leaving, cancel := context.WithTimeout(context.Background(), time.Second)
		s.note("shutdown", c.Shutdown(leaving))
		cancel()
	case 2: // is thrown out
		workers.Wait()
		revoked.Store(name, nil)
		s.server.Revoke(name, nil)
		c.Close()
		revoked.Delete(name)
	case 3: // without a word: the server keeps the session
		workers.Wait()
		for _, l := range p.Links() {
			if rand.IntN(8) == 0 {
				l.Cut(2) // the dialler's end
			}
		}
		c.Close()
	}
	cancel()
	<-c.Context().Done()
}

// toil does one thing after another.
func (s *soak) toil(life context.Context, c *typedrpc.Conn) {
	for life.Err() == nil && c.Err() == nil {
		name := s.names[rand.IntN(len(s.names))]
		ctx, cancel := context.WithTimeout(life, 100*time.Millisecond+rand.N(5*time.Second))
		err := work[name](ctx, c)
		cancel()
		s.note(name, err)
		if rand.IntN(4) == 0 {
			select {
			case <-time.After(rand.N(100 * time.Millisecond)):
			case <-life.Done():
			}
		}
	}
}
