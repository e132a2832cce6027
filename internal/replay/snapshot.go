package replay

// Snapshot is what tests see of a cache.
type Snapshot struct {
	ID      string
	Entries int
	Aging   int   // of them, those that have an answer
	Shares  int   // authenticated subjects that have any
	Used    int   // entries that are counted, …
	Bytes   int64 // … and their bytes
}

// Snapshot is what the cache holds at this moment.
func (c *Cache) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Snapshot{
		ID: c.id, Entries: len(c.entries), Aging: c.aging.Len(), Shares: len(c.shares), Used: c.total.entries, Bytes: c.total.bytes,
	}
}

// Len is how many runs there are.
func (d *Detached) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.runs)
}
