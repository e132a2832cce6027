package engine

import "sync"

// Teller tells a function of the program's one thing after another, on a goroutine that
// lives while there is something to tell: so the function may use, and close, the
// connection. The zero value is ready.
type Teller[T any] struct {
	// Most bounds what waits to be told: beyond it the oldest is not. 0: any number.
	Most int

	mu    sync.Mutex
	queue []T
	busy  bool
	told  sync.WaitGroup
}

// Tell has f be called with v, after what was told before.
func (t *Teller[T]) Tell(f func(T), v T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Most > 0 && len(t.queue) == t.Most {
		t.queue = t.queue[1:]
	}
	t.queue = append(t.queue, v)
	if !t.busy {
		t.busy = true
		t.told.Add(1)
		go t.tell(f)
	}
}

// Wait returns when all was told. Nothing more may be.
func (t *Teller[T]) Wait() { t.told.Wait() }

func (t *Teller[T]) tell(f func(T)) {
	rested := false
	defer func() {
		if !rested { // f ended this goroutine: go on with another
			go t.tell(f)
		}
	}()
	for {
		t.mu.Lock()
		if len(t.queue) == 0 {
			t.busy, t.queue = false, nil
			t.told.Done()
			t.mu.Unlock()
			rested = true
			return
		}
		v := t.queue[0]
		t.queue = t.queue[1:]
		t.mu.Unlock()
		f(v)
	}
}
