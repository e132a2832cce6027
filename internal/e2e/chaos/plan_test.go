package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Chaos: everything that two peers do with each other, at once and both ways,
// while their links are cut at random bytes, in every way that links end. Nothing
// of it may be lost, done twice, or come out of order, and at the end nothing may
// be left.
//
// A seed decides what is sent and where links are cut; the scheduler and the
// client's wait between attempts decide the rest. Seeds are a fixed list. Others
// are chosen by the environment, a range for instance:
//
//	CHAOS_SEEDS=100-199 go test -run TestChaos_seeds .
//
// The name of a test that fails has its seed, and its log the last messages that
// the client sent and received.

// chaosMessage is a number, and a text that follows from it.
type chaosMessage struct {
	N    int    `json:"n"`
	Pad  string `json:"pad,omitempty"`
	Slow int    `json:"slow,omitempty"` // milliseconds that the handler takes, unless it is told to end
}

var (
	chaosNote   = typedrpc.NewNotification[chaosMessage]("chaos.note")
	chaosCall   = typedrpc.NewMethod[chaosMessage, chaosMessage]("chaos.call")
	chaosSerial = typedrpc.NewMethod[chaosMessage, chaosMessage]("chaos.serial", typedrpc.Serial)
	chaosWho    = typedrpc.NewMethod[struct{}, struct{}]("chaos.who")
	chaosEcho   = typedrpc.NewBidiStream[struct{}, chaosMessage, chaosMessage]("chaos.echo")
)

var chaosText = func() string {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 300_000)
	for i := range b {
		b[i] = 'a' + byte(rng.IntN(26))
	}
	return string(b)
}()

// chaosPlan is what a run does.
type chaosPlan struct {
	seed    uint64
	dialect typedrpc.Dialect
	n       int // notifications, calls and items, each way
	large   int // one message of so many is large, for several fragments
	cuts    int
	slow    int // one call of so many takes its time, and may be cancelled
	weather typedrpctest.Conditions
	client  typedrpc.Limits
	server  typedrpc.Limits
}

func (p *chaosPlan) pad(n int) string {
	size := 0
	switch {
	case p.large > 0 && n%p.large == p.large/2:
		size = 60_000 + n*7919%120_000
	case n%61 == 7:
		size = 500 + n*7919%3000
	}
	return chaosText[n%1000:][:size]
}

// largest is what the largest frames of both ways need.
func (p *chaosPlan) largest() int64 {
	switch {
	case p.large == 0:
		return 0
	case p.dialect == typedrpc.Binary:
		return 150_000 // fragments
	}
	return 400_000
}

func (p *chaosPlan) message(n int) chaosMessage { return chaosMessage{N: n, Pad: p.pad(n)} }

// chaosSide is what one side sends to the other, and what that received of it.
type chaosSide struct {
	plan *chaosPlan
	name string
	done *atomic.Int64 // of both sides, of chaosPlan.total

	notes, serials int // the next
	peer           *typedrpc.Conn

	mu       sync.Mutex
	runs     []uint8 // of each call
	outcomes []uint8
	failed   []string
}

const (
	chaosAnswered = 1 + iota
	chaosMayHaveRun
	chaosNotSent
)

func newChaosSide(p *chaosPlan, name string, done *atomic.Int64) *chaosSide {
	return &chaosSide{plan: p, name: name, done: done, runs: make([]uint8, p.n), outcomes: make([]uint8, p.n)}
}

func (y *chaosSide) fail(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.failed) < 10 {
		y.failed = append(y.failed, y.name+": "+fmt.Sprintf(format, args...))
	}
}

func (y *chaosSide) check(what string, m chaosMessage, want int) {
	if m.N != want {
		y.fail("%s %d in place of %d", what, m.N, want)
	}
	if m.N < 0 || m.Pad != y.plan.pad(m.N) {
		y.fail("%s %d arrived with other %d bytes", what, m.N, len(m.Pad))
	}
}

