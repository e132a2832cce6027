package typedrpctest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// whoAmI is a handler, here called as a function.
func whoAmI(ctx context.Context, _ struct{}) (string, error) {
	r := typedrpc.RequestFrom(ctx)
	r.ReplyMetadata.Set("seen", "yes")
	return typedrpc.ConnFrom(ctx).Identity().Subject + " speaks " + r.Metadata["language"], nil
}

func TestContext(t *testing.T) {
	is := is.New(t)
	ctx := typedrpctest.Context(t, typedrpc.Identity{Subject: "ann"}, typedrpc.Metadata{"language": "de"})
	text, err := whoAmI(ctx, struct{}{})
	is.NoErr(err)
	is.Equal(text, "ann speaks de")
	is.Equal(typedrpc.RequestFrom(ctx).ReplyMetadata["seen"], "yes")
	ask := typedrpc.NewMethod[int, int]("ask")
	_, err = typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), ask, 1) // there is a client, without handlers
	is.True(errors.Is(err, typedrpc.Unimplemented))
	is.NoErr(ctx.Err())
}

func TestContext_ends(t *testing.T) {
	is := is.New(t)
	var kept context.Context
	t.Run("a test", func(t *testing.T) {
		kept = typedrpctest.Context(t, typedrpc.Identity{}, nil)
	})
	<-kept.Done()
	synctest.Test(t, func(t *testing.T) { // and in a bubble
		id, end := context.WithCancel(t.Context())
		ctx := typedrpctest.Context(t, typedrpc.Identity{Context: id}, nil)
		is.NoErr(ctx.Err())
		end()
		<-ctx.Done()
	})
}
