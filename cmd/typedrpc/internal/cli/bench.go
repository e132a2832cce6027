package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/typedrpc/typedrpc"
)

// load is what a bench does to a server.
type load struct {
	*remote
	callers  int
	conns    int
	most     uint64
	duration time.Duration

	begun  atomic.Uint64 // calls, as far as -n counts
	done   atomic.Int64
	failed atomic.Int64
}

func (env *Env) benchCommand() *cobra.Command {
	l := &load{remote: &remote{Env: env}}
	cmd := &cobra.Command{
		GroupID: groupLook, Use: "bench url method [request]", Short: "call a method again and again, and measure",
		Long: `typedrpc bench has many callers call a method, each its next call when its last one has been
answered, and prints how many calls that were a second and how long they took. The first
call, which is not counted, must succeed. -timeout is for each call.` + requestHelp + `
A line on standard error tells each second how it gets on.`,
		Example: `  typedrpc bench localhost:8080/rpc shop.price '"apples"'
  typedrpc bench localhost:8080/rpc shop.price '"apples"' -conns 4 -callers 256 -duration 30s
  typedrpc bench localhost:8080/rpc shop.price '"apples"' -n 10000 -json | jq .latency.p99`,
		Args: takes(2, 3), ValidArgsFunction: l.complete(methods),
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		if l.callers < 1 || l.conns < 1 || l.conns > l.callers {
			return usagef("-callers and -conns are at least 1, and there are not more connections than callers")
		}
		if l.duration <= 0 && l.most == 0 {
			return usagef("it ends after -duration or after -n calls: one of them must be more than 0")
		}
		req, err := env.params(args, 2)
		if err != nil {
			return err
		}
		return l.run(cmd, args[0], args[1], req)
	})
	f := cmd.Flags()
	f.IntVar(&l.callers, "callers", 16, "`how many` call at the same time")
	f.IntVar(&l.conns, "conns", 1, "connections that the callers share")
	f.DurationVar(&l.duration, "duration", 10*time.Second, "how long it takes; 0s is until -n calls were made")
	f.Uint64VarP(&l.most, "count", "n", 0, "end after so `many` calls; 0: after -duration")
	l.flags(cmd, soon)
	l.metaFlag(cmd)
	return cmd
}

// measured is what one caller has seen.
type measured struct {
	histogram
	errors map[string]uint64 // by code, and what may have run
}

// run makes one call, and then as many as are to be measured.
func (l *load) run(cmd *cobra.Command, url, name string, req typedrpc.Raw) error {
	m := typedrpc.NewMethod[typedrpc.Raw, typedrpc.Raw](name)
	return l.talk(cmd, url, name, func(first context.Context, c typedrpc.Caller) error {
		if _, err := typedrpc.Call(first, c, m, req); err != nil {
			return err
		}
		callers := []typedrpc.Caller{c}
		for len(callers) < l.conns {
			conn, err := l.dial(first, url)
			if err != nil {
				return err
			}
			defer hangUp(cmd.Context(), conn)
			c, err := l.caller(conn)
			if err != nil {
				return err
			}
			callers = append(callers, c)
		}
		seen, took := l.bench(cmd.Context(), callers, m, req)
		if err := l.print(seen, took); err != nil {
			return err
		}
		return cmd.Context().Err() // of Ctrl-C
	})
}

// bench has all callers call until it is time, and returns what they have seen.
func (l *load) bench(ctx context.Context, callers []typedrpc.Caller, m typedrpc.Method[typedrpc.Raw, typedrpc.Raw], req typedrpc.Raw) (*measured, time.Duration) {
	begin := time.Now()
	all := make([]measured, l.callers)
	var running sync.WaitGroup
	for i := range all {
		running.Go(func() { l.call(ctx, callers[i%len(callers)], m, req, begin, &all[i]) })
	}
	over := make(chan struct{})
	var live sync.WaitGroup
	live.Go(func() { l.live(begin, over) })
	running.Wait()
	took := time.Since(begin)
	close(over)
	live.Wait()
	sum := &measured{errors: map[string]uint64{}}
	for i := range all {
		sum.merge(&all[i].histogram)
		for what, n := range all[i].errors {
			sum.errors[what] += n
		}
	}
	return sum, took
}

