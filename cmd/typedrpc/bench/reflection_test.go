package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/bench/generated"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/bench/packed"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/bench/plain"
	"github.com/typedrpc/typedrpc/codec/msgp"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// slow is how many times fewer calls are made with the race detector.
var slow = 1

func init() { runtime.MemProfileRate = 1 } // each allocation is in the profile

// methods by what carries their messages.
var (
	byHand   = typedrpc.NewMethod[lab.BenchReq, lab.BenchResp]("hand")
	byMsgp   = typedrpc.NewMethod[packed.Request, packed.Response]("msgp")
	byCode   = typedrpc.NewMethod[generated.Request, generated.Response]("code")
	byCode2  = typedrpc.NewMethod[generated.Order, generated.Order]("code.order")
	byAlloc  = typedrpc.NewMethod[*generated.Request, *generated.Response]("alloc", typedrpc.Alloc[generated.Request](), typedrpc.Alloc[generated.Response]())
	byPlain  = typedrpc.NewMethod[plain.Request, plain.Response]("plain")
	byPlain2 = typedrpc.NewMethod[plain.Order, plain.Order]("plain.order")
)

// path is a connection over a socket, and calls through it.
func path(t *testing.T, codec typedrpc.Codec, handle func(*typedrpc.Mux)) *typedrpc.Conn {
	t.Helper()
	mux := typedrpc.NewMux()
	handle(mux)
	srv := &typedrpc.Server{Mux: mux, Codecs: []typedrpc.Codec{codec}}
	web := httptest.NewServer(srv)
	t.Cleanup(web.Close)
	conn, err := typedrpc.Dial(context.Background(), "ws"+strings.TrimPrefix(web.URL, "http"), &typedrpc.DialOptions{Codecs: []typedrpc.Codec{codec}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// run makes n calls, by some goroutines.
func run(t *testing.T, n int, call func() error) {
	t.Helper()
	var all sync.WaitGroup
	const callers = 8
	for range callers {
		all.Go(func() {
			for range n / callers {
				if err := call(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// reflecting are the stacks of a profile that come by the library and go through package
// reflect or encoding/json, and how often.
func reflecting(t *testing.T, data []byte) (stacks map[string]int64, samples int) {
	t.Helper()
	p, err := profile.ParseData(data)
	if err != nil {
		t.Fatal(err)
	}
	stacks = map[string]int64{}
	for _, s := range p.Sample {
		var names []string
		ours, reflects := false, false
		for _, l := range s.Location {
			for _, line := range l.Line {
				name := line.Function.Name
				names = append(names, name)
				ours = ours || strings.HasPrefix(name, "github.com/typedrpc/typedrpc.") || strings.HasPrefix(name, "github.com/typedrpc/typedrpc/internal/")
				reflects = reflects || strings.HasPrefix(name, "reflect.") || strings.HasPrefix(name, "encoding/json.")
			}
		}
		if ours {
			samples += int(s.Value[0])
		}
		if ours && reflects {
			stacks[strings.Join(names, "\n\t")] += s.Value[0]
		}
	}
	return stacks, samples
}

// allocated are the stacks of all allocations so far.
func allocated(t *testing.T) (stacks map[string]int64, samples int) {
	t.Helper()
	runtime.GC()
	runtime.GC() // what was allocated before the first is in the profile after the second
	var b bytes.Buffer
	if err := pprof.Lookup("allocs").WriteTo(&b, 0); err != nil {
		t.Fatal(err)
	}
	return reflecting(t, b.Bytes())
}

// profiled runs calls under both profiles, and returns the stacks that reflect.
func profiled(t *testing.T, n int, call func() error) (cpu, allocs []string) {
	t.Helper()
	run(t, 1000, call) // what is made once
	before, counted := allocated(t)
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		t.Fatal(err)
	}
	run(t, n, call)
	pprof.StopCPUProfile()
	after, counts := allocated(t)
	if counts-counted < n {
		t.Fatalf("%d allocations of the library were seen in %d calls: the profile does not work", counts-counted, n)
	}
	stacks, samples := reflecting(t, b.Bytes())
	t.Logf("%d calls, %d samples, %d allocations", n, samples, counts-counted)
	for stack := range stacks {
		cpu = append(cpu, stack)
	}
	for stack, n := range after {
		if n > before[stack] {
			allocs = append(allocs, fmt.Sprintf("%d times:\n\t%s", n-before[stack], stack))
		}
	}
	return cpu, allocs
}

// TestNoReflection has no reflection below the library where messages know their bytes.
func TestNoReflection(t *testing.T) {
	calls := 10_000
	if os.Getenv("TYPEDRPC_FULL") != "" {
		calls = 100_000
	}
	calls /= slow
	ctx := context.Background()
	order := new(generated.Order)
	o, err := typedrpc.JSON.Append(nil, sizes()[2].plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := order.UnmarshalJSON(o); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func(t *testing.T) func() error{
		"a codec by hand": func(t *testing.T) func() error {
			conn := path(t, lab.Fixed{}, func(mux *typedrpc.Mux) {
				typedrpc.Handle(mux, byHand, func(_ context.Context, r lab.BenchReq) (lab.BenchResp, error) {
					return lab.BenchResp{Sum: r.A + r.B, Text: lab.BenchText}, nil
				})
			})
			return func() error {
				_, err := typedrpc.Call(ctx, conn, byHand, lab.BenchReq{A: 1, B: 2, Tag: "0123456789abcdef"})
				return err
			}
		},
		"msgp": func(t *testing.T) func() error {
			conn := path(t, msgp.Codec{}, func(mux *typedrpc.Mux) {
				typedrpc.Handle(mux, byMsgp, func(_ context.Context, r packed.Request) (packed.Response, error) {
					return packed.Response{Sum: r.A + r.B, Text: lab.BenchText}, nil
				})
			})
			return func() error {
				_, err := typedrpc.Call(ctx, conn, byMsgp, packed.Request{A: 1, B: 2, Tag: "0123456789abcdef"})
				return err
			}
		},
		"generated JSON": func(t *testing.T) func() error {
			conn := path(t, typedrpc.JSON, func(mux *typedrpc.Mux) {
				typedrpc.Handle(mux, byCode, func(_ context.Context, r generated.Request) (generated.Response, error) {
					return generated.Response{Sum: r.A + r.B, Text: lab.BenchText}, nil
				})
				typedrpc.Handle(mux, byCode2, func(_ context.Context, r generated.Order) (generated.Order, error) { return r, nil })
			})
			var n atomic.Int64
			return func() error {
				if n.Add(1)%20 == 0 { // a large one now and then
					_, err := typedrpc.Call(ctx, conn, byCode2, *order)
					return err
				}
				_, err := typedrpc.Call(ctx, conn, byCode, generated.Request{A: 1, B: 2, Tag: "0123456789abcdef"})
				return err
			}
		},
		"generated JSON by pointer": func(t *testing.T) func() error {
			conn := path(t, typedrpc.JSON, func(mux *typedrpc.Mux) {
				typedrpc.Handle(mux, byAlloc, func(_ context.Context, r *generated.Request) (*generated.Response, error) {
					return &generated.Response{Sum: r.A + r.B, Text: lab.BenchText}, nil
				})
			})
			return func() error {
				_, err := typedrpc.Call(ctx, conn, byAlloc, &generated.Request{A: 1, B: 2, Tag: "0123456789abcdef"})
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cpu, allocs := profiled(t, calls, try(t))
			for _, stack := range cpu {
				t.Errorf("reflection:\n\t%s", stack)
			}
			for _, stack := range allocs {
				t.Errorf("an allocation by reflection, %s", stack)
			}
		})
	}
}

// TestReflection finds reflection where it is: if it does not, the test above says nothing.
func TestReflection(t *testing.T) {
	ctx := context.Background()
	conn := path(t, typedrpc.JSON, func(mux *typedrpc.Mux) {
		typedrpc.Handle(mux, byPlain, func(_ context.Context, r plain.Request) (plain.Response, error) {
			return plain.Response{Sum: r.A + r.B}, nil
		})
		typedrpc.Handle(mux, byPlain2, func(_ context.Context, r plain.Order) (plain.Order, error) { return r, nil })
	})
	order := *sizes()[2].plain.(*plain.Order)
	for range 100 { // until the CPU's profile has a sample, too
		cpu, allocs := profiled(t, 2000, func() error {
			if _, err := typedrpc.Call(ctx, conn, byPlain2, order); err != nil {
				return err
			}
			_, err := typedrpc.Call(ctx, conn, byPlain, plain.Request{A: 1, B: 2, Tag: "0123456789abcdef"})
			return err
		})
		if len(allocs) == 0 {
			t.Fatal("encoding/json allocates, and the profile does not show it")
		}
		if len(cpu) > 0 {
			return
		}
	}
	t.Error("encoding/json takes time, and the profile does not show it")
}
