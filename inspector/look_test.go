package inspector_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/inspector"
	"github.com/typedrpc/typedrpc/inspector/api"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// until receives a stream until something is as it should be, and leaves it.
func until[Req, Item any](t *testing.T, c *typedrpc.Conn, s typedrpc.ServerStream[Req, Item], req Req, found func(Item) bool) {
	t.Helper()
	for item, err := range typedrpc.Receive(t.Context(), c, s, req) {
		if err != nil {
			t.Fatal(err)
		}
		if found(item) {
			return
		}
	}
	t.Fatal("the stream has ended")
}

// idOf is the number of a subject's connection.
func idOf(t *testing.T, c *typedrpc.Conn, subject string) (id int) {
	t.Helper()
	until(t, c, api.List, api.Query{Text: subject}, func(p api.Page) bool {
		for _, r := range p.Rows {
			id = r.ID
		}
		return id > 0
	})
	return id
}

func TestOverview(t *testing.T) {
	is := is.New(t)
	s := start(t, nil)
	ann := s.guest(t, "ann", typedrpc.DialOptions{})
	_, err := typedrpc.Call(t.Context(), ann, greet, "ann")
	is.NoErr(err)
	c, err := s.visit(t, "", nil)
	is.NoErr(err)
	until(t, c, api.Watch, struct{}{}, func(o api.Overview) bool {
		is.Equal(o.Conns, 1)
		is.Equal(o.Accepted, 1)
		is.True(o.Goroutines > 0 && o.Heap > 0 && o.MaxMemory == 1<<30)
		is.True(o.Load.Received.Messages > 0 && o.Load.Sent.Bytes > 0)
		return true
	})
}

// Of many connections a page is sent some, in the order that it asks for.
func TestList(t *testing.T) {
	is := is.New(t)
	s := start(t, nil)
	for i := range 7 {
		s.guest(t, fmt.Sprint("guest ", i), typedrpc.DialOptions{Dialect: []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text}[i%2]})
	}
	c, err := s.visit(t, "", nil)
	is.NoErr(err)
	for what, test := range map[string]struct {
		query api.Query
		want  string
		found int
	}{
		"the newest":     {api.Query{Most: 2}, "guest 6 guest 5", 7},
		"the oldest":     {api.Query{Most: 2, Order: api.Oldest}, "guest 0 guest 1", 7},
		"the next":       {api.Query{Most: 2, Order: api.Oldest, Skip: 5}, "guest 5 guest 6", 7},
		"beyond the end": {api.Query{Skip: 100}, "", 7},
		"far beyond it":  {api.Query{Skip: math.MaxInt, Most: math.MaxInt}, "", 7},
		"one of them":    {api.Query{Text: "guest 3"}, "guest 3", 1},
		"none of them":   {api.Query{Text: "nobody"}, "", 0},
		"those who wait": {api.Query{Waiting: true}, "", 0},
		"the busiest":    {api.Query{Most: 1, Order: api.Busiest, Text: "guest 1"}, "guest 1", 1},
		"by memory":      {api.Query{Most: 1, Order: api.Memory, Text: "guest 1"}, "guest 1", 1},
		"by calls":       {api.Query{Most: 1, Order: api.Calls, Text: "guest 1"}, "guest 1", 1},
		"by what waits":  {api.Query{Most: 1, Order: api.Unacked, Text: "guest 1"}, "guest 1", 1},
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			until(t, c, api.List, test.query, func(p api.Page) bool {
				is.Equal(p.All, 7)
				is.Equal(p.Found, test.found)
				var all []string
				for _, r := range p.Rows {
					all = append(all, r.Subject)
					is.Equal(r.Codec, "json")
					is.True(r.Since > 0 && r.Away == 0 && r.Address != "")
					is.Equal(r.Dialect, []string{"binary", "text"}[(r.ID-1)%2])
				}
				is.Equal(strings.Join(all, " "), test.want)
				return true
			})
		})
	}
	for _, bad := range []api.Query{{Skip: -1}, {Most: -1}, {Order: "none"}} {
		for _, err := range typedrpc.Receive(t.Context(), c, api.List, bad) {
			is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
		}
	}
}