// call makes one call after another. Those that Ctrl-C cuts off are not counted.
func (l *load) call(ctx context.Context, c typedrpc.Caller, m typedrpc.Method[typedrpc.Raw, typedrpc.Raw], req typedrpc.Raw, begin time.Time, seen *measured) {
	for l.most == 0 || l.begun.Add(1) <= l.most {
		from := time.Now()
		if l.duration > 0 && from.Sub(begin) >= l.duration {
			return
		}
		once, cancel := l.within(ctx)
		_, err := typedrpc.Call(once, c, m, req)
		cancel()
		if ctx.Err() != nil {
			return
		}
		seen.add(time.Since(from))
		l.done.Add(1)
		if err != nil {
			l.failed.Add(1)
			if seen.errors == nil {
				seen.errors = map[string]uint64{}
			}
			what := typedrpc.CodeOf(err).Error()
			if typedrpc.OutcomeOf(err) == typedrpc.MayHaveRun {
				what += " (may have run)"
			}
			seen.errors[what]++
		}
	}
}

// live tells each second how it gets on, on one line where that is a terminal's.
func (l *load) live(begin time.Time, over <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var before int64
	from, end := "", "\n"
	if l.errIsTerminal {
		from, end = "\r", "  "
	}
	for told := false; ; told = true {
		select {
		case <-over:
			if told && l.errIsTerminal {
				fmt.Fprintln(l.Err)
			}
			return
		case <-tick.C:
			n := l.done.Load()
			fmt.Fprintf(l.Err, "%s%v  %d calls  %d a second  %d failed%s", from, time.Since(begin).Round(time.Second), n, n-before, l.failed.Load(), end)
			before = n
		}
	}
}

// result is what a bench prints as JSON. Times are milliseconds.
type result struct {
	Calls     uint64            `json:"calls"`
	Failed    uint64            `json:"failed"`
	Errors    map[string]uint64 `json:"errors,omitempty"`
	Seconds   float64           `json:"seconds"`
	PerSecond float64           `json:"perSecond"`
	Callers   int               `json:"callers"`
	Conns     int               `json:"conns"`
	Latency   struct {
		Mean float64 `json:"mean"`
		Min  float64 `json:"min"`
		P50  float64 `json:"p50"`
		P90  float64 `json:"p90"`
		P99  float64 `json:"p99"`
		P999 float64 `json:"p999"`
		Max  float64 `json:"max"`
	} `json:"latency"`
	Histogram []row `json:"histogram"`
}

// print prints what was measured, and returns what failed.
func (l *load) print(m *measured, took time.Duration) error {
	var failed uint64
	for _, n := range m.errors {
		failed += n
	}
	perSecond := float64(m.n) / max(took.Seconds(), 1e-9)
	var err error
	if l.json {
		r := result{Calls: m.n, Failed: failed, Errors: m.errors, Seconds: took.Round(time.Millisecond).Seconds(), PerSecond: float64(int64(perSecond)), Callers: l.callers, Conns: l.conns, Histogram: m.rows()}
		r.Latency.Mean, r.Latency.Min, r.Latency.Max = millis(m.mean()), millis(m.min), millis(m.max)
		r.Latency.P50, r.Latency.P90, r.Latency.P99, r.Latency.P999 = millis(m.quantile(.5)), millis(m.quantile(.9)), millis(m.quantile(.99)), millis(m.quantile(.999))
		err = l.object(r)
	} else {
		var b strings.Builder
		fmt.Fprintf(&b, "%d calls in %v, %d callers, %d connections: %.0f a second\n", m.n, took.Round(time.Millisecond), l.callers, l.conns, perSecond)
		short := func(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
		fmt.Fprintf(&b, "mean %v  min %v  p50 %v  p90 %v  p99 %v  p99.9 %v  max %v\n\n", short(m.mean()), short(m.min), short(m.quantile(.5)), short(m.quantile(.9)), short(m.quantile(.99)), short(m.quantile(.999)), short(m.max))
		b.WriteString(m.bars())
		for _, what := range slices.Sorted(maps.Keys(m.errors)) {
			fmt.Fprintf(&b, "%d failed: %s\n", m.errors[what], printable(what))
		}
		_, err = l.Out.Write([]byte(b.String()))
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d calls failed", failed, m.n)
	}
	return err
}
