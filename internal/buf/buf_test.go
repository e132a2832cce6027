package buf

import (
	"bytes"
	"testing"

	"github.com/matryer/is"
)

func TestGet_isEmpty(t *testing.T) {
	is := is.New(t)
	for range 100 {
		b := Get()
		is.Equal(b.Len(), 0)
		b.B = append(b.B, "left over"...)
		b.Release()
	}
}

func TestCopy_isACopy(t *testing.T) {
	is := is.New(t)
	p := []byte("abc")
	b := Copy(p)
	defer b.Release()
	p[0] = 'x'
	is.Equal(string(b.Bytes()), "abc")
}

func TestBuf_livesUntilTheLastRelease(t *testing.T) {
	is := is.New(t)
	b := Copy([]byte("shared"))
	is.Equal(b.Retain(), b)
	b.Release()
	for range 100 { // whoever gets a buffer now must not get this one
		other := Get()
		is.True(other != b)
		other.B = append(other.B, "XXXXXX"...)
		other.Release()
	}
	is.Equal(string(b.B), "shared")
	b.Release()
}

func TestBuf_doubleReleasePanics(t *testing.T) {
	is := is.New(t)
	b := Get()
	b.B = make([]byte, 0, maxKept+1) // the pool cannot hand this one out in between
	b.Release()
	defer func() { is.True(recover() != nil) }() // the second release panics
	b.Release()
}

func TestBuf_giantsAreNotKept(t *testing.T) {
	is := is.New(t)
	for range 100 {
		giant := Get()
		giant.B = make([]byte, 0, maxKept+1)
		giant.Release()
		b := Get()
		is.True(cap(b.B) <= maxKept)
		b.Release()
	}
}

// Nor does a record keep one that somebody has forgotten to forget.
func TestBuf_theRecordLetsGo(t *testing.T) {
	is := is.New(t)
	for _, b := range []*Buf{Sized(maxKept + 1), Copy(make([]byte, maxKept+1)), {B: make([]byte, maxKept+1)}} {
		b.refs.Store(1)
		b.Retain().Release()
		is.True(cap(b.B) > maxKept)
		b.Release()
		is.Equal(cap(b.B), 0)
	}
}

func TestBuf_keepsWhatIsNoGiant(t *testing.T) {
	is := is.New(t)
	kept := 0
	for range 100 {
		b := Get()
		b.B = make([]byte, 0, maxKept)
		b.Release()
		if other := Get(); other == b {
			kept++
		}
	}
	is.True(kept > 0) // under the race detector the pool drops some on purpose
}

func TestBuf_nil(t *testing.T) {
	is := is.New(t)
	var b *Buf
	b.Release()
	is.Equal(b.Len(), 0)
	is.True(b.Bytes() == nil)
}

func TestSized_takesLittleMoreThanItsBytes(t *testing.T) {
	is := is.New(t)
	last := 0
	for n := range maxKept + 3000 {
		b := Sized(n)
		is.True(cap(b.B) >= n)
		is.True(cap(b.B) <= max(n+n/4+1, 64)) // a quarter more at most
		is.Equal(Room(n), cap(b.B))
		is.Equal(SizeOf(n), b.Size())
		is.True(cap(b.B) >= last) // classes rise
		last = cap(b.B)
		b.Release()
	}
}

func TestSized_aBufferThatHasGrownIsOfNoClass(t *testing.T) {
	is := is.New(t)
	for range 100 {
		b := Sized(100)
		b.B = append(b.B, make([]byte, 5000)...)
		b.Release()
		b = Sized(100)
		is.Equal(cap(b.B), Room(100))
		b.Release()
	}
}

func TestFit_leavesNoRoom(t *testing.T) {
	is := is.New(t)
	roomy := func() *Buf { return &Buf{B: append(make([]byte, 0, maxKept), "little"...), class: -1} }
	own := func(b *Buf) *Buf { b.refs.Store(1); return b }

	b := own(roomy()).Fit()
	is.Equal(string(b.B), "little")
	is.True(cap(b.B) < 1000)
	b.Release()

	b = own(roomy())
	kept := b.Keep()
	is.Equal(string(kept.B), "little")
	is.True(cap(kept.B) < 1000)
	is.Equal(b.refs.Load(), int32(1)) // its owner's
	kept.Release()
	b.Release()

	full := Copy(make([]byte, 5000))
	is.Equal(full.Fit(), full)
	is.Equal(full.Keep(), full)
	is.Equal(full.refs.Load(), int32(2))
	is.Equal((*Buf)(nil).Fit(), nil)
}

func TestClaim_takesAMessageOver(t *testing.T) {
	is := is.New(t)
	message := func(head, n int) (b *Buf, p []byte) {
		b = Sized(head + n)
		b.B = append(b.B, make([]byte, head)...)
		b.B = append(b.B, bytes.Repeat([]byte("x"), n)...)
		return b, b.B[head:]
	}
	b, p := message(100, 2*maxKept)
	is.Equal(b.Claim(p[:len(p):len(p)]), b)
	is.Equal(len(b.B), 2*maxKept)
	is.True(&b.B[0] == &p[0])
	is.Equal(b.Claim(p), nil) // others have it

	b, p = message(100, maxKept/2)
	is.Equal(b.Claim(p), nil) // it can be used again
	b.Release()
	b, p = message(2*maxKept, 2*maxKept)
	is.Equal(b.Claim(p), nil) // half of it is something else
	b, _ = message(0, 2*maxKept)
	is.Equal(b.Claim(make([]byte, 2*maxKept)), nil) // not a part of it
	is.Equal((*Buf)(nil).Claim(p), nil)
}
