// Package server has accepted links and the connections that outlive them: drain,
// revoke, origins, HTTP POST and GET. It has sessions without a link kept (accepted.go), is
// told when one is given up, and logs that. It knows no user's types and no codecs, which go by
// their numbers.
package server

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/schema"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/stats"
	"golang.org/x/sync/errgroup"
)

// Identity is who a peer is. It is the API's Identity, whose comment says more, with
// the same fields in the same order.
type Identity struct {
	Subject string
	Expires time.Time
	Context context.Context
}

// Options are what a server is made with. All defaults are filled in.
type Options struct {
	Config          engine.Config // of all connections; Dialect and Posted are the server's to set
	Origins         []string      // besides the server's own
	AnyOrigin       bool
	Compress        bool
	Codecs          []string          // names; a codec's number is its place here, JSONCodec that of the JSON-RPC dialect's
	Subprotocols    map[string]string // the program's own, and those of ours that they stand for
	MaxPlain        int
	MaxKept         int
	MaxKeptBytes    int64
	BeginRate       float64 // 0: any
	ReconnectSpread time.Duration
	Prints          *schema.Prints // of this side's schema; nil: there is none

	// Authenticate asks the program who a peer is. raw and the reply are as they
	// travel; raw is nil where none were sent. nil: everybody may connect.
	Authenticate func(ctx context.Context, r *http.Request, raw []byte, codec int) (Identity, []byte, error)
	// Refusal is what a peer is told of an authentication's error.
	Refusal func(e *status.Error, codec int) wire.ErrorBody
	// Data is an error's data as it was before it travelled.
	Data func(raw []byte, codec int) ([]byte, error)
	// Readable says what a GET may ask for, and a POST that sends items.
	Readable func(name string) (r Readable, known bool)
	// NewConn makes the API's record of a connection; Made tells it the engine's,
	// before anybody knows of it.
	NewConn func(k engine.Keeper, codec int) engine.Owner
	Made    func(o engine.Owner, c *engine.Conn)
	// OnConnect returns what greets a connection on a goroutine of its own, nil:
	// nothing. OnDisconnect is told of its end.
	OnConnect    func(*engine.Conn) (greet func())
	OnDisconnect func(*engine.Conn, error)
	// OnState is told in between of links lost and found; nil: nobody is.
	OnState func(*engine.Conn, Change)
	// Down makes a program's error one of the layers below the API, and Up one of
	// theirs the program's: for the causes with which its contexts end.
	Down, Up func(error) error
}

// JSONCodec is the number of the JSON-RPC dialect's codec.
const JSONCodec = -1

// Server accepts connections.
type Server struct {
	o       Options
	posted  engine.Config // Options.Config of POSTs and GETs …
	streams engine.Config // … that begin streams
	origins []origin

	registry session.Registry

	mu       sync.Mutex
	links    map[*Link]struct{}     // that live
	accepted map[*Accepted]struct{} // connections, with or without a link
	subjects subjects               // the same by whose they are
	checks   map[*check]struct{}    // authentications under way
	posts    map[*exchange]struct{} // POSTs and GETs
	plain    int
	begun    int64      // connections
	past     stats.Load // of those that have ended, and of POSTs: what counts upwards
	draining bool
	ended    chan struct{} // not nil while Shutdown waits: closed when nothing is left
}

// New makes a server. Its error is an origin that is none, or a subprotocol.
func New(o Options) (*Server, error) {
	s := &Server{o: o, links: map[*Link]struct{}{}, accepted: map[*Accepted]struct{}{}, subjects: subjects{}, posts: map[*exchange]struct{}{}, checks: map[*check]struct{}{}}
	s.posted = o.Config
	s.posted.Posted = true
	s.streams = s.posted
	s.streams.Verbs = map[string]*engine.Verb{getVerb: {Get: true, Tells: getVerb}, feedVerb: {Feeds: true}}
	s.o.Config.Lacks = func() string { return "the client to come back" }
	for _, text := range o.Origins {
		parsed, err := parseOrigin(text)
		if err != nil {
			return nil, fmt.Errorf("typedrpc: Server.Origins: %w", err)
		}
		s.origins = append(s.origins, parsed)
	}
	if err := s.checkSubprotocols(); err != nil {
		return nil, err
	}
	s.registry.MaxSessions, s.registry.MaxBytes, s.registry.Rate = o.MaxKept, o.MaxKeptBytes, o.BeginRate
	return s, nil
}

// newConn makes a connection of the API's and the engine's record.
func (s *Server) newConn(base context.Context, k engine.Keeper, d session.Dialect, codec int, cfg *engine.Config) *engine.Conn {
	o := s.o.NewConn(k, codec)
	c := engine.New(base, cfg, d, o, k)
	s.o.Made(o, c)
	return c
}

// Conns are the open connections, also those that have lost their link and are
// kept.
func (s *Server) Conns() []*engine.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*engine.Conn, 0, len(s.accepted))
	for a := range s.accepted {
		if a.open.Load() {
			conns = append(conns, a.conn)
		}
	}
	return conns
}

