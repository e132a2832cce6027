package session

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// With a log of 4 KiB a session becomes slow, and stands still only while its
// peer acknowledges nothing.
func TestLog_bounds(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, 4<<10)
		const n = 500
		for i := range n {
			r.send(wire.Frame{Type: wire.Notify, Method: "n", Payload: fmt.Appendf(nil, "[%d,%s]", i, text(100))})
		}
		time.Sleep(time.Minute)
		is.True(r.Logged() > 2<<10)
		is.True(r.Logged() <= 4<<10)
		is.True(r.engine.received() == 0)
		got, pings, began := 0, 0, time.Now()
		for got < n {
			f, err := r.raw.next()
			is.NoErr(err)
			switch f.Type {
			case wire.Notify:
				is.True(strings.HasPrefix(number(f), fmt.Sprintf("%d,", got)))
				got++
			case wire.Ping: // it asks, so that nobody waits for a timer
				pings++
				is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: uint64(got)}))
				synctest.Wait()
				is.True(r.Logged() <= 4<<10)
			}
		}
		is.Equal(time.Since(began), time.Duration(0))
		is.True(pings >= n*100/(4<<10))
		r.stop()
	})
}

// A frame larger than the log goes alone, and when the log is empty.
func TestLog_largerFramesGoAlone(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := openedLogging(t, o, 4<<10)
		large := wire.Frame{Type: wire.Notify, Method: "n", Payload: text(100 << 10)}
		r.send(note(0), large, note(2), large, note(4))
		position := uint64(0)
		for _, size := range []int{1, 100 << 10, 1, 100 << 10, 1} {
			f, err := r.raw.expect(wire.Notify)
			is.NoErr(err)
			is.True(len(f.Payload) >= size && len(f.Payload) < size+10)
			position++
			_, err = r.raw.expect(wire.Ping) // it asks at once, though little is kept
			is.NoErr(err)
			synctest.Wait()
			is.Equal(len(r.raw.frames), 0) // and sends no more
			is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: position}))
			if position == 4 {
				break // the last one has nothing behind it
			}
		}
		_, err := r.raw.expect(wire.Notify)
		is.NoErr(err)
		r.stop()
	})
}

func TestLog_isEmptyWhenIdle(t *testing.T) {
	dialects(t, func(t *testing.T, d Dialect) {
		is := is.New(t)
		client, server := pairLogging(t, d, testLog)
		for _, r := range []*running{client, server} {
			r.send(notes(0, 5000)...)
			for i := range 300 { // and many small messages
				r.send(note(5000 + i))
				synctest.Wait()
			}
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, r := range []*running{client, server} {
			is.Equal(r.engine.received(), 5300)
			is.Equal(r.Logged(), 0)
			is.Equal(r.log.bytes, 0)
			is.True(r.log.all == nil) // nothing hangs on
		}
		client.stop()
		<-server.end
	})
}

// released reports whether nobody has b any more. b must be too large for the
// pool.
func released(b *buf.Buf) (gone bool) {
	defer func() { gone = recover() != nil }()
	b.Release()
	return false
}

// Every way in which a message leaves the log gives its buffer back, once.
func TestLog_releasesItsBuffers(t *testing.T) {
	for name, leave := range map[string]func(is *is.I, r *running){
		"acknowledged": func(is *is.I, r *running) {
			is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 3}))
			synctest.Wait()
		},
		"ended":           func(is *is.I, r *running) { r.stop() },
		"ended when away": func(is *is.I, r *running) { r.cut(); is.True(r.End(errCut)) },
		"replayed, and ended": func(is *is.I, r *running) {
			r.cut()
			r.again(t, 0)
			for range 3 {
				_, err := r.raw.next()
				is.NoErr(err)
			}
			r.stop()
		},
		"acknowledged by the next opening": func(is *is.I, r *running) { r.cut(); r.again(t, 3) },
		"acknowledged in part, and replayed": func(is *is.I, r *running) {
			r.cut()
			r.again(t, 2)
			_, err := r.raw.expect(wire.Notify)
			is.NoErr(err)
			is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack, Position: 3}))
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			sides(t, func(t *testing.T, o Options) {
				is := is.New(t)
				r := openedLogging(t, o, testLog)
				for i := range 3 {
					f := wire.Frame{Type: wire.Notify, Method: "n", Payload: text(140 << 10)}
					if i == 1 { // is encoded anew when it is sent again
						f.Type, f.ID, f.TimeLeft = wire.Call, 1, 5000
					}
					r.send(f)
					got, err := r.raw.next()
					is.NoErr(err)
					is.Equal(got.Type, f.Type)
				}
				synctest.Wait()
				var kept []*buf.Buf
				for _, s := range r.log.all {
					kept = append(kept, s.msg)
				}
				is.Equal(len(kept), 3)
				leave(is, r)
				synctest.Wait()
				is.Equal(r.Logged(), 0)
				for _, b := range kept {
					is.True(released(b))
				}
				r.stop()
			})
		})
	}
}

