// Package live counts what a test has left running. It imports nothing of the
// module, so that the tests of every room can use it.
package live

import (
	"runtime"
	"strings"
)

// Goroutines returns how many run code of this module. Those of the runtime and
// of other packages come and go by themselves, as for cleanups and the collector.
func Goroutines() int {
	stacks := make([]byte, 1<<20)
	n := runtime.Stack(stacks, true)
	for n == len(stacks) {
		stacks = make([]byte, 2*len(stacks))
		n = runtime.Stack(stacks, true)
	}
	count := 0
	for stack := range strings.SplitSeq(string(stacks[:n]), "\n\n") {
		if strings.Contains(stack, "typedrpc.(*") || strings.Contains(stack, "typedrpc/internal/") {
			count++
		}
	}
	return count
}
