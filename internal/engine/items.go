package engine

import (
	"cmp"
	"slices"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// item is a frame that waits to be taken by the writer, or the place of a line
// among such frames.
type item struct {
	prev, next *item
	list       *items

	*content
	call  *Call   // CALL: whose it is
	turn  *Stream // the turn of its line; all else is zero, and content nil
	cost  int     // bytes of a budget: the peer's for a CALL, our own for the rest
	sent  int32   // bytes of the payload that left in fragments
	depth int16   // of the payload, as JSON; of what may go to another peer than it was made for
	whole bool    // body is a whole message, not a payload

	ordered bool // NOTIFY, and CALL of a Serial method: they do not overtake each other
}

// content is what an item sends.
type content struct {
	frame wire.Frame
	body  *buf.Buf // one reference; nil: no payload
}

// parcel is an item with its content.
type parcel struct {
	item    item
	content content
}

// pack fills a parcel, which costs some bytes of our own budget.
func (p *parcel) pack(f wire.Frame, body *buf.Buf, cost int) *item {
	p.content = content{f, body}
	p.item = item{content: &p.content, cost: cost}
	return &p.item
}

// items is a queue that an item can leave from anywhere. The zero value is
// empty.
type items struct {
	head, tail *item
	len        int
}

func (l *items) push(it *item) {
	it.list, it.prev, it.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = it
	} else {
		l.head = it
	}
	l.tail = it
	l.len++
}

// insert puts it before at; a nil at is the end.
func (l *items) insert(it, at *item) {
	if at == nil {
		l.push(it)
		return
	}
	it.list, it.prev, it.next = l, at.prev, at
	if at.prev != nil {
		at.prev.next = it
	} else {
		l.head = it
	}
	at.prev = it
	l.len++
}

// sort brings calls into the order in which they were made.
func (l *items) sort() {
	var all []*item
	for it := l.pop(); it != nil; it = l.pop() {
		all = append(all, it)
	}
	slices.SortStableFunc(all, func(a, b *item) int {
		return cmp.Compare(a.call.rank, b.call.rank)
	})
	for _, it := range all {
		l.push(it)
	}
}

func (l *items) pop() *item {
	it := l.head
	if it != nil {
		l.remove(it)
	}
	return it
}

func (l *items) remove(it *item) {
	if it.prev != nil {
		it.prev.next = it.next
	} else {
		l.head = it.next
	}
	if it.next != nil {
		it.next.prev = it.prev
	} else {
		l.tail = it.prev
	}
	it.list, it.prev, it.next = nil, nil, nil
	l.len--
}

// prepend moves all of o, in order, to the front of l.
func (l *items) prepend(o *items) {
	for it := l.pop(); it != nil; it = l.pop() {
		o.push(it)
	}
	*l = *o
	*o = items{}
	for it := l.head; it != nil; it = it.next {
		it.list = l
	}
}