func TestLog_drop(t *testing.T) {
	is := is.New(t)
	l := replay{max: 1000}
	end := uint64(0)
	for range 1000 { // the same memory again and again
		for range 10 {
			end += 3
			l.add(segment{msg: buf.Copy([]byte("abc")), end: end, frames: 3, pure: true})
		}
		is.Equal(l.after(end-1).end, end)
		is.Equal(l.after(end-4).end, end-3)
		l.drop(end - 16) // in the middle of a message: that stays
		is.Equal(l.after(end-16).end, end-15)
		is.Equal(l.bytes, 6*3)
		l.drop(end)
		is.Equal(l.bytes, 0)
		is.True(cap(l.all) <= 64)
	}
}

// FuzzReplay makes messages of frames, cuts them at a position, and compares
// what is sent again with what was sent.
func FuzzReplay(f *testing.F) {
	f.Add([]byte{0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, uint16(3), uint16(0))
	f.Add([]byte{1, 255, 128, 77, 12, 13, 14, 200, 201, 202, 3, 3, 3, 40}, uint16(7), uint16(900))
	f.Add(bytes.Repeat([]byte{1, 5, 9, 33, 70, 100, 160}, 20), uint16(50), uint16(2000))
	f.Fuzz(func(t *testing.T, data []byte, cut, late uint16) {
		if len(data) < 2 || len(data) > 1000 {
			return
		}
		d := Dialect(data[0] % 2)
		synctest.Test(t, func(t *testing.T) { replayed(t, d, data[1:], int(cut), time.Duration(late)*time.Millisecond) })
	})
}

// fuzzedFrame is a frame for a byte; its number tells it from others.
func fuzzedFrame(d Dialect, b byte, n int) wire.Frame {
	p := fmt.Appendf(nil, `[%d,"\u00e9\"\\",{"a":%d}]`, n, b)
	f := wire.Frame{ID: uint64(n)*7 + 1, Payload: p}
	switch b % 13 {
	case 0:
		f.Type, f.Method, f.TimeLeft = wire.Call, "a.B", uint64(b)*11
	case 1:
		f.Type, f.Method, f.Kind, f.Meta = wire.Call, "c", wire.BidiStream, map[string]string{"k\n": "v\x00", "é": ""}
		f.Flags = wire.Lane | wire.NoItems
	case 2:
		f.Type, f.Meta = wire.Result, map[string]string{"x": "y"}
	case 3:
		f.Type, f.Code, f.Message, f.RetryAfter, f.Flags = wire.Fail, 5+int64(b%9), "no: \"", 250, wire.NotRun
	case 4:
		f.Type, f.Payload = wire.Cancel, nil
	case 5:
		f.Type, f.Dropped, f.Flags = wire.Item, uint64(b), wire.FromCaller
	case 6:
		f.Type, f.Flags = wire.Item, wire.History
	case 7:
		f.Type, f.Payload = wire.End, nil
	case 8:
		f = wire.Frame{Type: wire.Credit, Items: uint64(b), Window: uint64(n)}
	case 9, 10:
		f.Type, f.Method, f.ID = wire.Notify, "n", 0
	case 11:
		f = wire.Frame{Type: wire.Ping, Position: uint64(n)}
	case 12:
		f = wire.Frame{Type: wire.GoAway, Payload: []byte(`{"reason":"x"}`)}
		if d == Binary && b > 128 {
			f = wire.Frame{Type: wire.Notify, Method: "m", Flags: wire.More, Payload: p}
		}
	}
	return f
}

func replayed(t *testing.T, d Dialect, data []byte, cut int, late time.Duration) {
	is := is.New(t)
	l := replay{max: 1 << 30}
	w := &world{dialect: d}
	decode := func(msg []byte) []wire.Frame {
		fs := w.frames(parcel{msg: msg})
		is.NoErr(w.err)
		return fs
	}
	var want []wire.Frame
	pos := uint64(0)
	for n := 0; n < len(data); {
		b := getBatch(d)
		for size := 1 + int(data[n]>>3); size > 0 && n < len(data); size-- {
			f := fuzzedFrame(d, data[n], n)
			b.Add(&f, nil)
			n++
		}
		counted, pure, timed := b.counted()
		msg, err := b.encode(nil)
		is.NoErr(err)
		b.free()
		for _, f := range decode(msg) {
			if f.Type.Counted() {
				want = append(want, f)
			}
		}
		if counted == 0 {
			continue
		}
		pos += uint64(counted)
		s := segment{msg: buf.Copy(msg), end: pos, frames: counted, pure: pure}
		if timed {
			s.at = time.Now()
		}
		l.add(s)
	}
	is.Equal(int(pos), len(want))
	if len(want) == 0 {
		return
	}
	cut %= len(want)
	l.drop(uint64(cut))
	time.Sleep(late)
	var got []wire.Frame
	for at := uint64(cut); at < pos; {
		s := l.after(at)
		b := getBatch(d)
		is.NoErr(s.again(b, at))
		is.Equal(b.Len(), int(s.end-at))
		msg, err := b.encode(nil)
		is.NoErr(err)
		got = append(got, decode(msg)...)
		b.free()
		at = s.end
	}
	want = want[cut:]
	is.Equal(len(got), len(want))
	for i := range want {
		if left := want[i].TimeLeft; left > 0 {
			want[i].TimeLeft = uint64(max(int64(left)-late.Milliseconds(), 1))
		}
		is.Equal(fmt.Sprintf("%+v", got[i]), fmt.Sprintf("%+v", want[i]))
	}
	l.drop(pos)
	is.Equal(l.bytes, 0)
}

// Without a log a session ends with its link, and nothing is kept.
func TestLog_none(t *testing.T) {
	sides(t, func(t *testing.T, o Options) {
		is := is.New(t)
		r := opened(t, o)
		r.send(notes(0, 10)...)
		synctest.Wait()
		is.Equal(r.Logged(), 0)
		is.True(!r.Resumable())
		r.cut()
		is.True(r.Err() != nil)
		near, _ := link.Pipe()
		is.Equal(r.accept(NewCarrier(near, r.engine, o), 0, wire.WelcomeBody{}), ErrEnded)
	})
}

// A log of many small messages took ten times its bound.
func TestLog_smallMessages(t *testing.T) {
	is := is.New(t)
	var ledger, account = flow.NewLedger(1 << 30), new(flow.Account)
	account.Open(ledger, nil)
	l := replay{max: 64 << 10, account: account}
	n := 0
	for l.room() > 0 {
		n++
		l.add(segment{msg: buf.Copy(make([]byte, 10)), end: uint64(n), frames: 1})
	}
	is.True(l.bytes < l.max/4)
	is.True(l.cost <= 2*l.max+1000)
	is.Equal(account.Used(), int64(l.cost))
	l.drop(uint64(n))
	is.Equal(l.cost, 0)
	is.Equal(l.room(), l.max)
	is.Equal(account.Used(), int64(0))
}

// TestSession_endsWhileAMessageIsMade: the account is empty, whether the message
// would have been kept or only written, and whether the session or its link
// alone has ended.
func TestSession_endsWhileAMessageIsMade(t *testing.T) {
	for name, log := range map[string]int{"kept": 1 << 20, "written": 0} {
		for _, size := range []int{10, 100 << 10} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				sides(t, func(t *testing.T, o Options) {
					is := is.New(t)
					var account flow.Account
					account.Open(flow.NewLedger(1<<30), nil)
					r := startLogging(o, log, func(r *running) { r.log.account = &account })
					r.greet(t, 0)
					synctest.Wait()
					taken := false
					r.engine.onTake = func() {
						r.engine.mu.Lock()
						defer r.engine.mu.Unlock()
						if taken = len(r.engine.queue) > 0; taken {
							r.Detach(r.carrier, &link.CloseError{Err: errCut})
							r.End(errCut)
						}
					}
					r.send(wire.Frame{Type: wire.Notify, Method: "n", Payload: text(size)})
					synctest.Wait()
					is.True(taken)
					is.Equal(account.Used(), int64(0))
					is.Equal(r.Logged(), 0)
					r.carrier.Fail(errCut)
					<-r.end
					is.Equal(account.Used(), int64(0))
				})
			})
		}
	}
}
