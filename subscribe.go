package typedrpc

import (
	"bytes"
	"fmt"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/server"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// notFound is the number with which go-ethereum answers who unsubscribes from what there
// is not.
const notFound = -32000

// verbsOf are the names by which plain peers subscribe: rpc.subscribe and, for each of the
// namespaces, those of Ethereum's convention, of which mux has none itself.
func verbsOf(namespaces []string, mux *Mux) (map[string]*engine.Verb, error) {
	verbs := map[string]*engine.Verb{
		"rpc.subscribe":   {Tells: "rpc.subscription"},
		"rpc.unsubscribe": {Tells: "rpc.subscription", Ends: true},
	}
	for _, ns := range namespaces {
		if err := checkName("namespace", ns+"_subscription"); ns == "" || err != nil {
			return nil, fmt.Errorf("typedrpc: Server.Subscribes: %q is no namespace", ns)
		}
		if verbs[ns+"_subscribe"] != nil {
			return nil, fmt.Errorf("typedrpc: Server.Subscribes has %q twice", ns)
		}
		for _, verb := range [...]string{ns + "_subscribe", ns + "_unsubscribe"} {
			if mux.table().all()[verb] != nil {
				return nil, fmt.Errorf("typedrpc: Server.Subscribes has %q, whose name %q the Mux has a handler of: leave one of them out", ns, verb)
			}
		}
		tells := ns + "_subscription"
		verbs[ns+"_subscribe"] = &engine.Verb{Tells: tells, Prefix: ns + "_"}
		verbs[ns+"_unsubscribe"] = &engine.Verb{Tells: tells, Ends: true, Number: notFound}
	}
	return verbs, nil
}

// resumes says who has a stream go on behind the place of an item.
type resumes uint8

const (
	byNobody  resumes = iota
	byRequest         // a place is the request that goes on behind it: it is Restartable
	byHandler
)

// placeOf is what a restartable stream's item tells of its place: next, which points to the
// request that goes on behind it. "": that cannot be told.
func (s *spec) placeOf(next any) string {
	b, err := s.encode(JSON, nil, next)
	if err != nil || len(b) > wire.MaxPlace || bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' }) {
		return ""
	}
	return string(b)
}

// resume has a stream go on where its peer has said. The request is another one then, and
// interceptors are shown that.
func (s *served) resume() error {
	from := s.req.stream.From()
	switch {
	case from == "" || s.entry.resumes == byHandler:
	case s.entry.resumes == byNobody:
		return Errorf(InvalidArgument, "%q cannot go on from a place: it is neither a topic nor declared Restartable", s.req.Method)
	case wire.Valid([]byte(from), 0) != nil:
		return Errorf(InvalidArgument, "from is no place of %q", s.req.Method)
	default:
		s.req.Payload = Raw(from)
	}
	return nil
}

// readable is what a GET or a POST of items may ask for, by its name.
func (m *Mux) readable(name string) (r server.Readable, known bool) {
	e := m.table().all()[name]
	if e == nil {
		return r, false
	}
	k := e.spec.kind
	return server.Readable{Safe: e.spec.safe, Stream: k == KindServerStream, Takes: k == KindClientStream, Resumes: e.resumes != byNobody}, true
}
