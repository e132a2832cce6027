package session

import (
	"runtime"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// watching is an engine that looks at where payloads are.
type watching struct {
	*engine
	seen weak.Pointer[byte]
	took int
}

func (w *watching) Receive(f *wire.Frame, msg *buf.Buf) error {
	if len(f.Payload) > 100 {
		w.seen = weak.Make(&f.Payload[len(f.Payload)/2])
		w.took++
	}
	return nil
}

func (w *watching) ReceiveArray(fs []wire.Frame, msg *buf.Buf) error { return w.Receive(&fs[0], msg) }

// A link kept the message that it received last until the next one came: of a
// large one that is a lot, and nobody counted it.
func TestCarrier_forgetsWhatItHasReceived(t *testing.T) {
	for _, d := range []Dialect{Binary, JSON, Plain} {
		for _, n := range []int{1, 2} {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				w := &watching{engine: new(engine)}
				r := startLogging(Options{Dialect: d}, 0, func(r *running) { r.Session.engine = w })
				if d != Plain {
					r.greet(t, 0)
				}
				big := wire.Frame{Type: wire.Notify, Method: "n", Payload: text(500_000)}
				is.NoErr(r.raw.send([]wire.Frame{big, note(1)}[:n]...))
				synctest.Wait()
				is.True(w.took > 0) // it came
				for range 3 {
					runtime.GC()
				}
				is.Equal(w.seen.Value(), nil)
				r.stop()
			})
		}
	}
}

// What is being written is counted for as long as that takes, where no log keeps
// it.
func TestSession_whatIsBeingWrittenIsCounted(t *testing.T) {
	for _, d := range []Dialect{Binary, JSON, Plain} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			var a flow.Account
			a.Open(flow.NewLedger(1<<30), nil)
			r := startLogging(Options{Dialect: d}, 0, func(r *running) { r.log.account = &a })
			if d != Plain {
				r.greet(t, 0)
			}
			big := wire.Frame{Type: wire.Notify, Method: "n", Payload: text(300_000)}
			r.send(big)
			synctest.Wait()
			is.True(a.Used() < 64<<10) // the path has it
			r.send(big, big)
			synctest.Wait()
			is.True(a.Used() >= 300_000) // the path is full
			is.True(a.Used() < 320_000)
			for range 3 {
				_, err := r.raw.next()
				is.NoErr(err)
			}
			synctest.Wait()
			is.Equal(a.Used(), int64(0))
			r.send(big, big)
			synctest.Wait()
			is.True(a.Used() >= 300_000)
			r.stop()
			is.Equal(a.Used(), int64(0)) // the link has ended
		})
	}
}
