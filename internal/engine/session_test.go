package engine

import (
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
)

// A session that was given up as the next one began took that one away.
func TestSession_lostAsTheNextBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		done := &link.CloseError{Code: session.CloseDone, Reason: "the test is over"}
		limits, err := flow.Limits{}.WithDefaults()
		is.NoErr(err)
		c := New(t.Context(), &Config{Limits: limits, Logger: slog.New(slog.DiscardHandler), Heals: true}, session.Binary, nil, nil)
		old := c.NewSession(Features{})
		c.Opened(old, c.Peer(), Features{}, "")
		next := c.NewSession(Features{})
		c.Opened(next, c.Peer(), Features{}, "") // before lost was called for the old one
		c.Lost(old, done)
		c.mu.Lock()
		is.Equal(c.sess, next)
		is.True(c.lane != nil)
		c.mu.Unlock()
		c.Lost(next, done)
		c.mu.Lock()
		is.Equal(c.sess, nil)
		c.mu.Unlock()
		old.End(done)
		next.End(done)
		c.cancel(nil)
	})
}
