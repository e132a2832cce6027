package session

import (
	"crypto/rand"
	"encoding/hex"
	"sync"

	"github.com/typedrpc/typedrpc/internal/link"
)

// Registry knows a server's live sessions by their tokens. Tokens are 128
// random bits, bound to a principal, and good for one use: the session that a
// HELLO names is fenced off, whoever still holds its link.
type Registry struct {
	mu      sync.Mutex
	byToken map[string]*entry
}

type entry struct {
	s         *Session
	principal string
	attempt   uint64
}

// Reasons why a session was not resumed.
const (
	ReasonNone    = ""                              // no token was offered
	ReasonUnknown = "no such session"               // spent, guessed, ended, or somebody else's
	ReasonEnded   = "sessions end with their links" // it was yours, and is fenced off now
)

// Replace looks at the token of a HELLO. If it names a live session of the
// same principal, that session's link is closed as superseded: its client has
// stopped reading it. stale reports an attempt older than the session's own,
// which fences nobody and is to be closed itself.
func (r *Registry) Replace(token, principal string, attempt uint64) (reason string, stale bool) {
	if token == "" {
		return ReasonNone, false
	}
	r.mu.Lock()
	old := r.byToken[token]
	switch {
	case old == nil || old.principal != principal:
		r.mu.Unlock()
		return ReasonUnknown, false
	case attempt <= old.attempt:
		r.mu.Unlock()
		return ReasonUnknown, true
	}
	delete(r.byToken, token)
	r.mu.Unlock()
	old.s.Fail(&link.CloseError{Code: CloseSuperseded, Reason: "superseded by a newer link"})
	return ReasonEnded, false
}

// Add registers a session and returns its token.
func (r *Registry) Add(s *Session, principal string, attempt uint64) string {
	var bits [16]byte
	rand.Read(bits[:]) // never fails
	token := hex.EncodeToString(bits[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byToken == nil {
		r.byToken = map[string]*entry{}
	}
	r.byToken[token] = &entry{s, principal, attempt}
	return token
}

// Remove forgets a session that ended.
func (r *Registry) Remove(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byToken, token)
}
