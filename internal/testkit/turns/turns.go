// Package turns counts how often code gives way.
package turns

import (
	"runtime"
	"sync/atomic"
)

// Had is how often somebody else is let run while f works, on one processor. What f needs
// has to be there before.
func Had(f func()) int64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var n atomic.Int64
	var over atomic.Bool
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for !over.Load() {
			n.Add(1)
			runtime.Gosched()
		}
	}()
	runtime.Gosched()
	n.Store(0)
	f()
	had := n.Load()
	over.Store(true)
	<-stopped
	return had
}
