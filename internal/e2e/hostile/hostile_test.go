package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// smallBudget is the server's in tests.
const smallBudget = 64 << 20

// built is the program, without the race detector, which would be measured
// otherwise: its shadow memory is many times what the server has.
func built(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hostile")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func TestHostile(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("there is no /proc to measure with")
	}
	if os.Getenv("TYPEDRPC_HOSTILE") != "1" {
		t.Skip("it measures, and wants the machine for itself: TYPEDRPC_HOSTILE=1, as ./.ci/run hostile has it")
	}
	p := program{path: built(t), budget: smallBudget}
	places := make(chan struct{}, 1) // one at a time: they measure
	tried := map[string]bool{}
	for _, a := range attacks {
		kind, _, _ := strings.Cut(a.name, "-")
		another := tried[kind]
		tried[kind] = true
		t.Run(a.name, func(t *testing.T) {
			is := is.New(t)
			if testing.Short() && another {
				t.Skip("one of each kind with -short")
			}
			t.Parallel()
			places <- struct{}{}
			defer func() { <-places }()
			r := p.measure(t.Context(), a)
			for range 2 { // the machine may have been busy: what is a fault is one three times
				if len(r.faults(smallBudget)) == 0 && r.broken == nil {
					break
				}
				t.Log("\n" + header + "\n" + r.row(smallBudget))
				r = p.measure(t.Context(), a)
			}
			t.Log("\n" + header + "\n" + r.row(smallBudget))
			for _, fault := range r.faults(smallBudget) {
				t.Error(fault)
			}
			is.True(r.broken == nil) // the attack was made
		})
	}
}

// TestAttacks keeps the table in order.
func TestAttacks(t *testing.T) {
	is := is.New(t)
	is.True(len(attacks) > 40)
	seen := map[string]bool{}
	for _, a := range attacks {
		is.True(!seen[a.name]) // a name is used once
		is.True(a.what != "" && a.run != nil)
		seen[a.name] = true
	}
}

// TestFaults shows that each bound can fail.
func TestFaults(t *testing.T) {
	ok := result{honest: report{Calls: 1}, idle: 20 << 20, peak: 30 << 20}
	for name, change := range map[string]func(r *result){
		"memory":     func(r *result) { r.peak = r.idle + bound(smallBudget) + 1 },
		"killed":     func(r *result) { r.killed = true },
		"errors":     func(r *result) { r.honest.Fails = []string{"failed"} },
		"silence":    func(r *result) { r.honest.Calls = 0 },
		"heap":       func(r *result) { r.after.Heap = slackHeap + 1 },
		"goroutines": func(r *result) { r.after.Now = slackGoroutines + 1 },
		"ledger":     func(r *result) { r.after.Ledger = 1 },
		"crowd":      func(r *result) { r.attack.goroutines, r.worst.Now = 1, 2 },
		"log":        func(r *result) { r.worst.LogBytes = mostLog + 1 },
		"beside":     func(r *result) { r.beside = os.ErrClosed },
		"broken":     func(r *result) { r.broken = os.ErrClosed },
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			r := ok
			is.Equal(fmt.Sprint(r.faults(smallBudget)), "[]")
			change(&r)
			is.Equal(len(r.faults(smallBudget)), 1)
		})
	}
}
