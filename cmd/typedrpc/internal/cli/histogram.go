package cli

import (
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// histogram counts durations, each to within three percent. Its zero value is empty.
type histogram struct {
	counts   [60 * perOctave]uint64
	n        uint64
	sum      time.Duration
	min, max time.Duration
}

// perOctave is into how many buckets the durations between one and its double go.
const perOctave = 32

// bucket is the place of a duration: below two octaves' worth of nanoseconds its own.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	e := max(bits.Len64(v)-6, 0)
	return e*perOctave + int(v>>e)
}

// longest is the longest duration of a bucket.
func longest(i int) time.Duration {
	if i < 2*perOctave {
		return time.Duration(i)
	}
	e := i/perOctave - 1
	return time.Duration((i-e*perOctave+1)<<e - 1)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(d)]++
	if h.n == 0 || d < h.min {
		h.min = d
	}
	h.n++
	h.sum += d
	h.max = max(h.max, d)
}

// merge adds all that other has.
func (h *histogram) merge(other *histogram) {
	if other.n == 0 {
		return
	}
	if h.n == 0 || other.min < h.min {
		h.min = other.min
	}
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n, h.sum, h.max = h.n+other.n, h.sum+other.sum, max(h.max, other.max)
}

func (h *histogram) mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

// quantile is how long that part of the durations, of 1, took at most.
func (h *histogram) quantile(q float64) time.Duration {
	most := uint64(q*float64(h.n) + 0.999999)
	var n uint64
	for i, c := range h.counts {
		if n += c; n >= most && n > 0 {
			return min(longest(i), h.max)
		}
	}
	return h.max
}

// A row is how many durations were as long as UpTo, and longer than the row before.
type row struct {
	UpTo  float64 `json:"upTo"` // milliseconds
	Calls uint64  `json:"calls"`
}

// rows are all durations, in steps of 1, 2 and 5.
func (h *histogram) rows() []row {
	var all []row
	var n uint64
	edge := edges()
	up := edge()
	flush := func() {
		if n > 0 || len(all) > 0 {
			all = append(all, row{millis(up), n})
		}
		n = 0
	}
	last := bucket(h.max)
	for i := 0; i <= last && h.n > 0; i++ {
		for h.counts[i] > 0 && longest(i) > up {
			flush()
			up = edge()
		}
		n += h.counts[i]
	}
	flush()
	return all
}

// edges returns the function that returns 1 µs, 2 µs, 5 µs, 10 µs, …
func edges() func() time.Duration {
	steps, i := [...]time.Duration{1, 2, 5}, -1
	unit := time.Microsecond
	return func() time.Duration {
		if i++; i == len(steps) {
			i, unit = 0, unit*10
		}
		return steps[i] * unit
	}
}

// millis is d in milliseconds, to the microsecond.
func millis(d time.Duration) float64 { return float64(d.Round(time.Microsecond).Microseconds()) / 1000 }

// bars are the rows for people.
func (h *histogram) bars() string {
	const width = 40
	var b strings.Builder
	var most uint64
	rows := h.rows()
	for _, r := range rows {
		most = max(most, r.Calls)
	}
	for _, r := range rows {
		up := time.Duration(r.UpTo * float64(time.Millisecond)).Round(time.Microsecond)
		n := int(r.Calls * width / most)
		if r.Calls > 0 {
			n = max(n, 1)
		}
		fmt.Fprintf(&b, "  ≤ %-6v  %-*s  %d\n", up, width, strings.Repeat("▇", n), r.Calls)
	}
	return b.String()
}