// ConnsOf are those of them that are of these subjects, each once. It asks no others.
func (s *Server) ConnsOf(subjects ...string) (conns []*engine.Conn) {
	var had map[string]bool
	if len(subjects) > 1 {
		had = make(map[string]bool, len(subjects))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, subject := range subjects {
		if had[subject] {
			continue
		}
		if had != nil {
			had[subject] = true
		}
		for a := s.subjects[subject]; a != nil; a = a.beside.after {
			if a.open.Load() {
				conns = append(conns, a.conn)
			}
		}
	}
	return conns
}

// Shutdown ends the server gracefully: new connections are refused, clients are
// told to come back spread over the window, calls in flight finish, connections
// close. When ctx ends first the rest is closed at once, with any peers: Shutdown
// is back a tenth of a second later at the latest, and what the peers made the
// server hold is free but for handlers that do not return.
func (s *Server) Shutdown(ctx context.Context) (err error) {
	defer func() { // Keyed calls whose sessions were lost
		if !s.o.Config.Detached.End(ctx) && err == nil {
			err = ctx.Err()
		}
	}()
	s.mu.Lock()
	s.draining = true
	if s.ended == nil {
		s.ended = make(chan struct{})
	}
	ended := s.ended
	s.checkEndedLocked()
	var opening []*Link
	for l := range s.links {
		if l.adm.dialect != session.Plain && !l.answered {
			l.refused = true
			opening = append(opening, l)
		}
	}
	conns := slices.Collect(maps.Keys(s.accepted))
	posts := slices.Collect(maps.Keys(s.posts))
	s.mu.Unlock()

	for _, x := range posts {
		x.endStream()
	}
	for _, l := range opening {
		l.carrier.Fail(&link.CloseError{Code: session.CloseRestart, Reason: errDraining.Message})
	}
	defer context.AfterFunc(ctx, func() { time.AfterFunc(engine.LastWords, s.kill) })()
	bye := wire.GoAwayBody{Reason: errDraining.Message, Max: flow.Millis(s.o.ReconnectSpread)}
	var g errgroup.Group
	for _, a := range conns {
		g.Go(func() error { return a.conn.Shutdown(ctx, bye, session.CloseRestart) })
	}
	err = g.Wait()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
	}
	select { // what was dropped ends now
	case <-ended:
	case <-time.After(2 * engine.LastWords):
	}
	return ctx.Err()
}

// kill drops the links that there are, those that are opening too.
func (s *Server) kill() {
	s.mu.Lock()
	links := slices.Collect(maps.Keys(s.links))
	posts := slices.Collect(maps.Keys(s.posts))
	s.mu.Unlock()
	for _, x := range posts {
		x.end(refuse(http.StatusServiceUnavailable, "%s", errDraining.Message), errDraining)
	}
	for _, l := range links {
		l.carrier.Kill(&link.CloseError{Code: session.CloseRestart, Reason: errDraining.Message, Err: context.DeadlineExceeded})
	}
}

func (s *Server) checkEndedLocked() {
	if s.ended != nil && len(s.links) == 0 && len(s.accepted) == 0 && len(s.posts) == 0 {
		select {
		case <-s.ended:
		default:
			close(s.ended)
		}
	}
}

// check is an authentication under way, for Revoke to know of.
type check struct{ revoked map[string]*Parting }

func (s *Server) beginCheck() *check {
	c := new(check)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[c] = struct{}{}
	return c
}

func (s *Server) endCheck(c *check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.checks, c)
}

// owned ends the check of a POST, whose subject is known from now on. It returns with what
// that was revoked meanwhile, nil: it was not.
func (s *Server) owned(x *exchange, subject string, c *check) *Parting {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.checks, c)
	x.subject = &subject
	return c.revoked[subject]
}

// Revoke closes all connections of a subject at once, as p says, and returns how many. nil
// says no more than that. What came of it over HTTP POST ends, too.
func (s *Server) Revoke(subject string, p *Parting) int {
	if p == nil {
		p = revoked
	}
	s.mu.Lock()
	for c := range s.checks {
		if c.revoked == nil {
			c.revoked = map[string]*Parting{}
		}
		c.revoked[subject] = p
	}
	all := s.subjects.of(subject)
	posts := slices.Collect(maps.Keys(s.posts))
	posts = slices.DeleteFunc(posts, func(x *exchange) bool { return x.subject == nil || *x.subject != subject })
	s.mu.Unlock()
	for _, x := range posts {
		x.end(p.refusal(), errRevoked)
	}
	defer s.o.Config.Detached.Revoke(subject) // Keyed handlers whose sessions were lost
	for _, a := range all {
		a.bar(p)
		s.registry.Remove(a.sess)
		a.conn.Expel(p.end(session.CloseUnauthed, a.codec))
	}
	return len(all)
}

// Snapshot is what tests see of a server.
type Snapshot struct {
	Links     int   // that live
	Accepted  int   // connections, with or without a link
	Checks    int   // authentications under way
	Plain     int   // connections of plain peers
	Budget    int64 // bytes that all connections hold
	Left      int64 // bytes that those which ended had not given back
	Promised  int64 // bytes that handlers may still answer
	Kept      int   // sessions without a link …
	KeptBytes int64 // … and the bytes that they held when they were last asked
	Detached  int   // handlers of keyed calls whose sessions were lost
}

// Snapshot is what the server holds at this moment.
func (s *Server) Snapshot() Snapshot {
	s.mu.Lock()
	sums := Snapshot{
		Links: len(s.links), Accepted: len(s.accepted), Checks: len(s.checks), Plain: s.plain, Budget: s.o.Config.Ledger.Used(), Left: s.o.Config.Ledger.Left(), Promised: s.o.Config.Ledger.Promised(),
	}
	s.mu.Unlock()
	sums.Kept, sums.KeptBytes = s.registry.Away()
	sums.Detached = s.o.Config.Detached.Len()
	return sums
}
