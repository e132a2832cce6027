package main

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// flow keeps the books of numbers that go one way, in order: 1, 2, 3 …
type flow struct {
	sent atomic.Int64 // the last number that was taken to be sent

	mu         sync.Mutex
	spans      []*span
	received   int64
	gaps       int64 // numbers that were missing in the middle of a span
	duplicates int64
	pause      time.Duration // the longest between two numbers
	last       time.Time
}

// span is what arrived over one stream, or of one session's notifications. It has
// no gaps, whatever happened to the link. Between spans there may be some: that
// a new one begins is how one is told of it.
type span struct{ first, last int64 }

func (f *flow) begin() *span {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := new(span)
	f.spans = append(f.spans, r)
	if f.last.IsZero() {
		f.last = time.Now()
	}
	return r
}

func (f *flow) arrived(r *span, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.received++
	f.pause, f.last = max(f.pause, now.Sub(f.last)), now
	switch {
	case r.last == 0:
		r.first, r.last = n, n
	case n <= r.last:
		f.duplicates++
	default:
		f.gaps += n - r.last - 1
		r.last = n
	}
}

// tally is what a flow, or all of them, have come to.
type tally struct {
	sent, received   int64
	gaps, duplicates int64
	told             int64 // numbers that are missing, or unknown, and somebody was told so
	spans            int
	pause            time.Duration
}

// tally looks between the spans, too.
func (f *flow) tally() tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := tally{received: f.received, gaps: f.gaps, duplicates: f.duplicates, spans: len(f.spans), pause: f.pause}
	t.sent = f.sent.Load()
	spans := slices.DeleteFunc(slices.Clone(f.spans), func(r *span) bool { return r.last == 0 })
	slices.SortFunc(spans, func(a, b *span) int { return cmp.Compare(a.first, b.first) })
	var last int64
	for _, r := range spans {
		if r.first <= last {
			t.duplicates += last - r.first + 1
		}
		t.told += max(0, r.first-last-1)
		last = max(last, r.last)
	}
	return t
}

// ended is the tally when nothing more can come.
func (f *flow) ended() tally {
	t := f.tally()
	missing := t.sent - t.received + t.duplicates - t.told - t.gaps // at the end
	if t.spans > 1 {
		t.told += missing
	} else {
		t.gaps += missing
	}
	return t
}
