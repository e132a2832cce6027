package typedrpc

import (
	"context"
	"fmt"
	"sync"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/schema"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/stats"
)

// discoverName is OpenRPC's Service Discovery Method.
const discoverName = "rpc.discover"

// described is what a server says of itself. The document is made once for what the mux
// has, whoever asks, and again when that has changed.
type described struct {
	mux    *Mux
	schema *schema.Schema

	mu   sync.Mutex
	made bool
	of   *map[string]*entry // the mux's handlers of which it is made
	doc  []byte
	err  error
}

// describes reads the server's Schema, holds it against its handlers, and returns its
// fingerprints, and the entry of rpc.discover, nil without Describe.
func (s *Server) describes() (*schema.Prints, *entry, error) {
	d := &s.described
	d.mux = s.Mux
	var prints *schema.Prints
	var err error
	if d.schema, prints, err = readSchema(s.Schema); err == nil && d.schema != nil {
		_, err = d.document()
	}
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("typedrpc: Server.Schema %w", err)
	case s.Describe == nil:
		return prints, nil, nil
	case s.Mux.table().all()[discoverName] != nil:
		return nil, nil, fmt.Errorf("typedrpc: Server.Describe answers %q, and the Mux has a handler of that name: leave one of them out", discoverName)
	}
	sp := (&spec{name: discoverName, kind: KindMethod}).declared()
	return prints, &entry{spec: sp, serve: func(ctx context.Context, r *Request) (*buf.Buf, error) {
		if err := s.Describe(ctx); err != nil {
			return nil, err
		}
		doc, err := d.document()
		if err != nil {
			return nil, fmt.Errorf("Server.Schema %w", err) // of what was registered later
		}
		return textOf(r.Conn.codec, doc)
	}}, nil
}

// readSchema reads a field Schema.
func readSchema(data []byte) (*schema.Schema, *schema.Prints, error) {
	s, err := schema.Parse(data)
	if err != nil {
		return nil, nil, err
	}
	prints, err := s.Prints()
	return s, prints, err
}

// textOf is a document in a message of codec: JSON itself, or a string. A codec that
// carries none has its bytes.
func textOf(codec Codec, doc []byte) (*buf.Buf, error) {
	text := ""
	if codec == JSON || codec.Check(&text) != nil {
		return buf.Copy(doc), nil
	}
	text = string(doc)
	b := buf.Get()
	var err error
	if b.B, err = codec.Append(b.B, &text); err != nil {
		b.Release()
		return nil, fmt.Errorf("cannot encode the document: %w", err)
	}
	return b, nil
}

// document is the document, which is not to be changed, or why there is none.
func (d *described) document() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if of := d.mux.table().entries.Load(); !d.made || of != d.of {
		d.made, d.of = true, of
		var all []schema.Registered
		for _, e := range d.mux.table().all() {
			all = append(all, e.spec.registered())
		}
		d.doc, d.err = d.schema.Document(all)
	}
	return d.doc, d.err
}

// registered is what a document says of s.
func (s *spec) registered() schema.Registered {
	r := s.described
	if r.Kind == "" {
		r.Kind = [...]string{"method", "notification", "serverStream", "clientStream", "bidiStream"}[s.kind]
	}
	r.Name, r.Idempotent, r.Keyed, r.Serial, r.Safe = s.name, s.idempotent, s.keyed, s.serial, s.safe
	r.Timeout, r.MaxSize, r.Params = s.timeout, s.maxSize, s.params
	return r
}

// find finds who handles a name of a kind, or says why nobody does.
func (o *options) find(name string, kind stats.Kind, d session.Dialect) (*entry, *status.Error) {
	if o.describe == nil || name != discoverName {
		return o.mux.find(name, kind, d != session.Plain)
	}
	if streams(kind) {
		return nil, status.Errorf(status.Unimplemented, "%q is a method, not a %s", name, kind)
	}
	return o.describe, nil
}
