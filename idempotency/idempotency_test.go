package idempotency_test

import (
	"errors"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
)

// The errors of a package that the root imports are the root's all the same.
func TestParseKey_error(t *testing.T) {
	for _, text := range []string{"", "no key", idempotency.Key{}.String(), idempotency.NewKey().String() + "."} {
		is := is.New(t)
		key, err := idempotency.ParseKey(text)
		is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
		is.True(errors.Is(err, typedrpc.InvalidArgument))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		_, ok := err.(*typedrpc.Error)
		is.True(ok)
		is.Equal(key, idempotency.Key{})
	}
	is := is.New(t)
	key := idempotency.NewKey()
	again, err := idempotency.ParseKey(key.String())
	is.NoErr(err) // and no error that is nil
	is.Equal(again.String(), key.String())
}
