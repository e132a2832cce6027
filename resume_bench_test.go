package typedrpc_test

import (
	"context"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/typedrpc/typedrpc"
)

// What it costs that a session can be resumed, against the same with resume
// off, in one run:
//
//	go test -run '^$' -bench Resume -benchtime 1x -count 5 .

// resumeConn connects to a server over loopback, with or without resume.
func resumeConn(b *testing.B, srv *httptest.Server, on bool) *typedrpc.Conn {
	o := &typedrpc.DialOptions{Codecs: []typedrpc.Codec{fixed{}}}
	if !on {
		o.Limits.Grace = -1
	}
	c, err := typedrpc.Dial(b.Context(), srv.URL, o)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func resumeServer(b *testing.B) *httptest.Server {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, benchAdd, func(_ context.Context, r benchReq) (benchResp, error) {
		return benchResp{Sum: r.A + r.B, Text: benchText}, nil
	})
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{fixed{}}})
	b.Cleanup(hs.Close)
	return hs
}

// BenchmarkResume_calls is 256 callers on one connection. Both connections take
// turns, many times, because other things run on the machine: the medians of the
// turns are compared.
func BenchmarkResume_calls(b *testing.B) {
	const callers, turns, calls = 256, 30, 100_000
	hs := resumeServer(b)
	conns := map[bool]*typedrpc.Conn{true: resumeConn(b, hs, true), false: resumeConn(b, hs, false)}
	for _, c := range conns {
		defer c.Close()
	}
	turn := func(c *typedrpc.Conn) float64 {
		began := time.Now()
		var g sync.WaitGroup
		for range callers {
			g.Go(func() {
				for range calls / callers {
					if _, err := typedrpc.Call(b.Context(), c, benchAdd, benchReq{A: 3, B: 1000, Tag: "0123456789abcdef"}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		g.Wait()
		return calls / time.Since(began).Seconds()
	}
	for b.Loop() {
		var speed [2][]float64
		for range turns {
			speed[0] = append(speed[0], turn(conns[true]))
			speed[1] = append(speed[1], turn(conns[false]))
		}
		on, off := median(speed[0]), median(speed[1])
		b.ReportMetric(on, "on-calls/s")
		b.ReportMetric(off, "off-calls/s")
		b.ReportMetric(100*(off-on)/off, "%slower")
	}
}

// BenchmarkResume_idle is what an idle connection holds, both ends of it, in
// bytes of heap and stacks, after some calls whose answers were acknowledged.
func BenchmarkResume_idle(b *testing.B) {
	const conns = 500
	hold := func(on bool) float64 {
		hs := resumeServer(b)
		before := memory()
		all := make([]*typedrpc.Conn, conns)
		for i := range all {
			all[i] = resumeConn(b, hs, on)
			for range 10 {
				if _, err := typedrpc.Call(b.Context(), all[i], benchAdd, benchReq{A: 3}); err != nil {
					b.Fatal(err)
				}
			}
		}
		time.Sleep(4 * time.Second) // acknowledgements, and writers that end
		held := memory() - before
		for _, c := range all {
			c.Close()
		}
		return held / conns
	}
	for b.Loop() {
		var bytes [2][]float64
		for range 3 {
			bytes[0] = append(bytes[0], hold(true))
			bytes[1] = append(bytes[1], hold(false))
		}
		on, off := median(bytes[0]), median(bytes[1])
		b.ReportMetric(on, "on-B/conn")
		b.ReportMetric(off, "off-B/conn")
		b.ReportMetric(on-off, "B-more")
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func memory() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}
