package hub

import "iter"

// rooms are a hub's, by the name of their topic and by key. Declarations of one name may
// have other types, so each has rooms of its own: twins, which hear the same messages. Under
// Hub.mu.
type rooms struct {
	named map[string]map[string]*room // the first of the twins
	n     int
}

// twins are all rooms of a name and a key. Those that are newer come first.
func (s *rooms) twins(name, key string) iter.Seq[*room] {
	return func(yield func(*room) bool) {
		for r := s.named[name][key]; r != nil && yield(r); r = r.twin {
		}
	}
}

// of is the room of a declaration, nil: there is none.
func (s *rooms) of(t *Topic, key string) *room {
	for r := range s.twins(t.Decl.Name, key) {
		if r.topic == t {
			return r
		}
	}
	return nil
}

// all are all of them, in no order.
func (s *rooms) all() iter.Seq[*room] {
	return func(yield func(*room) bool) {
		for name, keys := range s.named {
			for key := range keys {
				for r := range s.twins(name, key) {
					if !yield(r) {
						return
					}
				}
			}
		}
	}
}

func (s *rooms) add(r *room) {
	name := r.topic.Decl.Name
	if s.named[name] == nil {
		s.named[name] = map[string]*room{}
	}
	r.twin = s.named[name][r.key]
	s.named[name][r.key] = r
	s.n++
}

// drop takes r out, which is there.
func (s *rooms) drop(r *room) {
	name := r.topic.Decl.Name
	keys := s.named[name]
	s.n--
	if first := keys[r.key]; first != r {
		for first.twin != r {
			first = first.twin
		}
		first.twin = r.twin
		return
	}
	if r.twin != nil {
		keys[r.key] = r.twin
		return
	}
	if delete(keys, r.key); len(keys) == 0 {
		delete(s.named, name)
	}
}
