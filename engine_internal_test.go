package typedrpc

import (
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
)

// A session that was given up as the next one began took that one away.
func TestSession_lostAsTheNextBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		done := &link.CloseError{Code: session.CloseDone, Reason: "the test is over"}
		limits, err := Limits{}.withDefaults()
		is.NoErr(err)
		c := newConn(t.Context(), config{limits: limits, logger: slog.New(slog.DiscardHandler)})
		c.heals = true
		old := c.newSession(features{})
		c.opened(old, c.peerLimits(), features{})
		next := c.newSession(features{})
		c.opened(next, c.peerLimits(), features{}) // before lost was called for the old one
		c.lost(old, done)
		c.mu.Lock()
		is.Equal(c.sess, next)
		is.True(c.lane != nil)
		c.mu.Unlock()
		c.lost(next, done)
		c.mu.Lock()
		is.Equal(c.sess, nil)
		c.mu.Unlock()
		old.End(done)
		next.End(done)
		c.cancel(nil)
	})
}
