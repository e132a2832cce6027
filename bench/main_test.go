package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/bench/internal/host"
)

func TestMain(m *testing.M) {
	host.Main()
	os.Exit(m.Run())
}

func TestBench_report(t *testing.T) {
	is := is.New(t)
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	var out, progress bytes.Buffer
	is.NoErr(bench(t.Context(), []string{"-quick", "-time", "5ms", "-run", "^calls/(1|256)$", "-peers", "^(net/rpc|bare TCP)$", "-o", file}, &out, &progress))
	report, err := os.ReadFile(file)
	is.NoErr(err)
	for _, want := range []string{"Medians of 2 rounds", "## Where peers win", "| net/rpc | ", "| *bare TCP* | ", "charts/calls-dark.svg", "not have it"} {
		if !strings.Contains(string(report), want) {
			t.Errorf("the report has no %q:\n%s", want, report)
		}
	}
	is.Equal(strings.Count(progress.String(), "\n"), 4) // a line for each case of each round
	charts, err := filepath.Glob(filepath.Join(filepath.Dir(file), "charts", "*.svg"))
	is.NoErr(err)
	is.Equal(len(charts), 6) // three of these cases, in two colours each
	for _, c := range charts {
		svg, err := os.ReadFile(c)
		is.NoErr(err)
		is.True(len(svg) > 500 && len(svg) < 20_000)
		is.True(strings.Contains(string(svg), "net/rpc"))
	}
}

func TestBench_profile(t *testing.T) {
	is := is.New(t)
	file := filepath.Join(t.TempDir(), "cpu.out")
	var out, progress bytes.Buffer
	is.NoErr(bench(t.Context(), []string{"-rounds", "1", "-time", "5ms", "-run", "^(calls|processes)/1$", "-profile", file}, &out, &progress))
	for _, f := range []string{file, file + ".server"} {
		data, err := os.ReadFile(f)
		is.NoErr(err)
		is.True(len(data) > 0)
	}
	is.Equal(strings.Contains(progress.String(), "gRPC"), false) // typedrpc alone
}

func TestBench_flags(t *testing.T) {
	for _, args := range [][]string{{"-run", "("}, {"-peers", "("}, {"-run", "nothing is named so"}, {"calls"}} {
		is := is.New(t)
		var out bytes.Buffer
		is.True(bench(t.Context(), args, &out, &out) != nil)
	}
	is := is.New(t)
	var out bytes.Buffer
	is.NoErr(bench(t.Context(), []string{"-list", "-run", "stream"}, &out, &out))
	is.True(strings.Contains(out.String(), "items of 64 bytes"))
}