// mux has the handlers of what y sends.
func (y *chaosSide) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, chaosNote, func(_ context.Context, m chaosMessage) error {
		y.check("notification", m, y.notes)
		y.notes++
		return nil
	})
	typedrpc.Handle(mux, chaosWho, func(ctx context.Context, _ struct{}) (struct{}, error) {
		y.peer = typedrpc.ConnFrom(ctx)
		return struct{}{}, nil
	})
	typedrpc.Handle(mux, chaosSerial, func(_ context.Context, m chaosMessage) (chaosMessage, error) {
		y.check("serial call", m, y.serials)
		y.serials++
		return m, nil
	})
	typedrpc.Handle(mux, chaosCall, func(ctx context.Context, m chaosMessage) (chaosMessage, error) {
		y.check("call", m, m.N)
		y.mu.Lock()
		y.runs[m.N]++
		y.mu.Unlock()
		r := typedrpc.RequestFrom(ctx)
		if n := r.Metadata["n"]; n != "" {
			if n != strconv.Itoa(m.N) {
				y.fail("call %d came with the metadata of %s", m.N, n)
			}
			r.ReplyMetadata.Set("n", n)
		}
		if m.Slow > 0 {
			timer := time.NewTimer(time.Duration(m.Slow) * time.Millisecond)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return chaosMessage{}, ctx.Err()
			}
		}
		return m, nil
	})
	typedrpc.Handle(mux, chaosEcho, func(_ context.Context, _ struct{}, s *typedrpc.Stream[chaosMessage, chaosMessage]) error {
		for {
			m, err := s.Recv()
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = s.Send(m)
			}
			if err != nil {
				return err
			}
		}
	})
	return mux
}

// introduce finds the other end of c, which calls y's handlers. Attempts to
// connect that failed may have left others.
func (y *chaosSide) introduce(ctx context.Context, c *typedrpc.Conn) (*typedrpc.Conn, error) {
	_, err := typedrpc.Call(ctx, c, chaosWho, struct{}{})
	return y.peer, err
}

// send does all that the plan says, and returns when it has ended.
func (y *chaosSide) send(ctx context.Context, c *typedrpc.Conn) {
	var g sync.WaitGroup
	n := y.plan.n
	g.Go(func() {
		for i := range n {
			if err := typedrpc.Notify(ctx, c, chaosNote, y.plan.message(i)); err != nil {
				y.fail("notification %d: %v", i, err)
				return
			}
			y.done.Add(1)
		}
	})
	g.Go(func() { y.sendSerials(ctx, c, n/8) })
	var next atomic.Int64
	for who := range 32 {
		g.Go(func() {
			rng := rand.New(rand.NewPCG(y.plan.seed, uint64(who)))
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if !y.call(ctx, c, rng, i) {
					return
				}
				y.done.Add(1)
			}
		})
	}
	g.Go(func() { y.echo(ctx, c, n, y.done) })
	g.Go(func() {
		var ignored atomic.Int64
		for i := range n / 100 {
			if i%3 == 0 { // left early
				if s, err := typedrpc.Open(ctx, c, chaosEcho, struct{}{}); err == nil {
					s.Send(y.plan.message(i))
					s.Cancel()
				}
				continue
			}
			y.echo(ctx, c, i%5, &ignored)
		}
	})
	g.Wait()
}

// sendSerials makes Serial calls, several at once.
func (y *chaosSide) sendSerials(ctx context.Context, c *typedrpc.Conn, n int) {
	var out []*typedrpc.Future[chaosMessage]
	await := func() bool {
		if _, err := out[0].Await(context.WithoutCancel(ctx)); err != nil {
			y.fail("serial call: %v", err)
			return false
		}
		out = out[1:]
		return true
	}
	for i := range n {
		if len(out) == 16 && !await() {
			return
		}
		out = append(out, typedrpc.Go(ctx, c, chaosSerial, y.plan.message(i)))
	}
	for len(out) > 0 && await() {
	}
}

