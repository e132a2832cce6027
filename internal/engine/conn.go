package engine

import (
	"context"
	"log/slog"
	"sync"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/stats"
)

// Conn is a connection to a peer, by its bytes: the parts, which hold what there
// is, and one lock over all of them.
//
// A part owns its fields, has no lock and no pointer to Conn, and is changed
// under Conn.mu alone. What touches three parts stands on Conn: a call that came
// (called), an answer (answered), a call that is given up (abandon), what leaves
// next (take), a session that begins or is lost (Opened, Lost), and the end
// (close). Conn.mu is never held across I/O, encoding or user code; functions
// that need it held end in Locked. The writer is woken, and calls are settled,
// after it was given back, in this order: see unlockAndWake.
//
// All exported methods may be called by any goroutine at any time, unless they
// say otherwise.
type Conn struct {
	config  *Config // others have it, too
	owner   Owner
	keeper  Keeper
	dialect session.Dialect // fixed by the first handshake

	mu     sync.Mutex
	sess   *session.Session // nil while there is no open session
	peer   peer             // what its other end announced …
	bounds                  // … and of it what is read without the lock

	outgoing        // our calls, and the notifications' window
	incoming        // the peer's calls
	outbox          // what waits for the writer
	parts           // messages of which parts have come
	sums            // bytes of all streams together
	life            // how the connection ends
	outage   outage // while there is no link
	lane     *lane
	roused   roused     // has a lock of its own
	unheard  *[]unheard // what ended under mu, and of which the Recorder is told after it
	futures  *futures   // those of the handlers that run; nil: they have made none

	account flow.Account // of the server's ledger; has a lock of its own
	past    *past        // what ended sessions have done; nil: none has ended. Under mu
}

// Config is what connections are made with. It is not changed after that.
type Config struct {
	Limits   flow.Limits
	Logger   *slog.Logger
	Ledger   *flow.Ledger     // of the server; nil: none
	Replays  *replay.Cache    // of keyed calls
	Detached *replay.Detached // keyed calls whose sessions were lost
	Intern   func(name []byte) string
	Heals    bool           // dialled: it outlives its sessions
	Posted   bool           // not a connection at all: one HTTP POST
	Recorder stats.Recorder // of the program; nil: nobody is told
	// Verbs are the names by which plain peers subscribe to server streams. A name that
	// Intern knows is the program's own.
	Verbs map[string]*Verb
	// Lacks says what a connection without a link waits for. nil: nobody is told.
	Lacks func() string
}

// New makes a connection whose contexts derive from base. It has no session yet,
// and where it was dialled no dialect.
func New(base context.Context, cfg *Config, d session.Dialect, o Owner, k Keeper) *Conn {
	c := &Conn{config: cfg, owner: o, keeper: k, dialect: d}
	c.pending = map[uint64]inFlight{}
	c.inbound = map[uint64]*Inbound{}
	c.done = make(chan struct{})
	c.ctx, c.cancel = context.WithCancelCause(base)
	c.setPeerLocked(peer{limits: cfg.Limits.PlainPeer()})
	c.account.Open(cfg.Ledger, c.evicted)
	c.outbox.account = &c.account
	return c
}

// unlockAndWake gives mu back, and wakes the writer if there is something to
// take of which it does not know. The session is read under the lock: after it
// there may be another. Settling comes after this, never before, because a call
// that is settled may be recycled.
func (c *Conn) unlockAndWake() {
	sess := c.sess
	wake := sess != nil && c.outbox.wake()
	c.unlockAndTell()
	if wake {
		sess.Wake()
	}
}

// unlockAndTell gives mu back where the writer has nothing new, and tells the Recorder of what
// has ended without a handler.
func (c *Conn) unlockAndTell() {
	all := c.unheard
	if all == nil { // nearly always
		c.mu.Unlock()
		return
	}
	c.unheard = nil
	c.mu.Unlock()
	c.tellOf(*all)
}

// Owner is whom the connection was made with.
func (c *Conn) Owner() Owner { return c.owner }

// Keeper is whoever gets it its links.
func (c *Conn) Keeper() Keeper { return c.keeper }

// Limits are this side's.
func (c *Conn) Limits() *flow.Limits { return &c.config.Limits }

// Logger gets what nobody is told.
func (c *Conn) Logger() *slog.Logger { return c.config.Logger }

// Account is what it holds of the server's ledger.
func (c *Conn) Account() *flow.Account { return &c.account }

// Replays has the answers to keyed calls.
func (c *Conn) Replays() *replay.Cache { return c.config.Replays }

// Heals reports whether it outlives its sessions.
func (c *Conn) Heals() bool { return c.config.Heals }

// Posted reports whether it is one HTTP POST.
func (c *Conn) Posted() bool { return c.config.Posted }

// Dialect is how it speaks, fixed by the first handshake.
func (c *Conn) Dialect() session.Dialect { return c.dialect }

// SetDialect is called by the first handshake, before anything of the peer is
// handled.
func (c *Conn) SetDialect(d session.Dialect) { c.dialect = d }
