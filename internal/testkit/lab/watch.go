package lab

import (
	"slices"
	"sync"

	"github.com/typedrpc/typedrpc"
)

// Watch collects the states of a connection.
type Watch struct {
	mu     sync.Mutex
	states []typedrpc.StateChange
}

func (w *Watch) On(s typedrpc.StateChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = append(w.states, s)
}

func (w *Watch) Seen() []typedrpc.StateChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.states)
}

func (w *Watch) Last() typedrpc.StateChange {
	all := w.Seen()
	return all[len(all)-1]
}
