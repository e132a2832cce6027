package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// When memory and goroutines are not flat.
//
// While clients work both go up and down with what is under way, so a line is
// fitted by least squares through the samples after a warm-up, and it counts as
// rising if it does so by more than chance (the slope is more than three of its
// standard errors) and by more than a little (over the time measured, a tenth of
// the mean). One goroutine that leaks now and then may hide in that. So at the
// end, when all clients have left and the server is shut down, there must be as
// many goroutines as before, and not much more on the heap.
const (
	warmUp      = 0.2 // of the time
	errorsOff   = 3   // standard errors
	little      = 0.1 // of the mean
	heapAtEnd   = 3e6 // bytes: pools, tables that grew once, what net/http keeps
	leastPoints = 8
)

// line is y = at + slope·x, with the standard error of the slope.
type line struct{ at, slope, err, mean float64 }

func fit(x, y []float64) line {
	n := float64(len(x))
	var mx, my float64
	for i := range x {
		mx += x[i] / n
		my += y[i] / n
	}
	var sxx, sxy float64
	for i := range x {
		sxx += (x[i] - mx) * (x[i] - mx)
		sxy += (x[i] - mx) * (y[i] - my)
	}
	l := line{slope: sxy / sxx, mean: my}
	l.at = my - l.slope*mx
	var rest float64
	for i := range x {
		d := y[i] - l.at - l.slope*x[i]
		rest += d * d
	}
	l.err = math.Sqrt(rest / (n - 2) / sxx)
	return l
}

// rises reports whether l rises over minutes by more than chance and a little.
func (l line) rises(minutes float64) bool {
	return l.slope > errorsOff*l.err && l.slope*minutes > little*l.mean
}

// verdict is nil if nothing leaked and no promise was broken.
func (s *soak) verdict(w io.Writer, o options, before, after sample, samples []sample) error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var x, heap, goroutines []float64
	for _, m := range samples {
		if m.at >= time.Duration(warmUp*float64(o.duration)) {
			x, heap, goroutines = append(x, m.at.Minutes()), append(heap, m.heap), append(goroutines, m.goroutines)
		}
	}
	if len(x) < leastPoints {
		fmt.Fprintf(w, "\nToo short for a slope: %d samples after the warm-up, %d are needed.\n", len(x), leastPoints)
	} else {
		minutes := x[len(x)-1] - x[0]
		h, g := fit(x, heap), fit(x, goroutines)
		fmt.Fprintf(w, "\nOver %.1f minutes after the warm-up:\n", minutes)
		fmt.Fprintf(w, "heap        %+.0f kB per minute (standard error %.0f), mean %.1f MB\n", h.slope/1e3, h.err/1e3, h.mean/1e6)
		fmt.Fprintf(w, "goroutines  %+.2f per minute (standard error %.2f), mean %.0f\n", g.slope, g.err, g.mean)
		if h.rises(minutes) {
			complain("the heap grows")
		}
		if g.rises(minutes) {
			complain("goroutines grow")
		}
	}
	fmt.Fprintf(w, "When all had left: %+.0f goroutines, %+.2f MB of heap, compared with before.\n",
		after.goroutines-before.goroutines, (after.heap-before.heap)/1e6)
	if after.goroutines > before.goroutines {
		complain("%.0f goroutines were left behind", after.goroutines-before.goroutines)
	}
	if after.heap > before.heap+heapAtEnd {
		complain("%.1f MB were left behind", (after.heap-before.heap)/1e6)
	}
	s.mu.Lock()
	wrongs := s.wrongs
	s.mu.Unlock()
	fmt.Fprintf(w, "Promises broken: %d\n", len(wrongs))
	errs = append(errs, wrongs[:min(len(wrongs), 10)]...)
	if o.profile != "" {
		errs = append(errs, writeProfiles(o.profile))
	}
	err := errors.Join(errs...)
	if err == nil {
		fmt.Fprintln(w, "Verdict: flat.")
	}
	return err
}
