package typedrpctest_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// The faults, at the level of bytes.

// connected returns both ends of a connection over a network of its own.
func connected(t *testing.T, o *typedrpctest.NetworkOptions) (n *typedrpctest.Network, dialer, listener net.Conn) {
	t.Helper()
	n = typedrpctest.NewNetwork(o)
	t.Cleanup(func() { n.Close() })
	l, err := n.Host("a").Listen()
	if err != nil {
		t.Fatal(err)
	}
	dialer, listener = dialled(t, n, l)
	return n, dialer, listener
}

func dialled(t *testing.T, n *typedrpctest.Network, l net.Listener) (dialer, listener net.Conn) {
	t.Helper()
	dialer, err := n.DialContext(t.Context(), "tcp", "a:80")
	if err != nil {
		t.Fatal(err)
	}
	listener, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialer.Close(); listener.Close() })
	return dialer, listener
}

// end of a connection that sends in d, and the one that receives.
func ends(d typedrpctest.Direction, dialer, listener net.Conn) (from, to net.Conn) {
	if d == typedrpctest.Down {
		return listener, dialer
	}
	return dialer, listener
}

var (
	ways = []typedrpctest.Direction{typedrpctest.Up, typedrpctest.Down}
	hows = []typedrpctest.Cut{typedrpctest.CutClose, typedrpctest.CutReset, typedrpctest.CutDialer, typedrpctest.CutListener}
)

// silent reports whether a minute passes without a byte or an end.
func silent(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Minute))
	defer c.SetReadDeadline(time.Time{})
	n, err := c.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

func TestConditions_zeroIsPerfect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n, a, b := connected(t, nil)
		began := time.Now()
		want := bytes.Repeat([]byte("abc"), 400_000)
		for _, d := range ways {
			from, to := ends(d, a, b)
			go from.Write(want)
			got := make([]byte, len(want))
			_, err := io.ReadFull(to, got)
			is.NoErr(err)
			is.True(bytes.Equal(got, want))
		}
		is.Equal(time.Since(began), time.Duration(0))
		is.Equal(n.Stats(), typedrpctest.Stats{Dialled: 1, Open: 1, Up: 1_200_000, Down: 1_200_000})
		is.Equal(a.LocalAddr().String(), b.RemoteAddr().String())
		is.Equal(b.LocalAddr().String(), a.RemoteAddr().String())
	})
}

func TestConditions_latency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n, a, b := connected(t, &typedrpctest.NetworkOptions{Up: typedrpctest.Conditions{Latency: 30 * time.Millisecond}})
		took := func(d typedrpctest.Direction) time.Duration {
			from, to := ends(d, a, b)
			began := time.Now()
			_, err := from.Write([]byte("x"))
			is.NoErr(err)
			is.Equal(time.Since(began), time.Duration(0)) // a writer does not wait for it
			_, err = io.ReadFull(to, make([]byte, 1))
			is.NoErr(err)
			return time.Since(began)
		}
		is.Equal(took(typedrpctest.Up), 30*time.Millisecond)
		is.Equal(took(typedrpctest.Down), time.Duration(0))
		n.Set(typedrpctest.Both, typedrpctest.Conditions{Latency: time.Second})
		is.Equal(took(typedrpctest.Up), time.Second)
		is.Equal(took(typedrpctest.Down), time.Second)
		n.Links()[0].Set(typedrpctest.Down, typedrpctest.Conditions{})
		is.Equal(took(typedrpctest.Down), time.Duration(0))

		// What is on its way is not overtaken, and the end is not faster.
		began := time.Now()
		a.Write([]byte("1"))
		n.Set(typedrpctest.Both, typedrpctest.Conditions{})
		a.Write([]byte("2"))
		a.Close()
		got, err := io.ReadAll(b)
		is.NoErr(err)
		is.Equal(string(got), "12")
		is.Equal(time.Since(began), time.Second)
	})
}

// arrivals are the times at which 20 kB arrive, in pieces as they come.
func arrivals(t *testing.T, seed uint64) (times []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		c := typedrpctest.Conditions{Latency: 10 * time.Millisecond, Jitter: 10 * time.Millisecond}
		_, a, b := connected(t, &typedrpctest.NetworkOptions{Seed: seed, Up: c, Down: c})
		for _, d := range ways {
			from, to := ends(d, a, b)
			for range 200 {
				go from.Write(make([]byte, 100))
				began := time.Now()
				if _, err := io.ReadFull(to, make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
				times = append(times, time.Since(began))
			}
		}
	})
	return times
}

