package hub

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc/internal/status"
)

// said is what a hub says of a member beside its subject. Of what several hubs say
// of one subject the latest counts.
type said struct {
	Text string `json:"text,omitempty"`
	At   int64  `json:"at"` // milliseconds since 1970
}

func (s said) later(than said) bool {
	return s.At > than.At || s.At == than.At && s.Text > than.Text
}

// maxAbout bounds it: it is kept for each member, and sent to everybody who looks on.
const maxAbout = 255

// aboutCost is what it takes beside its bytes, where a subscription brings it.
const aboutCost = 160

// CheckAbout says why that cannot be said of a member.
func CheckAbout(text string) *status.Error {
	switch {
	case len(text) > maxAbout:
		return status.Errorf(status.InvalidArgument, "what is said of a member has %d bytes, at most %d are allowed", len(text), maxAbout)
	case !utf8.ValidString(text):
		return status.Errorf(status.InvalidArgument, "what is said of a member is not UTF-8")
	}
	return nil
}

// Say changes what is said of a subject that subscribes to a key at this hub.
func (h *Hub) Say(t *Topic, key, subject, text string) error {
	if err := CheckAbout(text); err != nil {
		return err
	}
	r, err := h.lookup(t, key)
	if err != nil {
		return err
	}
	if r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.here.of(subject) > 0 {
			r.sayLocked(subject, text)
			return nil
		}
	}
	return status.Errorf(status.NotFound, "%.100q does not subscribe to that key of %q at this hub", subject, t.Decl.Name)
}

// sayLocked notes what this hub says of a subject that is here, or about to be.
func (r *room) sayLocked(subject, text string) {
	if r.saidLocked(subject).Text == text {
		return
	}
	r.spoken = true
	r.newsLocked(subject, func() {
		if r.said == nil {
			r.said = map[string]said{}
		}
		// Later than all that is known here, whatever others' clocks say.
		r.said[subject] = said{text, max(time.Now().UnixMilli(), r.saidLocked(subject).At+1)}
	})
	if r.here.of(subject) > 0 {
		r.changedLocked(subject)
	}
}

// about is what a notice says of a subject.
func (m *notice) about(subject string) said {
	if s := m.About[subject]; CheckAbout(s.Text) == nil {
		return s
	}
	return said{}
}

// saidLocked is what is said of a subject, by any hub that has it.
func (r *room) saidLocked(subject string) said {
	s := r.said[subject]
	for _, n := range r.nodes {
		if o := n.members[subject]; o.later(s) {
			s = o
		}
	}
	return s
}

// newsLocked makes a change that concerns a subject, and tells those who look on if
// something else is said of it then, though it neither came nor left.
func (r *room) newsLocked(subject string, make func()) {
	if !r.spoken {
		make()
		return
	}
	was, before, moved := r.presentAnywhereLocked(subject), r.saidLocked(subject).Text, r.last[subject] != 0
	make()
	switch is := r.presentAnywhereLocked(subject); {
	case !is:
	case was && r.saidLocked(subject).Text != before:
		r.logLocked(change{subject: subject, again: true})
	case !was && moved: // who is behind need not be told that it was away
		r.logLocked(change{subject: subject, again: true})
	}
}

func (r *room) presentAnywhereLocked(subject string) bool {
	return r.here.of(subject) > 0 || r.elsewhereLocked(subject, nil)
}

// tellsLocked reports whether whoever comes to c, a change of what is said of a subject,
// is to be told of it: a later one tells what is said now, and one who left has come back
// with a change of its own, or not at all.
func (r *room) tellsLocked(c *change) bool {
	return c.next == 0 && r.again[c.subject] == c.at && r.presentAnywhereLocked(c.subject)
}

// text is a member as presence tells it (PROTOCOL.md section 1.4).
func (m *member) text() string {
	switch {
	case m.left:
		return "-" + m.subject
	case m.about == "" && !m.changed:
		return "+" + m.subject
	}
	sign := "*"
	if m.changed {
		sign = "="
	}
	return sign + strconv.Itoa(len(m.subject)) + ":" + m.subject + m.about
}

// Told is a member as presence tells it.
type Told struct {
	Subject, About string
	Left, Changed  bool
}

// ReadTold reads what text wrote. It reports false for what it cannot be.
func ReadTold(text string) (t Told, ok bool) {
	if text == "" {
		return t, false
	}
	rest := text[1:]
	switch text[0] {
	case '+':
		t.Subject = rest
		return t, true
	case '-':
		t.Subject, t.Left = rest, true
		return t, true
	case '*', '=':
		t.Changed = text[0] == '='
		size, rest, found := strings.Cut(rest, ":")
		n, err := strconv.ParseUint(size, 10, 31)
		if !found || err != nil || n > uint64(len(rest)) {
			return t, false
		}
		t.Subject, t.About = rest[:n], rest[n:]
		return t, true
	}
	return t, false
}
