// Package results keeps what rounds measured, and makes of it medians and ratios.
package results

import (
	"github.com/typedrpc/typedrpc/bench/internal/cases"
	"github.com/typedrpc/typedrpc/bench/internal/measure"
)

// Results are the samples of all rounds.
type Results struct {
	Rounds  int
	samples map[key][]cases.Sample // one for each round; nil if it failed
	Errors  []Failure
}

type key struct{ name, peer string }

// Failure is a measurement that failed.
type Failure struct {
	Case, Peer string
	Round      int
	Err        error
}

// New returns results without a round.
func New() *Results { return &Results{samples: map[key][]cases.Sample{}} }

// Add adds what a round, counted from 0, measured.
func (r *Results) Add(round int, name, peer string, s cases.Sample, err error) {
	k := key{name, peer}
	all := r.samples[k]
	for len(all) <= round {
		all = append(all, nil)
	}
	r.Rounds = max(r.Rounds, round+1)
	r.samples[k] = all
	if err != nil {
		r.Errors = append(r.Errors, Failure{name, peer, round, err})
		return
	}
	all[round] = s
}

// Has reports whether there is a sample.
func (r *Results) Has(name, peer string) bool {
	for _, s := range r.samples[key{name, peer}] {
		if s != nil {
			return true
		}
	}
	return false
}

// Median is the median of a column over the rounds.
func (r *Results) Median(name, peer string, column int) float64 {
	var v []float64
	for _, s := range r.samples[key{name, peer}] {
		if s != nil {
			v = append(v, s[column])
		}
	}
	return measure.Median(v)
}

// Ratio is the median over the rounds of a column's ratio, within a round, to that of the
// peer that it is compared with; false if no round measured both.
func (r *Results) Ratio(name, peer, with string, column int) (float64, bool) {
	v := r.ratios(name, peer, with, column)
	return measure.Median(v), len(v) > 0
}

// ratios are those of all rounds that measured both, where there is something to divide by.
func (r *Results) ratios(name, peer, with string, column int) (v []float64) {
	mine, theirs := r.samples[key{name, peer}], r.samples[key{name, with}]
	for i := range min(len(mine), len(theirs)) {
		if mine[i] != nil && theirs[i] != nil && theirs[i][column] > nearlyNothing {
			v = append(v, mine[i][column]/theirs[i][column])
		}
	}
	return v
}

// nearlyNothing is what no ratio is made with, such as an allocation in a thousand calls.
const nearlyNothing = 0.005

// Better reports whether a peer is better than another in a column: by more than 3 % in the
// median, and at all in four of five rounds.
func (r *Results) Better(c cases.Case, peer, with string, column int) bool {
	v := r.ratios(c.Name, peer, with, column)
	above := 0
	for _, q := range v {
		if q > 1 != c.Columns[column].Low && q != 1 {
			above++
		}
	}
	m := measure.Median(v)
	if c.Columns[column].Low {
		return m < 0.97 && 5*above >= 4*len(v)
	}
	return m > 1.03 && 5*above >= 4*len(v)
}