func TestConditions_jitterDependsOnTheSeed(t *testing.T) {
	is := is.New(t)
	one := arrivals(t, 1)
	for _, d := range one {
		is.True(d >= 10*time.Millisecond && d <= 20*time.Millisecond)
	}
	is.True(slices.Max(one)-slices.Min(one) > 5*time.Millisecond)
	is.True(!slices.Equal(one[:200], one[200:])) // the directions differ
	is.Equal(one, arrivals(t, 1))
	is.True(!slices.Equal(one, arrivals(t, 2)))
}

func TestConditions_bandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n, a, b := connected(t, &typedrpctest.NetworkOptions{Down: typedrpctest.Conditions{Bandwidth: 10_000, Latency: time.Second}})
		for _, d := range ways {
			from, to := ends(d, a, b)
			began := time.Now()
			go from.Write(make([]byte, 100_000))
			_, err := io.ReadFull(to, make([]byte, 50_000))
			is.NoErr(err)
			half := time.Since(began)
			_, err = io.ReadFull(to, make([]byte, 50_000))
			is.NoErr(err)
			took := time.Since(began)
			if d == typedrpctest.Up {
				is.Equal(took, time.Duration(0))
				continue
			}
			near := func(d, want time.Duration) bool { return (d - want).Abs() < 200*time.Millisecond }
			is.True(near(half, 6*time.Second)) // 5 s, and the latency
			is.True(near(took, 11*time.Second))
		}
		is.Equal(n.Stats().Down, int64(100_000))
	})
}

func TestConditions_slice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for _, most := range []int{1, 7} {
			n, a, b := connected(t, nil)
			n.Set(typedrpctest.Up, typedrpctest.Conditions{Slice: most})
			for _, d := range ways {
				from, to := ends(d, a, b)
				from.Write([]byte("twenty bytes of text"))
				largest, all, buf := 0, 0, make([]byte, 100)
				for all < 20 {
					n, err := to.Read(buf)
					is.NoErr(err)
					largest, all = max(largest, n), all+n
				}
				is.Equal(largest, map[typedrpctest.Direction]int{typedrpctest.Up: most, typedrpctest.Down: 20}[d])
			}
		}
	})
}

func TestConditions_bufferBoundsWhatIsOnItsWay(t *testing.T) {
	for _, c := range []typedrpctest.Conditions{
		{}, {Buffer: 1000}, {Buffer: 10_000, Latency: time.Hour}, {Buffer: 10_000, Stall: true}, {Buffer: 500, Bandwidth: 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			n, a, b := connected(t, nil)
			n.Set(typedrpctest.Up, c)
			most := c.Buffer
			if most == 0 {
				most = 256 << 10
			}
			a.SetWriteDeadline(time.Now().Add(time.Second))
			wrote, err := a.Write(make([]byte, 1<<20))
			is.True(errors.Is(err, os.ErrDeadlineExceeded))
			var ne net.Error
			is.True(errors.As(err, &ne) && ne.Timeout())
			is.Equal(wrote, most)
			// What is read makes room, and no more than that.
			a.SetWriteDeadline(time.Time{})
			n.Set(typedrpctest.Up, typedrpctest.Conditions{Buffer: c.Buffer})
			read, err := io.ReadFull(b, make([]byte, most/2))
			is.NoErr(err)
			a.SetWriteDeadline(time.Now().Add(time.Second))
			wrote, err = a.Write(make([]byte, 1<<20))
			is.True(errors.Is(err, os.ErrDeadlineExceeded))
			is.Equal(wrote, read)
		})
	}
}

// Tiny writes that each arrive at a time of their own cost more than a byte.
func TestConditions_tinyWritesAreBoundedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		_, a, _ := connected(t, &typedrpctest.NetworkOptions{Up: typedrpctest.Conditions{Latency: time.Hour}})
		a.SetWriteDeadline(time.Now().Add(time.Minute))
		for all := 0; ; all++ {
			time.Sleep(time.Millisecond)
			if _, err := a.Write([]byte("x")); err != nil {
				is.True(errors.Is(err, os.ErrDeadlineExceeded))
				is.Equal(all, 4096)
				break
			}
		}
	})
}

func TestConditions_stallLosesNothing(t *testing.T) {
	for _, d := range ways {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			n, a, b := connected(t, nil)
			from, to := ends(d, a, b)
			n.Set(d, typedrpctest.Conditions{Stall: true})
			from.Write([]byte("later"))
			is.True(silent(to))
			to.Write([]byte("now"))
			got := make([]byte, 10)
			m, err := from.Read(got)
			is.NoErr(err)
			is.Equal(string(got[:m]), "now")
			from.Close()
			is.True(silent(to))
			n.Set(d, typedrpctest.Conditions{})
			all, err := io.ReadAll(to)
			is.NoErr(err)
			is.Equal(string(all), "later")
		})
	}
}

