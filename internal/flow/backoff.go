package flow

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Backoff is how long to wait before trying again. It is the API's Backoff, whose
// comment says more, with the same fields in the same order.
type Backoff struct {
	Min    time.Duration // bound of the first delay. Default 100 ms.
	Max    time.Duration // largest bound. Default 30 s.
	Factor float64       // growth of the bound, at least 1. Default 2.
	Least  time.Duration // every delay is at least this long. Default 0.
	Off    bool          // every delay is Least
}

// WithDefaults fills in the defaults.
func (b Backoff) WithDefaults() Backoff {
	if b.Min == 0 {
		b.Min = max(100*time.Millisecond, b.Least)
	}
	if b.Max == 0 {
		b.Max = max(30*time.Second, b.Min)
	}
	if b.Factor == 0 {
		b.Factor = 2
	}
	return b
}

// Check refuses nonsense.
func (b Backoff) Check() error {
	d := b.WithDefaults()
	switch {
	case b.Min < 0 || b.Max < 0 || b.Least < 0:
		return fmt.Errorf("Backoff: Min, Max and Least must not be negative")
	case b.Off && (b.Min != 0 || b.Max != 0 || b.Factor != 0):
		return fmt.Errorf("Backoff: Off makes every delay Least long, so Min, Max and Factor must be zero")
	case d.Least > d.Min:
		return fmt.Errorf("Backoff: Least %v is above Min %v, the bound of the first delay", d.Least, d.Min)
	case d.Max < d.Min:
		return fmt.Errorf("Backoff: Max %v is below Min %v", d.Max, d.Min)
	case d.Factor < 1 || math.IsNaN(d.Factor) || math.IsInf(d.Factor, 0):
		return fmt.Errorf("Backoff: Factor %v must be at least 1", b.Factor)
	}
	return nil
}

// Delay returns how long to wait after the given number of failed attempts in
// a row, at least 1. It is safe for concurrent use.
func (b Backoff) Delay(failed int) time.Duration {
	b = b.WithDefaults()
	least := max(b.Least, 0)
	if b.Off {
		return least
	}
	bound := float64(b.Min) * math.Pow(b.Factor, float64(max(failed, 1)-1))
	bound = min(bound, float64(b.Max), 1<<62) // also when Pow overflows to +Inf
	if !(bound > float64(least)) {
		return least
	}
	return least + time.Duration(rand.Int64N(int64(bound)-int64(least)+1))
}
