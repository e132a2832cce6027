package cli

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
)

// A duration is counted to within three percent, whatever it is.
func TestHistogram_buckets(t *testing.T) {
	for d := time.Duration(1); d < 1<<62 && d > 0; d += d/7 + 1 {
		i := bucket(d)
		up := longest(i)
		if up < d || float64(up-d) > float64(d)*.0313 || bucket(up) != i || bucket(up+1) != i+1 {
			t.Fatalf("%d is in bucket %d, up to %d", d, i, up)
		}
	}
}

// Quantiles are those of the sorted durations, and rows add up.
func TestHistogram_quantiles(t *testing.T) {
	is := is.New(t)
	random := rand.New(rand.NewPCG(1, 2))
	var sum, part histogram
	var all []time.Duration
	for i := range 10_000 {
		d := time.Duration(random.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		part.add(d)
		if i%1000 == 999 {
			sum.merge(&part)
			part = histogram{}
		}
	}
	slices.Sort(all)
	is.Equal(sum.n, uint64(10_000))
	is.Equal(sum.min, all[0])
	is.Equal(sum.max, all[len(all)-1])
	for _, q := range []float64{.001, .5, .9, .99, .999, 1} {
		want, got := all[int(q*10_000)-1], sum.quantile(q)
		if got < want || float64(got) > float64(want)*1.04 {
			t.Errorf("%v: %v instead of %v", q, got, want)
		}
	}
	var n uint64
	last := 0.0
	for _, r := range sum.rows() {
		is.True(r.UpTo > last)
		last = r.UpTo
		n += r.Calls
	}
	is.Equal(n, sum.n)
	is.Equal(strings.Count(sum.bars(), "\n"), len(sum.rows()))
	is.Equal(len((&histogram{}).rows()), 0)
}

// The numbers of a bench add up: calls, failures, and the rows of the histogram.
func TestBench(t *testing.T) {
	s := open(t)
	measure := func(t *testing.T, want int, s *shop, args ...string) (got result) {
		t.Helper()
		var r session
		is := is.New(t)
		is.Equal(r.run(t.Context(), append([]string{"bench", s.url}, args...)...), want)
		is.NoErr(json.Unmarshal([]byte(r.out.String()), &got))
		var rows, errors uint64
		for _, row := range got.Histogram {
			rows += row.Calls
		}
		for _, n := range got.Errors {
			errors += n
		}
		is.Equal(rows, got.Calls)
		is.Equal(errors, got.Failed)
		l := got.Latency
		is.True(slices.IsSorted([]float64{l.Min, l.P50, l.P90, l.P99, l.P999, l.Max})) // latency
		return got
	}
	t.Run("count", func(t *testing.T) {
		is := is.New(t)
		got := measure(t, 0, s, "shop.price", `"a"`, "-n", "300", "-callers", "7", "-conns", "3", "-json")
		is.Equal(got.Calls, uint64(300))
		is.Equal(got.Failed, uint64(0))
		is.Equal(got.Conns, 3)
		is.Equal(got.Callers, 7)
	})
	t.Run("duration", func(t *testing.T) {
		is := is.New(t)
		got := measure(t, 0, s, "shop.price", `"a"`, "-duration", "1200ms", "-json")
		is.True(got.Calls > 0)
		is.True(got.Seconds >= 1.2)
	})
	t.Run("failures", func(t *testing.T) {
		is := is.New(t)
		s := open(t)
		s.closed.Store(true)
		got := measure(t, 1, s, "shop.price", `"a"`, "-n", "20", "-json")
		is.Equal(got.Calls, uint64(20))
		is.Equal(got.Errors, map[string]uint64{"not found": 20})
	})
	t.Run("text", func(t *testing.T) {
		is := is.New(t)
		var r session
		is.Equal(r.run(t.Context(), "bench", s.url, "shop.price", `"a"`, "-n", "10", "-callers", "2"), 0)
		is.True(strings.HasPrefix(r.out.String(), "10 calls in "))
		is.True(strings.Contains(r.out.String(), "▇"))
	})
	t.Run("no such method", func(t *testing.T) {
		is := is.New(t)
		var r session
		is.Equal(r.run(t.Context(), "bench", s.url, "shop.prise"), 64+12)
		is.True(strings.Contains(r.err.String(), "did you mean shop.price?"))
	})
	t.Run("interrupt", func(t *testing.T) {
		is := is.New(t)
		ctx, interrupt := context.WithCancel(t.Context())
		var r session
		r.err.on = func(line string) {
			if strings.HasSuffix(line, "a second  0 failed\n") { // the live line
				interrupt()
			}
		}
		is.Equal(r.run(ctx, "bench", s.url, "shop.price", `"a"`, "-duration", "0s", "-n", "1000000000"), statusInterrupted)
		is.True(strings.Contains(r.out.String(), " calls in ")) // what there is so far
	})
	for _, args := range []string{"-callers 0", "-conns 0", "-conns 20", "-duration 0s"} {
		is := is.New(t)
		var r session
		is.Equal(r.run(t.Context(), append([]string{"bench", s.url, "shop.price"}, strings.Fields(args)...)...), statusUsage)
	}
}
