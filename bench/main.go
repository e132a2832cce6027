// Bench measures typedrpc beside other libraries, the same calls with each.
//
//	go run . -quick                    a look, of a few minutes
//	go run . -run calls -peers gRPC    some cases, some peers; typedrpc is always measured
//	go run . -o RESULTS.md             five rounds, written down with charts
//	go run . -run calls/256 -profile cpu.out
//	                                   a CPU profile of typedrpc alone, in that case; of a
//	                                   server in a process of its own, in cpu.out.server
//
// Every round measures every peer once, in turn, so that a ratio is made of two measurements
// that lie close together. The results are medians over the rounds.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/pprof"
	"time"

	"github.com/typedrpc/typedrpc/bench/internal/cases"
	"github.com/typedrpc/typedrpc/bench/internal/host"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
	"github.com/typedrpc/typedrpc/bench/internal/results"
)

type options struct {
	quick, list bool
	rounds      int
	time        time.Duration
	run, peers  *regexp.Regexp
	profile     string
	out, note   string
}

func main() {
	host.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.quick, "quick", false, "two rounds of short measurements, fewer connections: for a look")
	f.BoolVar(&o.list, "list", false, "list the cases and the peers, and end")
	f.IntVar(&o.rounds, "rounds", 0, "how many `rounds` (default 5, with -quick 2)")
	f.DurationVar(&o.time, "time", 0, "how long one measurement takes (default 200ms, with -quick 50ms)")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile to this `file`: of "+peer.Reference+" alone, or of the -peers, without a report; and one of the server's process beside it, as FILE.server, where it has its own")
	f.StringVar(&o.out, "o", "", "write the report to this `file`, and its charts beside it; - and by default standard output, without charts")
	f.StringVar(&o.note, "note", "", "a `sentence` on the machine for the report, such as that it was shared")
	run := f.String("run", "", "measure the cases that match this `regexp`")
	peers := f.String("peers", "", "measure the peers that match this `regexp`, and "+peer.Reference)
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if o.run, err = regexp.Compile(*run); err != nil {
		return o, err
	}
	if *peers == "" && o.profile != "" {
		*peers = "^" + regexp.QuoteMeta(peer.Reference) + "$"
	}
	if o.peers, err = regexp.Compile(*peers); err != nil {
		return o, err
	}
	return o, nil
}

func bench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	s, rounds := cases.Usual, 5
	if o.quick {
		s, rounds = cases.Quick, 2
	}
	if o.rounds > 0 {
		rounds = o.rounds
	}
	if o.time > 0 {
		s.Time = o.time
	}
	todo, peers := o.chosen()
	if o.list {
		return list(stdout, todo, peers)
	}
	if len(todo) == 0 {
		return fmt.Errorf("no case matches %q", o.run)
	}
	if o.profile != "" {
		return profile(ctx, o, s, rounds, todo, peers, stderr)
	}
	r := measureAll(ctx, s, rounds, todo, peers, stderr)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "interrupted: what follows is of the rounds until then")
	}
	return report(o.out, o.note, r, todo, peers, stdout)
}

// chosen are the cases and the peers that the flags name.
func (o options) chosen() (todo []cases.Case, peers []peer.Peer) {
	for _, c := range cases.All() {
		if o.run.MatchString(c.Name) {
			todo = append(todo, c)
		}
	}
	for _, p := range peer.All() {
		if name := p.Info().Name; o.peers.MatchString(name) || name == peer.Reference && o.profile == "" {
			peers = append(peers, p)
		}
	}
	return todo, peers
}

func list(w io.Writer, todo []cases.Case, peers []peer.Peer) error {
	for _, c := range todo {
		fmt.Fprintf(w, "%-24s %s: %s\n", c.Name, c.Group, c.Title)
	}
	fmt.Fprintln(w)
	for _, p := range peers {
		fmt.Fprintf(w, "%-24s %s\n", p.Info().Name, p.Info().How)
	}
	return nil
}

// measureAll measures in rounds, and shows how far it is.
func measureAll(ctx context.Context, s cases.Settings, rounds int, todo []cases.Case, peers []peer.Peer, stderr io.Writer) *results.Results {
	r, began := results.New(), time.Now()
	for round := range rounds {
		for i, c := range todo {
			fmt.Fprintf(stderr, "%4.0fs round %d/%d case %d/%d %s, %s:", time.Since(began).Seconds(), round+1, rounds, i+1, len(todo), c.Name, c.Columns[0].Name)
			for _, p := range peers {
				if !c.Takes(p) {
					continue
				}
				name := p.Info().Name
				sample, err := c.Run(ctx, s, p)
				if ctx.Err() != nil {
					fmt.Fprintln(stderr)
					return r
				}
				r.Add(round, c.Name, name, sample, err)
				if err != nil {
					fmt.Fprintf(stderr, " %s: %v;", name, err)
					continue
				}
				fmt.Fprintf(stderr, " %s %s;", name, results.Number(sample[0]))
			}
			fmt.Fprintln(stderr)
		}
	}
	return r
}

// profile measures under the profiler: this process, and the server's where it has its own.
func profile(ctx context.Context, o options, s cases.Settings, rounds int, todo []cases.Case, peers []peer.Peer, stderr io.Writer) error {
	if o.time == 0 {
		s.Time = 2 * time.Second // enough samples
	}
	host.Profile = o.profile + ".server"
	defer func() { host.Profile = "" }()
	f, err := os.Create(o.profile)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	r := measureAll(ctx, s, rounds, todo, peers, stderr)
	pprof.StopCPUProfile()
	if len(r.Errors) > 0 {
		return fmt.Errorf("%s with %s: %w", r.Errors[0].Case, r.Errors[0].Peer, r.Errors[0].Err)
	}
	return f.Close()
}
