package typedrpctest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// What net/http needs of a net.Conn.

func TestConn_deadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, a, b := connected(t, nil)
		errs := make(chan error)
		read := func() { _, err := a.Read(make([]byte, 1)); errs <- err }
		go read()
		synctest.Wait()
		a.SetReadDeadline(time.Unix(1, 0)) // one that is over, for a Read under way
		is.True(errors.Is(<-errs, os.ErrDeadlineExceeded))
		go read()
		is.True(errors.Is(<-errs, os.ErrDeadlineExceeded)) // it stays
		a.SetDeadline(time.Now().Add(time.Second))
		go read()
		synctest.Wait()
		a.SetDeadline(time.Now().Add(time.Hour)) // later than it was
		time.Sleep(time.Minute)
		b.Write([]byte("x"))
		is.NoErr(<-errs)
		a.SetDeadline(time.Time{})
		go read()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		is.Equal(len(errs), 0)
		a.Close()
		is.True(errors.Is(<-errs, net.ErrClosed))
		is.True(errors.Is(a.SetDeadline(time.Time{}), net.ErrClosed))
	})
}

func TestConn_close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, a, b := connected(t, &typedrpctest.NetworkOptions{Up: typedrpctest.Conditions{Latency: time.Second}})
		a.Write([]byte("bye"))
		is.NoErr(a.Close())
		is.True(errors.Is(a.Close(), net.ErrClosed))
		_, err := a.Write([]byte("x"))
		is.True(errors.Is(err, net.ErrClosed))
		_, err = b.Write(make([]byte, 1<<20)) // the end has not arrived there yet
		is.NoErr(err)
		got, err := io.ReadAll(b)
		is.NoErr(err)
		is.Equal(string(got), "bye")
		_, err = b.Write([]byte("x"))
		is.True(errors.Is(err, syscall.EPIPE))
		is.NoErr(b.Close())
	})
}

func TestConn_closeWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, a, b := connected(t, nil)
		half := a.(interface{ CloseWrite() error })
		a.Write([]byte("question"))
		is.NoErr(half.CloseWrite())
		is.True(half.CloseWrite() != nil)
		got, err := io.ReadAll(b)
		is.NoErr(err)
		is.Equal(string(got), "question")
		_, err = b.Write([]byte("answer"))
		is.NoErr(err)
		b.Close()
		got, err = io.ReadAll(a)
		is.NoErr(err)
		is.Equal(string(got), "answer")
	})
}

func TestConn_writesDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, a, b := connected(t, &typedrpctest.NetworkOptions{Up: typedrpctest.Conditions{Buffer: 100}})
		for i := range 5 {
			go a.Write(bytes.Repeat([]byte{'0' + byte(i)}, 1000))
		}
		for range 5 {
			got := make([]byte, 1000)
			_, err := io.ReadFull(b, got)
			is.NoErr(err)
			is.Equal(bytes.Count(got, got[:1]), 1000)
		}
		n, err := a.Write(nil)
		is.NoErr(err)
		is.Equal(n, 0)
	})
}

func TestNetwork_dial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: typedrpctest.Conditions{Latency: 2 * time.Second}, Down: typedrpctest.Conditions{Latency: time.Second}})
		t.Cleanup(func() { n.Close() })
		dial := func(patience time.Duration) (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			c, err := n.DialContext(ctx, "tcp", "a:443")
			if err == nil {
				c.Close()
			}
			return time.Since(began), err
		}
		var none *net.DNSError
		_, err := dial(time.Minute)
		is.True(errors.As(err, &none) && none.IsNotFound)

		h := n.Host("a")
		is.Equal(h.URL(), "ws://a/")
		_, err = dial(time.Minute)
		is.True(errors.Is(err, syscall.ECONNREFUSED)) // nobody listens
		l, err := h.Listen()
		is.NoErr(err)
		_, err = h.Listen()
		is.True(errors.Is(err, syscall.EADDRINUSE))

		took, err := dial(time.Minute)
		is.NoErr(err)
		is.Equal(took, 3*time.Second) // a round trip
		_, err = dial(2 * time.Second)
		is.True(errors.Is(err, context.DeadlineExceeded))

		h.Stop()
		_, err = dial(time.Minute)
		is.True(errors.Is(err, syscall.ECONNREFUSED))
		h.Start()
		_, err = dial(time.Minute)
		is.NoErr(err)

		for _, c := range []struct{ off, on func() }{
			{h.Unplug, h.Start},
			{func() { n.Set(typedrpctest.Up, typedrpctest.Conditions{BlackHole: true}) }, func() { n.Set(typedrpctest.Up, typedrpctest.Conditions{}) }},
			{func() { n.Set(typedrpctest.Down, typedrpctest.Conditions{Stall: true}) }, func() { n.Set(typedrpctest.Down, typedrpctest.Conditions{}) }},
		} {
			c.off()
			took, err = dial(time.Minute)
			is.True(errors.Is(err, context.DeadlineExceeded))
			is.Equal(took, time.Minute)
			time.AfterFunc(30*time.Second, c.on)
			took, err = dial(time.Minute)
			is.NoErr(err)
			is.True(took >= 30*time.Second && took <= 33*time.Second)
		}

		l.Close()
		_, err = l.Accept()
		is.True(errors.Is(err, net.ErrClosed))
		_, err = dial(time.Minute)
		is.True(errors.Is(err, syscall.ECONNREFUSED))
		_, err = h.Listen() // again
		is.NoErr(err)
		h.Unplug()
		time.AfterFunc(time.Second, func() { n.Close() })
		took, err = dial(time.Minute)
		is.True(errors.Is(err, net.ErrClosed))
		is.Equal(took, time.Second)
		_, err = n.Host("b").Listen()
		is.True(errors.Is(err, net.ErrClosed))
	})
}

func TestNetwork_backlogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := typedrpctest.NewNetwork(nil)
		l, err := n.Host("a").Listen()
		is.NoErr(err)
		made := 0
		for {
			_, err := n.DialContext(t.Context(), "tcp", "a")
			if err != nil {
				is.True(errors.Is(err, syscall.ECONNREFUSED))
				break
			}
			made++
		}
		is.Equal(made, 128)
		is.Equal(n.Stats().Open, 128)
		l.Close() // resets those that nobody accepted
		is.Equal(n.Stats().Open, 0)
		is.NoErr(n.Close())
		is.NoErr(n.Close())
	})
}

func TestStrings(t *testing.T) {
	is := is.New(t)
	is.Equal(fmt.Sprint(typedrpctest.Up, typedrpctest.Down, typedrpctest.Both, typedrpctest.Direction(0)), "up down both none")
	is.Equal(fmt.Sprint(hows), "[CutClose CutReset CutDialer CutListener]")
	is.Equal(typedrpctest.Cut(9).String(), "Cut(9)")
}
