package server

// subjects finds the connections of a subject without asking all of them: for each a
// list, whose links are in the connections. Under Server.mu.
type subjects map[string]*Accepted

// beside are the neighbours of a connection in the list of its subject.
type beside struct{ before, after *Accepted }

// add lists a as its subject's, for as long as it lives: that never changes.
func (s subjects) add(a *Accepted) {
	name := a.Identity().Subject
	head := s[name]
	if head != nil {
		head.beside.before = a
	}
	a.beside = beside{after: head}
	s[name] = a
}

// remove takes off the list what is on it.
func (s subjects) remove(a *Accepted) {
	before, after := a.beside.before, a.beside.after
	switch {
	case before != nil:
		before.beside.after = after
	case after != nil:
		s[a.Identity().Subject] = after
	default:
		delete(s, a.Identity().Subject)
	}
	if after != nil {
		after.beside.before = before
	}
	a.beside = beside{}
}

// of are a subject's connections, the newest first.
func (s subjects) of(subject string) (all []*Accepted) {
	for a := s[subject]; a != nil; a = a.beside.after {
		all = append(all, a)
	}
	return all
}
