package session

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Why a session that was kept is over.
var (
	ErrGrace   = errors.New("the link did not come back within the session's grace time")
	ErrEvicted = errors.New("the server kept too many sessions without a link, or too many bytes for them")
)

// Reasons why a session was not resumed.
const (
	ReasonNone    = ""                              // no token was offered
	ReasonUnknown = "no such session"               // spent, guessed, ended, or somebody else's
	ReasonEnded   = "sessions end with their links" // it was yours, and is fenced off now
	ReasonDiffers = "subprotocol, limits or features differ from the session's"
)

// ErrTooOften refuses a client that resumes again and again.
var ErrTooOften = errors.New("the session is being resumed too often")

// errStale closes a link whose HELLO came late.
var errStale = &link.CloseError{Code: CloseSuperseded, Reason: "a newer attempt has been made"}

// A session may be resumed so often at once, and then so often a second.
const (
	resumeBurst = 100
	resumeRate  = 10
)

// Terms are fixed for the life of a session.
type Terms struct {
	Subprotocol string
	Limits      wire.Limits
	Features    string // or a hash of their names
}

// Claim is what a HELLO says of the session that it wants.
type Claim struct {
	Principal string
	Owner     string // whom the session is counted for: the principal, or else an address
	Client    string
	Token     string // "": a new session
	Attempt   uint64
	Received  uint64
	Terms     Terms
}

// Registry knows a server's sessions by their tokens, and keeps those that have
// no link for a time. Tokens are 128 random bits, bound to a principal. At most
// two of a session are valid: the one that its client has confirmed, and the one
// that it is offered. The zero value is ready; its exported fields are set
// before it is used.
type Registry struct {
	// MaxSessions and MaxBytes bound the sessions without a link together.
	// When they are passed, those of least worth are given up: see kept.go.
	MaxSessions int
	MaxBytes    int64
	// Rate is how many sessions an owner may begin a second, and ten times as
	// many at once; 0: any number.
	Rate float64

	mu       sync.Mutex
	byToken  map[string]*entry
	byClient map[string]*entry   // of clients that may not have got their token
	barred   map[string]*Barred  // by token: of clients that were told to stay away
	entries  map[*Session]*entry // all
	kept
	begun rates
}

type entry struct {
	s                  *Session
	claim              Claim
	confirmed, offered string
	level              float64 // of resumes, a leaky bucket
	at                 time.Time
	doomed             error // why it is to end, when whoever has its link tells
	bar                *Barred

	stay // without a link
}

func (e *entry) client() string { return e.claim.Principal + "\x00" + e.claim.Client }

// settleLocked spends the older token when the newer one was confirmed.
func (r *Registry) settleLocked(e *entry) {
	if e.offered == "" || !e.s.Heard() {
		return
	}
	r.confirmLocked(e)
}

func (r *Registry) confirmLocked(e *entry) {
	delete(r.byToken, e.confirmed)
	e.confirmed, e.offered = e.offered, ""
	if r.byClient[e.client()] == e {
		delete(r.byClient, e.client())
	}
	r.gradeLocked(e)
}

func (r *Registry) offerLocked(e *entry) {
	if e.offered == "" {
		var bits [16]byte
		rand.Read(bits[:]) // never fails
		e.offered = hex.EncodeToString(bits[:])
		r.byToken[e.offered] = e
	}
}

// Resume gives the session that q claims to c, and sends w there with what is
// the session's to say. It returns nil and the reason if the client has to have a
// new session. An error refuses the link: a *link.CloseError is what to close it
// with, ErrTooOften asks it to come later.
//
// A session that cannot be resumed by anybody is ended, if q was right to claim
// it: its client has stopped reading it.
func (r *Registry) Resume(c *Carrier, q Claim, w wire.WelcomeBody) (s *Session, reason string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.byToken[q.Token]
	if e != nil {
		r.settleLocked(e)
	}
	if b := r.barred[q.Token]; b != nil && b.principal == q.Principal {
		return nil, "", b
	}
	switch {
	case q.Token == "":
		return nil, ReasonNone, r.ghostLocked(q)
	case e == nil || e.claim.Principal != q.Principal || q.Token != e.confirmed && q.Token != e.offered:
		return nil, ReasonUnknown, r.ghostLocked(q)
	case q.Attempt <= e.claim.Attempt:
		return nil, "", errStale
	}
	if q.Token == e.offered {
		r.confirmLocked(e)
	}
	switch {
	case !e.s.Resumable():
		r.endLocked(e, errFenced)
		return nil, ReasonEnded, nil
	case q.Terms != e.claim.Terms:
		return nil, ReasonDiffers, r.ghostLocked(q)
	case !e.mayResume(time.Now()):
		return nil, "", ErrTooOften
	}
	err = e.s.Attach(c, q.Received, func(received uint64) wire.WelcomeBody {
		r.offerLocked(e) // not before: what nobody was told cannot be confirmed
		w.Token, w.Resumed, w.Received = e.offered, true, received
		return w
	})
	if err == ErrEnded {
		if e.bar != nil {
			return nil, "", e.bar
		}
		return nil, ReasonUnknown, nil
	}
	if err != nil {
		return nil, "", err
	}
	e.claim.Attempt, e.claim.Owner = q.Attempt, q.Owner // it may have another address
	r.returnLocked(e)
	return e.s, "", nil
}

func (e *entry) mayResume(now time.Time) bool {
	e.level = max(0, e.level-now.Sub(e.at).Seconds()*resumeRate) + 1
	e.at = now
	if e.level > resumeBurst {
		e.level--
		return false
	}
	return true
}

// ghostLocked ends the session of a client that never got its WELCOME, and asks
// for another one.
func (r *Registry) ghostLocked(q Claim) error {
	if q.Client == "" {
		return nil
	}
	e := r.byClient[q.Principal+"\x00"+q.Client]
	if e == nil {
		return nil
	}
	r.settleLocked(e)
	switch {
	case e.confirmed != "": // in this moment
		return nil
	case q.Attempt <= e.claim.Attempt:
		return errStale
	}
	r.endLocked(e, errFenced)
	return nil
}

// Add registers a session, which has no link yet, and returns its token. If a
// later HELLO of the same client was faster the session ends with its first
// WELCOME.
func (r *Registry) Add(s *Session, q Claim) (token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byToken == nil {
		r.byToken, r.byClient, r.entries = map[string]*entry{}, map[string]*entry{}, map[*Session]*entry{}
	}
	q.Token = "" // it has served, and may be as long as the client likes
	e := &entry{s: s, claim: q}
	r.entries[s] = e
	r.offerLocked(e)
	token = e.offered
	switch { // again: Resume was a while ago
	case r.ghostLocked(q) != nil:
		r.endLocked(e, errStale)
	case q.Client != "":
		r.byClient[e.client()] = e
	}
	return token
}

// Remove forgets a session that ended.
func (r *Registry) Remove(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[s]; e != nil {
		r.forgetLocked(e)
	}
}

func (r *Registry) forgetLocked(e *entry) {
	r.returnLocked(e)
	delete(r.entries, e.s)
	r.barLocked(e)
	delete(r.byToken, e.confirmed)
	delete(r.byToken, e.offered)
	if r.byClient[e.client()] == e {
		delete(r.byClient, e.client())
	}
}
