package hub

import (
	"container/list"
	"iter"
	"maps"
	"slices"
)

// rooms are a hub's, by the name of their topic and by key. Declarations of one name may
// have other types, so each has rooms of its own: twins, which hear the same messages. Under
// Hub.mu.
type rooms struct {
	named map[string][]*declared // newer ones first
	n     int
}

// declared is what all rooms of one declaration have in common.
type declared struct {
	hub   *Hub
	topic *Topic
	keys  map[string]*room // under Hub.mu
}

// twins are all rooms of a name and a key, in one order for all who ask.
func (s *rooms) twins(name, key string) iter.Seq[*room] {
	return func(yield func(*room) bool) {
		for _, d := range s.named[name] {
			if r := d.keys[key]; r != nil && !yield(r) {
				return
			}
		}
	}
}

func (s *rooms) declared(t *Topic) *declared {
	for _, d := range s.named[t.Decl.Name] {
		if d.topic == t {
			return d
		}
	}
	return nil
}

// of is the room of a declaration, nil: there is none.
func (s *rooms) of(t *Topic, key string) *room {
	if d := s.declared(t); d != nil {
		return d.keys[key]
	}
	return nil
}

// all are all of them, in no order.
func (s *rooms) all() iter.Seq[*room] {
	return func(yield func(*room) bool) {
		for _, ds := range s.named {
			for _, d := range ds {
				for r := range maps.Values(d.keys) {
					if !yield(r) {
						return
					}
				}
			}
		}
	}
}

// add makes the room of a declaration that has none for the key.
func (s *rooms) add(h *Hub, t *Topic, key string) *room {
	d := s.declared(t)
	if d == nil {
		d = &declared{h, t, map[string]*room{}}
		s.named[t.Decl.Name] = slices.Insert(s.named[t.Decl.Name], 0, d)
	}
	r := newRoom(d, key)
	d.keys[r.key] = r
	s.n++
	return r
}

// drop takes r out, which is there.
func (s *rooms) drop(r *room) {
	s.n--
	if delete(r.keys, r.key); len(r.keys) > 0 {
		return
	}
	name := r.topic.Decl.Name
	others := slices.DeleteFunc(s.named[name], func(d *declared) bool { return d == r.declared })
	if s.named[name] = others; len(others) == 0 {
		delete(s.named, name)
	}
}

// idle are the rooms that are kept for their history alone, the last used first. They are
// few, and a room does not know its place among them. Under Hub.mu.
type idle struct {
	list.List
	at map[*room]*list.Element
}

func (i *idle) add(r *room) { i.at[r] = i.PushFront(r) }

// remove takes r out, if it is there.
func (i *idle) remove(r *room) {
	if e := i.at[r]; e != nil {
		i.Remove(e)
		delete(i.at, r)
	}
}

// oldest is the one that was not used for longest, but for one; nil: there is no other.
func (i *idle) oldest(but *room) *room {
	for e := i.Back(); e != nil; e = e.Prev() {
		if r := e.Value.(*room); r != but {
			return r
		}
	}
	return nil
}

func (i *idle) all() iter.Seq[*room] { return maps.Keys(i.at) }
