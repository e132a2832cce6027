// Package measure counts: calls, time, the processors' time, allocations.
package measure

import (
	"context"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// CPU returns the processors' time that this process has used, user and system.
func CPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Usage is what a process uses.
type Usage struct {
	CPU        time.Duration
	Allocs     uint64 // since it began
	Heap       uint64 // bytes of live objects
	Stacks     uint64 // bytes
	Goroutines uint64
}

// Now returns what this process has used until now. settle collects garbage first: only then
// Heap is what lives.
func Now(settle bool) Usage {
	if settle {
		for range 3 { // pools are emptied by the second
			runtime.GC()
		}
	}
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:objects"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/sched/goroutines:goroutines"},
	}
	metrics.Read(s)
	return Usage{CPU(), s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64()}
}

// Run is what a while of calls came to.
type Run struct {
	Calls int
	Took  time.Duration
}

// Rate is how many calls there were in a second.
func (r Run) Rate() float64 { return float64(r.Calls) / r.Took.Seconds() }

// Callers calls from n goroutines until d has passed, at least once each. The first error ends
// it.
func Callers(ctx context.Context, n int, d time.Duration, call func(ctx context.Context, caller int) error) (Run, error) {
	var stop atomic.Bool
	var calls atomic.Int64
	var once sync.Once
	var failed error
	began := time.Now()
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	var g sync.WaitGroup
	for i := range n {
		g.Go(func() {
			mine := 0
			for more := true; more; more = !stop.Load() {
				if err := call(ctx, i); err != nil {
					once.Do(func() { failed = err })
					stop.Store(true)
					break
				}
				mine++
			}
			calls.Add(int64(mine))
		})
	}
	g.Wait()
	return Run{int(calls.Load()), time.Since(began)}, failed
}

// Median returns the middle of v, 0 of nothing.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Percentile returns the value that q of v, from 0 to 1, are not above.
func Percentile(v []time.Duration, q float64) time.Duration {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(float64(len(s))*q))]
}