func TestConditions_blackHole(t *testing.T) {
	for _, d := range ways {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			n, a, b := connected(t, &typedrpctest.NetworkOptions{Up: typedrpctest.Conditions{Latency: time.Second}, Down: typedrpctest.Conditions{Latency: time.Second}})
			from, to := ends(d, a, b)
			from.Write([]byte("before"))
			n.Set(d, typedrpctest.Conditions{BlackHole: true})
			for range 100 { // more than any buffer takes: a writer never waits
				_, err := from.Write(make([]byte, 100_000))
				is.NoErr(err)
			}
			got := make([]byte, 10)
			m, err := to.Read(got)
			is.NoErr(err)
			is.Equal(string(got[:m]), "before") // it was on its way
			is.True(silent(to))
			to.Write([]byte("hi"))
			m, err = from.Read(got)
			is.NoErr(err)
			is.Equal(string(got[:m]), "hi") // the other direction is well
			// TCP delivers nothing behind what was lost, nor an end.
			n.Set(d, typedrpctest.Conditions{})
			from.Write([]byte("after"))
			from.Close()
			is.True(silent(to))
			_, err = to.Write([]byte("to nobody")) // no RST comes through
			is.NoErr(err)
		})
	}
}

// An end that falls into a black hole is lost like a byte.
func TestConditions_blackHoleLosesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n, a, b := connected(t, nil)
		n.Set(typedrpctest.Up, typedrpctest.Conditions{BlackHole: true})
		a.Close()
		n.Set(typedrpctest.Up, typedrpctest.Conditions{})
		is.True(silent(b))
		is.Equal(n.Stats().Cuts, 0)
		is.Equal(n.Stats().Open, 0)
	})
}

func TestLink_cut(t *testing.T) {
	for _, how := range hows {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			n, a, b := connected(t, nil)
			a.Write([]byte("up"))
			b.Write([]byte("down"))
			l := n.Links()[0]
			is.Equal(l.Number(), 1)
			is.Equal(l.Host(), "a")
			is.True(l.Cut(how))
			is.True(!l.Cut(typedrpctest.CutReset)) // once
			is.Equal(n.CutAll(how), 0)
			is.Equal(n.Stats().Cuts, 1)
			is.Equal(n.Stats().Open, 0)
			is.Equal(len(n.Links()), 0)
			reset := func(c net.Conn) {
				_, err := c.Read(make([]byte, 1))
				is.True(errors.Is(err, syscall.ECONNRESET))
				_, err = c.Write([]byte("x"))
				is.True(errors.Is(err, syscall.ECONNRESET))
			}
			unaware := func(c net.Conn) {
				is.True(silent(c))
				for range 10 {
					_, err := c.Write(make([]byte, 100_000))
					is.NoErr(err)
				}
			}
			switch how {
			case typedrpctest.CutClose:
				for c, want := range map[net.Conn]string{a: "down", b: "up"} {
					got, err := io.ReadAll(c)
					is.NoErr(err)
					is.Equal(string(got), want)
					_, err = c.Write([]byte("x"))
					is.True(errors.Is(err, syscall.EPIPE))
				}
			case typedrpctest.CutReset:
				reset(a)
				reset(b)
			case typedrpctest.CutDialer:
				reset(a)
				unaware(b)
				a.Close()
				unaware(b)
			case typedrpctest.CutListener:
				reset(b)
				unaware(a)
				b.Close()
				unaware(a)
			}
		})
	}
}

func TestLink_cutWakesWhoWaits(t *testing.T) {
	for _, how := range hows[:2] {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			n, a, b := connected(t, nil)
			errs := make(chan error, 3)
			go func() { _, err := a.Read(make([]byte, 1)); errs <- err }()
			go func() { _, err := a.Write(make([]byte, 1<<20)); errs <- err }()
			go func() { _, err := b.Write(make([]byte, 1<<20)); errs <- err }()
			synctest.Wait()
			n.CutAll(how)
			for range 2 {
				<-errs
			}
			if how == typedrpctest.CutReset {
				is.True(errors.Is(<-errs, syscall.ECONNRESET))
			}
		})
	}
}

// until reads one byte at a time until the end and says how many came.
func until(c net.Conn) (n int64, err error) {
	for {
		_, err := c.Read(make([]byte, 1))
		if err != nil {
			return n, err
		}
		n++
	}
}

