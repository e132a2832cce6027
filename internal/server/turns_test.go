package server

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/testkit/turns"
)

// A body of which all has come does not keep a processor until it was read.
func TestPOST_readsInTurns(t *testing.T) {
	is := is.New(t)
	const size = 4 << 20
	w := httptest.NewRecorder()
	x := &exchange{w: &response{w, http.NewResponseController(w)}, limits: &flow.Limits{MaxMessage: size}}
	var b *buf.Buf
	var err error
	had := turns.Had(func() { b, err = x.readAll(bytes.NewReader(make([]byte, size))) })
	is.NoErr(err)
	is.Equal(b.Len(), size)
	is.True(had >= 8) // growing, it reads more at once in the end
}
