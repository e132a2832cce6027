package main

import (
	"bytes"
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// Everything is counted to a number, and the link is cut by the bytes that it
// carried: nothing here depends on how fast the machine is.
func TestRun(t *testing.T) {
	for name, o := range map[string]options{
		"binary":  {cut: 40_000, dialect: typedrpc.Binary},
		"jsonrpc": {cut: 200_000, dialect: typedrpc.Text}, // says the same in more bytes
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			var out bytes.Buffer
			o.duration, o.count, o.seed, o.keepAlive, o.every = time.Hour, 3000, 1, 100*time.Millisecond, time.Second
			r, err := run(t.Context(), o, &out)
			t.Logf("output:\n%s", out.String())
			is.NoErr(err)
			is.True(r.resumed.Load() > 0)
			is.Equal(r.begun.Load(), int64(1)) // one session, whatever happened
			for _, f := range []*flow{&r.up, &r.down, &r.notes} {
				got := f.ended()
				is.Equal(got.spans, 1)
				is.Equal(got.received, got.sent)
				is.Equal(got.gaps+got.duplicates+got.told, int64(0))
			}
			is.Equal(r.up.sent.Load(), int64(3000))
			is.Equal(r.notes.sent.Load(), int64(3000))
			got := r.calls.ended()
			is.Equal(got.sent, int64(3000))
			is.Equal(got.gaps+got.duplicates, int64(0))
			is.Equal(got.received+r.calls.late, got.sent) // all but those whose time was over
			is.True(strings.Contains(out.String(), "the session went on"))
		})
	}
}

// Without grace a lost link loses the session: everybody is told what is lost.
func TestRun_lossy(t *testing.T) {
	is := is.New(t)
	var out bytes.Buffer
	o := options{duration: time.Hour, count: 3000, cut: 50_000, seed: 2, lossy: true, keepAlive: 100 * time.Millisecond, every: time.Second}
	r, err := run(t.Context(), o, &out)
	t.Logf("output:\n%s", out.String())
	is.NoErr(err)
	is.Equal(r.resumed.Load(), int64(0))
	is.True(r.begun.Load() > 1)
	var told int64
	for _, got := range []tally{r.up.ended(), r.down.ended(), r.notes.ended(), r.calls.ended()} {
		is.Equal(got.gaps+got.duplicates, int64(0))
		told += got.told
	}
	is.True(told > 0)
}

// An interrupt ends the run in order: what is under way arrives.
func TestRun_interrupted(t *testing.T) {
	is := is.New(t)
	ctx, interrupt := context.WithCancel(t.Context())
	var out interrupter
	out.fn = interrupt
	o := options{duration: time.Hour, count: math.MaxInt64, cut: 100_000, seed: 3, keepAlive: 100 * time.Millisecond, every: 10 * time.Millisecond}
	_, err := run(ctx, o, &out)
	is.NoErr(err)
	is.True(strings.Contains(out.String(), "The link was cut"))
}

// interrupter calls fn when the first line was written.
type interrupter struct {
	bytes.Buffer
	fn func()
}

func (w *interrupter) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(" s ")) {
		w.fn()
	}
	return w.Buffer.Write(p)
}

// The books notice what they are there for.
func TestFlow_gapsAndDuplicates(t *testing.T) {
	is := is.New(t)
	var f flow
	f.sent.Store(10)
	a := f.begin()
	for _, n := range []int64{1, 2, 4, 4, 5} { // 3 is missing, 4 came twice
		f.arrived(a, n)
	}
	is.Equal(f.tally().gaps, int64(1))
	is.Equal(f.tally().duplicates, int64(1))
	b := f.begin()
	for _, n := range []int64{5, 6, 9} { // 5 again, 7 and 8 are missing
		f.arrived(b, n)
	}
	is.Equal(f.ended().gaps, int64(3))
	is.Equal(f.ended().duplicates, int64(2))
	c := f.begin()
	f.arrived(c, 10)
	is.Equal(f.ended().told, int64(0))
	f.sent.Store(12)
	is.Equal(f.ended().told, int64(2))
}

func TestCalls_runsThatNobodyWasToldOf(t *testing.T) {
	is := is.New(t)
	c := newCalls()
	for n := range int64(6) {
		c.made.Add(1)
		c.run(n)
	}
	mayHaveRun := &typedrpc.Error{Code: typedrpc.DeadlineExceeded, Outcome: typedrpc.MayHaveRun}
	c.end(0, nil, 0)
	c.run(1)
	c.end(1, nil, 0) // ran twice
	c.end(2, mayHaveRun, 0)
	c.run(3)
	c.end(3, mayHaveRun, 0)                                 // ran twice
	c.end(4, &typedrpc.Error{Outcome: typedrpc.NotSent}, 0) // ran all the same
	c.end(5, nil, 0)
	c.run(5) // once more, after its answer
	c.made.Add(1)
	c.end(6, nil, 0) // never ran
	got := c.ended()
	is.Equal(got.duplicates, int64(4))
	is.Equal(got.gaps, int64(1))
	is.Equal(c.late, int64(2))
}
