package stats_test

import (
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/stats"
)

// What is nil panics with a sentence.
func TestLoad_nil(t *testing.T) {
	for what, f := range map[string]func(){
		"Add to nil":   func() { (*stats.Load)(nil).Add(new(stats.Load)) },
		"Add nil":      func() { new(stats.Load).Add(nil) },
		"Ended of nil": func() { new(stats.Load).Ended(nil) },
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			defer func() { is.Equal(recover(), "stats: a Load is nil") }()
			f()
		})
	}
}
