package buf

import (
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
