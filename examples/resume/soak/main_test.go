package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
)

// A soak in small: what all clients leave behind when they have left.
func TestRun(t *testing.T) {
	is := is.New(t)
	var out bytes.Buffer
	o := options{duration: time.Second, clients: 8, life: 500 * time.Millisecond, every: 200 * time.Millisecond, grace: 200 * time.Millisecond}
	err := run(t.Context(), o, &out)
	t.Logf("output:\n%s", out.String())
	is.NoErr(err)
	is.True(strings.Contains(out.String(), "Promises broken: 0"))
}

func TestRun_interrupted(t *testing.T) {
	is := is.New(t)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	is.NoErr(run(ctx, options{duration: time.Hour, clients: 2, life: time.Hour, every: time.Hour, grace: time.Second}, new(bytes.Buffer)))
}

// The line finds what leaks, and is not alarmed by noise.
func TestLine_rises(t *testing.T) {
	is := is.New(t)
	rng := rand.New(rand.NewPCG(1, 2))
	alarms, found := 0, 0
	const runs, minutes = 1000, 8.0
	for range runs {
		var x, flat, leaky []float64
		for i := range 48 {
			at, noise := float64(i)/6, rng.NormFloat64()*3e6
			x, flat, leaky = append(x, at), append(flat, 30e6+noise), append(leaky, 30e6+noise+1e6*at)
		}
		if fit(x, flat).rises(minutes) {
			alarms++
		}
		if fit(x, leaky).rises(minutes) {
			found++
		}
	}
	is.True(alarms <= runs/100) // 30 MB, and 3 MB up and down
	is.True(found >= runs*9/10) // and 1 MB more each minute
	l := fit([]float64{0, 1, 2, 3}, []float64{1, 3, 5, 7})
	is.Equal(l.slope, 2.0)
	is.Equal(l.at, 1.0)
	is.Equal(l.err, 0.0)
}