func TestLink_cutAfterExactlySoManyBytes(t *testing.T) {
	for _, how := range hows {
		for _, d := range ways {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				n := typedrpctest.NewNetwork(nil)
				defer n.Close()
				l, err := n.Host("a").Listen()
				is.NoErr(err)
				for after := range int64(12) {
					a, b := dialled(t, n, l)
					from, to := ends(d, a, b)
					n.Links()[0].CutAfter(d, after, how)
					from.SetDeadline(time.Now().Add(time.Minute))
					to.SetDeadline(time.Now().Add(time.Minute))
					go from.Write([]byte("ten bytes."))
					got, err := until(to)
					is.Equal(got, min(after, 10))
					switch to := d == typedrpctest.Up; {
					case after > 10:
						is.True(errors.Is(err, os.ErrDeadlineExceeded)) // not yet
						is.Equal(n.Stats().Cuts, 10+1)
						n.CutAll(how)
					case how == typedrpctest.CutClose:
						is.Equal(err, io.EOF)
					case how == typedrpctest.CutDialer && to, how == typedrpctest.CutListener && !to:
						is.True(errors.Is(err, os.ErrDeadlineExceeded)) // it never learns
					default:
						is.True(errors.Is(err, syscall.ECONNRESET))
					}
				}
			})
		}
	}
}

func TestLink_cutAfterBothDirectionsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n, a, b := connected(t, nil)
		l := n.Links()[0]
		l.CutAfter(typedrpctest.Both, 10, typedrpctest.CutReset)
		a.Write([]byte("sixsix"))
		_, err := io.ReadFull(b, make([]byte, 6))
		is.NoErr(err)
		b.Write([]byte("threethree"))
		got, err := until(a)
		is.Equal(got, int64(4))
		is.True(errors.Is(err, syscall.ECONNRESET))
		is.Equal(l.Received(typedrpctest.Up), int64(6))
		is.Equal(l.Received(typedrpctest.Down), int64(4))
		is.Equal(l.Received(typedrpctest.Both), int64(10))
	})
}

func TestLink_cutAfterCountsFromTheBeginningAndCanBeTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n, a, b := connected(t, nil)
		l := n.Links()[0]
		l.CutAfter(typedrpctest.Up, 8, typedrpctest.CutReset)
		a.Write([]byte("five."))
		io.ReadFull(b, make([]byte, 5))
		l.CutAfter(typedrpctest.Up, -1, typedrpctest.CutReset)
		a.Write([]byte("five."))
		_, err := io.ReadFull(b, make([]byte, 5))
		is.NoErr(err)
		l.CutAfter(typedrpctest.Up, 10, typedrpctest.CutReset) // reached
		_, err = b.Read(make([]byte, 1))
		is.True(errors.Is(err, syscall.ECONNRESET))
	})
}

// drawn are the bytes after which 20 connections are cut.
func drawn(t *testing.T, seed uint64, d typedrpctest.Direction, least, most int64) (all []int64) {
	synctest.Test(t, func(t *testing.T) {
		n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Seed: seed})
		defer n.Close()
		n.CutEach(d, least, most, typedrpctest.CutClose)
		l, err := n.Host("a").Listen()
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			a, b := dialled(t, n, l)
			from, to := ends(d, a, b)
			go from.Write(make([]byte, most+1))
			got, err := until(to)
			if err != io.EOF {
				t.Error(err)
			}
			all = append(all, got)
		}
		n.CutEach(d, -1, -1, typedrpctest.CutClose)
		a, b := dialled(t, n, l)
		go func() { a.Write(make([]byte, most+1)); a.Close() }()
		if got, _ := until(b); got != most+1 {
			t.Errorf("cut after %d bytes, and was not to be any more", got)
		}
	})
	return all
}

func TestFaults_cutEachIsDrawnFromTheSeed(t *testing.T) {
	is := is.New(t)
	for _, d := range ways {
		one := drawn(t, 1, d, 10, 1000)
		is.True(slices.Min(one) >= 10 && slices.Max(one) <= 1000)
		is.True(slices.Max(one)-slices.Min(one) > 300)
		is.Equal(one, drawn(t, 1, d, 10, 1000))
		is.True(!slices.Equal(one, drawn(t, 2, d, 10, 1000)))
	}
	is.Equal(drawn(t, 1, typedrpctest.Up, 5, 5), slices.Repeat([]int64{5}, 20))
	is.Equal(drawn(t, 1, typedrpctest.Up, 0, 0), slices.Repeat([]int64{0}, 20))
}
