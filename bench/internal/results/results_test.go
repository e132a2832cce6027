package results

import (
	"errors"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/bench/internal/cases"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

func named(t *testing.T, names ...string) (all []peer.Peer) {
	for _, n := range names {
		p, err := peer.Named(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// some are two rounds, in the second of which the machine was half as fast.
func some() (*Results, []cases.Case) {
	r := New()
	r.Add(0, "c", "typedrpc", cases.Sample{1000, 4}, nil)
	r.Add(0, "c", "net/rpc", cases.Sample{2000, 8}, nil)
	r.Add(0, "c", "bare TCP", cases.Sample{4000, 1}, nil)
	r.Add(1, "c", "typedrpc", cases.Sample{500, 8}, nil)
	r.Add(1, "c", "net/rpc", cases.Sample{1000, 16}, nil)
	r.Add(1, "c", "bare TCP", nil, errors.New("broken"))
	return r, []cases.Case{{Name: "c", Group: "Some calls", Title: "one", Columns: []cases.Column{{Name: "calls/s"}, {Name: "µs", Low: true}}}}
}

func TestResults_ratiosAreWithinARound(t *testing.T) {
	is := is.New(t)
	r, _ := some()
	is.Equal(r.Median("c", "net/rpc", 0), 1500.0)
	q, ok := r.Ratio("c", "net/rpc", "typedrpc", 0)
	is.True(ok)
	is.Equal(q, 2.0)
	q, ok = r.Ratio("c", "bare TCP", "typedrpc", 0)
	is.True(ok)
	is.Equal(q, 4.0) // of the round that has both
	_, ok = r.Ratio("c", "gRPC", "typedrpc", 0)
	is.True(!ok)
	is.Equal(len(r.Errors), 1)
}

func TestResults_tables(t *testing.T) {
	is := is.New(t)
	r, c := some()
	var out strings.Builder
	peers := named(t, "typedrpc", "gRPC", "net/rpc", "bare TCP")
	r.Tables(&out, c, peers)
	is.Equal(out.String(), `
## Some calls

| one | calls/s | µs |
| --- | ---: | ---: |
| typedrpc | 750 | 6 |
| net/rpc | **1500 · 2.00×** | 12 · 2.00× |
| *bare TCP* | 4000 · 4.00× | 1 · 0.25× |
`)
	out.Reset()
	r.WriteWins(&out, c, peers)
	is.True(strings.Contains(out.String(), "| net/rpc | Some calls, one | calls/s | typedrpc | 2.00× |"))
	is.Equal(strings.Contains(out.String(), "bare"), false) // floors win nothing
	is.Equal(strings.Contains(out.String(), "µs"), false)
}

func TestResults_draw(t *testing.T) {
	is := is.New(t)
	r, _ := some()
	peers := named(t, "typedrpc", "net/rpc")
	svg, err := r.Draw(Chart{Title: "Calls & more", Case: "c"}, Themes[0], peers)
	is.NoErr(err)
	is.True(strings.Contains(string(svg), "system-ui"))
	is.True(strings.Contains(string(svg), "Calls &amp; more"))
	is.True(!strings.Contains(string(svg), "Liberation"))
	svg, err = r.Draw(Chart{Case: "another"}, Themes[0], peers)
	is.NoErr(err)
	is.Equal(len(svg), 0)
}

func TestNumber(t *testing.T) {
	is := is.New(t)
	for v, want := range map[float64]string{0: "0", 0.456: "0.46", 4.567: "4.57", 45.67: "45.7", 456.7: "457", 4567: "4567", 45_670: "45.7 k", 456_700: "457 k", 4_567_000: "4.57 M", 4: "4"} {
		is.Equal(Number(v), want)
	}
}