// Frames are shown in both dialects, and what users send only where that is allowed.
func TestTap(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		for _, shown := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, payloads %v", d, shown), func(t *testing.T) {
				is := is.New(t)
				s := start(t, func(h *inspector.Handler) { h.Payloads = shown })
				ann := s.guest(t, "ann", typedrpc.DialOptions{Dialect: d})
				c, err := s.visit(t, "", nil)
				is.NoErr(err)
				id := idOf(t, c, "ann")
				called := false
				all := map[string]api.Frame{}
				until(t, c, api.Tap, api.ID{ID: id}, func(fs api.Frames) bool {
					if !called { // it looks
						called = true
						caller := ann.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"trace": "secret"}})
						_, err := typedrpc.Call(t.Context(), caller, greet, "secret")
						is.NoErr(err)
						_, err = typedrpc.Call(t.Context(), ann, greet, "")
						is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
						is.NoErr(ann.Reauthenticate(t.Context()))
					}
					for _, f := range fs.Frames {
						if all[f.Type].Type == "" {
							all[f.Type] = f
						}
					}
					return all["FAIL"].Type != "" && all["AUTH_OK"].Type != ""
				})
				call, result, fail := all["CALL"], all["RESULT"], all["FAIL"]
				is.Equal(call.Method, "test.greet")
				is.True(call.Theirs && result.Theirs && fail.Theirs)
				is.True(!call.Sent && result.Sent)
				is.Equal(call.ID, result.ID)
				is.True(call.Size > 0 && result.Size > 0)
				is.Equal(strings.Contains(call.Payload, "secret"), shown)
				is.Equal(strings.Contains(result.Payload, "secret"), shown)
				value, there := call.Metadata["trace"]
				is.True(there)
				is.Equal(value == "secret", shown)
				is.True(fail.Bad && strings.Contains(fail.Note, "invalid argument"))
				is.Equal(all["AUTH"].Payload, "") // in no case
				is.True(all["AUTH"].Size > 0)
			})
		}
	}
}

// A page that does not read delays nobody, and is told what it has missed.
func TestTap_isBounded(t *testing.T) {
	is := is.New(t)
	s := start(t, func(h *inspector.Handler) { h.Payloads = true })
	ann := s.guest(t, "ann", typedrpc.DialOptions{})
	c, err := s.visit(t, "", nil)
	is.NoErr(err)
	cut, missed := false, 0
	until(t, c, api.Tap, api.ID{ID: idOf(t, c, "ann")}, func(fs api.Frames) bool {
		is.True(len(fs.Frames) <= 256)
		for _, f := range fs.Frames {
			is.True(len(f.Payload) <= 1024)
			is.Equal(f.Cut, f.Size > 1024)
			cut = cut || f.Cut
		}
		missed += fs.Missed
		if missed > 0 && cut {
			return true
		}
		// However slow the machine is: again, until more has come at once than is kept.
		for range 1000 {
			is.NoErr(typedrpc.Notify(t.Context(), ann, beat, 1))
		}
		_, err := typedrpc.Call(t.Context(), ann, greet, strings.Repeat("x", 2000))
		is.NoErr(err)
		return false
	})
}

// A connection that is looked at says how it ends.
func TestLook(t *testing.T) {
	is := is.New(t)
	s := start(t, nil)
	ann := s.guest(t, "ann", typedrpc.DialOptions{})
	s.guest(t, "bob", typedrpc.DialOptions{})
	c, err := s.visit(t, "", nil)
	is.NoErr(err)
	id := idOf(t, c, "ann")
	asked := false
	until(t, c, api.Look, api.ID{ID: id}, func(o api.One) bool {
		if !asked {
			asked = true
			is.Equal(o.Conn.Subject, "ann")
			ended, err := typedrpc.Call(t.Context(), c, api.End, api.Ending{ID: id, StayAway: true, Reason: "closing time"})
			is.NoErr(err)
			is.Equal(ended.Conns, 1)
		}
		return o.Ended != ""
	})
	<-ann.Context().Done() // it stays away
	is.Equal(typedrpc.CodeOf(ann.Err()), typedrpc.PermissionDenied)
	is.True(strings.Contains(ann.Err().Error(), "closing time"))
	for _, req := range []api.Ending{{}, {ID: idOf(t, c, "bob"), Reason: strings.Repeat("x", 121)}} {
		_, err = typedrpc.Call(t.Context(), c, api.End, req)
		is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
	}
	_, err = typedrpc.Call(t.Context(), c, api.End, api.Ending{ID: id})
	is.Equal(typedrpc.CodeOf(err), typedrpc.NotFound)
	for _, err := range typedrpc.Receive(t.Context(), c, api.Look, api.ID{ID: id}) {
		is.Equal(typedrpc.CodeOf(err), typedrpc.NotFound)
	}
	for _, err := range typedrpc.Receive(t.Context(), c, api.Tap, api.ID{ID: id}) {
		is.Equal(typedrpc.CodeOf(err), typedrpc.NotFound)
	}
}

