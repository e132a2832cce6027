package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const header = "| attack | peak RSS | goroutines | CPU s | log | honest p50 | p99 (idle) | errors | after: heap | goroutines | ledger | back in | outside the bounds | notes |\n" +
	"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"

// mostLog is what one attack may have logged.
const mostLog = 1 << 20

// bound is the most that a server may have resident over what it has when idle.
func bound(budget int64) int64 { return budget*3/2 + 100_000_000 }

// faults are the bounds that did not hold.
func (r *result) faults(budget int64) (list []string) {
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if r.killed {
		add("killed at %s", megabytes(mostMemory))
		return list
	}
	if r.broken != nil {
		add("broken off: %v", r.broken)
		return list
	}
	if grown := r.peak - r.idle; grown > bound(budget) {
		add("memory: %s over idle, %s are allowed", megabytes(grown), megabytes(bound(budget)))
	}
	if len(r.honest.Fails) > 0 {
		add("honest errors: %d, first: %.150v", len(r.honest.Fails), r.honest.Fails[0])
	}
	if r.honest.Calls == 0 {
		add("no honest call was answered")
	}
	if most := r.attack.goroutines; most > 0 && r.worst.Now > most {
		add("goroutines: %d, %d are allowed", r.worst.Now, most)
	}
	if r.worst.LogBytes > mostLog {
		add("log: %s", megabytes(r.worst.LogBytes))
	}
	if r.beside != nil {
		add("%v", r.beside)
	}
	if r.attack.ends {
		return list
	}
	if r.after.Heap > r.after.mostHeap(r.base) {
		add("heap: %s after, %s before", megabytes(int64(r.after.Heap)), megabytes(int64(r.base.Heap)))
	}
	if r.after.Now > r.base.Now+slackGoroutines {
		add("goroutines: %d after, %d before", r.after.Now, r.base.Now)
	}
	if r.after.Ledger != 0 {
		add("ledger: %d bytes after", r.after.Ledger)
	}
	return list
}

// row is the table's row.
func (r *result) row(budget int64) string {
	notes := r.notes
	if n := len(r.honest.Lost); n > 0 {
		notes = append(notes, fmt.Sprintf("the honest link was lost %d times, first: %v", n, r.honest.Lost[0]))
	}
	back := "no"
	switch {
	case r.attack.ends, r.killed, r.broken != nil:
		back = "-"
	case r.back >= 0:
		back = fmt.Sprintf("%.1f s", r.back.Seconds())
	}
	after := []string{megabytes(int64(r.after.Heap)), fmt.Sprint(r.after.Now), fmt.Sprint(r.after.Ledger)}
	if r.attack.ends || r.killed || r.broken != nil {
		after = []string{"-", "-", "-"}
	}
	cells := slices.Concat([]string{
		r.attack.name, megabytes(r.peak), fmt.Sprint(r.worst.Most), fmt.Sprintf("%.1f", r.cpu.Seconds()), megabytes(r.worst.LogBytes),
		millis(r.honest.P50), fmt.Sprintf("%s (%s)", millis(r.honest.P99), millis(r.idleP99)), fmt.Sprint(len(r.honest.Fails)),
	}, after, []string{back, strings.Join(r.faults(budget), "; "), strings.Join(notes, "; ")})
	for i := range cells {
		cells[i] = strings.NewReplacer("|", "/", "\n", "; ").Replace(cells[i])
	}
	return "| " + strings.Join(cells, " | ") + " |"
}

func megabytes(n int64) string {
	if n < 10_000_000 {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%d MB", n/1e6)
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