// call makes one call, of the kind that its number says. It reports false when
// there is no point in going on.
func (y *chaosSide) call(ctx context.Context, c *typedrpc.Conn, rng *rand.Rand, i int) bool {
	m := y.plan.message(i)
	var may typedrpc.Code // how it may end, beside well
	var opts typedrpc.CallOptions
	switch kind := i % 16; {
	case kind == 3:
		opts.Metadata, opts.ReplyMetadata = typedrpc.Metadata{"n": strconv.Itoa(i)}, new(typedrpc.Metadata)
	case kind == 5:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 100*time.Hour)
		defer cancel()
	case kind == 7 && i%3 == 0: // cancelled at once, wherever it is
		may = typedrpc.Canceled
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		yields := rng.IntN(40)
		go func() {
			for range yields {
				runtime.Gosched()
			}
			cancel()
		}()
	case y.plan.slow > 0 && i%y.plan.slow == 7: // cancelled after a while
		may, m.Slow = typedrpc.Canceled, 1+rng.IntN(30)
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		timer := time.AfterFunc(time.Duration(1+rng.IntN(30_000))*time.Microsecond, cancel)
		defer timer.Stop()
	case y.plan.slow > 0 && i%y.plan.slow == 11: // has little time
		may, m.Slow = typedrpc.DeadlineExceeded, 1+rng.IntN(30)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(1+rng.IntN(30_000))*time.Microsecond)
		defer cancel()
	}
	got, err := typedrpc.Call(ctx, c.With(opts), chaosCall, m)
	outcome := uint8(chaosAnswered)
	switch {
	case err == nil && (got.N != i || got.Pad != m.Pad):
		y.fail("call %d was answered with %d and %d bytes", i, got.N, len(got.Pad))
	case err == nil && opts.ReplyMetadata != nil && (*opts.ReplyMetadata)["n"] != strconv.Itoa(i):
		y.fail("call %d was answered with metadata %v", i, *opts.ReplyMetadata)
	case err == nil:
	case may == 0 || !errors.Is(err, may):
		y.fail("call %d: %v", i, err)
		return false
	case outcomeOf(err) == typedrpc.NotSent:
		outcome = chaosNotSent
	default:
		outcome = chaosMayHaveRun
	}
	y.mu.Lock()
	y.outcomes[i] = outcome
	y.mu.Unlock()
	return true
}

func outcomeOf(err error) typedrpc.Outcome {
	var e *typedrpc.Error
	if !errors.As(err, &e) {
		return 99
	}
	return e.Outcome
}

// echo sends n items there and back.
func (y *chaosSide) echo(ctx context.Context, c *typedrpc.Conn, n int, done *atomic.Int64) {
	s, err := typedrpc.Open(ctx, c, chaosEcho, struct{}{})
	if err != nil {
		y.fail("stream: %v", err)
		return
	}
	var g sync.WaitGroup
	g.Go(func() {
		for i := range n {
			if err := s.Send(y.plan.message(i)); err != nil {
				y.fail("item %d: %v", i, err)
				return
			}
		}
		s.CloseSend()
	})
	i := 0
	for m, err := range s.All() {
		if err != nil {
			y.fail("item %d: %v", i, err)
			s.Cancel()
			break
		}
		y.check("item", m, i)
		i++
		done.Add(1)
	}
	g.Wait()
	if i != n {
		y.fail("%d items of %d came back", i, n)
	}
}

// result says what is wrong, when all has ended.
func (y *chaosSide) result() (wrong []string, counts [4]int) {
	n := y.plan.n
	if y.notes != n {
		y.fail("%d notifications of %d", y.notes, n)
	}
	if y.serials != n/8 {
		y.fail("%d serial calls of %d", y.serials, n/8)
	}
	y.mu.Lock()
	runs, outcomes := y.runs, y.outcomes
	y.mu.Unlock()
	for i, ran := range runs {
		counts[outcomes[i]]++
		switch o := outcomes[i]; {
		case o == chaosAnswered && ran != 1, o == chaosMayHaveRun && ran > 1, o == chaosNotSent && ran != 0, o == 0:
			y.fail("call %d with outcome %d ran %d times", i, o, ran)
		}
	}
	return y.failed, counts
}
