package flow

// MessageOverhead is what every message counts beside the bytes of its payload
// and its metadata, so that empty ones are bounded too (PROTOCOL.md section 3).
const MessageOverhead = 64

// Sender is the sender's side of a window: of a stream, or of the notifications.
type Sender struct {
	Window int         // bytes granted; 0: without limit, a plain peer
	Used   int         // bytes sent or queued, and not credited
	Sizes  Ring[int32] // of what was sent, oldest first
	told   int         // bytes of Sizes, by Grown
}

// Slack is the part of a window that may be out and yet count as nothing: beside it one
// message of any size may go. It is what a receiver need not return at once for what has
// been consumed (PROTOCOL.md section 3).
func Slack(window int) int { return window / 16 }

// Fits reports whether one more message of cost bytes may go: whatever its size, while
// no more than the slack is out.
func (f *Sender) Fits(cost int) bool {
	return f.Window == 0 || f.Used <= Slack(f.Window) || f.Used+cost <= f.Window
}

// Counted notes a message that left.
func (f *Sender) Counted(cost int) {
	if f.Window > 0 {
		f.Sizes.Push(int32(cost)) // a message is bounded
	}
}

// Grown returns by how many bytes more, or fewer, Sizes takes than when it was last asked. What a
// few messages take is none: whoever has the Sender has counted that.
func (f *Sender) Grown() int {
	n := 0
	if size := f.Sizes.Cap(); size > 2*ringKept {
		n = 4 * size
	}
	had := f.told
	f.told = n
	return n - had
}

// Forget forgets what the peer owes, and returns what Grown does.
func (f *Sender) Forget() int {
	f.Used, f.Sizes = 0, Ring[int32]{}
	return f.Grown()
}

// Credit takes back n messages and returns their bytes; it reports false if
// they were never sent.
func (f *Sender) Credit(n uint64) (bytes int, ok bool) {
	switch {
	case n == 0: // of a window alone; nothing is written to, which may be shared
		return 0, true
	case n > uint64(f.Sizes.Len()):
		return 0, false
	}
	for ; n > 0; n-- {
		bytes += int(f.Sizes.Pop())
	}
	f.Used -= bytes
	return bytes, true
}
