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

// known are the attacks that the server does not stand up to yet, with what does not
// hold: "go run . run -size small -budget 64MiB" makes them all the same. Delete an
// entry when it is mended.
var known = map[string]string{
	"unread-60k":         "replies are made before there is room for them: memory",
	"unread-one-message": "replies are made before there is room for them: memory",
	"unread-sockets":     "replies are made before there is room for them: memory",
	"unread-plain":       "replies are made before there is room for them: memory",
	"unread-batch":       "a batch makes all its replies at once: memory",
	"unread-jsonrpc":     "replies are made before there is room for them: memory",
	"unread-errors":      "errors are made before there is room for them: memory",
	"unread-drip":        "replies are made before there is room for them: memory",
	"unread-back":        "calls that handlers make to a peer that is silent are not counted: memory, honest errors",
	"half-messages":      "a WebSocket message is not counted before it is whole: memory",
	"half-plain":         "a WebSocket message is not counted before it is whole: memory",
	"half-fragments":     "a WebSocket message is not counted before it is whole: memory",
	"slow-messages":      "a WebSocket message is not counted before it is whole: memory",
	"post-batch":         "a batch makes all its replies at once: memory",
	"post-batches":       "the calls of a POST are not counted: memory",
	"post-half":          "a POST's body is not counted: memory",
	"post-chunked":       "a POST's body is not counted: memory",
	"post-unread":        "a POST's answer is not counted: memory",
	"post-notes":         "the notifications of a POST are not counted: memory",
	"metadata-plain":     "metadata counts less than its map costs: memory",
	"metadata-notes":     "the metadata of notifications is not counted: memory",
	"subscriptions-keys": "a subscription has a goroutine of its own",
	"presence-onlookers": "each onlooker has a set of its own: memory",
	"notes-names":        "queued notifications count less than they cost: memory, at the bound",
	"notes-plain":        "queued notifications count less than they cost: memory",
	"notes-over":         "queued notifications count less than they cost: memory",
	"notes-large":        "queued notifications are not in the server's budget: memory",
	"sessions-confirmed": "newcomers evict the session of a client in a tunnel",
	"sessions-heavy":     "what kept sessions hold is not in the server's budget: memory",
	"logs-origins":       "the log has no bound",
	"logs-errors":        "the log has no bound",
	"logs-panics":        "the log has no bound",
	"logs-credentials":   "the log has no bound",
	"handshake-refresh":  "the log has no bound",
	"flood-invalid":      "what cannot be read is answered without a bound: memory",
	"streams-large":      "items of 4 MB: memory, at the bound",
	"shutdown-unread":    "Shutdown returns a second late",
	"shutdown-half":      "Shutdown returns a second late",
	"shutdown-openings":  "what openings and POSTs hold is still there after Shutdown",
	"shutdown-keyed":     "Shutdown returns a second late",
	"origins-two":        "the first Origin decides",
	"origins-sites":      "Sec-Fetch-Site is not looked at",
	"origins-query":      "? and # behind an origin are ignored",
}

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
	p := program{path: built(t), budget: smallBudget}
	places := make(chan struct{}, 2) // at once: they wait more than they work
	tried := map[string]bool{}
	for _, a := range attacks {
		kind, _, _ := strings.Cut(a.name, "-")
		another := tried[kind]
		tried[kind] = true
		t.Run(a.name, func(t *testing.T) {
			is := is.New(t)
			if why, ok := known[a.name]; ok {
				t.Skip("not mended yet: " + why)
			}
			if testing.Short() && another {
				t.Skip("one of each kind with -short")
			}
			t.Parallel()
			places <- struct{}{}
			defer func() { <-places }()
			r := p.measure(t.Context(), a)
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
	for name := range known {
		is.True(seen[name]) // what is known is an attack
	}
}

// TestFaults shows that each bound can fail.
func TestFaults(t *testing.T) {
	ok := result{calls: 1, idle: 20 << 20, peak: 30 << 20}
	for name, change := range map[string]func(r *result){
		"memory":     func(r *result) { r.peak = r.idle + bound(smallBudget) + 1 },
		"killed":     func(r *result) { r.killed = true },
		"errors":     func(r *result) { r.fails = append(r.fails, os.ErrClosed) },
		"silence":    func(r *result) { r.calls = 0 },
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
