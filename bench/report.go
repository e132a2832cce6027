package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/typedrpc/typedrpc/bench/internal/cases"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
	"github.com/typedrpc/typedrpc/bench/internal/results"
)

// charts are drawn beside a report.
var charts = []results.Chart{
	{File: "calls", Title: "Small calls a second, 256 callers on one connection", Case: "calls/256"},
	{File: "one", Title: "Small calls a second, one caller", Case: "calls/1"},
	{File: "cpu", Title: "Processors' time of a small call in µs, 256 callers on one connection (less is better)", Case: "calls/256", Column: 1},
	{File: "items", Title: "Items of a stream a second, 64 bytes each", Case: "stream"},
	{File: "beside", Title: "99th percentile of small calls beside transfers on the same connection, ms", Case: "transfer"},
	{File: "broadcast", Title: "Processors' time of the server for a delivery to one of 1,000 subscribers, µs", Case: "broadcast/many", Column: 1},
	{File: "idle", Title: "Memory of the server for an idle connection, KiB", Case: "idle"},
}

// report writes the results to file, with charts in a folder charts beside it, or to standard
// output. note is what is to be known of the machine.
func report(file, note string, r *results.Results, todo []cases.Case, peers []peer.Peer, stdout io.Writer) error {
	if file == "" || file == "-" {
		return write(stdout, note, r, todo, peers, nil)
	}
	dir := filepath.Join(filepath.Dir(file), "charts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var drawn []results.Chart
	for _, c := range charts {
		for _, t := range results.Themes {
			svg, err := r.Draw(c, t, peers)
			if err != nil {
				return err
			}
			if svg == nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, c.File+"-"+t.Name+".svg"), svg, 0o644); err != nil {
				return err
			}
			if t == results.Themes[0] {
				drawn = append(drawn, c)
			}
		}
	}
	var out bytes.Buffer
	if err := write(&out, note, r, todo, peers, drawn); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

// picture shows a chart, in the colours of the page.
func picture(w io.Writer, c results.Chart) {
	fmt.Fprintf(w, "\n<picture>\n  <source media=\"(prefers-color-scheme: dark)\" srcset=\"charts/%s-dark.svg\">\n  <img src=\"charts/%s-light.svg\" alt=\"%s\">\n</picture>\n", c.File, c.File, c.Title)
}

const preface = `Medians of %d rounds, each of which measured every peer once, in turn. Behind the dot is the ratio
to %s (the first row) within a round, the median of the rounds: compare these, since a machine's
speed changes from round to round. **Bold** is where a peer is better by more than
3 %%, and in four of five rounds. *Slanted* are the floors, which do no RPC, or as little as one writes
by hand. Client and server run in one process, where nothing else is said, and talk over the loopback
interface; processors' time is the sum of both. A small call has two integers and a string of 16
bytes, and is answered by an integer and a string of 32 bytes. [README.md](README.md) says how to run
all this yourself.
`

func write(w io.Writer, note string, r *results.Results, todo []cases.Case, peers []peer.Peer, drawn []results.Chart) error {
	fmt.Fprintf(w, "# What was measured\n\n")
	fmt.Fprintf(w, preface, r.Rounds, peer.Reference)
	for _, c := range drawn {
		picture(w, c)
	}
	fmt.Fprintf(w, "\n## Where peers win\n")
	r.WriteWins(w, todo, peers)
	r.Tables(w, todo, peers)
	failures(w, r)
	fmt.Fprintf(w, "\n## Who was measured, and how\n\n| peer | how it is used | versions |\n| --- | --- | --- |\n")
	versions := versions()
	for _, p := range peers {
		i := p.Info()
		var v []string
		for _, m := range i.Modules {
			v = append(v, fmt.Sprintf("%s %s", m, versions[m]))
		}
		if len(v) == 0 {
			v = []string{"the standard library's"}
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", i.Name, i.How, strings.Join(v, ", "))
	}
	for _, m := range peer.Missing {
		fmt.Fprintf(w, "\nNot measured: %s: %s.\n", m.Name, m.Why)
	}
	fmt.Fprintf(w, "\n## On what\n\n%s %s\n", machine(), note)
	return nil
}

// failures says what could not be measured.
func failures(w io.Writer, r *results.Results) {
	if len(r.Errors) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## What failed\n\n")
	for _, f := range r.Errors {
		fmt.Fprintf(w, "- %s with %s, round %d: %v\n", f.Case, f.Peer, f.Round+1, f.Err)
	}
}

// versions are those of the modules that this program is made of.
func versions() map[string]string {
	all := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return all
	}
	for _, d := range info.Deps {
		all[d.Path] = d.Version
		if d.Replace != nil { // a module of this repository
			all[d.Path] = "as it is here"
		}
	}
	return all
}

// machine says on what the program runs.
func machine() string {
	cpu := "unknown"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		lines := strings.Split(string(data), "\n")
		if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "model name") }); i >= 0 {
			_, cpu, _ = strings.Cut(lines[i], ": ")
		}
	}
	system := runtime.GOOS
	if data, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		release, _, _ := strings.Cut(strings.TrimSpace(string(data)), "-")
		system += " " + release
	}
	return fmt.Sprintf("%s, %s/%s, %d processors (%s), %s.", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), cpu, system)
}