// Plain JSON-RPC peers are looked at, too.
func TestTap_plain(t *testing.T) {
	is := is.New(t)
	s := start(t, func(h *inspector.Handler) { h.Payloads = true })
	ann, err := typedrpc.Dial(t.Context(), s.web.URL+"/rpc", &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC, Logger: quiet})
	is.NoErr(err)
	defer ann.Close()
	c, err := s.visit(t, "", nil)
	is.NoErr(err)
	until(t, c, api.List, api.Query{}, func(p api.Page) bool { return len(p.Rows) == 1 && p.Rows[0].Dialect == "plain JSON-RPC" })
	called := false
	var all []string
	until(t, c, api.Tap, api.ID{ID: 1}, func(fs api.Frames) bool {
		if !called {
			called = true
			_, err := typedrpc.Call(t.Context(), ann, greet, "ann")
			is.NoErr(err)
		}
		for _, f := range fs.Frames {
			is.True(f.ID != "")
			all = append(all, fmt.Sprintf("%s %s %v", f.Type, f.Method, strings.Contains(f.Payload, "ann")))
		}
		return len(all) == 2
	})
	is.Equal(all, []string{"CALL test.greet true", "RESULT  true"})
}

// A session that waits for its client is shown as such, and can be ended.
func TestWaiting(t *testing.T) {
	is := is.New(t)
	s := start(t, nil)
	s.srv.Limits.Grace = time.Hour
	line, err := typedrpctest.NewProxy(s.web.URL, nil)
	is.NoErr(err)
	ann, err := typedrpc.Dial(t.Context(), line.URL()+"/rpc", &typedrpc.DialOptions{
		Logger: quiet,
		SignIn: name.Present(func(context.Context) (string, error) { return "ann", nil }),
	})
	is.NoErr(err)
	defer ann.Close()
	_, err = typedrpc.Call(t.Context(), ann, greet, "ann")
	is.NoErr(err)
	c, err := s.visit(t, "", nil)
	is.NoErr(err)
	is.NoErr(line.Close()) // and nobody comes back this way
	var waits api.Conn
	until(t, c, api.List, api.Query{Waiting: true}, func(p api.Page) bool {
		if len(p.Rows) == 1 {
			waits = p.Rows[0]
		}
		return len(p.Rows) == 1
	})
	is.Equal(waits.Subject, "ann")
	is.True(waits.Away >= waits.Since)
	is.True(waits.Lost != "")
	until(t, c, api.Watch, struct{}{}, func(o api.Overview) bool { return o.Kept == 1 && o.Conns == 1 })
	ended, err := typedrpc.Call(t.Context(), c, api.End, api.Ending{ID: waits.ID})
	is.NoErr(err)
	is.Equal(ended.Conns, 1)
	until(t, c, api.List, api.Query{}, func(p api.Page) bool { return p.All == 0 })
}

func TestTopics(t *testing.T) {
	is := is.New(t)
	s := start(t, nil)
	ann := s.guest(t, "ann", typedrpc.DialOptions{})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		for range topic.Subscribe(ctx, ann, news, "here") {
		}
		close(left)
	}()
	c, err := s.visit(t, "", nil)
	is.NoErr(err)
	is.NoErr(topic.Publish(t.Context(), s.hub, news, "there", "word"))
	until(t, c, api.Topics, api.Filter{}, func(k api.Keys) bool { return k.Subscribers == 1 && len(k.Rows) == 2 })
	until(t, c, api.Topics, api.Filter{Text: "ther"}, func(k api.Keys) bool {
		is.Equal(k.All, 2)
		is.Equal(k.Found, 1)
		is.Equal(len(k.Rows), 1)
		is.Equal(k.Rows[0], api.Key{Topic: "test.news", Key: "there", History: 1, Bytes: k.Rows[0].Bytes, Messages: 1})
		return true
	})
	leave()
	<-left

	s = start(t, func(h *inspector.Handler) { h.Hubs = nil })
	c, err = s.visit(t, "", nil)
	is.NoErr(err)
	for _, err := range typedrpc.Receive(t.Context(), c, api.Topics, api.Filter{}) {
		is.Equal(typedrpc.CodeOf(err), typedrpc.FailedPrecondition)
	}
}
