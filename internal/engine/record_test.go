package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/stats"
)

// TestRecord_nobody: where nobody is told, nothing is allocated.
func TestRecord_nobody(t *testing.T) {
	is := is.New(t)
	in := &Inbound{conn: &Conn{config: &Config{}}}
	is.Equal(testing.AllocsPerRun(100, func() { in.timed(); in.record(0, false) }), 0.0)
	is.True(in.keyed == nil)
}

// BenchmarkRecord_nobody is what a call costs for its Recorder where there is none.
func BenchmarkRecord_nobody(b *testing.B) {
	b.ReportAllocs()
	in := &Inbound{conn: &Conn{config: &Config{}}}
	for b.Loop() {
		in.timed()
		in.record(0, false)
	}
}

func TestRecord_ends(t *testing.T) {
	is := is.New(t)
	closed := func(code int) error { return fmt.Errorf("wrapped: %w", &link.CloseError{Code: code, Remote: true}) }
	for _, tt := range []struct {
		cause error
		end   stats.End
	}{
		{session.ErrGrace, stats.EndGrace},
		{session.ErrEvicted, stats.EndEvicted},
		{&link.CloseError{Err: link.ErrStalled}, stats.EndSilent},
		{&link.CloseError{Code: session.CloseTimeout, Err: link.ErrSilent}, stats.EndSilent},
		{&link.CloseError{Err: errors.New("reset")}, stats.EndBroken},
		{errors.New("stuck"), stats.EndBroken},
		{&status.Error{Code: status.Unavailable}, stats.EndClosed},
		{closed(session.CloseDone), stats.EndClosed},
		{closed(session.CloseRestart), stats.EndClosed},
		{closed(session.CloseTimeout), stats.EndSilent},
		{closed(session.CloseSuperseded), stats.EndReplaced},
		{closed(session.CloseBudget), stats.EndMemory},
		{closed(session.CloseUnauthed), stats.EndIdentity},
		{closed(session.CloseForbidden), stats.EndIdentity},
		{closed(session.CloseFlood), stats.EndViolation},
		{closed(4999), stats.EndBroken}, // of a peer that makes up its own
	} {
		is.Equal(endOf(tt.cause), tt.end)
	}
}
