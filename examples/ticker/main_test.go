package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
)

func TestRun(t *testing.T) {
	is := is.New(t)
	var out bytes.Buffer
	r, err := run(t.Context(), "127.0.0.1:0", 1200*time.Millisecond, 20*time.Millisecond, &out)
	is.NoErr(err)
	t.Logf("output:\n%s", out.String())

	slow, fast := r.slow.received.Load(), r.fast.received.Load()
	is.True(slow > 0)
	is.True(fast > 10*slow)                         // the other did not wait for it
	is.True(r.beside > 0)                           // nor stop when it came
	is.True(r.most > 30)                            // the window was used …
	is.True(r.most <= 64<<10/(1000+64))             // … and not exceeded
	is.Equal(strings.Count(out.String(), " s "), 6) // lines
	is.True(strings.Contains(out.String(), "begins here"))
	is.True(strings.Contains(out.String(), "The sender of the slow stream waited"))
}

func TestRun_interrupted(t *testing.T) {
	is := is.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := run(ctx, "127.0.0.1:0", time.Hour, time.Millisecond, new(bytes.Buffer))
	is.True(errors.Is(err, context.DeadlineExceeded))
}

func TestRun_portTaken(t *testing.T) {
	is := is.New(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer taken.Close()
	_, err = run(t.Context(), taken.Addr().String(), time.Second, 0, new(bytes.Buffer))
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "-addr")) // says what to do
}
