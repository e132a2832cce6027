package link

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

func TestPipe_fullStallsTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a, b := Pipe()
		is.NoErr(a.Write(make([]byte, pipeWindow), false, func() {}))
		done := make(chan error, 1)
		go func() { done <- a.Write([]byte("x"), false, func() {}) }()
		synctest.Wait()
		is.Equal(len(done), 0)
		_, err := read(b)
		is.NoErr(err)
		is.NoErr(<-done)
	})
}

func TestPipe_oneMessageAlwaysFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a, b := Pipe()
		is.NoErr(a.Write(make([]byte, 10*pipeWindow), false, func() {}))
		got, err := read(b)
		is.NoErr(err)
		is.Equal(len(got), 10*pipeWindow)
	})
}

func TestPipe_killFreesBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a, b := Pipe()
		is.NoErr(a.Write(make([]byte, pipeWindow), false, func() {}))
		errs := make(chan error, 2)
		go func() { errs <- a.Write([]byte("x"), false, func() {}) }()
		go func() { _, err := read(a); errs <- err }()
		synctest.Wait()
		b.Kill()
		is.True(<-errs != nil)
		is.True(<-errs != nil)
		is.True(errors.Is(b.Write(nil, false, func() {}), io.ErrClosedPipe))
	})
}

func TestPipe_closeDrainsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a, b := Pipe()
		is.NoErr(a.Write([]byte("1"), false, func() {}))
		is.NoErr(a.Write([]byte("2"), true, func() {}))
		a.Close(1000, "done")
		for _, want := range []string{"1", "2"} {
			got, err := read(b)
			is.NoErr(err)
			is.Equal(got, want)
		}
		_, err := read(b)
		var ce *CloseError
		is.True(errors.As(err, &ce))
		is.Equal(*ce, CloseError{Code: 1000, Reason: "done", Remote: true})
		_, err = read(a)
		is.True(err != nil) // whoever closed reads no more
	})
}

func TestPipe_readLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a, b := Pipe()
		b.SetReadLimit(3)
		is.NoErr(a.Write([]byte("abc"), false, func() {}))
		is.NoErr(a.Write([]byte("abcd"), false, func() {}))
		_, err := read(b)
		is.NoErr(err)
		_, err = read(b)
		var ce *CloseError
		is.True(errors.As(err, &ce))
		is.Equal(ce.Code, 1009)
	})
}

// The pipe's pong stands for that of a WebSocket: without it a plain peer in
// memory would be found dead after two keepalive intervals, and no socket's is.
func TestPipe_pingIsAnsweredByALivingPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a, b := Pipe()
		progress := 0
		go func() {
			a.Read(func() { progress++ })
		}()
		answered := false
		is.True(a.Ping(func() { answered = true }))
		time.Sleep(time.Second)
		is.Equal(progress, 0) // nobody reads at the other end
		is.True(!answered)
		go read(b)
		synctest.Wait()
		is.Equal(progress, 1)
		is.True(answered)
		a.Kill()
		b.Kill()
	})
}

func TestPipe_textIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		a, b := Pipe()
		for _, want := range []bool{true, false} {
			is.NoErr(a.Write([]byte("x"), want, func() {}))
			_, text, err := b.Read(func() {})
			is.NoErr(err)
			is.Equal(text, want)
		}
	})
}
