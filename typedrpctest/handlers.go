package typedrpctest

import (
	"bytes"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Handlers that go on when their connections are closed. In a bubble time stands still
// when its function has returned, and one that sleeps has the bubble panic with a text
// that names nobody.

// pairs counts those that are open, by their bubble: the last one's end waits.
var pairs struct {
	sync.Mutex
	open map[string]int
}

func opened(bubble string) {
	pairs.Lock()
	defer pairs.Unlock()
	if pairs.open == nil {
		pairs.open = map[string]int{}
	}
	pairs.open[bubble]++
}

// closed reports whether that was the last one.
func closed(bubble string) bool {
	pairs.Lock()
	defer pairs.Unlock()
	if pairs.open[bubble]--; pairs.open[bubble] > 0 {
		return false
	}
	delete(pairs.open, bubble)
	return true
}

// bubbled finds what the runtime calls a goroutine's bubble.
var bubbled = regexp.MustCompile(`^goroutine \d+ [^\n]*(synctest bubble \d+)\]`)

// bubble is the one that this goroutine is in, "": none.
func bubble() string {
	header := make([]byte, 256)
	if m := bubbled.FindSubmatch(header[:runtime.Stack(header, false)]); m != nil {
		return string(m[1])
	}
	return ""
}

// patience is how long, in its time, a bubble waits for handlers.
const patience = 24 * time.Hour

// outlast waits until no handler runs in the bubble, and says which do after all.
func outlast(t testing.TB, bubble string) {
	t.Helper()
	var left []string
	for wait := time.Millisecond; wait < patience; wait *= 2 {
		synctest.Wait()
		if left = running(bubble); left == nil {
			return
		}
		time.Sleep(wait)
	}
	t.Logf("typedrpctest.Pair: the connections are closed for a day, and %d handlers or callbacks still run. A bubble waits for all of its goroutines: have each end with its context, or when its test says so, before the bubble's function returns.\n\n%s", len(left), strings.Join(left, "\n\n"))
}

// running are the stacks of the goroutines of a bubble that run a program's functions.
func running(bubble string) (stacks []string) {
	all := make([]byte, 1<<20)
	all = all[:runtime.Stack(all, true)]
	for stack := range bytes.SplitSeq(all, []byte("\n\n")) {
		m := bubbled.FindSubmatch(stack)
		if m == nil || string(m[1]) != bubble {
			continue
		}
		if bytes.Contains(stack, []byte("typedrpc.owner.Run(")) || bytes.Contains(stack, []byte("typedrpc.(*options).callback(")) {
			stacks = append(stacks, string(stack))
		}
	}
	return stacks
}
